"""Train the weights of `stages.extract.main` from pages with a known main text, and measure them out of fold by site.

    python benchmarks/train_extractor.py [--data DIR] [--folds-only | --final-only] [--every N] [--out DIR]

Writes stages/extract/models/main.npz (all licensed pages) and benchmarks/models/extractor_fold{0..4}.npz, each trained without
the sites of its fold: `extraction.py` measures with those. Needs the extra `extractor`; no stage does.
One thread and fixed seeds: two trainings with the same lightgbm on the same pages write the same bytes.

A block's label is the share of its words that align with the gold text; its weight is its share of the page, so that every
page counts alike whatever its length. Weights of words and of class names (lexicons) are target means, and the second look
learns from first-look chances: both are made out of fold inside the training pages, or each would trust what it has seen.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from benchmarks import gold  # noqa: E402
from stages.extract import blocks as b  # noqa: E402
from stages.extract.context import FLOOR, surround, threshold  # noqa: E402
from stages.extract.features import CLASS_BITS, describe  # noqa: E402
from stages.extract.trees import Forest, Model, chances, scorer  # noqa: E402
from stages.extract.wording import LEXICON_BITS, W_WORDS, measure_all, title_set, word_slots  # noqa: E402

SEED = 7
KINDS = (*gold.JUDGED, "human_markdown", "tool_expected_markdown", "tool_expected_output")
SILVER_WEIGHT = 0.5
"""Weight of pages whose expected text a tool made: they add kinds of pages, and the errors of that tool."""
COMMON: dict[str, Any] = {
    "objective": "cross_entropy", "learning_rate": 0.1, "num_leaves": 31, "max_depth": 8, "min_data_in_leaf": 40,
    "min_sum_hessian_in_leaf": 0.02, "feature_fraction": 0.4, "bagging_fraction": 0.7, "bagging_freq": 1, "lambda_l2": 5.0,
    "max_bin": 127, "seed": SEED, "num_threads": 1, "deterministic": True, "force_row_wise": True, "verbose": -1,
}  # fmt: skip
ROUNDS = {"first": 120, "second": 120}
PRIOR = {"words": 5.0, "classes": 3.0}
"""Sites that a word needs before its mean counts half."""
SIZES = {"words": 1 << LEXICON_BITS, "classes": 1 << CLASS_BITS}

Floats = NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class Sample:
    """A page read into blocks, with what its words and class names mean on it: slots and mean labels."""

    gold: gold.Gold
    page: b.Page
    label: Floats
    size: NDArray[np.int32]
    terms: dict[str, tuple[NDArray[np.int64], Floats]]

    @property
    def fold(self) -> int:
        """The fold of its site."""
        return gold.fold(self.gold.site)


def _means(slots: list[NDArray[Any]], labels: list[float]) -> tuple[NDArray[np.int64], Floats]:
    if not slots:
        return np.zeros(0, np.int64), np.zeros(0, np.float32)
    flat = np.concatenate(slots).astype(np.int64)
    value = np.repeat(np.array(labels, np.float64), [len(part) for part in slots])
    unique, inverse = np.unique(flat, return_inverse=True)
    return unique, (np.bincount(inverse, value) / np.bincount(inverse)).astype(np.float32)


def _word_terms(page: b.Page, label: Floats) -> tuple[NDArray[np.int64], Floats]:
    buffer = np.empty(page.text.size + 1, np.int32)
    found = []
    for block in page.blocks:
        count = word_slots(page.text, block[b.B_TEXT0], block[b.B_TEXT1], buffer)
        found.append(np.unique(buffer[:count]))
    return _means(found, label.tolist())


def _class_terms(page: b.Page, label: Floats, size: NDArray[np.int32]) -> tuple[NDArray[np.int64], Floats]:
    right, total = (np.concatenate([[0.0], np.cumsum(part)]) for part in (label * size, size))
    nodes = page.nodes
    held = total[nodes[:, b.N_BLOCK1]] - total[nodes[:, b.N_BLOCK0]]
    hits = right[nodes[:, b.N_BLOCK1]] - right[nodes[:, b.N_BLOCK0]]
    full = np.flatnonzero(held > 0)
    found = [page.classes[nodes[n, b.N_TOKEN0] : nodes[n, b.N_TOKEN1]] & np.uint32(SIZES["classes"] - 1) for n in full]
    return _means(found, (hits[full] / held[full]).tolist())


def sample(page: gold.Gold) -> Sample | None:
    """Read one gold page; None when it holds no text at all."""
    read = b.read_page(page.html)
    if not len(read.blocks):
        return None
    texts = [read.text[block[b.B_TEXT0] : block[b.B_TEXT1]].tobytes().decode("utf-8", "replace") for block in read.blocks]
    label, size = gold.label(texts, page.text)
    terms = {"words": _word_terms(read, label), "classes": _class_terms(read, label, size)}
    return Sample(page, read, label, size, terms)


def lexicon(samples: Iterable[Sample], kind: str) -> Floats:
    """Log odds, against the mean, that text with a word is main text; each site counts once for a word."""
    rows = [(*s.terms[kind], s.gold.site) for s in samples]
    sites = {site: number for number, site in enumerate(sorted({site for *_, site in rows}))}
    key = np.concatenate([slots * len(sites) + sites[site] for slots, _, site in rows])
    label = np.concatenate([labels for _, labels, _ in rows])
    unique, inverse = np.unique(key, return_inverse=True)
    mean, slot, size = np.bincount(inverse, label) / np.bincount(inverse), unique // len(sites), SIZES[kind]
    seen, base = np.bincount(slot, minlength=size), mean.mean()
    share = np.clip((np.bincount(slot, mean, size) + PRIOR[kind] * base) / (seen + PRIOR[kind]), 0.003, 0.997)
    odds = np.log(share / (1 - share)) - np.log(base / (1 - base))
    return (np.clip(np.round(np.where(seen > 0, odds, 0) * 16), -127, 127) / 16).astype(np.float32)


class Trained(NamedTuple):
    """Weights as they are stored: both looks and both lexicons."""

    first: Forest
    second: Forest
    words: Floats
    classes: Floats

    def model(self) -> Model:
        """The same weights as the stage uses them."""
        return Model(scorer(self.first), scorer(self.second), self.words, self.classes)


@dataclass(frozen=True, slots=True)
class Described:
    """Features of a page under given lexicons."""

    table: Floats
    counts: Floats


def described(s: Sample, words: Floats, classes: Floats) -> Described:
    counts, hashes = measure_all(s.page.text, s.page.blocks, words, title_set(np.frombuffer(s.page.title, np.uint8)))
    return Described(describe(s.page.blocks, s.page.nodes, s.page.classes, classes, counts, hashes), counts)


def weight(s: Sample) -> NDArray[np.float64]:
    """Weight of each block: its words against the geometric mean of the page's words and its main words."""
    main, all_words = float((s.label * s.size).sum()), float(s.size.sum())
    silver = SILVER_WEIGHT if s.gold.kind not in gold.JUDGED else 1.0
    return np.asarray(silver * s.size / np.sqrt((main + 20) * (all_words + 20)), np.float64)


