"""Names of HTML elements, attribute tokens and entities as numbers, in tables that the byte kernels look up.

Everything here is plain data made once at import. A table is open addressing over 64-bit FNV-1a hashes of lower-cased
ASCII names; 0 marks an empty slot. The order of `TAGS` enters the trained model (the tag is a feature): append only.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from html.entities import html5

import numpy as np
from numpy.typing import NDArray

BLOCK, VOID, RAW, SKIP = 1, 2, 4, 8
"""BLOCK begins and ends a text block, VOID has no content, RAW ends at its own end tag only, SKIP hides its subtree."""

_BLOCKS = (
    "div p li ul ol table tr td th section article header footer nav aside main h1 h2 h3 h4 h5 h6 dl dt dd form fieldset "
    "figure figcaption blockquote pre address details summary dialog center caption thead tbody tfoot legend button "
    "hgroup menu dir noscript search body"
)
_VOIDS = "br hr img input meta link area base col embed source track wbr param"
_RAWS = "script style textarea title iframe noembed noframes xmp"
_SKIPS = "svg math template select datalist canvas audio video object mjx-math"
_INLINES = "a b strong em i code span html head sup sub small label time font d-math m:math mml:math"

TAGS: tuple[str, ...] = ("", *_BLOCKS.split(), *_VOIDS.split(), *_RAWS.split(), *_SKIPS.split(), *_INLINES.split())
ID: Mapping[str, int] = {name: number for number, name in enumerate(TAGS)}
KIND: NDArray[np.uint8] = np.zeros(len(TAGS), np.uint8)
for _names, _kind in ((_BLOCKS, BLOCK), (_VOIDS, VOID), (_RAWS, RAW), (_SKIPS, SKIP)):
    KIND[[ID[name] for name in _names.split()]] = _kind

ROLES: Mapping[str, str] = {
    "hidden": "hidden hide none invisible sronly screen offscreen clip",
    "navigation": "nav navigation menu navbar breadcrumb breadcrumbs pagination pager tabs toc sitemap",
    "edge": "footer foot header head banner top bottom masthead topbar legal copyright contentinfo",
    "side": "sidebar side aside rail widget widgets column complementary secondary",
    "related": "related recommend recommended recommendations more popular trending latest also similar recent most next prev",
    "share": "share sharing social socials facebook twitter follow addthis whatsapp like likes vote votes",
    "comment": "comment comments disqus respond replies reply discussion",
    "promotion": "ad ads advert advertisement sponsor sponsored promo promotion banner newsletter subscribe "
    "subscription signup donate cta",
    "consent": "cookie cookies consent gdpr modal popup overlay dialog login signin paywall",
    "content": "content article post entry body story main text articlebody description copy richtext prose markdown wysiwyg",
    "post": "message messages thread topic question answer posts review reviews postbody msg answercell",
    "goods": "product products price cart buy shop item items card cards grid tile tiles list listing result results catalog",
    "byline": "author byline date time meta timestamp published tag tags category categories user username avatar profile",
    "caption": "caption credit photo image gallery figure media video thumb thumbnail",
    "heading": "title headline heading subtitle lead lede summary excerpt intro teaser abstract deck hero",
    "code": "code highlight codehilite snippet syntax prettyprint",
}
"""Words of class, id, role and itemprop attributes, gathered into 16 meanings: one bit each in the mask of an element."""

SKIP_CLASSES = "katex-html mathjax mathjax_preview mathjax_display mathjax_svg mjx-chtml linenos lineno gutter line-numbers-rows"
"""Subtrees that repeat what stands elsewhere (rendered formulas) or that are not text (line numbers of code)."""


def fnv(name: bytes) -> int:
    """64-bit FNV-1a, never 0."""
    value = 0xCBF29CE484222325
    for byte in name:
        value = ((value ^ byte) * 0x100000001B3) & 0xFFFFFFFFFFFFFFFF
    return value or 1


Lookup = tuple[NDArray[np.uint64], NDArray[np.int32]]


def table(entries: Iterable[tuple[str, int]], size: int) -> Lookup:
    """Open addressing table of `size` slots (a power of two, at least twice the entries): hashes and values."""
    keys, values = np.zeros(size, np.uint64), np.zeros(size, np.int32)
    for name, value in entries:
        hashed = fnv(name.encode())
        slot = hashed & (size - 1)
        while keys[slot] and int(keys[slot]) != hashed:
            slot = (slot + 1) & (size - 1)
        keys[slot], values[slot] = hashed, value
    return keys, values


TAG_TABLE = table(((name, number) for name, number in ID.items() if name), 512)
_ATTRIBUTES = ("class", "id", "role", "itemprop", "href", "style", "hidden", "aria-hidden", "itemtype")
ATTRIBUTE_TABLE = table(((name, number + 1) for number, name in enumerate(_ATTRIBUTES)), 64)
A_CLASS, A_ID, A_ROLE, A_ITEMPROP, A_HREF, A_STYLE, A_HIDDEN, A_ARIA, A_ITEMTYPE = range(1, 10)


def _masks() -> dict[str, int]:
    masks: dict[str, int] = {}
    for bit, words in enumerate(ROLES.values()):
        for word in words.split():
            masks[word] = masks.get(word, 0) | 1 << bit
    return masks


ROLE_TABLE = table(_masks().items(), 1024)
SKIP_TABLE = table(((name, 1) for name in SKIP_CLASSES.split()), 64)
ENTITY_TABLE = table(((name[:-1], ord(text)) for name, text in html5.items() if name[-1] == ";" and len(text) == 1), 8192)
LEGACY_TABLE = table(((name, ord(text)) for name, text in html5.items() if name[-1] != ";"), 512)
"""Names that old pages write without a semicolon, and that browsers then still read (`&copy2024`)."""
WINDOWS_1252: NDArray[np.int32] = np.array(
    [ord(bytes([code]).decode("cp1252", "ignore") or "\0") for code in range(128, 160)], np.int32
)
"""Numeric references 128 to 159 mean this code page (HTML, 13.2.5.80)."""
