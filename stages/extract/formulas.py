"""Formulas in a page's bytes turned into LaTeX text before its blocks are read.

Sources, best first: a TeX annotation inside MathML (KaTeX, MathJax, Wikipedia), the TeX in `alttext`, presentation MathML put
into LaTeX here, the script elements of MathJax 2, distill's `<d-math>`, and the alternative text of formula images. Formulas
already written between delimiters are text and stay as they are. Inline formulas come out as $...$, displayed ones as $$...$$.
"""

from __future__ import annotations

import re
from html import escape, unescape

_TAG = re.compile(rb"<(/?)(?:(?:\w{1,9}:)?(math)|(d-math)|(script)|(img))(?=[\s/>])", re.IGNORECASE)
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

HINTS = (b"math", b"latex", b"mimetex", b"cht=tx")
"""No formula is missed by looking for these first, and a page without them costs a few memory scans."""


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
    if not any(hint in html for hint in HINTS):
        return html
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


_PART = re.compile(r"<(/?)(?:\w{1,9}:)?([a-zA-Z]+)([^>]*?)(/?)>|([^<]+)")
_FENCE = re.compile(r"\b(open|close|separators)\s*=\s*[\"']([^\"']*)[\"']")

SYMBOLS = {
    "α": "alpha", "β": "beta", "γ": "gamma", "δ": "delta", "ε": "varepsilon", "ϵ": "epsilon", "ζ": "zeta", "η": "eta", "θ": "theta",
    "ι": "iota", "κ": "kappa", "λ": "lambda", "μ": "mu", "ν": "nu", "ξ": "xi", "π": "pi", "ρ": "rho", "σ": "sigma", "ς": "varsigma",
    "τ": "tau", "υ": "upsilon", "φ": "varphi", "ϕ": "phi", "χ": "chi", "ψ": "psi", "ω": "omega", "ϑ": "vartheta", "Γ": "Gamma",
    "Δ": "Delta", "Θ": "Theta", "Λ": "Lambda", "Ξ": "Xi", "Π": "Pi", "Σ": "Sigma", "Υ": "Upsilon", "Φ": "Phi", "Ψ": "Psi", "Ω": "Omega",
    "∑": "sum", "∏": "prod", "∐": "coprod", "∫": "int", "∬": "iint", "∭": "iiint", "∮": "oint", "∂": "partial", "∇": "nabla",
    "∞": "infty", "±": "pm", "∓": "mp", "×": "times", "÷": "div", "·": "cdot", "⋅": "cdot", "∗": "ast", "∘": "circ", "∙": "bullet",
    "≤": "le", "≥": "ge", "≠": "ne", "≈": "approx", "≡": "equiv", "∼": "sim", "≃": "simeq", "≅": "cong", "∝": "propto", "≪": "ll",
    "≫": "gg", "→": "to", "←": "leftarrow", "↔": "leftrightarrow", "⇒": "Rightarrow", "⇐": "Leftarrow", "⇔": "Leftrightarrow",
    "↦": "mapsto", "⟶": "longrightarrow", "⟹": "Longrightarrow", "⇌": "rightleftharpoons", "↑": "uparrow", "↓": "downarrow",
    "∈": "in", "∉": "notin", "∋": "ni", "⊂": "subset", "⊆": "subseteq", "⊃": "supset", "⊇": "supseteq", "∪": "cup", "∩": "cap",
    "∖": "setminus", "∅": "emptyset", "∀": "forall", "∃": "exists", "¬": "neg", "∧": "wedge", "∨": "vee", "⊕": "oplus", "⊗": "otimes",
    "⊥": "perp", "∥": "parallel", "∠": "angle", "ℏ": "hbar", "ℓ": "ell", "ℜ": "Re", "ℑ": "Im", "ℵ": "aleph", "′": "prime",
    "…": "ldots", "⋯": "cdots", "⋮": "vdots", "⋱": "ddots", "⟨": "langle", "⟩": "rangle", "⌊": "lfloor", "⌋": "rfloor",
    "⌈": "lceil", "⌉": "rceil", "‖": "|", "†": "dagger", "√": "surd", "⊢": "vdash", "⊨": "models", "△": "triangle", "°": "circ",
}  # fmt: skip
_LITERAL = {"−": "-", "ℝ": r"\mathbb{R}", "ℕ": r"\mathbb{N}", "ℤ": r"\mathbb{Z}", "ℚ": r"\mathbb{Q}", "ℂ": r"\mathbb{C}"}
_LITERAL |= {"{": r"\{", "}": r"\}", "%": r"\%", "#": r"\#", "&": r"\&", "\\": r"\backslash ", "$": r"\$", "_": r"\_"}
_HIDDEN = dict.fromkeys("\u2061\u2062\u2063\u2064\u200b\u200a\u2009\u2002\u2003\xa0", " ")
_TABLE = str.maketrans({**{sign: f"\\{name} " for sign, name in SYMBOLS.items()}, **_LITERAL, **_HIDDEN})
_FUNCTIONS = frozenset(
    ["sin", "cos", "tan", "cot", "sec", "csc", "arcsin", "arccos", "arctan", "sinh", "cosh", "tanh", "log", "ln", "exp", "lim", "max", "min", "sup", "inf", "det", "dim", "ker", "gcd", "deg", "arg", "Pr"]
)
_ACCENTS = {
    "^": "hat", "ˆ": "hat", "~": "tilde", "˜": "tilde", "¯": "overline", "‾": "overline", "→": "vec", "⃗": "vec", "˙": "dot",
    "¨": "ddot", "⏞": "overbrace", "―": "overline", "_": "overline", "^^": "widehat",
}  # fmt: skip


