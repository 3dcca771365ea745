"""Bytes of a page to text: what the bytes say first, then what header and markup claim, then statistics.

UTF-8 is tried first: it holds for nine pages of ten, it fails early on anything else, and detection is dear.
A label that the bytes contradict loses: among several readings
the one with the fewest faults wins, and the order of the claims only breaks ties.
"""

from __future__ import annotations

import codecs
import functools
import re
from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

SAMPLE = 1 << 14
HEAD = 2048

BOMS = ((codecs.BOM_UTF8, "utf-8-sig"), (codecs.BOM_UTF16_LE, "utf-16"), (codecs.BOM_UTF16_BE, "utf-16"))
META = re.compile(
    rb"<meta[^>]{0,200}?charset\s*=\s*[\"']?\s*([^\s;\"'/>]+)|<\?xml[^>]{0,100}?encoding\s*=\s*[\"']([^\"']+)", re.IGNORECASE
)

_LABELS = {
    "utf-8": "utf-8 utf8 unicode-1-1-utf-8 unicode11utf8 x-unicode20utf8",
    "cp1252": "windows-1252 cp1252 x-cp1252 iso-8859-1 iso8859-1 iso_8859-1 iso-8859-1:1987 latin1 latin-1 l1 ascii us-ascii "
    "ansi_x3.4-1968 cp819 ibm819 iso-ir-100 csisolatin1",
    "cp1250": "windows-1250 cp1250 x-cp1250",
    "cp1251": "windows-1251 cp1251 x-cp1251 win-1251",
    "cp1253": "windows-1253 cp1253 x-cp1253",
    "cp1254": "windows-1254 cp1254 x-cp1254 iso-8859-9 iso8859-9 latin5 latin-5 l5",
    "cp1255": "windows-1255 cp1255 x-cp1255",
    "cp1256": "windows-1256 cp1256 x-cp1256",
    "cp1257": "windows-1257 cp1257 x-cp1257",
    "cp1258": "windows-1258 cp1258 x-cp1258",
    "cp874": "windows-874 tis-620 iso-8859-11 iso8859-11 dos-874",
    "iso8859-2": "iso-8859-2 iso8859-2 iso_8859-2 latin2 latin-2 l2",
    "iso8859-3": "iso-8859-3 iso8859-3 latin3",
    "iso8859-4": "iso-8859-4 iso8859-4 latin4",
    "iso8859-5": "iso-8859-5 iso8859-5 iso_8859-5 cyrillic",
    "iso8859-6": "iso-8859-6 iso8859-6 arabic asmo-708 ecma-114",
    "iso8859-7": "iso-8859-7 iso8859-7 iso_8859-7 greek greek8 elot_928 ecma-118",
    "iso8859-8": "iso-8859-8 iso8859-8 iso-8859-8-i iso-8859-8-e hebrew logical visual",
    "iso8859-10": "iso-8859-10 iso8859-10 latin6",
    "iso8859-13": "iso-8859-13 iso8859-13",
    "iso8859-14": "iso-8859-14 iso8859-14",
    "iso8859-15": "iso-8859-15 iso8859-15 iso_8859-15 latin9 latin-9 l9",
    "iso8859-16": "iso-8859-16 iso8859-16",
    "koi8-r": "koi8-r koi8 koi8_r koi cskoi8r",
    "koi8-u": "koi8-u koi8-ru",
    "cp866": "ibm866 cp866 866",
    "mac-roman": "macintosh mac x-mac-roman",
    "mac-cyrillic": "x-mac-cyrillic x-mac-ukrainian",
    "gb18030": "gb18030 gbk gb2312 gb_2312 gb_2312-80 gb2312-80 x-gbk cp936 chinese csgb2312 iso-ir-58",
    "big5hkscs": "big5 big5-hkscs big-5 cn-big5 x-x-big5 csbig5 cp950",
    "cp932": "shift_jis shift-jis sjis x-sjis ms_kanji ms932 windows-31j cp932 csshiftjis",
    "euc_jp": "euc-jp eucjp x-euc-jp x-euc cseucpkdfmtjapanese",
    "iso2022_jp_2": "iso-2022-jp csiso2022jp",
    "cp949": "euc-kr euckr korean ks_c_5601-1987 ks_c_5601-1989 ksc5601 ksc_5601 windows-949 cp949 cseuckr",
    "utf-16-le": "utf-16 utf-16le unicode ucs-2 csunicode",
    "utf-16-be": "utf-16be unicodefffe",
}
CODECS = {label: codec for codec, labels in _LABELS.items() for label in labels.split()}
"""Labels of the WHATWG Encoding standard, section 4.2, as Python codecs: the supersets that browsers read them as."""


