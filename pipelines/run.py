"""Do the plan: hand out tasks, write journals and manifests, keep the accounts."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field
from typing import Any

from manifests.manifest import Receipt
from manifests.store import Journal, Object
from pipelines.executors.contract import WAIT, Executor, Outcome, Stopped, Wait
from pipelines.graph import ancestors
from pipelines.plan import Action, Plan
from pipelines.program import Task, Work
from pipelines.record import recipe_record
from pipelines.targets import Layout, Target, question_record

DONE, FAILED, USAGE, OVER_LIMIT, INTERRUPTED = 0, 1, 2, 3, 130
RESERVE = 256 << 20
"""Bytes that stay free on the store's disk: a run stops handing out tasks below, so that nothing is torn by a full disk."""


@dataclass(slots=True)
class Result:
    """How a run ended."""

    code: int = DONE
    errors: list[str] = field(default_factory=list)
    over_limit: list[str] = field(default_factory=list)
    blocked: list[str] = field(default_factory=list)
    limited: list[str] = field(default_factory=list)
    setbacks: list[str] = field(default_factory=list)
    """Tries that did not count and were made again: the unit, and why."""
    tasks: int = 0
    seconds: float = 0.0
    interrupted: bool = False


@dataclass
class Run:
    """One run of a plan."""

    plan: Plan
    executor: Executor
    say: Callable[[dict[str, Any]], None]
    """Hears every event, as a mapping with `event` and facts."""
    max_error_rate: float
    result: Result = field(default_factory=Result)
    _journals: dict[str, Journal] = field(default_factory=dict)
    _left: dict[str, int] = field(default_factory=dict)
    _done: set[str] = field(default_factory=set)
    _of: dict[str, Action] = field(default_factory=dict)
    _hurt: set[str] = field(default_factory=set)

    @property
    def layout(self) -> Layout:
        """The layout of the plan."""
        return self.plan.layout

    def go(self) -> Result:
        """Run every action whose needs are met; what fails blocks only what needs it."""
        started = time.monotonic()
        self._drop_orphans()
        with ExitStack() as stack:
            for action in self.plan.actions:
                self._open(action, stack)
            # Before the first task: `status` and `gc` know the run's objects while it works, and after it was killed.
            self.layout.store.record("recipes", self.layout.recipe.name, recipe_record(self.layout))
            try:
                self._work()
            except Stopped:
                self.result.interrupted = True
        self._close(started)
        return self.result

    def _drop_orphans(self) -> None:
        """Spills of answered Reduces: a run was killed between its manifest and the removal."""
        for target in self.plan.reused:
            if target.shape in ("verdict", "dataset"):
                for suffix in ("emits", "merged", "verdicts"):
                    self.layout.store.drop_spill(f"{target.address}-{suffix}")

    def _open(self, action: Action, stack: ExitStack) -> None:
        """Take the lock of everything the action writes, and write down what is asked."""
        store = self.layout.store
        for address in (*action.spills,):
            self._journal(f"spill:{address}", store.spill(address), stack)
        written = {t.address: t for t in action.targets}
        written |= {t.address: t for t in self.layout.targets if t.address in action.exports}
        for address, target in written.items():
            self._journal(address, store.object(address), stack)
            store.object(address).ask(question_record(self.layout, target))
        self._left[action.name] = len(action.tasks)
        for ident in action.work:
            self._of[ident] = action

    def _journal(self, name: str, target: Object, stack: ExitStack) -> None:
        if name not in self._journals:
            self._journals[name] = Journal(target)
            stack.callback(self._journals[name].close)

    def _work(self) -> None:
        work: dict[str, Work] = {ident: w for action in self.plan.actions for ident, w in action.work.items()}
        for action in self.plan.actions:
            if not action.tasks and not action.needs:
                self._complete(action)
        for outcome in self.executor.map(work, self._tasks()):
            self._hear(outcome)

    def _tasks(self) -> Iterator[Task | Wait]:
        waiting = list(self.plan.actions)
        while waiting:
            waiting = [a for a in waiting if a.name not in self._done | self._hurt]
            finished = [a for a in waiting if not self._left[a.name] and set(a.needs) <= self._done]
            if finished:
                self._complete(finished[0])
                waiting = [a for a in waiting if a is not finished[0]]
                continue
            ready = [a for a in waiting if self._left[a.name] and set(a.needs) <= self._done]
            if ready:
                waiting = [a for a in waiting if a is not ready[0]]
                for task in ready[0].tasks:
                    self._check_disk()
                    yield task
            elif all(self._stuck(a) for a in waiting):
                return
            else:
                yield WAIT

    def _stuck(self, action: Action) -> bool:
        """Whether an action can never start in this run: something it needs has failed or is over its limit."""
        names = {a.name: a for a in self.plan.actions}
        return any(n in self._hurt or (n not in self._done and self._stuck(names[n])) for n in action.needs)

    def _hear(self, outcome: Outcome) -> None:
        action, told = self._of[outcome.task.program], {"setbacks": list(outcome.setbacks)}
        self.result.setbacks += [f"{outcome.task.unit.name}: {why}" for why in outcome.setbacks]
        if outcome.error is not None:
            self.result.errors.append(outcome.error)
            self._hurt.add(action.name)
            self.say({"event": "failed", "action": action.name, "unit": outcome.task.unit.name, "error": outcome.error, **told})
            return
        self.result.tasks += 1
        self.result.limited += [f"{outcome.task.unit.name}: {reason}" for reason in outcome.limited]
        for address, receipt in outcome.receipts.items():
            self._journals[address].append(receipt)
            self.say({"event": "part", "action": action.name, "address": address, "unit": receipt.name, "rows": receipt.rows,
                      "bytes": receipt.size, "seconds": receipt.seconds, "limited": list(outcome.limited)})  # fmt: skip
        rows = max((r.rows for r in outcome.receipts.values()), default=0)
        self.say({"event": "task", "action": action.name, "unit": outcome.task.unit.name, "rows": rows, **told, **_told(outcome)})
        self._left[action.name] -= 1
        if self._left[action.name] == 0 and action.name not in self._hurt:
            self._complete(action)

    def _complete(self, action: Action) -> None:
        """All tasks are done: write the manifests, unless a target is over the error limit."""
        if action.name in self._done or action.name in self._hurt:
            return
        for address in {*(t.address for t in action.targets), *action.exports, *(f"spill:{a}" for a in action.spills)}:
            self._journals[address].flush()  # whoever needs this action reads what it has committed
        for target in action.targets:
            excess = self._answer(target)
            if excess:
                self.result.over_limit.append(excess)
                self._hurt.add(action.name)
        if action.name in self._hurt:
            return
        for address in action.drops:
            self._journals.pop(f"spill:{address}").close()
            self.layout.store.drop_spill(address)
        self._done.add(action.name)
        self.say({"event": "done", "action": action.name, "steps": list(action.steps)})

    def _answer(self, target: Target) -> str | None:
        """Write the manifest of a target; the message when it is over the limit."""
        folder = self.layout.object(target)
        receipts = folder.receipts()
        units = self.layout.units[target.frame]
        keys = [u.key for u in self.layout.frames[target.frame]]
        if target.shape == "export":
            keys.append(f"dataset-{units}")
        parts = [receipts[key] for key in keys]
        totals = member_totals(parts, len(target.steps))
        for step, total in zip(target.steps, totals, strict=True):
            came = total.get("records") or total.get("in", 0)
            sick = total.get("quarantined", 0)
            if sick > self.max_error_rate * came:
                return (
                    f"step '{step}': {sick} of {came} rows are quarantined ({sick / came:.2%}, limit {self.max_error_rate:.2%}); "
                    f'look at them with `gristmill sql "select * from quarantine"`; '
                    "raise run.max_error_rate in the recipe and run again to go on"
                )
        tokens = [p.counts["summary"]["tokens"] for p in parts if "tokens" in p.counts.get("summary", {})]
        more: dict[str, Any] = {"tokens": sum(tokens)} if tokens else {}
        seconds = round(sum(p.seconds for p in parts), 3)
        folder.answer(units, parts, {"members": totals, "steps": list(target.steps), "seconds": seconds, **more})
        return None

    def _check_disk(self) -> None:
        free = self.layout.store.place.free()
        if free is not None and free < RESERVE:
            raise OSError(28, f"{self.layout.store.url}: {free >> 20} MiB are free, the run keeps {RESERVE >> 20} MiB; "
                          "free some space or name another --store, then run again to go on")  # fmt: skip

    def _close(self, started: float) -> None:
        result = self.result
        result.seconds = time.monotonic() - started
        result.blocked = [s for a in self.plan.actions if a.name not in self._done and a.name not in self._hurt for s in a.steps]
        unfinished = len(self._done) < len(self.plan.actions)
        if result.interrupted or (unfinished and not result.errors and not result.over_limit):
            result.code, result.interrupted = INTERRUPTED, True
        elif result.errors:
            result.code = FAILED
        elif result.over_limit:
            result.code = OVER_LIMIT
        else:
            self._publish()

    def _beneath(self, step: str) -> list[str]:
        """Objects through which a step's rows are read: gc keeps them as long as the name stands."""
        steps = {step, *ancestors(step, self.layout.graph)}
        return sorted({self.layout.holder[s][0].address for s in steps})

    def _publish(self) -> None:
        for name, step in self.layout.recipe.publish.items():
            if step in self.layout.holder:
                target, member = self.layout.holder[step]
                record = {
                    "object": target.address, "member": member, "units": self.layout.units[target.frame],
                    "recipe": self.layout.recipe.name, "step": step, "objects": self._beneath(step),
                }  # fmt: skip
                self.layout.store.record("refs", name, record)
                self.say({"event": "published", "name": name, "step": step})


def _told(outcome: Outcome) -> dict[str, int]:
    """Dropped rows and tokens of a task, for those who watch."""
    counts = [r.counts for r in outcome.receipts.values()]
    dropped = sum(sum(m.get("dropped", {}).values()) for c in counts for m in c.get("members", []))
    return {"dropped": dropped, "tokens": sum(c.get("summary", {}).get("tokens", 0) for c in counts)}


def member_totals(parts: list[Receipt], members: int) -> list[dict[str, Any]]:
    """Accounting of each member over all parts."""
    totals: list[dict[str, Any]] = [{} for _ in range(members)]
    for part in parts:
        for total, counts in zip(totals, part.counts.get("members", [{}] * members), strict=False):
            for key, value in counts.items():
                if isinstance(value, dict):
                    into = total.setdefault(key, {})
                    for reason, count in value.items():
                        into[reason] = into.get(reason, 0) + count
                else:
                    total[key] = total.get(key, 0) + value
    return totals
