"""The same documents through datatrove's filters and through ours, on one core: agreement and speed.

    .venv/bin/python benchmarks/filters.py [--quick]

The peer (datatrove 0.10.1 with spaCy) gets an environment of its own under .cache/bench, made on the first run, and runs
this same file in a subprocess. Documents: main text of the pages and captures in ../shared/data/dev, and its quality set.
Speed is process CPU time. The report goes between its markers in benchmarks/RESULTS.md; the last line printed is JSON.
"""

import argparse
import gzip
import json
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))

from results import machine, write_section

ROOT = Path(__file__).resolve().parent.parent
DATA = ROOT / ".." / "shared" / "data" / "dev"
CACHE = ROOT / ".cache" / "bench"
PEER = CACHE / "peer-datatrove-0.10.1"
PINS = ["datatrove[io]==0.10.1", "spacy==3.8.18", "nltk==3.10.4", "xxhash<4"]
FILTERS = ("gopher_quality", "gopher_repetition", "c4", "fineweb")
QUICK_EVERY, FULL_EVERY = 16, 4
BATCH = 1000
PEER_LIMITS = {
    "too_few_letter_words": ("gopher_letter_words", 0.8), "gopher_below_alpha_threshold": ("gopher_letter_words", 0.8),
    "dup_5_grams": ("gopher_dup_5_grams", 0.15), "duplicated_5_n_grams": ("gopher_dup_5_grams", 0.15),
}  # fmt: skip
WHY = {
    "gopher_below_alpha_threshold": "symbols are no words by default: a comma is not a word without a letter",
    "too_few_letter_words": "words split otherwise, share of words with a letter near 0.8",
    "gopher_enough_stop_words": "English stop words are not asked of other languages by default",
    "too_few_stop_words": "words split otherwise: a stop word more or less",
    "gopher_short_doc": "a character is a word in scripts without spaces; else words split otherwise near the limit of 50",
    "too_few_words": "words split otherwise near the limit of 50",
    "gopher_above_avg_threshold": "mean word length is not asked of languages without spaces; else words split otherwise",
    "gopher_below_avg_threshold": "mean word length is not asked of languages without spaces; else words split otherwise",
    "list_ratio": "line feeds per word are not asked of languages without spaces, and characters are words there",
    "short_line_ratio": "short lines are not asked of languages without spaces",
    "too_few_sentences": "terminals of all scripts end lines, characters of scripts without spaces are words",
    "duplicated_5_n_grams": "datatrove joins an n-gram's words without a separator, so that different ones look equal",
    "curly_bracket": "lines kept otherwise, so that another rule is met",
}


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
    return found[:: QUICK_EVERY if quick else FULL_EVERY]


def peer_python():
    python = PEER / "bin" / "python"
    if not (PEER / "ready").exists():
        print("making the peer's environment ...", flush=True)
        subprocess.run([sys.executable, "-m", "venv", "--clear", PEER], check=True)
        subprocess.run([python, "-m", "pip", "install", "-q", *PINS], check=True, stderr=subprocess.DEVNULL)
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
        now = text
        for name in ("gopher_repetition", "gopher_quality", "c4", "fineweb"):
            reason, now = judge(blocks[name], now)
            if reason:
                break
    found["seconds"]["cascade"] = time.process_time() - begin
    Path(target).write_text(json.dumps(found))


def tables(texts, languages):
    import pyarrow as pa

    for i in range(0, len(texts), BATCH):
        columns = [pa.array(texts[i : i + BATCH], pa.large_string()), pa.array(languages[i : i + BATCH], pa.string())]
        yield pa.table(columns, names=["text", "language"])


def settings(mode):
    """Parameters of our four filters: the defaults, or spaCy-like words and datatrove's deafness to language."""
    from stages.filters import gopher

    if mode == "plain":
        return {"gopher_quality": {}, "gopher_repetition": {}, "c4_lines": {}, "c4": {}, "fineweb": {}}
    words = {"words": "spacy_like", "skip": {}}
    stop = {"*": gopher.STOP_WORDS["en"]}
    return {
        "gopher_quality": {**words, "stop_words": stop}, "gopher_repetition": words, "c4_lines": {"any_script": False},
        "c4": words, "fineweb": words,
    }  # fmt: skip


def judge_batch(table, mode, stats, spent):
    """Verdicts of all four filters on one batch; `spent` adds up CPU seconds by step."""
    from stages import analysis
    from stages.filters import c4, fineweb, gopher

    provider = analysis.words if mode == "plain" else analysis.spacy_like_words
    with_ = settings(mode)

    def timed(name, stage, batch, **more):
        begin = time.process_time()
        found = stage(batch, stage.params(**with_.get(name, {}), **more))
        spent[name] += time.process_time() - begin
        return found

    tokens = timed("words", provider, table)
    found = {
        "gopher_quality": timed("gopher_quality", gopher.quality, tokens, stats=stats),
        "gopher_repetition": timed("gopher_repetition", gopher.repetition, tokens, stats=stats),
        "fineweb": timed("fineweb", fineweb.quality, tokens, stats=stats),
    }
    cleaned = timed("c4_lines", c4.lines, table)
    found["c4"] = timed("c4", c4.page, timed("c4_words", provider, cleaned))
    return found


