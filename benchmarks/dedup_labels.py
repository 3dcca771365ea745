"""Near duplicates and contamination against labels: news articles, the labelled crawl, copied programs, test sets."""

import itertools
import json
import shutil
import subprocess
import sys

from benchmarks.signing import BANDS, CACHE, DATA, ROOT, band_rows, jaccard, rows

LEVELS = ("L1", "L2", "L3", "L4", "L5", "L6")
CODE = {
    "the default (24 characters, 20 bands of 13 rows)": ({}, BANDS, 13, 0.0),
    "for code (words of 3, 50 bands of 4 rows, Jaccard 0.5 verified)": ({"unit": "words", "size": 3}, 50, 4, 0.5),
}


def labelled(quick, lines):
    """Rows of the report."""
    planted_pairs, hit, others = articles()
    lines.append(f"| labelled news articles | {hit} of {planted_pairs} planted pairs | {others} other pairs share a band |")
    for name, (kind, bands, rows_, least) in CODE.items():
        lines.append(copied_code(name, kind, bands, rows_, least))
    if not quick:
        lines.append(crawl_labels())
    lines += contamination()


def sharing(matrix):
    """Pairs of rows that share a band."""
    found = set()
    for band in range(matrix.shape[1]):
        buckets = {}
        for i, value in enumerate(matrix[:, band].tolist()):
            buckets.setdefault(value, []).append(i)
        found |= {p for members in buckets.values() for p in itertools.combinations(members, 2)}
    return found


def copied_code(name, kind, bands, rows_, least):
    """Java programs: copies of an original by level of disguise (L1 comments ... L6 logic) and independent solutions.

    True pairs are two of one original and its copies; an independent solution belongs to nobody.
    """
    programs = list(rows(DATA / "neardup" / "irplag_java.jsonl.gz"))
    texts = [row["content"] for row in programs]
    found = sharing(band_rows(texts, bands=bands, rows=rows_, **kind))
    found = {(a, b) for a, b in found if not least or jaccard(texts[a], texts[b], **kind) >= least}
    family = [None if row["kind"] == "non-plagiarized" else row["case"] for row in programs]
    right = sum(family[a] is not None and family[a] == family[b] for a, b in found)
    originals = {row["case"]: i for i, row in enumerate(programs) if row["kind"] == "original"}
    shown = []
    for level in LEVELS:
        copies = [(originals[row["case"]], i) for i, row in enumerate(programs) if row["level"] == level]
        hits = sum(tuple(sorted(pair)) in found for pair in copies)
        shown.append(f"{level}: {hits}/{len(copies)}")
    remark = f"precision {right / max(len(found), 1):.3f} of {len(found)} pairs"
    return f"| copied Java programs found, {name} | {', '.join(shown)} | {remark} |"


def articles():
    """Planted pairs of the labelled news articles that share a band, and other pairs that do."""
    texts = list(rows(DATA / "neardup" / "articles.jsonl.gz"))
    truth = [json.loads(line) for line in (DATA / "neardup" / "articles_truth.jsonl").read_text().splitlines()]
    keys = list(texts[0])
    name = "id" if "id" in keys else keys[0]
    place = {row[name]: i for i, row in enumerate(texts)}
    pairs = {frozenset(place[v] for v in pair.values() if v in place) for pair in truth}
    found = {frozenset(pair) for pair in sharing(band_rows([row["text"] for row in texts]))}
    return len(pairs), len(pairs & found), len(found - pairs)


CRAWL = """
name: labelled
params: {{paths: "{paths}"}}
steps:
  texts:    {{uses: stages.ingest.warc.pages, with: {{paths: "${{paths}}"}}}}
  main:     {{uses: stages.extract.resiliparse.main_text, from: texts}}
  signed:   {{uses: stages.dedup.minhash.signatures, from: main}}
  pairs:    {{uses: stages.dedup.minhash.pairs, from: signed, with: {{partitions: 4}}}}
  clusters: {{uses: stages.dedup.minhash.clusters, from: pairs}}
  near:     {{uses: stages.dedup.minhash.twins, from: clusters, with: {{partitions: 4, keep: [longest]}}}}
"""


def crawl_labels():
    """Copies in the labelled crawl that fall (or whose original does), by how they were made; and what else falls."""
    import pyarrow.parquet as pq

    store, recipe = CACHE / "dedup-crawl-store", CACHE / "dedup-crawl.yaml"
    shutil.rmtree(store, ignore_errors=True)
    recipe.write_text(CRAWL.format(paths=(DATA / "crawl").resolve() / "CC-SIM-dev-2*.warc.gz"))
    subprocess.run([sys.executable, "-m", "pipelines.cli", "run", recipe, "--store", store, "--workers", "2"], cwd=ROOT, check=True,
                   capture_output=True)  # fmt: skip
    truth = {(row["file"], row["offset"]): row for row in rows(DATA / "crawl" / "truth.jsonl.gz")}
    labels, twins = {}, {}
    main_parts, near = next((store / "objects").glob("signed-*")) / "parts", next((store / "objects").glob("near-*")) / "parts"
    for path in near.glob("*.parquet"):
        main = pq.read_table(main_parts / path.name, columns=["id", "origin", "drop_reason"]).to_pylist()
        for row, twin in zip(main, pq.read_table(path, columns=["twin"])["twin"].to_pylist(), strict=True):
            if row["drop_reason"] is None:
                labels[row["id"]] = truth[row["origin"]["unit"].split("/")[-1], row["origin"]["offset"]]
                twins[row["id"]] = twin
    named = {t for t in twins.values() if t}
    kinds = {}
    for name, label in labels.items():
        if label.get("dup_role", "original") not in (None, "original"):
            how = label["dup_how"].split(",")[0] + (f" {label['edit_rate']:.1%}" if label.get("edit_rate") else "")
            kinds.setdefault(how, []).append(twins[name] is not None or name in named)
    shown = ", ".join(f"{how}: {sum(hits)}/{len(hits)}" for how, hits in sorted(kinds.items()))
    fell = [(labels[n], labels[t]) for n, t in twins.items() if t]
    same = sum(bool(a.get("dup_group")) and a["dup_group"] == b.get("dup_group") for a, b in fell)
    natural = sum(bool(a.get("natural_near")) and (not a.get("dup_group") or a["dup_group"] != b.get("dup_group")) for a, b in fell)
    remark = f"{len(fell)} fall: {same} to a labelled copy, {natural} of the others labelled as natural"
    return f"| labelled crawl, copies found | {shown} | {remark} |"


def contamination():
    """Documents with a planted test item that are found, by how it was disguised."""
    import pyarrow as pa

    from stages.contract import TEXT
    from stages.decontam.ngrams import mark

    docs, found = list(rows(DATA / "decontam" / "contaminated_docs.jsonl.gz")), []
    for size in (13, 8):
        params = mark.params(benchmarks=str(DATA / "decontam" / "benchmarks.jsonl.gz"), size=size)
        out = mark(pa.table({"text": pa.array([d["text"] for d in docs], TEXT)}), params, model=mark.model(params))
        kinds = {}
        for doc, reason in zip(docs, out["drop_reason"].to_pylist(), strict=True):
            kinds.setdefault(doc["how"], []).append(reason is not None)
        fell = sum(map(sum, kinds.values()))
        right = sum(sum(hits) for how, hits in kinds.items() if not how.startswith("control"))
        shown = ", ".join(f"{how}: {sum(hits)}/{len(hits)}" for how, hits in sorted(kinds.items()))
        found.append(f"| contaminated documents found by {size}-grams | {shown} | precision {right / fell:.3f} |")
    return found
