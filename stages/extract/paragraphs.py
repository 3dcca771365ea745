"""jusText's paragraphs and their classes (Pomikálek, "Removing Boilerplate and Duplicate Content from Web Corpora", 2011).

Same tree (lxml), same rules and same results as the library jusText 3.0.2, without its Python work for each text node:
subtrees are cut in C, stop words are counted only where they decide, and neighbours are found in one pass.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

from lxml import etree, html

BLOCKS = frozenset({
    "body", "blockquote", "caption", "center", "col", "colgroup", "dd", "div", "dl", "dt", "fieldset", "form", "legend", "optgroup",
    "option", "p", "pre", "table", "td", "textarea", "tfoot", "th", "thead", "tr", "ul", "li", "h1", "h2", "h3", "h4", "h5", "h6",
})  # fmt: skip
CUT = ("head", "script", "style", "base", "applet", "button", "input", "select", "textarea", etree.Comment, etree.PI)
"""Elements whose content is no text."""
DISSOLVED = ("form", "iframe", "embed", "layer", "object", "param")
"""Elements that vanish, while what they hold stays."""

HEADING = re.compile(r"\bh\d\b")
SPACE = re.compile(r"\s+")


@dataclass(slots=True)
class Paragraph:
    """A run of text without a block boundary; `raw` are its text nodes, `linked` the characters that stand in links."""

    heading: bool
    in_select: bool
    raw: list[str]
    linked: int
    words: list[str] = field(default_factory=list)
    length: int = 0

    @property
    def text(self) -> str:
        """The text as jusText gives it: runs of white space are one line feed if they hold one, else one space."""
        return SPACE.sub(lambda run: "\n" if "\n" in run[0] or "\r" in run[0] else " ", "".join(self.raw).strip())


@dataclass(frozen=True)
class Limits:
    """jusText's parameters; lengths in characters, densities as shares of words or characters."""

    length_low: int = 70
    length_high: int = 200
    stopwords_low: float = 0.30
    stopwords_high: float = 0.32
    max_link_density: float = 0.2
    max_heading_distance: int = 200
    headings: bool = True


def tree_of(page: str) -> Any:
    """The tree that jusText builds; None for a page without any element."""
    parser = html.HTMLParser()
    try:
        return html.fromstring(page, parser=parser)
    except etree.ParserError:
        return None
    except ValueError:
        # lxml refuses text with an XML encoding declaration and NUL; bytes it takes.
        return html.fromstring(page.encode("utf-8", "replace"), parser=html.HTMLParser())


def paragraphs(root: Any) -> list[Paragraph]:
    """Cut a tree (which is changed) into paragraphs."""
    if root.tag in CUT:
        return []
    etree.strip_elements(root, *CUT, with_tail=False)
    etree.strip_tags(root, *DISSOLVED)
    if root.tag in DISSOLVED:
        root.tag = "div"
    root.tail = None
    return _cut(root)


class _Kinds(dict[str, tuple[int, int, int]]):
    """For a tag: 2 block, 1 br, -1 a, 0 other; and whether jusText sees a heading or a select box in its name."""

    def __missing__(self, name: str) -> tuple[int, int, int]:
        kind = 2 if name in BLOCKS else {"br": 1, "a": -1}.get(name, 0)
        self[name] = kind, int(HEADING.search(name) is not None), int("select" in name)
        return self[name]


_KINDS = _Kinds()