def _symbols(text: str) -> str:
    return " ".join(unescape(text).translate(_TABLE).split())


def _leaf(name: str, raw: str) -> str:
    """A token element."""
    text = " ".join(unescape(raw).split())
    if name in ("mtext", "ms"):
        return f"\\text{{{text}}}" if text.strip() else "\\ "
    if name == "mi" and text in _FUNCTIONS:
        return f"\\{text}"
    if name == "mi" and len(text) > 1 and text.isascii() and text.isalpha():
        return f"\\mathrm{{{text}}}"
    if name == "mo" and text in _FUNCTIONS:
        return f"\\{text}"
    return _symbols(raw)


def _group(text: str) -> str:
    """An argument, in braces unless it is one character."""
    return text if len(text) == 1 else f"{{{text}}}"


def _over(base: str, top: str) -> str:
    bare = top.strip().replace("\\to", "→")
    if bare in _ACCENTS:
        return f"\\{_ACCENTS[bare]}{{{base}}}"
    return f"{base}^{_group(top)}" if _limits(base) else f"\\overset{{{top}}}{{{base}}}"


def _limits(base: str) -> bool:
    return base.strip() in {"\\sum", "\\prod", "\\int", "\\lim", "\\max", "\\min", "\\sup", "\\inf", "\\oint", "\\coprod"}


def _fenced(parts: list[str], attributes: str) -> str:
    named = dict(_FENCE.findall(attributes))
    comma = unescape(named.get("separators", ","))[:1] or ""
    opening, closing = _symbols(named.get("open", "(")) or ".", _symbols(named.get("close", ")")) or "."
    return f"\\left{opening} {comma.join(parts)} \\right{closing}"


def _scripts(parts: list[str]) -> str:
    """`mmultiscripts`: base, then pairs of sub- and superscripts."""
    base, rest = parts[0], [part for part in parts[1:] if part != "\0"]
    marks = "".join(f"{sign}{_group(part)}" for sign, part in zip("_^" * len(rest), rest, strict=False) if part)
    return base + marks


def _element(name: str, parts: list[str], attributes: str) -> str:
    """One MathML element from the LaTeX of its children."""
    match name, parts:
        case "mfrac", [top, bottom]:
            return f"\\frac{{{top}}}{{{bottom}}}"
        case "msup", [base, up]:
            return f"{_group(base) if ' ' in base else base}^{_group(up)}"
        case "msub", [base, low]:
            return f"{base}_{_group(low)}"
        case (("msubsup" | "munderover"), [base, low, up]):
            return f"{base}_{_group(low)}^{_group(up)}"
        case "munder", [base, low]:
            return f"{base}_{_group(low)}" if _limits(base) else f"\\underset{{{low}}}{{{base}}}"
        case "mover", [base, top]:
            return _over(base, top)
        case "mroot", [base, degree]:
            return f"\\sqrt[{degree}]{{{base}}}"
        case "msqrt", _:
            return f"\\sqrt{{{' '.join(parts)}}}"
        case "mtable", _:
            return "\\begin{matrix} " + " \\\\ ".join(parts) + " \\end{matrix}"
        case (("mtr" | "mlabeledtr"), _):
            return " & ".join(parts)
        case "mfenced", _:
            return _fenced(parts, attributes)
        case "mmultiscripts", [_, *_]:
            return _scripts(parts)
        case "semantics", [first, *_]:
            return first
        case (("mphantom" | "annotation" | "none"), _):
            return ""
        case _:
            return " ".join(part for part in parts if part)


_LEAVES = frozenset(("mi", "mn", "mo", "mtext", "ms"))


def latex_of(mathml: str) -> str:
    """Presentation MathML (what stands inside `<math>`) as LaTeX: a stack and no recursion, unknown elements are rows."""
    stack: list[tuple[str, list[str], str]] = [("math", [], "")]
    for match in _PART.finditer(mathml):
        closing, name, attributes, single, text = match.groups()
        if text is not None:
            if stack[-1][0] in _LEAVES:
                stack[-1][1].append(text)
            continue
        name = name.lower()
        if not closing:
            stack.append((name, [], attributes))
        if (closing or single) and len(stack) > 1:
            top, parts, held = stack.pop()
            written = _leaf(top, "".join(parts)) if top in _LEAVES else _element(top, parts, held)
            stack[-1][1].append(written)
    while len(stack) > 1:
        top, parts, held = stack.pop()
        stack[-1][1].append(_element(top, parts, held))
    return " ".join(part for part in stack[0][1] if part)
