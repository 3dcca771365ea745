import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stages import characters as ch
from stages.analysis import Words, token_view, words
from stages.contract import TEXT
from stages.filters.fineweb import quality

LONG = "This line is long enough to count as prose and it ends with a point."


def judged(texts, language="en", **params):
    table = pa.table({"text": pa.array(texts, TEXT), "language": pa.array([language] * len(texts), pa.string())})
    return quality(words(table, Words()), quality.params(**params)).to_pylist()


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("\n".join(f"{LONG} {i}." for i in range(5)), None),
        (" \n\u3000\n", "empty"),
        ("\n".join(f"{LONG[:-1]} {i}" for i in range(5)), "few_ended_lines"),
        ("\n".join(f"Short line {i}." for i in range(9)), "short_lines"),
        (f"{LONG}\nAnother long line that stands between the two copies of it.\n{LONG}", "dup_line_chars"),
        ("\n".join(f"Internationalisierungsanstalten{i}." for i in range(9)), "list_like"),
    ],
)
def test_every_rule_names_its_reason(text, expected):
    assert judged([text])[0]["drop_reason"] == expected


def test_end_marks_of_other_scripts_end_lines():
    text = "\n".join(f"यह एक लंबी पंक्ति है जो वाक्य के साथ समाप्त होती है {i}।" for i in range(4))
    assert judged([text], "hi")[0]["drop_reason"] is None
    assert judged([text], "hi", any_script=False, end_marks=".")[0]["drop_reason"] == "few_ended_lines"


drawn = st.lists(st.text(st.sampled_from("ab .!\n\u2003é。\x85"), max_size=60), max_size=5)


def twin(text, words_count):
    """FineWeb's shares with Python's own string methods."""
    lines = [line for line in text.split("\n") if line.strip()]
    if not lines:
        return None
    seen, repeated = set(), 0
    for line in lines:
        repeated += len(line) if line in seen else 0
        seen.add(line)
    return {
        "fineweb_ended_lines": sum(bool(ch.class_of(ord(line[-1])) & ch.TERMINAL) for line in lines) / len(lines),
        "fineweb_short_lines": sum(len(line) <= 12 for line in lines) / len(lines),
        "fineweb_dup_line_chars": repeated / len(text.replace("\n", "")),
        "fineweb_line_feeds": text.count("\n") / words_count if words_count else 0,
    }


@settings(deadline=None, max_examples=150)
@given(drawn)
def test_shares_equal_their_plain_python_twin(texts):
    table = words(pa.table({"text": pa.array(texts, TEXT), "language": pa.array(["en"] * len(texts), pa.string())}), Words())
    _, starts = token_view(table["analysis"])
    rows = quality(table, quality.params(stats=True, short_line=12)).to_pylist()
    for i, (text, row) in enumerate(zip(texts, rows, strict=True)):
        expected = twin(text, int(starts[i + 1] - starts[i]))
        if expected is None:
            assert row["drop_reason"] == "empty"
        else:
            assert {name: row[name] for name in expected} == pytest.approx(expected)
