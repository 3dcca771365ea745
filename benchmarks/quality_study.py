"""Which scorers agree with people? The study part of benchmarks/quality.py, on the rows of quality.jsonl.gz judged by people.

Nested cross-validation: five outer folds for each seed; inside each training part, five inner folds give the scores from which
ensembles are fitted and regularisation is chosen. Predictions of one seed are pooled into one AUC; tables give the mean over
seeds. Intervals: 2,000 bootstraps of the rows, the same rows for both sides of a difference.
"""

import gzip
import json
from pathlib import Path

import numpy as np
import pyarrow as pa

from classifiers import demonstration, fasttext, linear, suel
from classifiers.statistics import statistics_of
from classifiers.trained import auc

DATA = Path(__file__).resolve().parent.parent / ".." / "shared" / "data" / "dev" / "quality.jsonl.gz"
FOLDS = 5
STRENGTHS = {"form": (0.03, 0.1, 0.3), "meaning": (0.003, 0.01, 0.03), "characters": (10.0,), "words": (10.0,)}
"""Regularisations tried; the best on the inner folds is taken."""
GROUPS = {
    "characters": "words",
    "words": "words",
    "proxy_words": "proxies",
    "proxy_bag": "proxies",
    "demo_bag": "demo",
    "demo_characters": "demo",
}
"""Scorers that share data and view; the others stand alone."""
VOLUMES = (0.25, 0.5)


def rows():
    with gzip.open(DATA, "rt", encoding="utf-8") as lines:
        found = [json.loads(line) for line in lines]
    return [r for r in found if r["subset"] == "dclm_human"], [r for r in found if r["subset"] != "dclm_human"]


def column(texts):
    return pa.chunked_array([pa.array(texts, pa.large_string())])


def grams(texts, kind):
    params = linear.Train(features=kind)
    return linear.raw_features(column(texts), params, params.slots)


def head(kind, strength):
    return linear.Train(features=kind if kind in ("characters", "words") else "vectors", strength=strength)


def fixed_scores(texts, proxies, quick):
    """Scores of models that have seen no human judgement: trained on the proxies, or on the demonstration texts."""
    proxies = proxies[:: 8 if quick else 2]
    target = np.array([r["label"] for r in proxies], bool)
    lines = [t.translate(fasttext.SPACES).strip() for t in texts]
    good = demonstration.good_texts(4)
    poor = demonstration.poor_texts(good, len(good), 0)
    lessons, truth = [*good, *poor], np.arange(len(good) + len(poor)) < len(good)

    def bag(learned, labels):
        return fasttext._opened(fasttext.train_model(learned, labels, fasttext.Train()), fasttext.GOOD).probabilities(lines)

    def gram(kind, learned, labels, strength):
        model = linear.fit(grams(learned, kind), labels.astype(float), labels, head(kind, strength))
        return model.scores(grams(texts, kind))

    forms = np.array([statistics_of(r["text"]) for r in proxies])
    shape = linear.fit(forms, target.astype(float), target, head("form", 0.01))
    return {
        "proxy_form": shape.scores(np.array([statistics_of(t) for t in texts])),
        "proxy_bag": bag([r["text"] for r in proxies], target),
        "proxy_words": gram("words", [r["text"] for r in proxies], target, 10.0),
        "demo_bag": bag(lessons, truth),
        "demo_characters": gram("characters", lessons, truth, 1.0),
    }


def ranks(scores, reference):
    """Mid-ranks of scores among reference scores, 0 to 1: what cut points on the training part would give, finely."""
    line = np.sort(reference)
    return (np.searchsorted(line, scores, "left") + np.searchsorted(line, scores, "right")) / (2 * len(line))


def folds(target, seed):
    """Stratified folds: index of the fold of each row."""
    rng = np.random.default_rng(seed)
    fold = np.empty(len(target), int)
    for value in (False, True):
        places = np.flatnonzero(target == value)
        rng.shuffle(places)
        fold[places] = np.arange(len(places)) % FOLDS
    return fold


def fitted(name, features, target, strength, learn, judge):
    model = linear.fit(features[learn], target[learn].astype(float), target[learn], head(name, strength))
    return model.scores(features[judge])


def inner_scores(name, features, target, learn, seed):
    """Out-of-fold scores of the training part for the best regularisation, and that regularisation."""
    fold = folds(target[learn], seed + 10_000)
    best = None
    for strength in STRENGTHS[name]:
        out = np.empty(len(learn))
        for k in range(FOLDS):
            out[fold == k] = fitted(name, features, target, strength, learn[fold != k], learn[fold == k])
        value = auc(out, target[learn])
        if best is None or value > best[0]:
            best = (value, out, strength)
    return best[1], best[2]


def weigh(known, names):
    """SUEL's weights, or the spectral ones where it refuses."""
    try:
        return suel.fit(np.corrcoef(known.T), [GROUPS.get(n, n) for n in names], names).weights
    except suel.UnidentifiableError:
        return suel.spectral(np.corrcoef(known.T)).weights


