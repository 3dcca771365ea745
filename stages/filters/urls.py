"""Pages whose address is on a list, or speaks for itself."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pyarrow as pa
from pydantic import Field

from stages.contract import Params, file, map_stage

_APART = re.compile("[^a-zA-Z0-9]+")


class Blocked(Params):
    """Parameters of `blocked`. Every list may be given in place, as a file with one entry a line (# begins a comment), or both."""

    domains: tuple[str, ...] = Field((), description="Registered domains or host names; their subdomains are blocked with them.")
    domains_file: str | None = file(None, "File of domains.")
    urls: tuple[str, ...] = Field((), description="Whole addresses, as they are.")
    urls_file: str | None = file(None, "File of addresses.")
    hard_words: tuple[str, ...] = Field((), description="One of these words in the address blocks it.")
    hard_words_file: str | None = file(None, "File of hard words.")
    soft_words: tuple[str, ...] = Field((), description="Several different of these words block an address (`soft_limit`).")
    soft_words_file: str | None = file(None, "File of soft words.")
    soft_limit: int = Field(2, ge=1, description="How many different soft words block; 2 is RefinedWeb's (arXiv 2306.01116, G.1).")
    substrings: tuple[str, ...] = Field((), description="Blocks when found anywhere in the letters and digits of the address.")
    substrings_file: str | None = file(None, "File of substrings.")


class Lists(NamedTuple):
    """The lists, ready to be asked."""

    extract: Any
    domains: frozenset[str]
    urls: frozenset[str]
    hard: frozenset[str]
    soft: frozenset[str]
    substrings: Any


def _entries(listed: Iterable[str], path: str | None) -> Iterator[str]:
    yield from listed
    if path is not None:
        for line in Path(path).read_text(encoding="utf-8").splitlines():
            entry = line.strip()
            if entry and not entry.startswith("#"):
                yield entry


def _plain(entries: Iterable[str]) -> frozenset[str]:
    """Lower-cased entries without anything but letters and digits; what is empty then would match every address."""
    return frozenset(filter(None, (_APART.sub("", entry).lower() for entry in entries)))


def open_lists(params: Blocked) -> Lists:
    """Read and compile all lists: once a worker. The public suffix list is the one shipped with tldextract; no network."""
    import ahocorasick
    import tldextract

    automaton = ahocorasick.Automaton()
    for entry in sorted(_plain(_entries(params.substrings, params.substrings_file))):
        automaton.add_word(entry, entry)
    automaton.make_automaton()
    return Lists(
        tldextract.TLDExtract(suffix_list_urls=(), cache_dir=None),
        frozenset(entry.lower().rstrip(".") for entry in _entries(params.domains, params.domains_file)),
        frozenset(_entries(params.urls, params.urls_file)),
        _plain(_entries(params.hard_words, params.hard_words_file)),
        _plain(_entries(params.soft_words, params.soft_words_file)),
        automaton if len(automaton) else None,
    )


def _host_reason(url: str, lists: Lists) -> str | None:
    """`domain` for the registered domain, `subdomain` for a host name between it and the whole."""
    if not lists.domains:
        return None
    parts = lists.extract(url)
    registered = f"{parts.domain}.{parts.suffix}".strip(".").lower()
    if registered in lists.domains:
        return "domain"
    labels = [label for label in parts.subdomain.lower().split(".") if label]
    hosts = (".".join([*labels[i:], registered]) for i in range(len(labels)))
    return "subdomain" if any(host in lists.domains for host in hosts) else None


def reason(url: str, lists: Lists, soft_limit: int) -> str | None:
    """Why an address is blocked, None if it is not."""
    found = _host_reason(url, lists)
    if found is not None:
        return found
    if url in lists.urls:
        return "url"
    words = set(_APART.split(url.lower()))
    if not words.isdisjoint(lists.hard):
        return "hard_word"
    if len(words & lists.soft) >= soft_limit:
        return "soft_words"
    squeezed = _APART.sub("", url).lower()
    return "substring" if lists.substrings is not None and next(lists.substrings.iter(squeezed), None) else None


@map_stage(version=1, reads={"url": pa.string()}, writes={"drop_reason": pa.string()}, model=open_lists, libraries=("tldextract",))
def blocked(batch: pa.Table, params: Blocked, model: Lists) -> pa.Table:
    """Reasons domain, subdomain, url, hard_word, soft_words, substring, in this order, by the column `url`; null stands.

    Words are runs of letters and digits, compared without case. The kinds of lists are RefinedWeb's (arXiv 2306.01116,
    appendix G.1); none is shipped.
    """
    reasons = [reason(url, model, params.soft_limit) if url else None for url in batch["url"].to_pylist()]
    return batch.append_column("drop_reason", pa.array(reasons, pa.string()))
