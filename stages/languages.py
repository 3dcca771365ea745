"""Programming languages by name and content, as GitHub's linguist tells them apart (go-enry through its C library).

Names are linguist's: Python, C++, C#, JavaScript, Shell, Jupyter Notebook. Extension, file name and first line (shebang,
modeline) decide; where several languages share an extension (.h, .m, .ts, .pl), rules and a classifier read the content.
"""

from __future__ import annotations

import functools
from typing import Literal

HEAD = 64 << 10
"""Bytes of a file that are read for the language: rules look at no more, and a 50 MB file costs no more than a short one."""

Kind = Literal["programming", "markup", "data", "prose"]


def language_of(path: str, content: bytes) -> str | None:
    """Linguist's name of a file's language, or None where neither name nor content tells."""
    import enry

    return enry.get_language(path, content[:HEAD]) or None


@functools.cache
def kind_of(language: str) -> str:
    """`programming`, `markup`, `data`, `prose`, or `unknown` for a name that linguist does not know."""
    import enry

    return str(enry.get_language_type(language))


def is_binary(content: bytes) -> bool:
    """Whether the first 8,000 bytes hold a zero and no two-byte text begins there."""
    return 0 in content[:8000] and not content.startswith((b"\xff\xfe", b"\xfe\xff"))


def is_vendored(path: str) -> bool:
    """Whether a path lies where copies of other people's code are kept (`node_modules/`, `third_party/`, `jquery.min.js`)."""
    import enry

    return bool(enry.is_vendor(path))


def is_generated(path: str, content: bytes) -> bool:
    """Whether linguist's rules call a file the output of a tool (minified, protobuf, lock files, parsers)."""
    import enry

    return bool(enry.is_generated(path, content))