def ensembles(inside, outside, unlabelled, target, learn):
    """Scores of every ensemble for the rows judged; members are ranked against the training part's inner scores."""
    names = list(inside)
    known = np.stack([ranks(inside[n], inside[n]) for n in names], axis=1)
    judged = np.stack([ranks(outside[n], inside[n]) for n in names], axis=1)
    stack = linear.fit(known, target[learn].astype(float), target[learn], linear.Train(strength=0.03))
    weights = weigh(known, names)
    some = [names.index(n) for n in unlabelled]
    own = weigh(known[:, some], unlabelled)
    return {
        "max": judged.max(axis=1), "mean": judged.mean(axis=1), "suel": judged @ weights, "stacked": stack.scores(judged),
        "unlabelled max": judged[:, some].max(axis=1), "unlabelled mean": judged[:, some].mean(axis=1),
        "unlabelled suel": judged[:, some] @ own,
    }, dict(zip(unlabelled, own.tolist(), strict=True))  # fmt: skip


def predictions(features, fixed, target, seeds):
    """Pooled out-of-fold scores, shape (seeds, rows), of scorers and ensembles; and SUEL's mean weights without labels."""
    found, weights = {}, []
    for seed in range(seeds):
        fold = folds(target, seed)
        for k in range(FOLDS):
            learn, judge = np.flatnonzero(fold != k), np.flatnonzero(fold == k)
            inside = {n: f[learn] for n, f in fixed.items()}
            outside = {n: f[judge] for n, f in fixed.items()}
            for name, matrix in features.items():
                inside[name], strength = inner_scores(name, matrix, target, learn, seed)
                outside[name] = fitted(name, matrix, target, strength, learn, judge)
            several, weight = ensembles(inside, outside, list(fixed), target, learn)
            weights.append(weight)
            joint = np.column_stack([features["form"], *(np.log(s + 1e-4) - np.log(1 - s + 1e-4) for s in fixed.values())])
            several["joint"] = fitted("form", joint, target, 0.03, learn, judge)
            for name, scores in (outside | several).items():
                found.setdefault(name, np.empty((seeds, len(target))))[seed, judge] = scores
    return found, {n: float(np.mean([w[n] for w in weights])) for n in weights[0]}


def at_volume(scores, target, volume):
    """Precision and recall of good rows when the best `volume` of all rows is kept."""
    kept = np.argsort(-scores, kind="stable")[: round(volume * len(target))]
    return float(target[kept].mean()), float(target[kept].sum() / target.sum())


def summary(scores, target):
    """Means over seeds."""
    found = {"auc": float(np.mean([auc(s, target) for s in scores]))}
    for volume in VOLUMES:
        both = np.mean([at_volume(s, target, volume) for s in scores], axis=0)
        found[f"precision_{volume:g}"], found[f"recall_{volume:g}"] = map(float, both)
    return found


def intervals(one, other, target, measure, times=2000):
    """A paired bootstrap of measure(one) - measure(other) on scores averaged over seeds (as ranks): value, low and high end."""
    mean = [np.mean([ranks(s, s) for s in scores], axis=0) for scores in (one, other)]
    rng = np.random.default_rng(0)
    found = []
    for _ in range(times):
        chosen = rng.integers(0, len(target), len(target))
        if target[chosen].all() or not target[chosen].any():
            continue
        found.append(measure(mean[0][chosen], target[chosen]) - measure(mean[1][chosen], target[chosen]))
    value = measure(mean[0], target) - measure(mean[1], target)
    return float(value), *(float(np.quantile(found, q)) for q in (0.025, 0.975))


def study(meaning, quick):
    """The whole study as a dict; `meaning`: sentence embeddings of the human rows, or None."""
    human, proxies = rows()
    texts, target = [r["text"] for r in human], np.array([r["label"] for r in human], bool)
    features = {
        "form": np.array([statistics_of(t) for t in texts]),
        "characters": grams(texts, "characters"),
        "words": grams(texts, "words"),
    }
    if meaning is not None:
        features["meaning"] = meaning
    fixed = fixed_scores(texts, proxies, quick)
    found, weights = predictions(features, fixed, target, 2 if quick else 20)
    table = {name: summary(scores, target) for name, scores in found.items()}
    best = max((*features, *fixed), key=lambda n: table[n]["auc"])
    blind = max(fixed, key=lambda n: table[n]["auc"])
    recall = {v: (lambda s, t, v=v: at_volume(s, t, v)[1]) for v in VOLUMES}

    def gain(name, over):
        named = {"auc": auc, **{f"recall_{v:g}": recall[v] for v in VOLUMES}}
        return {"over": over} | {n: intervals(found[name], found[over], target, measure) for n, measure in named.items()}

    gains = {name: gain(name, best) for name in ("max", "mean", "suel", "stacked", "joint")}
    gains |= {name: gain(name, blind) for name in found if name.startswith("unlabelled")}
    gains |= {f"{name} over words": gain(name, "characters") for name in (best, "joint", "stacked")}
    return {
        "rows": len(target), "good": int(target.sum()), "seeds": 2 if quick else 20, "table": table, "supervised": list(features),
        "fixed": list(fixed), "best": best, "gains": gains, "suel_weights": weights,
    }  # fmt: skip
