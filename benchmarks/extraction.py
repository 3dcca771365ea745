"""Main-content extraction side by side: word F1, precision, recall and pages per second of a core.

    python benchmarks/extraction.py [--quick] [--data DIR]

Ours, trafilatura (fast), resiliparse and jusText read the same pages, in turns, in one process. F1 is over the pages whose main
text a person wrote or went over, each judged by weights that never saw its site (benchmarks/models, made by
train_extractor.py). Speed is process CPU time over pages in UTF-8; ours includes the check of the encoding and the metadata.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections import Counter, defaultdict
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from benchmarks import gold  # noqa: E402
from benchmarks.results import machine, write_section  # noqa: E402
from stages.extract import main as ours  # noqa: E402

MODELS = Path(__file__).parent / "models"
QUICK = 8
"""In quick mode every n-th page is read."""
OURS, RULES, TRAFILATURA, RESILIPARSE, JUSTEXT = "gristmill", "gristmill, rules", "trafilatura fast", "resiliparse", "jusText"

Extract = Callable[[gold.Gold], str]


@dataclass
class Row:
    """What one extractor did on one page."""

    page: gold.Gold
    scores: tuple[float, float, float]
    seconds: float


@dataclass
class Result:
    """What one extractor did on all pages."""

    rows: list[Row] = field(default_factory=list)

    @property
    def mean(self) -> tuple[float, float, float]:
        """F1, precision and recall averaged over pages."""
        f1, precision, recall = np.mean([row.scores for row in self.rows], axis=0)
        return float(f1), float(precision), float(recall)

    @property
    def speed(self) -> float:
        """Pages per second of CPU time."""
        return len(self.rows) / sum(row.seconds for row in self.rows)


def _ours(mode: str) -> Extract:
    from stages.extract.trees import load

    models = [load(MODELS / f"extractor_fold{k}.npz") for k in range(gold.FOLDS)]
    params = ours.Main.model_validate({"mode": mode})

    def run(page: gold.Gold) -> str:
        return ours.extract(page.html, None, params, models[gold.fold(page.site)]).text

    return run


def _trafilatura(page: gold.Gold) -> str:
    import trafilatura

    return trafilatura.extract(page.html.decode("utf-8", "replace"), fast=True) or ""


def _resiliparse(page: gold.Gold) -> str:
    from resiliparse.extract.html2text import extract_plain_text

    return str(extract_plain_text(page.html.decode("utf-8", "replace"), main_content=True, alt_texts=False, links=False))


STOPLISTS = {"en": "English", "de": "German", "pl": "Polish", "ru": "Russian", "el": "Greek", "fr": "French", "es": "Spanish"}


def _justext(page: gold.Gold) -> str:
    import justext

    name = STOPLISTS.get(page.language)
    words = justext.get_stoplist(name) if name else frozenset()
    limits = {} if name else {"stopwords_low": 0.0, "stopwords_high": 0.0}
    try:
        found = justext.justext(page.html.decode("utf-8", "replace"), words, **limits)
    except Exception:  # lxml refuses a few pages; an extractor that fails has found nothing
        return ""
    return "\n".join(part.text for part in found if not part.is_boilerplate)


def measure(pages: list[gold.Gold], extractors: dict[str, Extract]) -> dict[str, Result]:
    """Every extractor on every page, page by page in turn so that a busy machine slows all alike."""
    results = {name: Result() for name in extractors}
    for name, extract in extractors.items():
        extract(pages[0])
        print(f"warm: {name}", file=sys.stderr)
    for page in pages:
        aim = Counter(gold.words(page.text))
        for name, extract in extractors.items():
            started = time.process_time()
            text = extract(page)
            seconds = time.process_time() - started
            results[name].rows.append(Row(page, gold.score(Counter(gold.words(text)), aim), seconds))
    return results


def _grouped(results: dict[str, Result], key: Callable[[gold.Gold], str]) -> list[str]:
    lines = ["| | pages | " + " | ".join(results) + " |", "| --- | ---: |" + " ---: |" * len(results)]
    groups: dict[str, list[int]] = defaultdict(list)
    for number, row in enumerate(next(iter(results.values())).rows):
        groups[key(row.page)].append(number)
    for name, numbers in sorted(groups.items(), key=lambda item: -len(item[1])):
        means = (np.mean([result.rows[n].scores[0] for n in numbers]) for result in results.values())
        lines.append(f"| {name} | {len(numbers)} | " + " | ".join(f"{mean:.3f}" for mean in means) + " |")
    return lines


def _slowest(results: dict[str, Result]) -> list[str]:
    lines = ["| | ms | KB | page |", "| --- | ---: | ---: | --- |"]
    for name, result in results.items():
        slow = sorted(result.rows, key=lambda row: -row.seconds)[:2]
        lines += [f"| {name} | {row.seconds * 1e3:.1f} | {len(row.page.html) // 1024} | {row.page.id} |" for row in slow]
    return lines


def section(results: dict[str, Result], *, quick: bool) -> str:
    """The section of RESULTS.md."""
    base = results[TRAFILATURA].speed
    lines = [
        "## Main-content extraction", "",
        f"`python benchmarks/extraction.py{' --quick' if quick else ''}`, {machine()}. {len(results[OURS].rows)} pages.", "",
        "Word F1, precision and recall averaged over pages, ours out of fold by site; speed is CPU time of one process.", "",
        "| extractor | F1 | precision | recall | pages/s per core | against trafilatura |",
        "| --- | ---: | ---: | ---: | ---: | ---: |",
    ]  # fmt: skip
    for name, result in results.items():
        f1, precision, recall = result.mean
        lines.append(f"| {name} | {f1:.3f} | {precision:.3f} | {recall:.3f} | {result.speed:.0f} | {result.speed / base:.1f}x |")
    lines += ["", "F1 by source:", "", *_grouped(results, lambda page: page.source)]
    lines += ["", "F1 by page type, where the source names one:", ""]
    lines += _grouped(results, lambda page: page.page_type if page.page_type != page.source else "not named")
    return "\n".join([*lines, "", "Slowest pages:", "", *_slowest(results)])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="an eighth of the pages")
    parser.add_argument("--data", type=Path, default=ROOT.parent / "shared" / "data" / "dev")
    options = parser.parse_args()
    if not (options.data / "webpages").is_dir():
        print(f"skipped: no pages at {options.data}/webpages")
        print(json.dumps({"skipped": True}))
        return
    pages = list(gold.pages(options.data, every=QUICK if options.quick else 1))
    extractors = {
        OURS: _ours("learned"),
        RULES: _ours("rules"),
        TRAFILATURA: _trafilatura,
        RESILIPARSE: _resiliparse,
        JUSTEXT: _justext,
    }
    results = measure(pages, extractors)
    text = section(results, quick=options.quick)
    print(text)
    write_section("extraction", text)
    speed = results[OURS].speed
    answer = {
        "f1": results[OURS].mean[0], "f1_trafilatura": results[TRAFILATURA].mean[0],
        "speed_vs_trafilatura": speed / results[TRAFILATURA].speed, "speed_vs_justext": speed / results[JUSTEXT].speed,
    }  # fmt: skip
    print(json.dumps({name: round(value, 4) for name, value in answer.items()}))


if __name__ == "__main__":
    main()
