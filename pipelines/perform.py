"""One task, whatever it is."""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping

from manifests.manifest import Receipt
from pipelines.program import Finish, Home, Mark, Merge, Program, Settle, Task, Work


def perform(work: Work, task: Task, tell: Callable[[Mark], None]) -> Mapping[str, Receipt]:
    """Do it and commit; receipts by address."""
    from pipelines.settle import run_finish, run_home, run_merge, run_settle
    from pipelines.worker import run_pass

    if isinstance(work, Program):
        return run_pass(work, task, tell)
    folder = getattr(work, "folder", "")
    if folder and folder not in sys.path:
        sys.path.insert(0, folder)
    tell(Mark(work.call.step, 0, 0, 6 * 3600.0))
    if isinstance(work, Merge):
        return {f"spill:{work.address}": run_merge(work, task)}
    if isinstance(work, Settle):
        return {f"spill:{work.address}" if work.verdict else work.address: run_settle(work, task)}
    if isinstance(work, Home):
        return {work.address: run_home(work, task)}
    assert isinstance(work, Finish)
    return {work.address: run_finish(work, task)}
