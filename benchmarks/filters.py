"""The same documents through datatrove's filters and through ours, on one core: agreement and speed.

    .venv/bin/python benchmarks/filters.py [--quick]

The peer (datatrove 0.10.1 with spaCy) gets an environment of its own under .cache/bench, made on the first run, and runs
this same file in a subprocess. Documents: main text of the pages and captures in ../shared/data/dev, and its quality set.
Speed is process CPU time. The report goes between its markers in benchmarks/RESULTS.md; the last line printed is JSON.
"""

import argparse
import gzip
import json
import os
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
DATA = ROOT / ".." / "shared" / "data" / "dev"
CACHE = ROOT / ".cache" / "bench"
PEER = CACHE / "peer-datatrove-0.10.1"
PINS = ["datatrove[io]==0.10.1", "spacy==3.8.18", "nltk==3.10.4", "xxhash<4"]
FILTERS = ("gopher_quality", "gopher_repetition", "c4", "fineweb")
QUICK_EVERY = 12


def rows(path):
    with gzip.open(path, "rt", encoding="utf-8") as lines:
        yield from map(json.loads, lines)


def main_text(raw, encoding):
    from resiliparse.extract.html2text import extract_plain_text

    try:
        page = raw.decode("utf-8")
    except UnicodeDecodeError:
        page = raw.decode((encoding or "latin-1").removesuffix("-nobom"), "replace")
    return extract_plain_text(page, main_content=True, alt_texts=False, comments=False).strip()


def page_documents():
    for row in rows(DATA / "webpages" / "gold.jsonl.gz"):
        raw = gzip.decompress((DATA / "webpages" / "html" / f"{row['id']}.html.gz").read_bytes())
        yield {"set": "pages", "language": row["language"], "text": main_text(raw, row["encoding"])}


def capture_documents():
    from fastwarc import ArchiveIterator, WarcRecordType

    truth = {row["record_id"]: row for row in rows(DATA / "crawl" / "truth.jsonl.gz")}
    for path in sorted((DATA / "crawl").glob("CC-SIM-dev-2*.warc.gz")):
        for record in ArchiveIterator(path.open("rb"), record_types=WarcRecordType.response, parse_http=True):
            row = truth.get(record.record_id if record.record_id.startswith("<") else f"<{record.record_id}>", {})
            if row.get("html_usable"):
                yield {"set": "crawl", "language": row["language"], "text": main_text(record.reader.read(), row["encoding"])}


def quality_documents():
    for row in rows(DATA / "quality.jsonl.gz"):
        yield {"set": "quality", "language": "en", "text": row["text"]}


def documents(quick):
    """All documents with text, kept in the cache because extraction takes longer than judging."""
    path = CACHE / "filters-documents.jsonl"
    if not path.exists():
        CACHE.mkdir(parents=True, exist_ok=True)
        found = [d for part in (page_documents, capture_documents, quality_documents) for d in part() if d["text"]]
        path.write_text("".join(json.dumps(d) + "\n" for d in found))
    found = [json.loads(line) for line in path.read_text().splitlines()]
    return found[::QUICK_EVERY] if quick else found


def peer_python():
    python = PEER / "bin" / "python"
    if not (PEER / "ready").exists():
        print("making the peer's environment ...", flush=True)
        subprocess.run([sys.executable, "-m", "venv", "--clear", PEER], check=True)
        subprocess.run([python, "-m", "pip", "install", "-q", *PINS], check=True)
        (PEER / "ready").touch()
    return python


def peer_main(source, target):
    """In the peer's environment: every filter alone, then all four document by document, then with short circuit."""
    from datatrove.data import Document
    from datatrove.pipeline.filters import C4QualityFilter, FineWebQualityFilter, GopherQualityFilter, GopherRepetitionFilter

    texts = [json.loads(line)["text"] for line in Path(source).read_text().splitlines()]
    kinds = (GopherQualityFilter, GopherRepetitionFilter, C4QualityFilter, FineWebQualityFilter)
    blocks = dict(zip(FILTERS, (kind() for kind in kinds), strict=True))
    found = {"reasons": {}, "seconds": {}}

    def judge(block, text):
        document = Document(text=text, id="")
        try:
            kept = block.filter(document)
        except (ZeroDivisionError, ValueError) as error:
            return f"raised {type(error).__name__}", text
        return (None if kept is True else kept[1]), document.text

    for block in blocks.values():
        judge(block, "Warm up. " * 60)
    for name, block in blocks.items():
        begin = time.process_time()
        judged = [judge(block, text) for text in texts]
        found["seconds"][name] = time.process_time() - begin
        found["reasons"][name] = [reason for reason, _ in judged]
        if name == "c4":
            found["c4_text"] = [text for _, text in judged]
    begin = time.process_time()
    for text in texts:
        for block in blocks.values():
            judge(block, text)
    found["seconds"]["all"] = time.process_time() - begin
    begin = time.process_time()
    for text in texts:
        for name in ("gopher_repetition", "gopher_quality", "c4", "fineweb"):
            reason, text = judge(blocks[name], text)
            if reason:
                break
    found["seconds"]["cascade"] = time.process_time() - begin
    Path(target).write_text(json.dumps(found))