def codec_of(label: str | None) -> str | None:
    """The codec that a label means on the web; None for unknown labels."""
    return CODECS.get(label.strip().strip("\"'").lower()) if label else None


FREQUENT = (
    "的一是不了在人有我他这个们中来上大为和国地到以说时要就出会可也你对生能而子那得于着下自之年"  # Chinese, simplified
    "這個們來為國說時會對於過發後學經點開關無現實從還進種樣裡"  # traditional
    "のにはをたがでてとしれさいるんもなかっすまこ日本ー"  # Japanese
    "이다는에을의가고하은를로지한도서사기어리나대인자시해라아있부"  # Korean
    "оеаинтсрвлкмдп"  # Russian and its neighbours
    "αοιετσνηυρπκςό"  # Greek
)
"""Characters that make up much of any running text in their languages; in a misread text they are rare."""

WRONG, LATIN, OTHER, SMALL, CAPITAL, LETTER, SIGN, ACCENTED, KANA, OFTEN, *FAMILIES = (1 << bit for bit in range(13))
LEAST = (0.06, 0.6, 0.6)
"""The least share of frequent characters among 40 or more of a family. Right readings of the development crawl have 0.08,
0.75 and 0.72 at least."""
_KINDS = {
    WRONG: "[\ufffd\x80-\x9f\ue000-\uf8ff"  # undecodable, C1 controls, private use
    "\u0530-\u058f\u0700-\u08ff]",  # scripts that no legacy charset has
    LATIN: "[A-Za-zÀ-ɏ]",
    OTHER: "[\u0370-\u06ff\u0e00-\u0e7f]",
    SMALL: "[α-ωάέήίόύώа-яё]",
    CAPITAL: "[Α-ΩА-ЯЁ]",
    LETTER: "[A-Za-zÀ-ɏ\u0370-\u06ff]",
    SIGN: "[¡-ª¬®-´¶¸-¿×÷†-•‰€№\u2500-\u259f]",
    ACCENTED: "[À-ɏ]",
    KANA: "[ｦ-ﾟ]",
    FAMILIES[0]: "[\u3041-\u30ff\u3400-\u9fff\uac00-\ud7a3]",
    FAMILIES[1]: "[А-яЁё]",
    FAMILIES[2]: "[Ά-ώ]",
}
RUN_GAP = 12
"""ASCII bytes that are kept before and after others."""

WIDE = ("cp949", "gb18030", "big5hkscs", "cp932", "euc_jp")
"""Tried last: their readings are either full of faults or right, and uchardet misses short Korean ones."""

CONTRADICTED = 0.12
"""Faults per non-ASCII character over which a claim is doubted. Right readings of the development crawl have 0.05 at most."""


def decode(html: bytes, header_charset: str | None) -> tuple[str, str]:
    """Text of a page and the name of the codec that was used; bytes that do not fit become U+FFFD.

    Order of evidence: byte order mark; UTF-8 where it holds; two-byte and escape encodings, which show in the bytes;
    the labels of header, then markup; statistics (uchardet). A label is passed over when its reading is full of faults
    and another one's is not. ISO-8859-1 in a header is what servers say when they know nothing, and asks last.
    """
    for mark, codec in BOMS:
        if html.startswith(mark):
            return html.decode(codec, "replace"), codec
    wide = _two_bytes(html)
    if wide is not None:
        return html.decode(wide, "replace"), wide
    if b"\x1b$" in html or b"\x1b(J" in html:
        return _escaped(html)
    try:
        return html.decode(), "utf-8"
    except UnicodeDecodeError:
        codec = "utf-8" if _is_damaged_utf8(html) else _best(html, header_charset)
        return html.decode(codec, "replace"), codec


def _two_bytes(html: bytes) -> str | None:
    """UTF-16 without a mark: markup is ASCII, so every second byte of it is zero."""
    head = html[:HEAD]
    if head.count(0) * 4 < len(head):
        return None
    even, odd = head[::2].count(0), head[1::2].count(0)
    return "utf-16-be" if even > 4 * odd else "utf-16-le" if odd > 4 * even else None


def _escaped(html: bytes) -> tuple[str, str]:
    """ISO-2022-JP is pure ASCII to a decoder, and so is UTF-8 to it; its escape sequences give it away."""
    try:
        return html.decode("iso2022_jp_2"), "iso2022_jp_2"
    except UnicodeDecodeError:
        codec = "utf-8" if _is_damaged_utf8(html) else _best(html, None)
        return html.decode(codec, "replace"), codec


