import ftfy
import pyarrow as pa
from hypothesis import given, settings
from hypothesis import strategies as st

from stages.clean.unicode import Unicode, config_of, repair
from stages.contract import TEXT

PIECES = ["Ã©", "â€œ", "&amp;", "&#39;", "<b>", "\n", "Â ", " ", "p", "Žluťoučký", "œ", "\x1b[31m", "\x07", "\ufeff", "рџ", "\r"]
MOJIBAKE = "ÃÂÎÐØÙ\n aézž°œ€“”»Ð½²³вЂГўВΒΓμΞ×√±≈¢Äìâïàí\u00a0\u00ad\u0085¿¡‚ā™µ"
texts = st.one_of(
    st.lists(st.sampled_from(PIECES), max_size=12).map("".join),
    st.text(st.characters(codec="utf-8", max_codepoint=0x250), max_size=40),
    st.text(st.characters(codec="utf-8"), max_size=40),
    st.text(st.sampled_from(MOJIBAKE), max_size=12),
    st.text(st.characters(codec="utf-8"), max_size=20).map(lambda t: t.encode().decode("sloppy-windows-1252")),
)


def rows(*texts: str | None) -> pa.Table:
    return pa.table({"text": pa.array(texts, TEXT)})


def test_repairs_mojibake_entities_and_control_characters() -> None:
    broken = rows("sÃ³ it&rsquo;s", "a\x00b\x07c\ufeff", "plain", None, "<p>&amp;</p>", "“curly” ﬁne", "voilÃ  le\r\ntravail")
    assert repair(broken, Unicode())["text"].to_pylist() == [
        "só it’s", "abc", "plain", None, "<p>&amp;</p>", "“curly” ﬁne", "voilà le\r\ntravail",
    ]  # fmt: skip


def test_parameters_reach_ftfy() -> None:
    params = Unicode(uncurl_quotes=True, fix_latin_ligatures=True, fix_line_breaks=True, normalization="NFC")
    assert repair(rows("“e\u0301” ﬁ\r\n", "a\rb"), params)["text"].to_pylist() == ['"é" fi\n', "a\nb"]
    assert repair(rows("&lt;\x07"), Unicode(unescape_html=False, remove_control_chars=False))["text"].to_pylist() == ["&lt;\x07"]


@settings(max_examples=60, deadline=None)
@given(st.lists(texts, max_size=40))
def test_every_row_is_what_ftfy_makes_of_it_whether_it_was_sent_there_or_not(batch: list[str]) -> None:
    config = config_of(Unicode())
    assert repair(rows(*batch), Unicode())["text"].to_pylist() == [ftfy.fix_text(text, config) for text in batch]


@settings(max_examples=25, deadline=None)
@given(st.lists(texts, max_size=20))
def test_every_setting_gives_what_ftfy_gives(batch: list[str]) -> None:
    wide = Unicode(fix_character_width=True, uncurl_quotes=True)
    for params in (Unicode(fix_line_breaks=True), Unicode(normalization="NFKC"), wide, Unicode(unescape_html=False)):
        assert repair(rows(*batch), params)["text"].to_pylist() == [ftfy.fix_text(t, config_of(params)) for t in batch]


def test_every_single_character_and_many_pairs_come_back_as_from_ftfy() -> None:
    config = config_of(Unicode())
    every = [chr(c) for c in range(0x3000) if not 0xD800 <= c < 0xE000]
    pairs = [f"{a}{b}" for a in dict.fromkeys(MOJIBAKE) for b in dict.fromkeys(MOJIBAKE)]
    words = [f"a{p}b" for p in pairs]
    for batch in (every, pairs, words):
        assert repair(rows(*batch), Unicode())["text"].to_pylist() == [ftfy.fix_text(text, config) for text in batch]
