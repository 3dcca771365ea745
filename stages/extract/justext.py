"""Main text by jusText's rules, which Nemotron-CC chose for its yield (arXiv 2412.02595, section 2.1)."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import Any

import pyarrow as pa
from pydantic import Field

from stages.contract import BYTES, TEXT, Params, map_stage
from stages.ingest.charset import decode

VOTERS = 400
"""Words of a page that are looked up in the stop-lists."""
LEAST_SHARE = 0.15
"""Of the words, the share that must stand in the best stop-list. Of 222 pages in eleven languages with a list, 220 found theirs;
all 44 pages in Chinese, Japanese and Thai stayed below."""


class Justext(Params):
    """jusText's limits. The defaults are Nemotron-CC's (NeMo Curator's JusTextExtractor) and the library's own."""

    stoplist: str = Field("auto", description="Name of one of jusText's stop-lists (English, German, ...); auto: found per page.")
    length_low: int = Field(70, ge=0, description="Shorter paragraphs (characters) go with their neighbours.")
    length_high: int = Field(200, ge=0, description="Longer ones with enough stop words are good by themselves.")
    stopwords_low: float = Field(0.30, ge=0, le=1, description="Share of stop words from which a paragraph may be good.")
    stopwords_high: float = Field(0.32, ge=0, le=1, description="Share of stop words from which it is good or nearly so.")
    max_link_density: float = Field(0.2, ge=0, le=1, description="Largest share of characters in links.")
    max_heading_distance: int = Field(200, ge=0, description="Longest way in characters from a heading to the good text below it.")
    headings: bool = Field(True, description="Keep headings above good text.")


@dataclass(frozen=True)
class Stoplists:
    """All stop-lists by name, and for each word the lists it stands in."""

    words: dict[str, frozenset[str]]
    index: dict[str, tuple[str, ...]]

    def choose(self, words: list[str]) -> str | None:
        """The list in which most of the words stand (the first by name of equals); None when too few do."""
        votes = Counter(name for word in words for name in self.index.get(word, ()))
        if not votes:
            return None
        name = min(votes, key=lambda name: (-votes[name], name))
        return name if votes[name] >= LEAST_SHARE * len(words) else None


def _open(params: Justext) -> Stoplists:
    import justext

    names = sorted(justext.get_stoplists())
    if params.stoplist != "auto" and params.stoplist not in names:
        raise ValueError(f"jusText has no stop-list {params.stoplist!r}; it has {', '.join(names)}")
    lists = {name: frozenset(justext.get_stoplist(name)) for name in names}
    index: dict[str, list[str]] = {}
    for name, words in lists.items():
        for word in words:
            index.setdefault(word, []).append(name)
    return Stoplists(lists, {word: tuple(found) for word, found in index.items()})


@map_stage(
    version=1,
    reads={"html": BYTES, "charset": pa.string()},
    writes={"text": TEXT, "title": pa.string(), "stoplist": pa.string(), "drop_reason": pa.string()},
    optional=("charset",),
    libraries=("jusText", "lxml"),
    model=_open,
)
def main_text(batch: pa.Table, params: Justext, *, model: Stoplists) -> pa.Table:
    """Turn `html` (bytes; `charset` is what the server declared) into `text`, its good paragraphs parted by blank lines.

    `stoplist` names the stop-list used. Reasons: `no_main_text`, and `no_stoplist` for languages that have none.
    Paragraphs and classes equal those of the library jusText 3.0.2. One deviation from Nemotron-CC: it chooses the
    stop-list by pycld2's guess of the language, we by the words of the page that stand in each list.
    """
    pages = zip(batch["html"].to_pylist(), batch["charset"].to_pylist(), strict=True)
    rows = [_extract(html, charset, params, model) if html else (None, None, None, "no_main_text") for html, charset in pages]
    columns = zip(*rows, strict=True) if rows else ((), (), (), ())
    types = main_text.writes_of(params)
    return pa.table({name: pa.array(values, types[name]) for name, values in zip(types, columns, strict=True)})


def _extract(html: bytes, charset: str | None, params: Justext, lists: Stoplists) -> tuple[str | None, ...]:
    from stages.extract.paragraphs import Limits, context_free, in_context, paragraphs, tree_of

    root = tree_of(decode(html, charset)[0])
    if root is None:
        return None, None, None, "no_main_text"
    title = " ".join((root.findtext(".//title") or "").split()) or None
    found = paragraphs(root)
    name = params.stoplist if params.stoplist != "auto" else lists.choose(_sample(found))
    if name is None:
        return None, title, None, "no_stoplist" if found else "no_main_text"
    limits = Limits(**params.model_dump(exclude={"stoplist"}))
    classes = in_context(found, context_free(found, lists.words[name], limits), limits)
    text = "\n\n".join(paragraph.text for paragraph, kind in zip(found, classes, strict=True) if kind == "good")
    return (text, title, name, None) if text else (None, title, name, "no_main_text")


def _sample(found: list[Any]) -> list[str]:
    """The first words outside links, in lower case."""
    words: list[str] = []
    for paragraph in found:
        if not paragraph.linked:
            words += "".join(paragraph.raw).lower().split()
        if len(words) >= VOTERS:
            break
    return words[:VOTERS]
