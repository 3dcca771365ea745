"""Presentation MathML to LaTeX, for pages that carry no TeX of their own."""

from __future__ import annotations

import re
from html import unescape

_PART = re.compile(r"<(/?)(?:\w{1,9}:)?([a-zA-Z]+)([^>]*?)(/?)>|([^<]+)")
_FENCE = re.compile(r"\b(open|close|separators)\s*=\s*[\"']([^\"']*)[\"']")

_SIGNS = """
α alpha  β beta  γ gamma  δ delta  ε varepsilon  ϵ epsilon  ζ zeta  η eta  θ theta  ι iota  κ kappa  λ lambda  μ mu
ν nu  ξ xi  π pi  ρ rho  σ sigma  ς varsigma  τ tau  υ upsilon  φ varphi  ϕ phi  χ chi  ψ psi  ω omega  ϑ vartheta
Γ Gamma  Δ Delta  Θ Theta  Λ Lambda  Ξ Xi  Π Pi  Σ Sigma  Υ Upsilon  Φ Phi  Ψ Psi  Ω Omega  ∑ sum  ∏ prod  ∐ coprod
∫ int  ∬ iint  ∭ iiint  ∮ oint  ∂ partial  ∇ nabla  ∞ infty  ± pm  ∓ mp  × times  ÷ div  · cdot  ⋅ cdot  ∗ ast  ∘ circ
∙ bullet  ≤ le  ≥ ge  ≠ ne  ≈ approx  ≡ equiv  ∼ sim  ≃ simeq  ≅ cong  ∝ propto  ≪ ll  ≫ gg  → to  ← leftarrow
↔ leftrightarrow  ⇒ Rightarrow  ⇐ Leftarrow  ⇔ Leftrightarrow  ↦ mapsto  ⟶ longrightarrow  ⟹ Longrightarrow
⇌ rightleftharpoons  ↑ uparrow  ↓ downarrow  ∈ in  ∉ notin  ∋ ni  ⊂ subset  ⊆ subseteq  ⊃ supset  ⊇ supseteq  ∪ cup
∩ cap  ∖ setminus  ∅ emptyset  ∀ forall  ∃ exists  ¬ neg  ∧ wedge  ∨ vee  ⊕ oplus  ⊗ otimes  ⊥ perp  ∥ parallel  ∠ angle
ℏ hbar  ℓ ell  ℜ Re  ℑ Im  ℵ aleph  ′ prime  … ldots  ⋯ cdots  ⋮ vdots  ⋱ ddots  ⟨ langle  ⟩ rangle  ⌊ lfloor  ⌋ rfloor
⌈ lceil  ⌉ rceil  ‖ |  † dagger  √ surd  ⊢ vdash  ⊨ models  △ triangle  ° circ
"""
SYMBOLS = dict(pair.split(" ") for line in _SIGNS.strip().splitlines() for pair in line.split("  "))
"""Signs and the LaTeX commands that set them."""

_LITERAL = {"−": "-", "ℝ": r"\mathbb{R}", "ℕ": r"\mathbb{N}", "ℤ": r"\mathbb{Z}", "ℚ": r"\mathbb{Q}", "ℂ": r"\mathbb{C}"}
_LITERAL |= {"{": r"\{", "}": r"\}", "%": r"\%", "#": r"\#", "&": r"\&", "\\": r"\backslash ", "$": r"\$", "_": r"\_"}
_HIDDEN = dict.fromkeys("\u2061\u2062\u2063\u2064\u200b\u200a\u2009\u2002\u2003\xa0", " ")
_TABLE = str.maketrans({**{sign: f"\\{name} " for sign, name in SYMBOLS.items()}, **_LITERAL, **_HIDDEN})
_NAMES = "sin cos tan cot sec csc arcsin arccos arctan sinh cosh tanh log ln exp lim max min sup inf det dim ker gcd deg arg Pr"
_FUNCTIONS = frozenset(_NAMES.split())
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


def _under(base: str, low: str) -> str:
    return f"{base}_{_group(low)}" if _limits(base) else f"\\underset{{{low}}}{{{base}}}"


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


_TEMPLATES = {
    ("mfrac", 2): "\\frac{{{0}}}{{{1}}}",
    ("mroot", 2): "\\sqrt[{1}]{{{0}}}",
}
_SCRIPTED = {"msub": "_", "msup": "^", "msubsup": "_^", "munderover": "_^"}


def _element(name: str, parts: list[str], attributes: str) -> str:
    """One MathML element from the LaTeX of its children; unknown ones are rows."""
    row = " ".join(part for part in parts if part)
    if template := _TEMPLATES.get((name, len(parts))):
        return template.format(*parts)
    if len(parts) == 1 + len(_SCRIPTED.get(name, "  " * 9)):
        return parts[0] + "".join(sign + _group(part) for sign, part in zip(_SCRIPTED[name], parts[1:], strict=True))
    match name:
        case "msqrt":
            return f"\\sqrt{{{row}}}"
        case "mover" | "munder" if len(parts) == 2:
            return _over(*parts) if name == "mover" else _under(*parts)
        case "mtable":
            return "\\begin{matrix} " + " \\\\ ".join(parts) + " \\end{matrix}"
        case "mtr" | "mlabeledtr":
            return " & ".join(parts)
        case "mfenced":
            return _fenced(parts, attributes)
        case "mmultiscripts" if parts:
            return _scripts(parts)
        case "semantics" if parts:
            return parts[0]
        case "mphantom" | "annotation" | "none":
            return ""
    return row


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
