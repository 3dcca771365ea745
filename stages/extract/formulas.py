"""Formulas in a page's bytes turned into LaTeX text before its blocks are read.

Sources, best first: a TeX annotation inside MathML (KaTeX, MathJax, Wikipedia), the TeX in `alttext`, presentation MathML put
into LaTeX here, the script elements of MathJax 2, distill's `<d-math>`, and the alternative text of formula images. Formulas
already written between delimiters are text and stay as they are. Inline formulas come out as $...$, displayed ones as $$...$$.
"""

from __future__ import annotations

import re
from html import escape, unescape

from stages.extract.latex import latex_of

_TAG = re.compile(rb"<(/?)(?:(?:m(?:ml)?:)?(math)|(d-math)|(script)|(img))(?=[\s/>])", re.IGNORECASE)
_SCRIPT_END = re.compile(rb"</script", re.IGNORECASE)
_ANNOTATION = re.compile(rb"<(?:\w{1,9}:)?annotation\s[^>]{0,200}?tex[^>]{0,50}>([^<]*)<", re.IGNORECASE)
_ALTTEXT = re.compile(rb"\balttext\s*=\s*(?:\"([^\"]*)\"|'([^']*)')", re.IGNORECASE)
_ALT = re.compile(rb"\balt\s*=\s*(?:\"([^\"]*)\"|'([^']*)')", re.IGNORECASE)
_BLOCK = re.compile(rb"\bdisplay\s*=\s*[\"']?(?:block|true)|\bmode\s*=\s*[\"']?display|\bblock\b", re.IGNORECASE)
_FORMULA_IMAGE = re.compile(
    rb"\bclass\s*=\s*[\"'][^\"']*(?:latex|math)|latex\.codecogs|/cgi-bin/(?:mathtex|mimetex)|latex\.php|/math/render/"
    rb"|chart\?cht=tx",
    re.IGNORECASE,
)
_TEXLIKE = re.compile(rb"[\\^_={}]|^\W?\w\W?$")
_STYLE = re.compile(r"^\{\\(?:display|text)style\s+(.*)\}$", re.DOTALL)
_DELIMITED = re.compile(r"^(?:\$\$?|\\\(|\\\[)(.*?)(?:\$\$?|\\\)|\\\])$", re.DOTALL)


def _text(tex: str, *, display: bool) -> bytes:
    """LaTeX as text of a page; displayed formulas stand on a line of their own."""
    tex = tex.strip()
    for pattern in (_DELIMITED, _STYLE):
        if found := pattern.match(tex):
            tex = found[1].strip()
    if not tex:
        return b" "
    written = escape(" ".join(tex.split()), quote=False)
    return (f" <br>$${written}$$<br> " if display else f"${written}$").encode()


def _decoded(raw: bytes) -> str:
    return unescape(raw.decode("utf-8", "replace"))


def _of_mathml(attributes: bytes, content: bytes) -> bytes:
    display = bool(_BLOCK.search(attributes))
    if annotation := _ANNOTATION.search(content):
        return _text(_decoded(annotation[1]), display=display)
    if alttext := _ALTTEXT.search(attributes):
        return _text(_decoded(alttext[1] or alttext[2] or b""), display=display)
    return _text(latex_of(content.decode("utf-8", "replace")), display=display)


def _of_image(attributes: bytes) -> bytes | None:
    alt = _ALT.search(attributes)
    if alt is None or not _FORMULA_IMAGE.search(attributes):
        return None
    value = alt[1] or alt[2] or b""
    return _text(_decoded(value), display=False) if _TEXLIKE.search(value.strip()) else None


def _script(html: bytes, attributes: bytes, at: int) -> tuple[bytes | None, int]:
    """A script that ends its start tag at `at`: its formula, if it is one, and the position after the script."""
    end = _SCRIPT_END.search(html, at)
    stop = end.start() if end else len(html)
    after = html.find(b">", stop) + 1 or len(html)
    if b"math/tex" not in attributes and b"math/latex" not in attributes:
        return None, after
    return _text(html[at:stop].decode("utf-8", "replace"), display=bool(_BLOCK.search(attributes))), after


def write_formulas(html: bytes) -> bytes:
    """The page with its formulas as text. Pages without formulas come back as the same object.

    One pass from tag to tag that never looks back, so time is linear in bytes whatever the page holds.
    """
    images = b"mwe-math-mathml" not in html
    parts: list[bytes] = []
    written, at, opened = 0, 0, None
    while match := _TAG.search(html, at):
        start, at = match.start(), html.find(b">", match.end()) + 1
        if not at:
            break
        attributes, text, begin = html[match.end() : at - 1], None, start
        if match[4] and not match[1]:
            text, at = _script(html, attributes, at)
        elif match[5] and images:
            text = _of_image(attributes)
        elif (match[2] or match[3]) and not match[1]:
            opened = (start, at, attributes)
        elif opened and (match[2] or match[3]):
            begin, inner, attributes = opened
            content, opened = html[inner:start], None
            text = (
                _of_mathml(attributes, content) if match[2] else _text(_decoded(content), display=bool(_BLOCK.search(attributes)))
            )
        if text is not None:
            parts += [html[written:begin], text]
            written = at
    return b"".join([*parts, html[written:]]) if parts else html
