"""Train an n-gram model with interpolated modified Kneser-Ney smoothing, written as ARPA text that KenLM reads.

Chen and Goodman, "An Empirical Study of Smoothing Techniques for Language Modeling" (1998), with the counts and the
unigram's uniform floor of KenLM's lmplz (Heafield et al., ACL 2013). One process, all n-grams in memory: 0.8 million
tokens of web text made 2.1 million n-grams and took 0.9 GB. For corpora beyond some ten million tokens use lmplz, whose
files classifiers.perplexity reads as well.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import TextIO

BEGIN, END, UNKNOWN = "<s>", "</s>", "<unk>"

Gram = tuple[str, ...]
FALLBACK = (0.5, 1.0, 1.5)
"""Discounts where a corpus is too small to estimate them (lmplz --discount_fallback)."""


@dataclass(frozen=True)
class Model:
    """For each order (from one) log10 probabilities, and log10 back-off weights of contexts."""

    probabilities: list[dict[Gram, float]]
    backoffs: dict[Gram, float]


def train(sentences: Iterable[list[str]], order: int = 5) -> Model:
    """Estimate a model of `order` from sentences of tokens; ValueError when there is none."""
    return estimated(counted(sentences, order))


def estimated(plain: Sequence[Counter[Gram]], vocabulary: int | None = None) -> Model:
    """A model from plain counts, one order after the other (see `counted`); ValueError when there are none.

    `vocabulary` closes it: so many words can occur (the end mark counts, the begin mark does not), and each one not seen has
    the probability of the unknown word. Models of different texts can then be compared.
    """
    if not plain or not plain[0]:
        raise ValueError("no sentence to train on")
    counts = adjusted(plain)
    discounts = [discounts_of(level.values()) for level in counts]
    backoffs: dict[Gram, float] = {}
    below: dict[Gram, float] = {}
    levels = []
    floor = 1.0 / (vocabulary or len(counts[0]) + 1)
    for level, (d1, d2, d3) in zip(counts, discounts, strict=True):
        totals, kinds = contexts(level)
        gamma = {context: (d1 * ones + d2 * twos + d3 * more) / totals[context] for context, (ones, twos, more) in kinds.items()}
        current = {
            gram: max(count - (d1, d2, d3)[min(count, 3) - 1], 0.0) / totals[gram[:-1]]
            + gamma[gram[:-1]] * (below[gram[1:]] if below else floor)
            for gram, count in level.items()
        }
        if not below:
            current[(UNKNOWN,)] = gamma[()] * floor
        backoffs |= {context: value for context, value in gamma.items() if context}
        levels.append(current)
        below = current
    return Model(levels, backoffs)


def counted(sentences: Iterable[list[str]], order: int) -> list[Counter[Gram]]:
    """Plain counts of the n-grams of every order; n-grams end inside the sentence and begin at its begin at the earliest."""
    counts: list[Counter[Gram]] = [Counter() for _ in range(order)]
    for words in sentences:
        padded = (BEGIN, *words, END)
        for n in range(1, order + 1):
            counts[n - 1].update(padded[at : at + n] for at in range(len(padded) - n + 1))
    del counts[0][(BEGIN,)]
    # Short sentences only: the highest orders are empty, and KenLM reads no empty section.
    return [level for level in counts if level] or counts[:1]


def adjusted(counts: Sequence[Counter[Gram]]) -> list[dict[Gram, int]]:
    """Kneser-Ney counts: below the highest order, how many different words precede; plain where the begin mark does."""
    result: list[dict[Gram, int]] = [dict(counts[-1])]
    for level, above in zip(reversed(counts[:-1]), reversed(counts[1:]), strict=True):
        preceding = Counter(gram[1:] for gram in above)
        result.append({gram: count if gram[0] == BEGIN else preceding[gram] for gram, count in level.items()})
    return result[::-1]


def discounts_of(counts: Iterable[int]) -> tuple[float, float, float]:
    """Discounts for counts of one, two, and three or more (Chen and Goodman's equation 26)."""
    n = Counter(count for count in counts if count <= 4)
    if not all(n[k] for k in (1, 2, 3, 4)):
        return FALLBACK
    y = n[1] / (n[1] + 2 * n[2])
    found = tuple(k - (k + 1) * y * n[k + 1] / n[k] for k in (1, 2, 3))
    return (found[0], found[1], found[2]) if all(0 < d <= k for k, d in enumerate(found, 1)) else FALLBACK


def contexts(level: dict[Gram, int]) -> tuple[Counter[Gram], dict[Gram, list[int]]]:
    """For each context the sum of its counts, and how many words follow once, twice, and more often."""
    totals: Counter[Gram] = Counter()
    kinds: dict[Gram, list[int]] = {}
    for gram, count in level.items():
        context = gram[:-1]
        totals[context] += count
        kinds.setdefault(context, [0, 0, 0])[min(count, 3) - 1] += 1
    return totals, kinds


def write_arpa(model: Model, out: TextIO) -> None:
    """Write the model in ARPA format, n-grams in order of their words."""
    sizes = [len(level) + (n == 0) for n, level in enumerate(model.probabilities)]
    out.write(header(sizes))
    for n in range(1, len(sizes) + 1):
        out.write(f"\n\\{n}-grams:\n")
        out.writelines(line for _, line in arpa_lines(model, n))
    out.write("\n\\end\\\n")


def header(sizes: Sequence[int]) -> str:
    """The beginning of an ARPA file: the number of n-grams of each order."""
    return "\\data\\\n" + "".join(f"ngram {n}={size}\n" for n, size in enumerate(sizes, 1))


def arpa_lines(model: Model, order: int) -> Iterator[tuple[str, str]]:
    """The n-grams of one order with their lines in ARPA format, in order of their words."""
    last = order == len(model.probabilities)
    known = {gram: math.log10(p) for gram, p in model.probabilities[order - 1].items()} | ({(BEGIN,): 0.0} if order == 1 else {})
    for gram in sorted(known):
        weight = "" if last else f"\t{math.log10(model.backoffs[gram]) if gram in model.backoffs else 0.0:.7f}"
        text = " ".join(gram)
        yield text, f"{known[gram]:.7f}\t{text}{weight}\n"


def log10_of(model: Model, gram: Gram) -> float:
    """The last word's log10 probability after the words before it, as a reader of the ARPA file computes it."""
    gram = gram[-len(model.probabilities) :]
    total = 0.0
    while (found := model.probabilities[len(gram) - 1].get(gram)) is None:
        if len(gram) == 1:
            return total + math.log10(model.probabilities[0][(UNKNOWN,)])
        if weight := model.backoffs.get(gram[:-1]):
            total += math.log10(weight)
        gram = gram[1:]
    return total + math.log10(found)
