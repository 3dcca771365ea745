"""Licences of repositories and files as SPDX expressions: texts recognised, sloppy names put right, permission decided.

Texts are matched by `licenseclassifier` (a port of Google's licensecheck, no dependencies). Measured on the licence files of
66 installed distributions that declare an SPDX expression: 58 told exactly; 3 of the others are GPL texts, which do not say
whether later versions are allowed, 3 are texts of several licences, 2 were not recognised. Expressions are parsed by
`license-expression`.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

PERMISSIVE = (
    "0BSD", "AFL-3.0", "Apache-1.1", "Apache-2.0", "Artistic-2.0", "BlueOak-1.0.0", "BSD-1-Clause", "BSD-2-Clause",
    "BSD-2-Clause-Patent", "BSD-3-Clause", "BSD-3-Clause-Clear", "BSD-3-Clause-LBNL", "BSD-4-Clause", "BSD-Source-Code", "BSL-1.0",
    "bzip2-1.0.6", "CC0-1.0", "CC-BY-4.0", "curl", "ECL-2.0", "FTL", "HPND", "ICU", "ISC", "JSON", "libpng-2.0", "MIT", "MIT-0",
    "MIT-CMU", "MIT-Modern-Variant", "MS-PL", "NCSA", "NTP", "OFL-1.1", "PHP-3.01", "PostgreSQL", "PSF-2.0", "Python-2.0",
    "Python-2.0.1", "TCL", "Unicode-DFS-2016", "Unlicense", "UPL-1.0", "W3C", "WTFPL", "X11", "Xnet", "Zlib", "ZPL-2.1",
)  # fmt: skip
"""Licences without a duty to pass on source: of the kinds in BigCode's list (Kocetkov et al. 2022, arXiv 2211.15533,
appendix B, which draws on the Blue Oak Council). No patent-only, non-commercial or share-alike licence is among them."""

FILES = re.compile(r"(?:^|[-_.])(?:licen[cs]es?|copying|unlicense|copyright)(?:[-_.].*)?$", re.IGNORECASE)
SOURCE_SUFFIX = re.compile(r"\.(?:py|c|h|cc|cpp|js|ts|go|rs|java|rb|php|cs|sh|html?|json|ya?ml)$", re.IGNORECASE)
TAG = re.compile(r"SPDX-License-Identifier:[ \t]*([A-Za-z0-9.+ ()-]+?)[ \t]*(?:\*/|-->|$)", re.MULTILINE)
HINT = re.compile(r"licen[cs]e|copyright|redistribut|public domain|permission is hereby", re.IGNORECASE)
HEAD_CHARS = 4000
"""Characters at the start of a file in which a licence header is sought."""
MAX_TEXT = 200_000


def is_license_file(path: str) -> bool:
    """Whether a file's name says that it holds a licence (LICENSE, COPYING.md, MIT-LICENSE.txt) and not code about licences."""
    name = path.rpartition("/")[2]
    return FILES.search(name) is not None and SOURCE_SUFFIX.search(name) is None


@functools.cache
def _licensing() -> Any:
    from license_expression import get_spdx_licensing

    return get_spdx_licensing()


@functools.lru_cache(maxsize=4096)
def normal(declared: str) -> str | None:
    """A declared licence as an SPDX expression (`apache-2.0` is `Apache-2.0`); None where a part of it is no known licence."""
    from license_expression import ExpressionError, ExpressionParseError

    try:
        parsed = _licensing().parse(declared, validate=False)
    except (ExpressionError, ExpressionParseError):
        return None
    if parsed is None or _licensing().unknown_license_keys(parsed):
        return None
    return str(parsed.render())


def combined(declared: Iterable[str]) -> str | None:
    """Several licences that all apply as one expression; None when there is none or one of them is unknown."""
    found = sorted({normal(one) or "" for one in declared if one})
    if not found or "" in found:
        return None
    return found[0] if len(found) == 1 else " AND ".join(f"({one})" if " " in one else one for one in found)


@functools.lru_cache(maxsize=4096)
def of_text(text: str) -> str | None:
    """The licence that a licence file holds; of a text of several all apply. None for a text that is mostly something else."""
    from licenseclassifier import identify_license

    found = combined(match.id for match in identify_license(text[:MAX_TEXT]))
    tag = TAG.search(text[:HEAD_CHARS]) if found is None else None
    return normal(tag[1]) if tag else found


def of_header(text: str) -> str | None:
    """The licence that the start of a source file names, by an SPDX tag or by the words of a known header."""
    head = text[:HEAD_CHARS]
    if tag := TAG.search(head):
        return normal(tag[1])
    if HINT.search(head) is None:
        return None
    from licenseclassifier import identify_license

    return combined(match.id for match in identify_license(head, coverage_threshold=0.0))


def is_permitted(expression: str, allowed: frozenset[str]) -> bool:
    """Whether an SPDX expression can be satisfied with allowed licences: one side of OR, both of AND; exceptions only widen."""
    parsed = _licensing().parse(expression, validate=False)
    return _satisfied(parsed, allowed)


def _satisfied(node: Any, allowed: frozenset[str]) -> bool:
    name = type(node).__name__
    if name == "OR":
        return any(_satisfied(arg, allowed) for arg in node.args)
    if name == "AND":
        return all(_satisfied(arg, allowed) for arg in node.args)
    if name == "LicenseWithExceptionSymbol":
        return str(node.license_symbol.key) in allowed
    return str(node.key) in allowed


def nearest(path: str, by_folder: Mapping[str, str | None]) -> tuple[str | None, str | None]:
    """The licence of the closest folder above a file that has one, and that folder ("" is the root)."""
    folder = path.rpartition("/")[0]
    while True:
        if folder in by_folder:
            return by_folder[folder], folder
        if not folder:
            return None, None
        folder = folder.rpartition("/")[0]


def by_folder(files: Sequence[tuple[str, str]]) -> dict[str, str | None]:
    """Licences of folders from (path, text) of their licence files.

    Texts that are no licence (COPYRIGHT with names) do not count beside one that is; alone they make the folder unknown,
    so that nothing below inherits a licence that may not hold there. MIT and Apache side by side in two files are a choice.
    """
    texts: dict[str, list[str]] = {}
    for path, text in files:
        folder = path.rpartition("/")[0]
        folder = folder.rpartition("/")[0] if folder.rpartition("/")[2].upper() in {"LICENSES", "LICENSE"} else folder
        texts.setdefault(folder, []).append(text)
    found = {}
    for folder, several in texts.items():
        known = sorted({one for one in map(of_text, several) if one})
        choice = known == ["Apache-2.0", "MIT"]
        found[folder] = " OR ".join(known) if choice else combined(known)
    return found
