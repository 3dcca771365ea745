"""Run a source and its rewrite on the same inputs and compare what comes of it.

Functions that both define are called with inputs made from annotations, defaults and a fixed stock of values; programs without
such functions are run as scripts and their output is compared. Only what the source does reliably counts: calls that return
the same value in two runs. What the source refuses (an exception) binds nobody. A function that does the same whatever it is
given must still do it in the rewrite, but that is no evidence that the two are equal. Everything runs in the locked cell.
"""

from __future__ import annotations

import ast
import hashlib
import itertools
import json
import random
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Literal, NamedTuple

from stages.code import sandbox
from stages.code.structure import python_tree

HARNESS = Path(__file__).with_name("trial_cell.py").read_text(encoding="utf-8")
FUNCTIONS, CALLS = 8, 150
"""Functions called, and calls of each."""
INTS = (0, 1, 2, 3, 5, 7, 10, -1, 12, 20)
STOCK: dict[str, tuple[Any, ...]] = {
    "int": INTS, "float": (0.0, 1.0, 2.5, -1.5, 10.0), "bool": (True, False),
    "str": ("", "a", "abc", "racecar", "Hello World 12", "the quick brown fox", "12"),
    "list": ([], [1], [3, 1, 2], [5, 5, 1, -2, 9], [1, 2, 3, 4, 5, 6, 7, 8], [2, 4, 4, 10]),
    "strings": (["b", "a"], ["x"], ["the", "mill", "the"]), "matrix": ([[1, 2], [3, 4]], [[1]], [[0, 1, 0], [1, 0, 1], [0, 1, 0]]),
    "dict": ({}, {"a": 1, "b": 2}), "floats": ([1.5, 2.5, -0.5], [0.0]), "none": (None,),
}  # fmt: skip
KINDS = ("int", "list", "str", "strings", "matrix", "floats", "dict", "float")
PAIRS = (
    ("list", "int"),
    ("str", "int"),
    ("int", "list"),
    ("list", "list"),
    ("int", "str"),
    ("strings", "str"),
    ("str", "strings"),
    ("matrix", "int"),
)

NOTHING = json.dumps(["ok", ["none"], ""])
"""A call that returned nothing, printed nothing and left its arguments as they were."""

Verdict = Literal["equal", "different", "slower", "failed", "nothing", "absent"]


class Trial(NamedTuple):
    """What a comparison found: `compared` outcomes that say something of the program, and a detail for people."""

    verdict: Verdict
    compared: int = 0
    detail: str = ""


def functions(tree: ast.Module) -> dict[str, ast.FunctionDef]:
    """Functions at the top of a module that take plain positional arguments, by name."""
    found = {}
    for node in tree.body:
        plain = isinstance(node, ast.FunctionDef) and not (node.args.kwonlyargs and None in node.args.kw_defaults)
        if (
            plain
            and isinstance(node, ast.FunctionDef)
            and not node.args.vararg
            and not any(map(_is_generator_of_io, ast.walk(node)))
        ):
            found[node.name] = node
    return found


def _is_generator_of_io(node: ast.AST) -> bool:
    return isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id in {"input", "open"}


def kind_of(argument: ast.arg) -> str | None:
    """The stock that an annotation asks for; None where it says nothing we know."""
    if argument.annotation is None:
        return None
    said = ast.unparse(argument.annotation).strip("'\"").replace("typing.", "").split("|")[0].strip().lower()
    said = said.removeprefix("optional[")
    if said.startswith(("list[list", "sequence[sequence")):
        return "matrix"
    if said.startswith(("list[str", "sequence[str", "iterable[str")):
        return "strings"
    if said.startswith(("list[float", "sequence[float", "iterable[float")):
        return "floats"
    head = said.split("[")[0]
    return (
        {"sequence": "list", "iterable": "list", "mapping": "dict", "mutablesequence": "list", "collection": "list"}.get(head, head)
        if (head in STOCK or head in {"sequence", "iterable", "mapping", "mutablesequence", "collection"})
        else None
    )


def inputs(node: ast.FunctionDef, seed: str) -> list[list[Any]]:
    """Argument lists for a function: as annotated, else every kind alone and some pairs of kinds."""
    arguments = [*node.args.posonlyargs, *node.args.args]
    required = len(arguments) - len(node.args.defaults)
    wanted = arguments[: max(required, min(len(arguments), 1))]
    if not wanted:
        return [[]]
    rng = random.Random(hashlib.blake2b(f"{seed}{node.name}".encode(), digest_size=8).hexdigest())
    shapes = list(_shapes([kind_of(argument) for argument in wanted]))
    drawn = [
        [rng.choice(STOCK[kind]) for kind in shape] for _, shape in zip(range(4 * CALLS), itertools.cycle(shapes), strict=False)
    ]
    unique = {repr(one): one for one in drawn}
    return list(unique.values())[:CALLS]


def _drawn(shape: Sequence[str], rng: random.Random) -> list[Any]:
    """Values of these kinds; what follows a list is often one of its members, or searches would mostly find nothing."""
    given = [rng.choice(STOCK[kind]) for kind in shape]
    for place in range(1, len(given)):
        members = given[place - 1]
        if isinstance(members, list | str) and members and isinstance(members[0], type(given[place])) and rng.random() < 0.7:
            given[place] = rng.choice(members)
    return given


