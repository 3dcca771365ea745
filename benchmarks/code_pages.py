"""The recipes cc-code and cc-math on real pages: funnels, and whether code and formulas come through as they stand in the page.

    python benchmarks/code_pages.py [--quick] [--data DIR]

DIR holds `crawl/*.warc.gz`, `warc_real/*`, `math/`, `quality.jsonl.gz` and `decontam/benchmarks.jsonl.gz` (default:
../shared/data/dev). The pages of `math/` are put into a WARC file first. The model is played by a server that gives every chunk
back as it is: what the checks reject then is their own mistake, and what is missing in the end was lost by us and not by a
model. The quality classifier is a fastText model trained here on `quality.jsonl.gz`: it shows the step, not its worth.
--quick reads the mathematics pages and one file of the crawl.
"""

from __future__ import annotations

import argparse
import gzip
import http.server
import json
import re
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
sys.path[:0] = [str(ROOT), str(Path(__file__).parent)]

from code_curation import funnel, squeezed  # noqa: E402
from results import machine, write_section  # noqa: E402

from manifests.catalog import Catalog  # noqa: E402
from manifests.store import Store  # noqa: E402

RECIPES = ("cc-math", "cc-code")
LEAST = 0.5


class Same(http.server.BaseHTTPRequestHandler):
    """Answers with the text that the prompt ends with."""

    def do_POST(self) -> None:
        """A chat completion."""
        form = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        said = form["messages"][-1]["content"].split("Text:\n", 1)[1]
        choice = {"message": {"role": "assistant", "content": said}, "finish_reason": "stop", "index": 0}
        body = json.dumps({"choices": [choice], "usage": {"prompt_tokens": 1, "completion_tokens": 1}}).encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: Any) -> None:
        """Silence."""


def mathematics(data: Path) -> Iterator[tuple[dict, bytes]]:
    """The pages of math/ and what is known of each."""
    with gzip.open(data / "math" / "pages.jsonl.gz", "rt", encoding="utf-8") as lines:
        for page in map(json.loads, lines):
            yield page, gzip.decompress((data / "math" / page["html_path"]).read_bytes())


def wrap(data: Path, path: Path) -> None:
    """The pages of math/ as a WARC file, one gzip member a page."""
    with path.open("wb") as out:
        for number, (page, html) in enumerate(mathematics(data)):
            block = b"HTTP/1.1 200 OK\r\nContent-Type: text/html\r\nContent-Length: %d\r\n\r\n" % len(html) + html
            head = (
                f"WARC/1.0\r\nWARC-Type: response\r\nWARC-Target-URI: {page['url'] or 'https://unknown.example/' + page['id']}\r\n"
                f"WARC-Date: 2026-01-01T00:00:00Z\r\nWARC-Record-ID: <urn:uuid:00000000-0000-4000-8000-{number:012d}>\r\n"
                f"Content-Type: application/http; msgtype=response\r\nContent-Length: {len(block)}\r\n\r\n"
            )
            out.write(gzip.compress(head.encode() + block + b"\r\n\r\n", 1, mtime=0))


def train(data: Path, path: Path) -> None:
    """A fastText model of good and poor text."""
    import numpy as np

    from classifiers.fasttext import Train, train_model

    with gzip.open(data / "quality.jsonl.gz", "rt", encoding="utf-8") as lines:
        rows = [json.loads(line) for line in lines]
    path.write_bytes(train_model([r["text"] for r in rows], np.array([r["label"] == 1 for r in rows]), Train()))