def judge(texts, languages, mode):
    """Reasons by filter, the cleaned texts, the values that decided, and CPU seconds by step (mean of three passes)."""
    batches = list(tables(texts, languages))
    judge_batch(batches[0], mode, False, Counter())
    spent = Counter()
    for _ in range(3):
        results = [judge_batch(batch, mode, False, spent) for batch in batches]
    reasons = {name: [r for result in results for r in result[name]["drop_reason"].to_pylist()] for name in FILTERS}
    cleaned = [text for result in results for text in result["c4"]["text"].to_pylist()]
    values = [judge_batch(batch, mode, True, Counter()) for batch in batches]
    columns = {
        column: [v for result in values for v in result[name][column].to_pylist()]
        for name in ("gopher_quality", "gopher_repetition")
        for column in values[0][name].column_names
        if column.startswith("gopher_")
    }
    return reasons, cleaned, columns, {name: seconds / 3 for name, seconds in spent.items()}


def cascade_seconds(texts, languages, mode):
    """CPU seconds with short circuit, in datatrove's order: every step sees what still stands, C4 rewrites."""
    import pyarrow.compute as pc

    from stages import analysis
    from stages.filters import c4, fineweb, gopher

    provider = analysis.words if mode == "plain" else analysis.spacy_like_words
    with_ = settings(mode)
    steps = (
        ([provider, gopher.repetition], "gopher_repetition"), ([gopher.quality], "gopher_quality"),
        ([c4.lines, provider, c4.page], "c4"), ([fineweb.quality], "fineweb"),
    )  # fmt: skip
    begin = time.process_time()
    for batch in tables(texts, languages):
        now = batch
        for stages, name in steps:
            for stage in stages:
                key = "c4_lines" if stage is c4.lines else name
                now = now.select(["text", "language"]) if stage is c4.lines else now
                now = stage(now, stage.params(**({} if stage is provider else with_.get(key, {}))))
            now = now.filter(pc.is_null(now["drop_reason"])).drop_columns(["drop_reason"])
    return time.process_time() - begin


def compare(theirs, ours, chosen):
    """Agreement over the chosen rows, and disagreements by pair of reasons."""
    pairs = [(theirs[i], ours[i]) for i in chosen]
    both = sum(bool(a) and bool(b) for a, b in pairs)
    either = sum(bool(a) or bool(b) for a, b in pairs)
    classes = Counter((a, b) for a, b in pairs if bool(a) != bool(b))
    return {"both": both, "either": either, "agreement": both / either if either else 1.0, "classes": classes}


def distances(theirs, ours, columns):
    """For each class that names a limit: the largest distance of our value from it."""
    found = {}
    for i, (a, b) in enumerate(zip(theirs, ours, strict=True)):
        if bool(a) != bool(b) and (a or b) in PEER_LIMITS:
            column, limit = PEER_LIMITS[a or b]
            found[a, b] = max(found.get((a, b), 0.0), abs(columns[column][i] - limit))
    return found


def class_rows(theirs, ours, columns, chosen):
    rows = []
    for name in FILTERS:
        far = distances(theirs[name], ours[name], columns)
        for (a, b), count in compare(theirs[name], ours[name], chosen)["classes"].most_common():
            near = (a, b) in far and far[a, b] < 0.02
            why = f"our value is within {far[a, b]:.4f} of the limit" if near else WHY.get(a or b, "words split otherwise")
            rows.append(f"| {name} | {a or 'kept'} | {b or 'kept'} | {count} | {why} |")
    return rows


def run_peer(found, quick):
    source, target = CACHE / "filters-peer-in.jsonl", CACHE / f"filters-peer-{'quick' if quick else 'full'}.json"
    source.write_text("".join(json.dumps({"text": d["text"]}) + "\n" for d in found))
    python = peer_python()
    print(f"datatrove on {len(found)} documents ...", flush=True)
    subprocess.run([python, __file__, "--peer", source, target], check=True)
    return json.loads(target.read_text())


def speed_rows(peer, spent, cascade, count):
    """Documents per CPU second, by filter (ours: with the words that it reads) and for all four."""
    rows = []
    for name in (*FILTERS, "all", "cascade"):
        cells = [f"{count / peer['seconds'][name]:.1f}"]
        for mode in ("plain", "spacy_like"):
            s = spent[mode]
            own = s["c4_lines"] + s["c4_words"] + s["c4"] if name == "c4" else s["words"] + s.get(name, 0.0)
            seconds = sum(s.values()) if name == "all" else cascade[mode] if name == "cascade" else own
            cells.append(f"{count / seconds:,.0f} ({peer['seconds'][name] / seconds:.0f}x)")
        label = {"all": "all four, no short circuit", "cascade": "all four, short circuit"}.get(name, name)
        rows.append(f"| {label} | {' | '.join(cells)} |")
    return rows


