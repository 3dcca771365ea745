from hypothesis import given
from hypothesis import strategies as st

from synthetic.segments import parts, passages

texts = st.text(alphabet=st.sampled_from("ab é.\n\n!? \t水。x"), max_size=200)


def count(text: str) -> int:
    return len(text)


@given(texts, st.integers(2, 40))
def test_parts_joined_are_the_text_and_none_is_too_long(text: str, limit: int) -> None:
    cut = parts(text, count, limit)
    assert "".join(cut) == text
    assert all(len(part) <= limit for part in cut)


@given(texts, st.integers(2, 40), st.integers(0, 5))
def test_passages_are_whole_lines_in_order(text: str, limit: int, floor: int) -> None:
    found = passages(text, count, limit, floor=floor)
    lines = [line for line in text.split("\n") if len(line) + 1 <= limit]
    taken = [line for passage in found for line in passage.split("\n")]
    remaining = iter(lines)
    assert all(any(line == other for other in remaining) for line in taken), "lines of the text, in its order"
    assert all(len(p) <= limit and len(p) >= floor and p.strip() for p in found)
    if floor == 0:
        assert [line for line in taken if line.strip()] == [line for line in lines if line.strip()]


def test_passages_are_packed_greedily_and_a_long_line_is_left_out() -> None:
    assert passages("aaaa\nbbbb\n" + "c" * 30 + "\ndd", count, 10) == ["aaaa\nbbbb", "dd"]
    assert passages("aaaa\nbbbb\ncccc", count, 10, floor=5) == ["aaaa\nbbbb"]


def test_parts_prefer_paragraphs_to_lines_and_lines_to_sentences() -> None:
    assert parts("One two.\nThree.\n\nFour five.", count, 20) == ["One two.\nThree.\n\n", "Four five."]
    assert parts("One two. Three four. Five.", count, 14) == ["One two.", " Three four.", " Five."]


def test_a_fenced_block_is_not_cut_at_a_blank_line() -> None:
    code = "```python\na = 1\n\n\nb = 2\n```\n\n"
    text = f"Words before.\n\n{code}Words after.\n\nMore."
    assert parts(text, count, len(code) + 1) == ["Words before.\n\n", code, "Words after.\n\nMore."]
    assert "".join(parts(text, count, 12)) == text
    open_ = "```\nnever\n\nclosed\n\nat all"
    assert parts(open_, count, 12) == ["```\nnever\n\n", "closed\n\n", "at all"]