def run(recipe: str, sources: list[str], data: Path, folder: Path, url: str) -> Path:
    """Run a recipe through the command; the file with its summary."""
    text = (ROOT / "pipelines" / "recipes" / f"{recipe}.yaml").read_text(encoding="utf-8")
    text += f'run: {{max_error_rate: 0.1, models: {{same: {{engine: openai, endpoints: ["{url}"], in_flight: 4}}}}}}\n'
    (folder / f"{recipe}.yaml").write_text(text, encoding="utf-8")
    items = data / "decontam" / "benchmarks.jsonl.gz"
    settings = {
        "paths": ",".join(sources), "model": "same", "tokenizer": "tekken", "scorer": "classifiers.fasttext.score",
        "classifier": str(folder / "quality.bin"), "min_quality": str(LEAST), "benchmarks": str(items),
    }  # fmt: skip
    words = [
        sys.executable,
        "-m",
        "pipelines.cli",
        "run",
        str(folder / f"{recipe}.yaml"),
        "--json",
        "--store",
        str(folder / "store"),
    ]
    words += [word for key, value in settings.items() for word in ("--set", f"{key}={value}")]
    done = subprocess.run(words, cwd=ROOT, capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(f"{recipe} ended with {done.returncode}:\n{done.stdout[-2000:]}\n{done.stderr[-2000:]}")
    (folder / f"{recipe}.json").write_text(done.stdout)
    return folder / f"{recipe}.json"


def texts(folder: Path, step: str) -> dict[str, str]:
    """Text by address of the rows that stand after a step."""
    return dict(Catalog(Store.open(str(folder / "store"))).run(f"select url, text from {step}").fetchall())


def formulas(data: Path, found: dict[str, str]) -> tuple[int, int]:
    """How many formulas of the pages of math/ that stand are in the text; how many there are."""
    kept = total = 0
    for page, _ in mathematics(data):
        text = squeezed(found.get(page["url"], ""))
        if text:
            total += len(page["formulas"])
            kept += sum(squeezed(formula["tex"]) in text for formula in page["formulas"])
    return kept, total


def sources_of(paths: list[Path], wanted: set[str]) -> Iterator[tuple[str, bytes]]:
    """(address, body) of responses; an address that comes twice comes twice."""
    from fastwarc.warc import ArchiveIterator, WarcRecordType

    for path in paths:
        with path.open("rb") as file:
            for record in ArchiveIterator(file, record_types=WarcRecordType.response, parse_http=True):
                if record.headers.get("WARC-Target-URI") in wanted:
                    yield record.headers["WARC-Target-URI"], record.reader.read()


def code_lines(html: bytes) -> list[list[str]]:
    """The blocks of code of a page: lines of `pre` with their indentation, blank ones left out."""
    from selectolax.lexbor import LexborHTMLParser

    blocks = [node.text(deep=True) for node in LexborHTMLParser(html).css("pre") if node.css_first("pre pre") is None]
    return [lines for block in blocks if (lines := [line.rstrip() for line in block.splitlines() if line.strip()])]


def indentation(paths: list[Path], found: dict[str, str]) -> dict[str, int]:
    """Lines of code of the pages that stand, and how many of them are in the text: at all, and with their indentation.

    A block counts as moved when all of its lines stand equally far to the right, as a renderer or a list has it.
    """
    counts = {"pages": 0, "blocks": 0, "lines": 0, "there": 0, "indented": 0}
    seen: set[str] = set()
    for url, html in sources_of(paths, set(found)):
        blocks = code_lines(html)
        if url in seen or not blocks:
            continue
        seen.add(url)
        lines = {line.rstrip() for line in found[url].splitlines()}
        bare = {line.strip() for line in lines}
        counts["pages"] += 1
        for block in blocks:
            counts["blocks"] += 1
            counts["lines"] += len(block)
            counts["there"] += sum(line.strip() in bare for line in block)
            counts["indented"] += max(sum(" " * shift + line in lines for line in block) for shift in range(9))
    return counts


def report(data: Path, folder: Path, paths: list[Path]) -> tuple[list[str], dict]:
    """What came through the extraction, and what through the whole."""
    lines = ["| | formulas kept | of pages' code lines there | with their indentation |", "|---|---|---|---|"]
    headline = {}
    for name, math, code in (
        ("after extraction", "cc_math.language", "cc_code.language"),
        ("published", "cc_math.pages", "cc_code.pages"),
    ):
        kept, total = formulas(data, texts(folder, math))
        found = indentation(paths, texts(folder, code))
        lines.append(
            f"| {name} | {kept:,} of {total:,} ({kept / total:.2%}) | {found['there']:,} of {found['lines']:,} "
            f"({found['there'] / found['lines']:.2%}; {found['blocks']:,} blocks, {found['pages']} pages) | {found['indented']:,} "
            f"({found['indented'] / found['lines']:.2%}) |"
        )
        key = re.sub(r"\W", "_", name)
        headline[f"formulas_{key}"] = round(kept / total, 4)
        headline[f"code_lines_{key}"] = round(found["indented"] / found["lines"], 4)
    return lines, headline


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--data", type=Path, default=ROOT / ".." / "shared" / "data" / "dev")
    options = parser.parse_args()
    data = options.data.resolve()
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Same)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        wrap(data, folder / "math.warc.gz")
        train(data, folder / "quality.bin")
        crawl = sorted((data / "crawl").glob("*.warc.gz"))[: 1 if options.quick else None]
        real = [] if options.quick else sorted(p for p in (data / "warc_real").glob("*") if re.search(r"\.w?arc(\.gz)?$", p.name))
        paths = [folder / "math.warc.gz", *crawl]
        summaries = {recipe: run(recipe, [str(p) for p in [*paths, *real]], data, folder, f"http://127.0.0.1:{server.server_port}/v1")
                     for recipe in RECIPES}  # fmt: skip
        kept, headline = report(data, folder, paths)
        text = ["## Technical pages: `cc-math` and `cc-code`", "", machine(), ""]
        text += [
            "Pages of `math/` in a WARC file, the made crawl and other tools' WARC files. A server that gives every chunk back as",
            "it is plays the model: what `grounded` rejects is its own mistake. `scored` is a fastText model of no weight.",
        ]
        for recipe, path in summaries.items():
            text += ["", f"### `{recipe}`", "", *funnel(path)]
            headline[recipe.replace("-", "_")] = json.loads(path.read_text().splitlines()[-1])["steps"][-1]["out"]
        text += ["", "### Formulas and code against the page source", "", *kept]
    server.shutdown()
    write_section("code_pages", "\n".join(text))
    print(json.dumps(headline))


if __name__ == "__main__":
    main()