def _cut(root: Any) -> list[Paragraph]:
    """JusText's handler of SAX events, quirks included: white space between inline elements is dropped.

    One loop over local names, since it runs for every node of every page.
    """
    done: list[Paragraph] = []
    raw: list[str] = []
    solid = link = br = heads = boxed = False
    linked = headings = selects = 0
    for event, element in etree.iterwalk(root, events=("start", "end")):
        kind, heading, select = _KINDS[element.tag]
        if event == "start":
            text = element.text
            headings += heading
            selects += select
            cuts = kind == 2 or (kind == 1 and br)
            if not cuts:
                br = kind == 1
                link = link or kind < 0
                if br:
                    raw.append(" ")
        else:
            text = element.tail
            headings -= heading
            selects -= select
            cuts = kind == 2
            link = link and kind >= 0
        if cuts:
            if solid:
                done.append(Paragraph(heads, boxed, raw, linked))
            raw, linked, solid = [], 0, False
            heads, boxed = headings > 0, selects > 0
        if text and not text.isspace():
            raw.append(text)
            solid, br = True, False
            if link:
                linked += len(" ".join(text.split())) + text[0].isspace() + text[-1].isspace()
    return [*done, Paragraph(heads, boxed, raw, linked)] if solid else done


def context_free(found: Sequence[Paragraph], stopwords: frozenset[str], limits: Limits) -> list[str]:
    """First classes: good, neargood, short or bad, each from the paragraph alone."""
    return [_alone(paragraph, stopwords, limits) for paragraph in found]


def _alone(paragraph: Paragraph, stopwords: frozenset[str], limits: Limits) -> str:
    words = paragraph.words = "".join(paragraph.raw).split()
    length = paragraph.length = sum(map(len, words)) + max(len(words) - 1, 0)
    if length and paragraph.linked / length > limits.max_link_density:
        return "bad"
    if paragraph.in_select or any("\xa9" in word or "&copy" in word for word in words):
        return "bad"
    if length < limits.length_low:
        return "bad" if paragraph.linked else "short"
    density = sum(word.lower() in stopwords for word in words) / len(words) if words else 0
    if density >= limits.stopwords_high:
        return "good" if length > limits.length_high else "neargood"
    return "neargood" if density >= limits.stopwords_low else "bad"


def in_context(found: Sequence[Paragraph], first: Sequence[str], limits: Limits) -> list[str]:
    """Final classes, good or bad: short and near-good paragraphs go with their neighbours, headings with the text below.

    The library means to promote short headings first as well, but looks at classes that are not yet set: left out.
    """
    classes = _short(first)
    _near_good(classes)
    for at, kind in enumerate(classes):
        revisable = found[at].heading and limits.headings and first[at] != "bad"
        if revisable and kind == "bad" and _leads_to_good(found, classes, at, limits):
            classes[at] = "good"
    return classes


def _leads_to_good(found: Sequence[Paragraph], classes: Sequence[str], at: int, limits: Limits) -> bool:
    distance = 0
    for below in range(at + 1, len(found)):
        if distance > limits.max_heading_distance:
            return False
        if classes[below] == "good":
            return True
        distance += found[below].length
    return False


def _nearest(classes: Sequence[str], counted: frozenset[str]) -> Iterator[str]:
    """For each place the nearest class before it that counts; bad where there is none."""
    last = "bad"
    for kind in classes:
        yield last
        if kind in counted:
            last = kind


def _short(classes: Sequence[str]) -> list[str]:
    sure, near = frozenset(("good", "bad")), frozenset(("good", "bad", "neargood"))
    back = list(reversed(classes))
    above, above_near = list(_nearest(classes, sure)), list(_nearest(classes, near))
    below, below_near = list(_nearest(back, sure))[::-1], list(_nearest(back, near))[::-1]
    after = list(classes)
    for at, kind in enumerate(classes):
        if kind == "short":
            sides = {above[at], below[at]}
            toward_near = (above[at] == "bad" and above_near[at] == "neargood") or (
                below[at] == "bad" and below_near[at] == "neargood"
            )
            after[at] = "good" if sides == {"good"} or (sides != {"bad"} and toward_near) else "bad"
    return after


def _near_good(classes: list[str]) -> None:
    """In place and downwards: what has been decided above counts for the next."""
    below = list(_nearest(list(reversed(classes)), frozenset(("good", "bad"))))[::-1]
    above = "bad"
    for at, kind in enumerate(classes):
        if kind == "neargood":
            classes[at] = "bad" if (above, below[at]) == ("bad", "bad") else "good"
        if classes[at] in {"good", "bad"}:
            above = classes[at]
