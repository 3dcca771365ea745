"""Pages that hold code or formulas, found on raw HTML before anything is extracted.

Nemotron-CC-Code picks its pages by "fast pattern matching" that is not described, Nemotron-CC-Math by lists of addresses; the
patterns here are ours. Each names a form in which pages carry code or formulas, and must be seen to hold some: a MathJax
script without a formula, prices between dollar signs and `pre` around a poem do not count.
"""

from __future__ import annotations

import re
from typing import Literal

import pyarrow as pa
from pydantic import Field

from stages.contract import BYTES, Params, map_stage

SCRIPT = re.compile(rb"<(script|style|noscript|svg|textarea)\b[^>]*>.*?</\1\s*>|<!--.*?-->", re.DOTALL)
TEX_SCRIPT = re.compile(rb"<script[^>]{0,200}?math/(?:tex|latex|asciimath|mml)[^>]{0,100}>\s*[^\s<]")
ELEMENT = re.compile(
    rb"<(?:m(?:ml)?:)?math\b[^>]*>(?=\s*<)|<d-math\b[^>]*>\s*[^\s<]|<(?:span|div)[^>]{0,200}class=[\"'](?:katex|mwe-math)"
)
IMAGE = re.compile(
    rb"<img\b(?=[^>]{0,2000}?(?:class=[\"'][^\"']{0,100}?\b(?:latex|tex|math)\b|latex\.codecogs|/cgi-bin/math?tex|/math/render/))"
    rb"[^>]{0,2000}?alt=[\"'][^\"']{0,500}?[\\^_=]"
)
TEX = {
    b"\\(": re.compile(rb"\\\((?=[^<>]{0,200}?[\\^_=+&])[^<>]{1,400}?\\\)"),
    b"\\[": re.compile(rb"\\\[(?=[^<>]{0,200}?[\\^_=])[^<>]{1,2000}?\\\]"),
    b"$$": re.compile(rb"\$\$(?=[^$<>]{0,200}?[\\^_=])[^$<>]{1,2000}?\$\$"),
    b"\\begin{": re.compile(rb"\\begin\{(?:equation|align|eqnarray|gather|multline|split|[pbv]?matrix|cases)\*?\}"),
    b"$": re.compile(rb"\$(?<![\w$\\]\$)(?=[^$<>\n]{0,200}?(?:\\[a-z]{2,}|[\^_]\{?[\w\\]))[^\s$<>][^$<>\n]{0,200}?\$(?![\w$])"),
}
"""TeX between delimiters, by what must be in the page for it to be there."""
PRE = re.compile(rb"<pre\b([^>]*)>(.*?)</pre\s*>", re.DOTALL)
CODE = re.compile(rb"<(?:code|samp|kbd|tt)\b[^>]*>")
HIGHLIGHT = re.compile(
    rb"class=[\"'][^\"']{0,200}?(?:\blanguage-\w|\blang-\w|\bhljs\b|\bhighlight\b|codehilite|sourcecode|prettyprint|crayon-|brush:|"
    rb"syntaxhighlighter|mw-highlight|wp-block-code|blob-code|codemirror|\bcode-block)"
)
TAG = re.compile(rb"<[^>]*>")
CODELIKE = re.compile(
    rb"[;{}]\s*$|^\s*(?:def|class|import|from|return|if|for|while|function|var|let|const|public|private|static|int|void|#include|"
    rb"using|package|func|fn|echo|sudo|apt-get|pip|npm|git|cd|select|insert|create|begin|end|puts|print)\b|\w\([^)]*\)|=&gt;|==|&lt;\w|"
    rb"^\s*(?:\$|&gt;&gt;&gt;|#)\s\w|[\w\]]\s?[-+*/|&]?=\s?\S|^\s*[\w-]+:\s",
    re.MULTILINE,
)


class Technical(Params):
    """Which pages are kept."""

    keep: Literal["code", "formulas", "either"] = Field("either", description="What a page must hold.")
    min_code: int = Field(1, ge=1, description="Blocks of code that make a page one with code.")
    min_inline_code: int = Field(6, ge=1, description="... or so many pieces of code inside of text.")
    min_formulas: int = Field(1, ge=1, description="Formulas that make a page one with formulas.")
    max_bytes: int = Field(4_000_000, ge=1000, description="Bytes of a page that are looked at.")


@map_stage(
    version=1,
    reads={"html": BYTES},
    writes={"code_blocks": pa.int32(), "code_pieces": pa.int32(), "formulas": pa.int32(), "drop_reason": pa.string()},
)
def technical(batch: pa.Table, params: Technical) -> pa.Table:
    """Count blocks of code, pieces of code in text and formulas of `html`; pages without enough get no_code or no_formulas.

    Where either is asked for, the reason is nothing_technical. Bytes are looked at as they are: the patterns are ASCII.
    """
    found = [count((html or b"")[: params.max_bytes]) for html in batch["html"].to_pylist()]
    return pa.table(
        {
            "code_blocks": pa.array([one[0] for one in found], pa.int32()),
            "code_pieces": pa.array([one[1] for one in found], pa.int32()),
            "formulas": pa.array([one[2] for one in found], pa.int32()),
            "drop_reason": pa.array([_reason(one, params) for one in found], pa.string()),
        }
    )


def _reason(found: tuple[int, int, int], params: Technical) -> str | None:
    code = found[0] >= params.min_code or found[1] >= params.min_inline_code
    formulas = found[2] >= params.min_formulas
    if params.keep == "code":
        return None if code else "no_code"
    if params.keep == "formulas":
        return None if formulas else "no_formulas"
    return None if code or formulas else "nothing_technical"


def count(html: bytes) -> tuple[int, int, int]:
    """Blocks of code, pieces of code in text, formulas."""
    # Lower case once: patterns that ignore case cost five times as much.
    html = html.lower()
    if not any(hint in html for hint in HINTS):
        return 0, 0, 0
    formulas = len(TEX_SCRIPT.findall(html)) if b"math/" in html else 0
    plain = SCRIPT.sub(b" ", html)
    blocks = sum(_is_code(attributes, content) for attributes, content in PRE.findall(plain))
    if not blocks and CODE.search(plain) and HIGHLIGHT.search(plain):
        blocks = 1
    text = PRE.sub(b" ", plain)
    pieces = len(CODE.findall(text))
    if b"math" in text:
        formulas += len(ELEMENT.findall(text))
    if b"tex" in text or b"math" in text:
        formulas += len(IMAGE.findall(text))
    # Inside of code a dollar sign is a variable and a bracket a call; inside of a tag stands no text.
    text = TAG.sub(b"<>", INLINE.sub(b" ", text))
    return blocks, pieces, formulas + sum(len(pattern.findall(text)) for hint, pattern in TEX.items() if hint in text)


INLINE = re.compile(rb"<code\b.*?</code>", re.DOTALL)
HINTS = (b"<pre", b"<code", b"<samp", b"<kbd", b"<tt", b"math", b"latex", b"katex", b"\\(", b"\\[", b"$", b"\\begin{")
"""A page without any of these holds neither; most pages end here."""


def _is_code(attributes: bytes, content: bytes) -> bool:
    """Whether a preformatted block is code: marked as such, or a third of its lines read so."""
    if HIGHLIGHT.search(b"<pre " + attributes) or HIGHLIGHT.search(content[:300]):
        return True
    lines = [line for line in TAG.sub(b"", content).splitlines() if line.strip()]
    return bool(lines) and sum(CODELIKE.search(line[:300]) is not None for line in lines) * 3 >= len(lines)
