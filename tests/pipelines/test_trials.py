"""A task that did not end well: tried again with a pause, tried again knowing more, or given up."""

from __future__ import annotations

import time

from pipelines.executors import trials
from pipelines.executors.contract import Outcome
from pipelines.executors.trials import LOSSES, TRIES, Trial, passes, take_due
from pipelines.program import FrameUnit, Mark, Task

TASK = Task("p", FrameUnit("k", "unit"), 0)


def test_a_passing_fault_is_tried_again_later_and_longer(monkeypatch):
    monkeypatch.setattr(trials.random, "uniform", lambda low, high: high)
    pauses, trial = [], Trial(TASK)
    while isinstance(trial, Trial):
        last = trial
        trial = trial.failed("the line was lost", passing=True)
        if isinstance(trial, Trial):
            pauses.append(trial.after - time.monotonic())
    assert last.tries + 1 == TRIES
    assert trial == Outcome(TASK, {}, error="the line was lost", setbacks=("the line was lost",) * (TRIES - 1))
    assert len(pauses) == TRIES - 1
    assert pauses[1] > 1.8 * pauses[0] > 1.0


def test_a_lasting_fault_is_not_tried_again():
    assert Trial(TASK).failed("broken contract", passing=False) == Outcome(TASK, {}, error="broken contract")
    assert passes(OSError(5, "input/output error"))
    assert not passes(OSError(28, "no space"))
    assert not passes(ValueError("x"))


def test_a_lost_machine_is_no_try_but_has_an_end():
    trial = Trial(TASK)
    for _ in range(LOSSES - 1):
        trial = trial.lost("lost its node")
        assert trial.tries == 0
    assert "lost its node 20 times" in trial.lost("lost its node").error


def test_a_row_that_breaks_workers_is_found_and_named():
    trial = Trial(TASK).broken(Mark("s", 0, 100, 1.0), "crashed (SIGSEGV)")
    assert trial.task.careful == (("s", 0),)
    assert trial.watched
    trial = trial.broken(Mark("s", 41, 1, 1.0), "crashed (SIGSEGV)")
    assert trial.task.poison == (("s", 41, "worker crashed (SIGSEGV)"),)
    assert trial.done({"a": 1}).limited == ("worker crashed (SIGSEGV)",)
    assert trial.done({"a": 1}).setbacks == (
        "the worker crashed (SIGSEGV) in step 's' at row 0, batch of 100",
        "the worker crashed (SIGSEGV) in step 's' at row 41, batch of 1",
    )


def test_a_row_alone_in_its_batch_is_first_run_alone():
    trial = Trial(TASK).broken(Mark("s", 7, 1, 1.0), "crashed")
    assert trial.task.poison == ()
    assert trial.task.careful == (("s", 7),)


def test_a_worker_that_dies_nobody_knows_where_is_given_up_at_last():
    trial = Trial(TASK)
    for _ in range(TRIES - 1):
        trial = trial.broken(None, "crashed")
    assert trial.broken(None, "crashed").error == "unit: the worker crashed 3 times"


def test_what_waits_for_its_time_does_not_hold_up_the_others():
    later, now = Trial(TASK, after=time.monotonic() + 60), Trial(TASK, tries=1)
    waiting = [later, now]
    assert take_due(waiting) is now
    assert take_due(waiting) is None
    assert waiting == [later]
