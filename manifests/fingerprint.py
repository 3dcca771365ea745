"""One canonical form for everything that becomes an identity."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from typing import Any

LENGTH = 24
"""Hex digits of a question: 96 bits, so that a store of a billion objects has no two alike by chance."""


def canonical(value: Any) -> str:
    """JSON with sorted keys and no spaces; TypeError names a value that has no canonical form."""
    return json.dumps(_plain(value, "$"), sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False)


def fingerprint(value: Any) -> str:
    """The first 24 hex digits of the blake2b hash of the canonical form."""
    return hashlib.blake2b(canonical(value).encode(), digest_size=LENGTH // 2).hexdigest()


def _plain(value: Any, place: str) -> Any:
    if value is None or isinstance(value, bool | int | float | str):
        return value
    if isinstance(value, Mapping):
        return {_key(k, place): _plain(v, f"{place}.{k}") for k, v in value.items()}
    if isinstance(value, set | frozenset):
        return sorted(_plain(v, place) for v in value)
    if isinstance(value, Sequence) and not isinstance(value, bytes | bytearray):
        return [_plain(v, f"{place}[{i}]") for i, v in enumerate(value)]
    raise TypeError(f"{place}: a {type(value).__name__} has no canonical form; use str, int, float, bool, list or dict")


def _key(key: Any, place: str) -> str:
    if not isinstance(key, str):
        raise TypeError(f"{place}: the key {key!r} is a {type(key).__name__}; keys of an identity are strings")
    return key
