import io
import math
from pathlib import Path

import pytest

from classifiers.kneser_ney import (
    BEGIN,
    END,
    FALLBACK,
    UNKNOWN,
    Model,
    adjusted,
    counted,
    discounts_of,
    estimated,
    log10_of,
    train,
    write_arpa,
)

TEXT = """the mill grinds corn
the mill by the river grinds slowly
a river runs by the old mill
the old wheel turns and the mill grinds
corn grows by the river
the wheel turns slowly by the mill
a miller sells corn and flour
the miller and the mill grow old"""
SENTENCES = [line.split() for line in TEXT.splitlines()]


def log10(model: Model, gram: tuple[str, ...]) -> float:
    """What a reader of the ARPA file computes: the longest n-gram, else the context's weight and one word less."""
    gram = gram[-len(model.probabilities) :]
    if (found := model.probabilities[len(gram) - 1].get(gram)) is not None:
        return math.log10(found)
    weight = model.backoffs.get(gram[:-1])
    return (math.log10(weight) if weight else 0.0) + log10(model, gram[1:])


@pytest.mark.parametrize("order", [1, 2, 3, 5])
def test_probabilities_of_all_words_sum_to_one_after_every_context(order: int) -> None:
    model = train(SENTENCES, order)
    words = {w for s in SENTENCES for w in s} | {END, UNKNOWN}
    seen = {(), (BEGIN,), ("the",), ("the", "mill"), (BEGIN, "the"), ("by", "the", "old"), ("never", "seen"), ("river", "grinds")}
    for context in seen:
        total = sum(10 ** log10(model, (*context, word)) for word in words)
        assert total == pytest.approx(1, abs=1e-9)


def test_lower_orders_count_what_precedes() -> None:
    counts = adjusted(counted([["a", "b"], ["c", "b"], ["c", "b"]], 2))
    assert counts[0] == {("a",): 1, ("b",): 2, ("c",): 1, (END,): 1}
    assert counts[1][("c", "b")] == 2


def test_discounts_follow_the_counts_of_counts_and_fall_back_when_there_are_too_few() -> None:
    d = discounts_of([1] * 40 + [2] * 15 + [3] * 8 + [4] * 5)
    y = 40 / (40 + 30)
    assert d == pytest.approx((1 - 2 * y * 15 / 40, 2 - 3 * y * 8 / 15, 3 - 4 * y * 5 / 8))
    assert discounts_of([1, 1, 2]) == FALLBACK


def test_a_corpus_of_short_sentences_gets_a_smaller_order() -> None:
    assert len(train([["a"], ["b"]], 5).probabilities) == 3
    with pytest.raises(ValueError, match="no sentence"):
        train([], 5)


def arpa(order: int) -> str:
    out = io.StringIO()
    write_arpa(train(SENTENCES, order), out)
    return out.getvalue()


def test_the_file_is_the_same_for_any_order_of_sentences() -> None:
    out = io.StringIO()
    write_arpa(train(SENTENCES[::-1], 3), out)
    assert out.getvalue() == arpa(3)
    assert out.getvalue().startswith("\\data\\\nngram 1=")


def test_kenlm_reads_the_file_and_agrees(tmp_path: Path) -> None:
    kenlm = pytest.importorskip("kenlm")
    (tmp_path / "m.arpa").write_text(arpa(3))
    read, model = kenlm.Model(str(tmp_path / "m.arpa")), train(SENTENCES, 3)
    for line in ("the mill grinds slowly", "a river of corn", "the the the"):
        words = [w if (w,) in model.probabilities[0] else UNKNOWN for w in line.split()]
        padded = (BEGIN, *words, END)
        ours = sum(log10(model, padded[: at + 1]) for at in range(1, len(padded)))
        assert read.score(line, bos=True, eos=True) == pytest.approx(ours, abs=1e-4)


@pytest.mark.parametrize("order", [1, 3])
def test_a_closed_vocabulary_shares_the_rest_among_the_words_not_seen(order: int) -> None:
    words = {w for s in SENTENCES for w in s} | {END}
    unseen = {f"new{i}" for i in range(7)}
    model = estimated(counted(SENTENCES, order), vocabulary=len(words | unseen))
    for context in ((), (BEGIN, "the"), ("never", "river")):
        assert sum(10 ** log10_of(model, (*context, word)) for word in words | unseen) == pytest.approx(1, abs=1e-9)


def test_reading_a_model_agrees_with_the_plain_recursion() -> None:
    model = train(SENTENCES, 3)
    for line in ("the mill grinds slowly", "a river of corn", "the the the"):
        padded = (BEGIN, *line.split(), END)
        for at in range(1, len(padded)):
            known = padded[: at + 1] if (padded[at],) in model.probabilities[0] else (*padded[:at], UNKNOWN)
            assert log10_of(model, padded[: at + 1]) == pytest.approx(log10(model, known))
