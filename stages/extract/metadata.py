"""What a page says about itself: title, canonical address, language and date of publication."""

from __future__ import annotations

import re
from html import unescape
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from stages.compiled import kernel, making
from stages.extract.blocks import Page, Table
from stages.extract.markup import lower
from stages.extract.tags import ID

MOST = 2_000
"""Tags that are read; beyond lie pages that mean harm."""
LONGEST = 2048
"""Bytes of a tag or a value that are read: no field is longer in earnest."""

_META, _LINK, _TIME, _HTML = ID["meta"], ID["link"], ID["time"], ID["html"]
_ATTRIBUTE = re.compile(rb"""([a-zA-Z][\w:.-]{0,30})\s{0,9}=\s{0,9}(?:"([^"]*)"|'([^']*)'|([^\s"'>]+))""")
_JSON_DATE = re.compile(rb'"datePublished"\s{0,9}:\s{0,9}"([^"]{4,40})"')
_DATE = re.compile(
    r"(?P<year>(?:19|20)\d\d)-?(?P<month>0[1-9]|1[0-2])-?(?P<day>0[1-9]|[12]\d|3[01])(?P<time>[T ]\d\d:\d\d(?::\d\d)?)?"
)
_SLASHED = re.compile(r"(?P<year>(?:19|20)\d\d)[/.](?P<month>\d{1,2})[/.](?P<day>\d{1,2})")
_LANGUAGE = re.compile(r"[A-Za-z]{2,3}(?:[-_][A-Za-z0-9]{2,8}){0,3}")

DATES = (
    "article:published_time", "datepublished", "og:article:published_time", "dc.date.issued", "dcterms.created", "dcterms.date",
    "dc.date", "dc.date.created", "sailthru.date", "parsely-pub-date", "publishdate", "publish-date", "publish_date", "pubdate",
    "article.published", "citation_publication_date", "date",
)  # fmt: skip
"""Names under which pages give their date, best first; `date` alone often tells when the page was made."""
_STEMS = [int.from_bytes(part, "big") for part in b"date blished .created canonica og:title og:url og:local -languag".split()]
"""One of them stands in every name that is asked for; most tags hold none and need not be taken apart."""
_STEM: NDArray[np.uint64] = np.array(_STEMS, np.uint64)
_MASK: NDArray[np.uint64] = np.array([(1 << 8 * ((stem.bit_length() + 7) // 8)) - 1 for stem in _STEMS], np.uint64)
_LAST: NDArray[np.bool_] = np.isin(np.arange(256), [stem & 255 for stem in _STEMS])


class Metadata(NamedTuple):
    """Each is None when the page does not say."""

    title: str | None
    canonical_url: str | None
    language_declared: str | None
    published: str | None


def _attributes(tag: bytes) -> dict[bytes, bytes]:
    return {m[1].lower(): m[2] or m[3] or m[4] or b"" for m in _ATTRIBUTE.finditer(tag)}


def _clean(value: bytes | None) -> str | None:
    if not value:
        return None
    text = " ".join(unescape(value[:LONGEST].decode("utf-8", "ignore")).replace("\0", "").split())
    return text or None


@kernel
def _has_stem(page: NDArray[np.uint8], at: int, stop: int) -> bool:
    """Whether page[at:stop] holds a stem."""
    last = np.uint64(0)
    while at < stop:
        byte = lower(page[at])
        last = last << np.uint64(8) | np.uint64(byte)
        if _LAST[byte]:
            for n in range(_STEM.size):
                if last & _MASK[n] == _STEM[n]:
                    return True
        at += 1
    return False


@making
def _telling(page: NDArray[np.uint8], about: Table) -> NDArray[np.bool_]:
    """Which tags hold a stem, or are no `meta` and no `link`."""
    found = np.zeros(len(about), np.bool_)
    for n in range(len(about)):
        if about[n, 1] == _META or about[n, 1] == _LINK:
            found[n] = _has_stem(page, about[n, 2], min(about[n, 3], about[n, 2] + LONGEST))
        else:
            found[n] = True
    return found


def _tags(page: Page) -> dict[int, list[bytes]]:
    """What stands in the tags that tell something, by kind."""
    found: dict[int, list[bytes]] = {_HTML: [], _META: [], _TIME: []}
    about = page.about[:MOST]
    for _, tag, start, stop in about[_telling(np.frombuffer(page.html, np.uint8), about)].tolist():
        found[_META if tag == _LINK else tag].append(page.html[start : min(stop, start + LONGEST)])
    return found


def _declared(tags: list[bytes]) -> dict[str, bytes]:
    """Meta names and properties (lower case) and `link:canonical` that somebody asks for; the first of each counts."""
    found: dict[str, bytes] = {}
    for tag in map(_attributes, tags):
        if b"href" in tag:
            name, value = b"link:" + tag.get(b"rel", b"").lower(), tag[b"href"]
        else:
            name = tag.get(b"property") or tag.get(b"name") or tag.get(b"itemprop") or tag.get(b"http-equiv") or b""
            value = tag.get(b"content", b"")
        if value.strip():
            found.setdefault(name.decode("latin-1").lower(), value)
    return found


def date_of(text: str | None) -> str | None:
    """A date in ISO 8601 (`YYYY-MM-DD` or `YYYY-MM-DDThh:mm[:ss]`, the zone dropped) out of what a page wrote; None if unclear."""
    if not text:
        return None
    match = _DATE.search(text) or _SLASHED.search(text)
    if match is None:
        return None
    parts = match.groupdict()
    month, day = int(parts["month"]), int(parts["day"])
    if not (1 <= month <= 12 and 1 <= day <= 31):
        return None
    return f"{parts['year']}-{month:02}-{day:02}" + (parts.get("time") or "").replace(" ", "T")


def _published(declared: dict[str, bytes], html: bytes, times: list[bytes]) -> str | None:
    for name in DATES:
        if name in declared and (date := date_of(_clean(declared[name]))):
            return date
    start = html.find(b'"datePublished"')
    if start >= 0 and (match := _JSON_DATE.search(html, start)):
        return date_of(_clean(match[1]))
    said = (_attributes(tag).get(b"datetime") for tag in times)
    return next((date for time in said if (date := date_of(_clean(time)))), None)


def read_metadata(page: Page) -> Metadata:
    """Metadata of a page from its tags."""
    tags = _tags(page)
    declared = _declared(tags[_META])
    root = _attributes(tags[_HTML][0]) if tags[_HTML] else {}
    language = _clean(root.get(b"lang") or root.get(b"xml:lang") or declared.get("content-language") or declared.get("og:locale"))
    code = _LANGUAGE.match(language) if language else None
    return Metadata(
        title=_clean(page.title) or _clean(declared.get("og:title")),
        canonical_url=_clean(declared.get("link:canonical") or declared.get("og:url")),
        language_declared=code[0].replace("_", "-") if code else None,
        published=_published(declared, page.html, tags[_TIME]),
    )
