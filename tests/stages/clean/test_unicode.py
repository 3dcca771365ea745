import ftfy
import pyarrow as pa
import pyarrow.compute as pc
from ftfy.badness import is_bad
from hypothesis import given, settings
from hypothesis import strategies as st

from stages.clean.unicode import SUSPECT_ASCII, Unicode, _config, may_change, repair
from stages.contract import TEXT

PIECES = [
    "Ã©",
    "â€œ",
    "&amp;",
    "&#39;",
    "<b>",
    "\n",
    "Â ",
    " ",
    "plain",
    "Žluťoučký",
    "œ",
    "\x1b[31m",
    "\x07",
    "\ufeff",
    "рџ",
    "\r\n",
]
texts = st.one_of(
    st.lists(st.sampled_from(PIECES), max_size=12).map("".join),
    st.text(st.characters(codec="utf-8", max_codepoint=0x250), max_size=40),
    st.text(st.characters(codec="utf-8"), max_size=40),
    st.text(st.sampled_from("ÃÂ\n a°œ€“»Ð½²³вЂΒΓ"), max_size=12),
)


def rows(*texts: str | None) -> pa.Table:
    return pa.table({"text": pa.array(texts, TEXT)})


def test_repairs_mojibake_entities_and_control_characters() -> None:
    broken = rows("sÃ³ it&rsquo;s", "a\x00b\x07c\ufeff", "p", None, "<p>&amp;</p>", "“curly” ﬁne", "voilÃ  le\r\ntravail")
    assert repair(broken, Unicode())["text"].to_pylist() == [
        "só it’s", "abc", "p", None, "<p>&amp;</p>", "“curly” ﬁne", "voilà le\r\ntravail",
    ]  # fmt: skip


def test_parameters_reach_ftfy() -> None:
    params = Unicode(uncurl_quotes=True, fix_latin_ligatures=True, fix_line_breaks=True, normalization="NFC")
    assert repair(rows("“e\u0301” ﬁ\r\n", "a\rb"), params)["text"].to_pylist() == ['"é" fi\n', "a\nb"]
    assert repair(rows("&lt;\x07"), Unicode(unescape_html=False, remove_control_chars=False))["text"].to_pylist() == ["&lt;\x07"]


@settings(max_examples=600, deadline=None)
@given(texts)
def test_rows_that_skip_ftfy_are_rows_that_ftfy_leaves_alone(text: str) -> None:
    config = _config(Unicode())
    sent = pc.match_substring_regex(pa.array([text], TEXT), SUSPECT_ASCII)[0].as_py() and may_change(text, is_bad)
    if not sent:
        assert ftfy.fix_text(text, config) == text
    assert repair(rows(text), Unicode())["text"].to_pylist() == [ftfy.fix_text(text, config)]


@settings(max_examples=200, deadline=None)
@given(st.lists(texts, max_size=6))
def test_every_setting_gives_what_ftfy_gives(batch: list[str]) -> None:
    for params in (
        Unicode(fix_line_breaks=True),
        Unicode(normalization="NFKC"),
        Unicode(fix_character_width=True, uncurl_quotes=True),
    ):
        assert repair(rows(*batch), params)["text"].to_pylist() == [ftfy.fix_text(t, _config(params)) for t in batch]


def test_every_single_character_and_pair_of_suspects_is_covered() -> None:
    config = _config(Unicode())
    every = [chr(c) for c in range(0x3000) if not 0xD800 <= c < 0xE000]
    for text in every:
        if not may_change(text, is_bad):
            assert ftfy.fix_text(text, config) == text
