"""Run a recipe in this process and die by SIGKILL at the nth time that a named commit point is passed.

Usage: drive.py RECIPE STORE POINT N
"""

from __future__ import annotations

import os
import signal
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))
sys.path.insert(0, str(Path(__file__).parents[2]))

import conftest

from manifests import place
from manifests.shard import PartDraft
from manifests.store import Journal, Object, Store
from pipelines.graph import build
from pipelines.plan import make_plan
from pipelines.recipe import load
from pipelines.run import Run
from pipelines.targets import lay_out

POINT, N = sys.argv[3], int(sys.argv[4])
passed = 0


def point(name: str) -> None:
    global passed
    if name == POINT:
        passed += 1
        if passed == N:
            os.kill(os.getpid(), signal.SIGKILL)


def around(owner: type, name: str, before: str, after: str) -> None:
    real = getattr(owner, name)

    def wrapped(self, *args, **kwargs):
        point(before)
        out = real(self, *args, **kwargs)
        point(after)
        return out

    setattr(owner, name, wrapped)


def torn_append(self: Journal, receipt) -> None:
    if POINT == "torn_journal_line" and passed + 1 < N:
        point("torn_journal_line")
    elif POINT == "torn_journal_line":
        line = receipt.to_json()
        self._log.append(line[: len(line) // 2])
        point("torn_journal_line")
    whole_append(self, receipt)


around(PartDraft, "commit", "before_part", "after_part")
around(Object, "ask", "before_question", "after_question")
around(Object, "answer", "before_manifest", "after_manifest")
around(Store, "drop_spill", "before_drop_spill", "after_drop_spill")
around(Store, "record", "before_record", "after_record")
around(Journal, "append", "before_journal", "after_journal")
whole_append = Journal.append
Journal.append = torn_append
real_written = place._written


def written_with_points(path: Path, data: bytes) -> Path:
    if path.parent.name == "manifests" and path.suffix == ".json":
        point("before_manifest_head")
    if POINT == "torn_draft" and path.parent.name == "manifests":
        path.parent.mkdir(parents=True, exist_ok=True)
        path.with_name(f".{path.name}.{os.getpid()}").write_bytes(data[: len(data) // 2])
        point("torn_draft")
    return real_written(path, data)


place._written = written_with_points
real_rename = Path.replace


def rename(self: Path, target):
    if self.parent.name == "drafts":
        point("before_rename")
    out = real_rename(self, target)
    if self.parent.name == "drafts":
        point("after_rename")
    return out


Path.replace = rename

recipe = load(sys.argv[1])
layout = lay_out(recipe, build(recipe), Store.open(sys.argv[2]))
result = Run(make_plan(layout), conftest.Inline(), lambda _: None, recipe.run.max_error_rate).go()
raise SystemExit(result.code)