def language_rows(found, peer, ours):
    """Share of web documents dropped, by language: what English rules cost the others."""
    rows = []
    web = [i for i, d in enumerate(found) if d["set"] != "quality"]
    for language, count in Counter(found[i]["language"] for i in web).most_common(7):
        chosen = [i for i in web if found[i]["language"] == language]
        cells = []
        for name in FILTERS:
            theirs, mine = (sum(bool(r[name][i]) for i in chosen) / count for r in (peer["reasons"], ours))
            cells.append(f"{theirs:.0%} / {mine:.0%}")
        rows.append(f"| {language} | {count} | {' | '.join(cells)} |")
    return rows


def report(found, peer, ours, cascade, quick):
    """The section for RESULTS.md and the summary that is printed."""
    count, size = len(found), sum(len(d["text"].encode()) for d in found)
    every, english = list(range(count)), [i for i, d in enumerate(found) if d["language"] == "en"]
    spent = {mode: ours[mode][3] for mode in ours}
    sets = ", ".join(f"{n} {name}" for name, n in Counter(d["set"] for d in found).items())
    lines = [
        "## Heuristic filters against datatrove 0.10.1", "",
        f"`.venv/bin/python benchmarks/filters.py{' --quick' if quick else ''}`, {machine()}.",
        f"{count} documents ({sets}), {size / count / 1024:.1f} KiB each. CPU seconds of one process;",
        "ours after compilation, mean of three passes, with the words each filter reads; our C4 is line cleaning, splitting again,",
        "and the page rules.", "",
        "| documents per CPU second | datatrove | ours, plain words | ours, spacy_like words |", "|---|---|---|---|",
        *speed_rows(peer, spent, cascade, count), "",
        "Splitting alone, documents per CPU second: "
        + ", ".join(f"{mode} {count / seconds['words']:,.0f}" for mode, seconds in spent.items()) + ".", "",
        "Agreement (dropped by both / dropped by either). Parity: `words: spacy_like`, no rule excused for a language.", "",
        "| filter | parity, English | parity, all | defaults, English | defaults, all |", "|---|---|---|---|---|",
    ]  # fmt: skip
    agreement = {}
    for name in FILTERS:
        cells = []
        for mode in ("spacy_like", "plain"):
            for chosen in (english, every):
                c = compare(peer["reasons"][name], ours[mode][0][name], chosen)
                cells.append(f"{c['agreement']:.4f} ({c['both']}/{c['either']})")
                agreement.setdefault(mode, []).append(c["agreement"])
        lines.append(f"| {name} | {' | '.join(cells)} |")
    same = [i for i in every if peer["reasons"]["c4"][i] is None and ours["spacy_like"][0]["c4"][i] is None]
    equal = sum(peer["c4_text"][i] == ours["spacy_like"][1][i] for i in same)
    heading = ["", "| filter | datatrove | ours | documents | why |", "|---|---|---|---|---|"]
    lines += ["", f"Texts rewritten by C4 (parity) equal datatrove's in {equal} of {len(same)} pages kept by both.", ""]
    lines += [
        "Every disagreement, parity, all documents:",
        *heading,
        *class_rows(peer["reasons"], *ours["spacy_like"][::2], every),
        "",
    ]
    lines += [
        "Every disagreement, defaults, all documents:",
        *heading,
        *class_rows(peer["reasons"], *ours["plain"][::2], every),
        "",
    ]
    lines += ["Web documents dropped, datatrove / our defaults, by language:", ""]
    lines += [
        f"| language | pages | {' | '.join(FILTERS)} |",
        "|---" * (len(FILTERS) + 2) + "|",
        *language_rows(found, peer, ours["plain"][0]),
    ]
    ratios = {mode: round(peer["seconds"]["all"] / sum(spent[mode].values()), 1) for mode in spent}
    summary = {
        "speed_vs_datatrove": ratios["plain"], "agreement": round(min(agreement["spacy_like"]), 4),
        "speed_vs_datatrove_spacy_like": ratios["spacy_like"], "agreement_defaults": round(min(agreement["plain"]), 4),
        "documents": count, "c4_texts_equal": round(equal / max(len(same), 1), 4),
    }  # fmt: skip
    return "\n".join(lines), summary


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="every 16th document instead of every 4th, two minutes")
    parser.add_argument("--peer", nargs=2, metavar=("IN", "OUT"), help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.peer:
        peer_main(*arguments.peer)
        return
    sys.path.insert(0, str(ROOT))
    found = documents(arguments.quick)
    peer = run_peer(found, arguments.quick)
    texts, languages = [d["text"] for d in found], [d["language"] for d in found]
    ours = {mode: judge(texts, languages, mode) for mode in ("plain", "spacy_like")}
    cascade = {mode: cascade_seconds(texts, languages, mode) for mode in ours}
    text, summary = report(found, peer, ours, cascade, arguments.quick)
    write_section("filters", text)
    print(text)
    print(json.dumps(summary))


if __name__ == "__main__":
    main()