def _is_damaged_utf8(html: bytes) -> bool:
    """Whether almost every non-ASCII sequence is UTF-8: a page cut in a character, or with some stray bytes."""
    text = html.decode("utf-8", "replace")
    ascii_bytes = int(np.count_nonzero(np.frombuffer(html, np.uint8) < 128))  # each is a character of its own, come what may
    return len(text) - ascii_bytes > 5 * text.count("\ufffd")


def _best(html: bytes, header_charset: str | None) -> str:
    sample = _sample(html)
    named = META.search(html[:HEAD])
    meta = codec_of((named.group(1) or named.group(2)).decode("latin-1")) if named else None
    header = codec_of(header_charset)
    claims = [header, meta] if header != "cp1252" else [meta, header]
    chosen, least = "", 2.0
    for codec in _candidates(claims, html):
        faults = _faults(sample.decode(codec, "replace"))
        if faults <= CONTRADICTED:
            return codec
        if faults < least / 2:
            chosen, least = codec, faults
    return chosen or "cp1252"


def _candidates(claims: list[str | None], html: bytes) -> Iterator[str]:
    """Codecs in the order of trust; detection runs only when the claims before it were not believed."""
    for codec in claims:
        if codec and not codec.startswith("utf"):
            yield codec
    detected = _detected(html)
    if not detected.startswith("utf"):
        yield detected
    yield from WIDE


def _sample(html: bytes) -> bytes:
    """Non-ASCII bytes with the few bytes around them, up to 16 KiB: the rest tells nothing."""
    found = np.flatnonzero(np.frombuffer(html, np.uint8) >= 128)
    if not found.size:
        return b""
    cuts = np.flatnonzero(np.diff(found) > RUN_GAP + 1)
    starts, ends = found[np.r_[0, cuts + 1]], found[np.r_[cuts, -1]]
    parts: list[bytes] = []
    size = 0
    for start, end in zip(starts.tolist(), ends.tolist(), strict=True):
        parts.append(html[max(0, start - RUN_GAP) : end + 1 + RUN_GAP])
        size += len(parts[-1])
        if size > SAMPLE:
            break
    return b"\n".join(parts)[: 2 * SAMPLE]


def _detected(html: bytes) -> str:
    from resiliparse.parse.encoding import detect_encoding

    name = detect_encoding(html, max_len=1 << 18) or "utf-8"
    return codec_of(name.replace("_", "-")) or codec_of(name) or codecs.lookup(name).name


@functools.cache
def _kinds() -> NDArray[np.uint16]:
    """What each character of the basic plane is, as bits; one more entry for all others."""
    plane = "".join(map(chr, range(0x10000)))
    table = np.zeros(0x10001, np.uint16)
    for bit, pattern in _KINDS.items():
        table[[ord(char) for char in re.findall(pattern, plane)]] |= bit
    table[[ord(char) for char in plane if char.lower() in FREQUENT]] |= OFTEN
    return table


def _faults(text: str) -> float:
    """The share of non-ASCII characters that stand where no writer puts them.

    Those are: what no page holds; two scripts in one word; a small letter before a capital (the halves of KOI8 exchanged); a
    sign between letters; three accented letters in a row; single half-width kana. Half of a family's letters count where
    its frequent ones are rare.
    """
    points = np.frombuffer(text.encode("utf-32-le", "surrogatepass"), np.uint32)
    foreign = int(np.count_nonzero(points > 127))
    if not foreign:
        return 0.0
    kinds = np.zeros(points.size + 2, np.uint16)
    kinds[1:-1] = _kinds()[np.minimum(points, 0x10000)]
    before, here, after = kinds[:-2], kinds[1:-1], kinds[2:]
    wrong = (here & WRONG > 0) | ((here & KANA > 0) & (after & KANA == 0))
    for left, right in ((LATIN, OTHER), (OTHER, LATIN), (SMALL, CAPITAL)):
        wrong |= (here & left > 0) & (after & right > 0)
    for middle, beside in ((SIGN, LETTER), (ACCENTED, ACCENTED)):
        wrong |= (here & middle > 0) & (before & after & beside > 0)
    faults = int(np.count_nonzero(wrong)) / foreign
    for family, least in zip(FAMILIES, LEAST, strict=True):
        letters = int(np.count_nonzero(here & family))
        if letters >= 40 and int(np.count_nonzero((here & family > 0) & (here & OFTEN > 0))) < least * letters:
            faults += 0.5 * letters / foreign
    return faults
