import pyarrow as pa
from hypothesis import given, settings
from hypothesis import strategies as st

from stages import characters as ch
from stages.analysis import Words, hashes, token_view, words
from stages.contract import TEXT

FULL = 16 | 32 | 64

documents = st.lists(
    st.text(
        st.one_of(st.sampled_from("ab’'.,-#1 \n\r\t_中あก้é…“\u2028\u00a0😀𠀀A"), st.characters(exclude_categories=("Cs",))),
        max_size=60,
    ),
    max_size=6,
)


def cut(texts, stage=words, column="analysis"):
    """Tokens of each text as (text, chars, flags, hash, lower-cased hash)."""
    table = stage(pa.table({"text": pa.array(texts, TEXT)}), Words())
    tokens, starts = token_view(table[column])
    raw = [(text or "").encode() for text in texts]
    whole = [[int(value) for value in token] for token in tokens]
    low = (1 << 32) - 1
    return [
        [(data[t[0] & low : t[0] >> 32].decode(), t[1] & low, t[1] >> 32, t[2], t[3]) for t in whole[starts[row] : starts[row + 1]]]
        for row, data in enumerate(raw)
    ]


def plain_twin(text):
    """The plain splitter, one character at a time."""
    bits = [ch.class_of(ord(char)) for char in text]
    found, i = [], 0
    while i < len(text):
        if text[i].isspace():
            i += 1
            continue
        end = i + 1
        if bits[i] & (ch.ALNUM | ch.COMBINING) or text[i] == "_":
            before = bits[i]
            while end < len(text):
                if not bits[end] & ch.COMBINING:
                    after = bits[end + 1] if end + 1 < len(text) else 0
                    letters, digits = before & after & ch.LETTER, before & after & ch.DIGIT
                    inside = (
                        bits[end] & ch.ALNUM
                        or text[end] == "_"
                        or (text[end] in "'’" and letters)
                        or (text[end] in ".," and digits)
                    )
                    if bits[i] & ch.LONE or bits[end] & ch.LONE or not inside:
                        break
                    before = bits[end]
                end += 1
        else:
            while end < len(text) and text[end] == text[i]:
                end += 1
        found.append((i, end))
        i = end
    return found


def flags_twin(text, start, end, previous):
    """Flags of text[start:end] whose predecessor ended at `previous` (None for the first token)."""
    token, gap = text[start:end], text[previous or 0 : start]
    bits = [ch.class_of(ord(char)) for char in token]
    flags = FULL if previous is None else 0
    flags |= 16 if gap else 0
    flags |= 32 if "\n" in gap else 0
    flags |= 64 if gap.count("\n") > 1 else 0
    flags |= 1 if any(bit & ch.LETTER for bit in bits) else 0
    flags |= 2 if any(not bit & ch.MARKS for bit in bits) else 0
    flags |= 4 if all(bit & ch.PUNCT for bit in bits) else 0
    flags |= 8 if len(token) == 1 and bits[0] & ch.TERMINAL else 0
    return flags | (128 if any(bit & ch.DIGIT for bit in bits) else 0)


def test_words_keep_apostrophes_and_numbers_and_split_off_symbols():
    [tokens] = cut(["Don't pay 1,000.50... “now” — l’été"])
    assert [token[0] for token in tokens] == ["Don't", "pay", "1,000.50", "...", "“", "now", "”", "—", "l’été"]


def test_scripts_without_spaces_give_a_token_a_character_with_its_marks():
    [tokens] = cut(["我爱GPU กำ้"])
    assert [token[0] for token in tokens] == ["我", "爱", "GPU", "ก", "ำ้"]


def test_first_tokens_of_lines_and_paragraphs_are_marked():
    [tokens] = cut(["a b\nc\n\nd"])
    assert [token[2] & FULL for token in tokens] == [FULL, 16, 48, FULL]


def test_null_and_empty_have_no_tokens_and_slices_are_cut_alike():
    assert cut([None, "", "a"])[:2] == [[], []]
    whole = pa.table({"text": pa.array(["x y", "don't", "z"], TEXT)})
    assert words(whole.slice(1, 1), Words())["analysis"].to_pylist() == words(whole, Words())["analysis"].to_pylist()[1:2]


@settings(deadline=None, max_examples=150)
@given(documents)
def test_plain_tokens_equal_their_plain_python_twin(texts):
    for text, tokens in zip(texts, cut(texts), strict=True):
        spans = plain_twin(text)
        assert [token[0] for token in tokens] == [text[a:b] for a, b in spans]
        assert [token[1] for token in tokens] == [b - a for a, b in spans]
        ends = [None, *(b for _, b in spans)]
        assert [token[2] for token in tokens] == [flags_twin(text, a, b, ends[i]) for i, (a, b) in enumerate(spans)]
        assert [token[3] for token in tokens] == [int(h) for h in hashes([text[a:b] for a, b in spans])]


def test_lower_cased_hash_is_equal_for_words_that_differ_in_case():
    [[upper, lower]] = cut(["ÉTÉ été"])
    assert upper[3] != lower[3]
    assert upper[4] == lower[4] == lower[3]