def boost(tables: list[Floats], samples: list[Sample], look: str, rows: list[NDArray[np.int64]] | None = None) -> Forest:
    """Train one look and flatten it; `rows` names the blocks of each page that stand in its table (all)."""
    import lightgbm

    rows = rows or [np.arange(len(s.label)) for s in samples]
    weights = np.concatenate([weight(s)[kept] for s, kept in zip(samples, rows, strict=True)])
    labels = np.concatenate([s.label[kept] for s, kept in zip(samples, rows, strict=True)])
    data = lightgbm.Dataset(np.concatenate(tables), labels, weight=weights * (len(weights) / weights.sum()), params=COMMON)
    return flatten(lightgbm.train(COMMON, data, ROUNDS[look]).dump_model())


def _below(value: float) -> np.float32:
    """The largest float32 that is at most `value`: comparing float32 features with it decides as the double would."""
    near = np.float32(value)
    return near if float(near) <= value else np.nextafter(near, np.float32(-np.inf))


def flatten(dump: dict[str, Any]) -> Forest:
    """A LightGBM dump as flat arrays (`trees.Forest`): the two children of a node stand side by side."""
    feature: list[int] = []
    limit: list[Any] = []
    child: list[int] = []
    value: list[float] = []
    roots, depths = [], []

    def slot() -> int:
        feature.append(0)
        limit.append(np.float32(np.inf))
        child.append(len(child))
        value.append(0.0)
        return len(child) - 1

    for tree in dump["tree_info"]:
        roots.append(slot())
        queue, deepest = [(tree["tree_structure"], roots[-1], 0)], 0
        while queue:
            node, at, depth = queue.pop(0)
            deepest = max(deepest, depth)
            if "leaf_value" in node and "split_feature" not in node:
                value[at] = node["leaf_value"]
                continue
            left, right = slot(), slot()
            feature[at], limit[at], child[at] = node["split_feature"], _below(node["threshold"]), left
            queue += [(node["left_child"], left, depth + 1), (node["right_child"], right, depth + 1)]
        depths.append(deepest)
    return Forest(
        np.array(roots, np.int32), np.array(depths, np.int32), np.array(feature, np.int16), np.array(limit, np.float32),
        np.array(child, np.int32), np.array(value, np.float32),
    )  # fmt: skip


