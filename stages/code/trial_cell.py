"""Calls the functions of a source with given inputs and writes down what comes of it. Runs inside the cell, never imported.

Files beside it: `subject.py` (the source) and `calls.txt` (a Python literal: [(function, arguments), ...]). Out: one JSON list, for
each call ["ok", value, printed], ["raise", type], ["slow"] or ["opaque"], or {"load": why} when the source does not even load.
A function that returns nothing has the value ["none"], and behind it the arguments where it changed them.
"""

from __future__ import annotations

import ast
import contextlib
import io
import itertools
import json
import os
import signal
import sys
from pathlib import Path
from types import FrameType
from typing import Any

CALL_SECONDS = 0.5
LOAD_SECONDS = 3.0
LONGEST = 1000


class SlowError(BaseException):
    """Raised by the alarm, past every `except Exception` of the subject."""


class OpaqueError(Exception):
    """A value whose text says nothing about it."""


def ring(_signal: int, _frame: FrameType | None) -> None:
    """The alarm."""
    raise SlowError


def canonical(value: Any, depth: int = 0) -> Any:
    """A value as text that is equal where values are: floats to nine digits, sets and dicts in order, no addresses."""
    if depth > 20:
        raise OpaqueError
    if value is None or isinstance(value, bool | int | str | bytes):
        return repr(value)
    if isinstance(value, float):
        return f"{value:.9g}"
    if isinstance(value, complex):
        return [f"{value.real:.9g}", f"{value.imag:.9g}"]
    if isinstance(value, dict):
        return ["dict", sorted([canonical(k, depth + 1), canonical(v, depth + 1)] for k, v in value.items())]
    if isinstance(value, set | frozenset):
        return ["set", sorted(json.dumps(canonical(one, depth + 1)) for one in value)]
    if isinstance(value, list | tuple | range) or hasattr(value, "__next__"):
        return ["several", [canonical(one, depth + 1) for one in itertools.islice(iter(value), LONGEST)]]
    raise OpaqueError


def call(function: Any, arguments: list[Any]) -> list[Any]:
    """The outcome of one call."""
    printed = io.StringIO()
    signal.setitimer(signal.ITIMER_REAL, CALL_SECONDS)
    try:
        given = canonical(arguments)
        with contextlib.redirect_stdout(printed):
            value = function(*arguments)
            told = canonical(value)
        if value is None:  # its work may have been done on its arguments
            left = canonical(arguments)
            told = ["none"] if left == given else ["none", left]
        return ["ok", told, printed.getvalue()[:10_000]]
    except SlowError:
        return ["slow"]
    except OpaqueError:
        return ["opaque"]
    except BaseException as error:
        return ["raise", type(error).__name__]
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)


def loaded(text: str) -> dict[str, Any]:
    """The names that the subject defines when it is imported."""
    names: dict[str, Any] = {"__name__": "subject", "__file__": "subject.py"}
    signal.setitimer(signal.ITIMER_REAL, LOAD_SECONDS)
    try:
        with contextlib.redirect_stdout(io.StringIO()):
            exec(compile(text, "subject.py", "exec"), names)  # noqa: S102 - this is what the cell is for
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
    return names


def main() -> None:
    """Load, call, report."""
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
    signal.signal(signal.SIGALRM, ring)
    sys.setrecursionlimit(3000)
    calls = ast.literal_eval(Path("calls.txt").read_text(encoding="utf-8"))
    try:
        names = loaded(Path("subject.py").read_text(encoding="utf-8"))
    except BaseException as error:
        json.dump({"load": type(error).__name__}, answers)
        answers.close()
        os._exit(0)
    outcomes: list[list[Any]] = []
    slow: dict[str, int] = {}
    for name, arguments in calls:
        if slow.get(name, 0) >= 2 or not callable(names.get(name)):
            outcomes.append(["slow"] if name in slow else ["raise", "NameError"])
            continue
        outcomes.append(call(names[name], arguments))
        if outcomes[-1] == ["slow"]:
            slow[name] = slow.get(name, 0) + 1
    json.dump(outcomes, answers)
    answers.close()
    os._exit(0)


if __name__ == "__main__":
    main()