def _shapes(kinds: Sequence[str | None]) -> Iterator[list[str]]:
    """Kinds for all arguments, the unknown ones filled in."""
    missing = sum(kind is None for kind in kinds)
    if not missing:
        yield [kind or "" for kind in kinds]
        return
    choices: list[tuple[str, ...]] = [(kind,) * missing for kind in KINDS]
    if missing >= 2:
        # Searches and slices are what most functions of two arguments do.
        choices += [(*pair, *("int",) * (missing - 2)) for pair in (*PAIRS, *PAIRS[:2] * 5)]
    for choice in choices:
        rest = iter(choice)
        yield [kind or next(rest) for kind in kinds]


def compare(source: str, rewrite: str, limits: sandbox.Limits) -> Trial:
    """Compare two Python sources; `absent` when the cell is not safe here, `nothing` when there is nothing to compare."""
    before, after = python_tree(source), python_tree(rewrite)
    if before is None or after is None:
        return Trial("nothing", 0, "one of them does not parse")
    ours, theirs = functions(before), functions(after)
    names = {name: name for name in ours if name in theirs}
    if not names and len(ours) == 1 and len(theirs) == 1:
        names = {next(iter(ours)): next(iter(theirs))}
    calls = [(name, given) for name in list(names)[:FUNCTIONS] for given in inputs(ours[name], source)]
    if not calls:
        return _scripts(source, rewrite, limits)
    first, absent = _outcomes(source, calls, limits)
    if absent:
        return absent
    second, _ = _outcomes(source, calls, limits)
    if first is None or second is None:
        return Trial("nothing", 0, "the source does not load")
    steady = [n for n, outcome in enumerate(first) if outcome[0] == "ok" and outcome == second[n]]
    if not steady:
        return Trial("nothing", 0, "no input on which the source returns reliably")
    third, absent = _outcomes(rewrite, [(names[calls[n][0]], calls[n][1]) for n in steady], limits)
    return absent or _judged([first[n] for n in steady], third, [calls[n] for n in steady])


def _telling(calls: Sequence[tuple[str, Any]], outcomes: Sequence[Any]) -> int:
    """Outcomes of functions that do something, and not the same for everything they are given."""
    said: dict[str, list[str]] = {}
    for (name, _), outcome in zip(calls, outcomes, strict=True):
        said.setdefault(name, []).append(json.dumps(outcome))
    return sum(len(all_of) for all_of in said.values() if len(set(all_of)) > 1 or (len(all_of) == 1 and all_of != [NOTHING]))


def _judged(expected: Sequence[Any], found: Sequence[Any] | None, calls: Sequence[tuple[str, Any]]) -> Trial:
    if found is None:
        return Trial("failed", 0, "the rewrite does not load, or does not end")
    for want, got, (name, given) in zip(expected, found, calls, strict=True):
        if want != got:
            verdict: Verdict = "slower" if got[0] == "slow" else "failed" if got[0] == "raise" else "different"
            return Trial(verdict, len(expected), f"{name}{tuple(given)!r}: {json.dumps(want)[:200]} became {json.dumps(got)[:200]}")
    telling = _telling(calls, expected)
    return Trial("equal", telling) if telling else Trial("nothing", 0, "the source does the same whatever it is given")


def _outcomes(text: str, calls: Sequence[tuple[str, Any]], limits: sandbox.Limits) -> tuple[list[Any] | None, Trial | None]:
    """Outcomes of all calls, None when the source does not load or end; and why nothing was run at all."""
    files = {"main.py": HARNESS, "subject.py": text, "calls.txt": repr(list(calls))}
    ran = sandbox.run([*sandbox.python(), "main.py"], files, limits)
    if ran.status == "absent":
        return None, Trial("absent", 0, ", ".join(ran.absent))
    try:
        outcomes = json.loads(ran.stdout)
    except ValueError:
        return None, None
    return (outcomes, None) if isinstance(outcomes, list) else (None, None)


def _scripts(source: str, rewrite: str, limits: sandbox.Limits) -> Trial:
    runs = [sandbox.run([*sandbox.python(), "main.py"], {"main.py": text}, limits) for text in (source, source, rewrite)]
    return printed(runs)


def printed(runs: Sequence[sandbox.Ran]) -> Trial:
    """Compare the output of two runs of the source and one of the rewrite."""
    first, second, third = runs
    if any(run.status == "absent" for run in runs):
        return Trial("absent", 0, ", ".join(first.absent))
    if first.status != "ok" or first.stdout != second.stdout or not first.stdout.strip():
        return Trial("nothing", 0, "the source prints nothing reliable")
    if third.status != "ok":
        return Trial("slower" if third.status == "timeout" else "failed", 1, third.stderr[-200:])
    same = third.stdout.split() == first.stdout.split()
    return Trial("equal" if same else "different", 1, "" if same else f"{first.stdout[:200]!r} became {third.stdout[:200]!r}")


def compare_with_cpp(source: str, rewrite: str, limits: sandbox.Limits) -> Trial:
    """Compare the output of a Python script and of its translation into C++, both in the cell; input is a few numbers."""
    compiler = limits.model_copy(
        update={"seconds": max(60.0, limits.seconds), "cpu_seconds": 60, "memory_mb": 2048, "room_mb": 128, "file_mb": 64}
    )
    build = "g++ -std=c++20 -O1 -o /tmp/program main.cpp 2> /tmp/said || { head -c 300 /tmp/said >&2; exit 9; }"
    script = f"{build}; exec timeout 5 /tmp/program"
    given = "5\n3 1 2 4 5\n"
    runs = [sandbox.run([*sandbox.python(), "main.py"], {"main.py": source}, limits, given) for _ in range(2)]
    if runs[0].status == "ok" and runs[0].stdout.strip():
        runs.append(sandbox.run(["/bin/sh", "-c", script], {"main.cpp": rewrite}, compiler, given))
    else:
        runs.append(runs[0])
    return printed(runs)