def second_table(s: Sample, d: Described, first: Floats) -> tuple[Floats, NDArray[np.int64]]:
    """Features of the second look and the blocks that get one."""
    open_ = np.flatnonzero(first > FLOOR)
    around = surround(first, s.page.blocks, s.page.nodes, d.counts)
    return np.hstack([d.table[open_], around[open_]]), open_


def fit(samples: list[Sample]) -> Trained:
    """Weights from these pages: both looks and both lexicons."""
    inner = sorted({s.fold for s in samples})
    parts = {k: [s for s in samples if s.fold == k] for k in inner}
    seen: dict[int, list[Described]] = {}
    for k in inner:
        others = [s for s in samples if s.fold != k]
        words, classes = lexicon(others, "words"), lexicon(others, "classes")
        seen[k] = [described(s, words, classes) for s in parts[k]]
    ordered = [s for k in inner for s in parts[k]]
    tables = [d.table for k in inner for d in seen[k]]
    again: list[Floats] = []
    rows: list[NDArray[np.int64]] = []
    for k in inner:
        rest = [(d.table, s) for j in inner if j != k for d, s in zip(seen[j], parts[j], strict=True)]
        forest = scorer(boost([table for table, _ in rest], [s for _, s in rest], "first"))
        for d, s in zip(seen[k], parts[k], strict=True):
            table, open_ = second_table(s, d, chances(d.table, forest))
            again.append(table)
            rows.append(open_)
    first = boost(tables, ordered, "first")
    return Trained(first, boost(again, ordered, "second", rows), lexicon(samples, "words"), lexicon(samples, "classes"))


def chance(s: Sample, model: Model) -> tuple[Floats, Floats, Floats]:
    """Chances of both looks for the blocks of a page, and the words of each block."""
    d = described(s, model.words, model.classes)
    first = chances(d.table, model.first)
    table, open_ = second_table(s, d, first)
    second = first.copy()
    second[open_] = chances(table, model.second)
    return first, second, d.counts[:, W_WORDS].copy()


def save(model: Trained, path: Path) -> None:
    """Write weights; the same weights give the same bytes."""
    path.parent.mkdir(parents=True, exist_ok=True)
    arrays: dict[str, Any] = {
        f"{look}_{name}": part for look in ("first", "second") for name, part in getattr(model, look)._asdict().items()
    }
    arrays |= {name: np.round(getattr(model, name) * 16).astype(np.int8) for name in ("words", "classes")}
    np.savez_compressed(path, **arrays)


def read(data: Path, every: int = 1) -> list[Sample]:
    """All pages that may be trained on or are judged."""
    found = (sample(page) for page in gold.pages(data, KINDS, every))
    return [s for s in found if s is not None]


def f1(samples: list[Sample], model: Model) -> dict[str, list[float]]:
    """Word F1 of judged pages by both looks (blocks joined, not rendered)."""
    scores: dict[str, list[float]] = {"first": [], "second": []}
    for s in samples:
        if s.gold.kind not in gold.JUDGED:
            continue
        *looks, sizes = chance(s, model)
        texts = [s.page.text[x[b.B_TEXT0] : x[b.B_TEXT1]].tobytes().decode("utf-8", "replace") for x in s.page.blocks]
        for name, found in zip(scores, looks, strict=True):
            kept = found >= threshold(found, sizes)
            bag = Counter(w for text, keep in zip(texts, kept, strict=True) if keep for w in gold.words(text))
            scores[name].append(gold.score(bag, Counter(gold.words(s.gold.text)))[0])
    return scores


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, default=ROOT.parent / "shared" / "data" / "dev")
    parser.add_argument("--folds-only", action="store_true")
    parser.add_argument("--final-only", action="store_true")
    parser.add_argument("--every", type=int, default=1, help="read every n-th page only (to try something)")
    parser.add_argument("--out", type=Path, default=ROOT, help="write below this folder instead of into the repository")
    options = parser.parse_args()
    started = time.monotonic()
    samples = read(options.data, options.every)
    licensed = [s for s in samples if s.gold.licensed]
    print(f"{len(samples)} pages, {len(licensed)} licensed for training, read in {time.monotonic() - started:.0f} s", flush=True)
    if not options.folds_only:
        save(fit(licensed), options.out / "stages" / "extract" / "models" / "main.npz")
    totals: dict[str, list[float]] = {"first": [], "second": []}
    for k in range(gold.FOLDS if not options.final_only else 0):
        model = fit([s for s in licensed if s.fold != k])
        save(model, options.out / "benchmarks" / "models" / f"extractor_fold{k}.npz")
        for name, values in f1([s for s in samples if s.fold == k], model.model()).items():
            totals[name] += values
        print(
            f"fold {k}: "
            + ", ".join(f"{n} {np.mean(v):.4f}" for n, v in totals.items())
            + f" ({time.monotonic() - started:.0f} s)",
            flush=True,
        )


if __name__ == "__main__":
    main()
