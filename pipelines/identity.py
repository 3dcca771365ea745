"""Questions: what names a result.

value     stage, version, parameters, libraries, and the values of the columns it reads: what a row's answer depends on
standing  the questions of the steps that may have dropped rows before it: which rows are asked
question  both together; for a Reduce (and whoever is `given` a dataset) also the list of units

Step and recipe names are labels and never enter.
"""

from __future__ import annotations

import hashlib
import inspect
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cache
from importlib import metadata
from typing import Any

from manifests.fingerprint import fingerprint
from pipelines.graph import Graph, Node, home
from pipelines.resolve import ROOMS, identity_of, resolve
from stages.contract import Ask, Map, Reduce, Source, Stage
from stages.prompt import conversation


@dataclass
class Identities:
    """Values, questions and standing sets of the steps of a graph."""

    graph: Graph
    sample: float | None = None
    value: dict[str, str] = field(default_factory=dict)
    question: dict[str, str] = field(default_factory=dict)
    standing: dict[str, frozenset[str]] = field(default_factory=dict)
    """Questions of the steps that may have dropped a row of the step's frame, the step included."""
    facts: dict[str, dict[str, Any]] = field(default_factory=dict)
    """What went into a value, for people: the plan compares it with that of the last run."""

    def add(self, node: Node, units: Mapping[str, str]) -> None:
        """Identify a step whose parents are identified; `units` maps a frame to the hash of its list of units."""
        name = node.name
        facts = self._facts(node, units)
        asked = sorted(set().union(*(self.standing[p] for p in node.step.parents)))
        if isinstance(node.stage, Reduce):
            facts["standing"] = asked
            facts["units"] = [units[self.graph[p].frame] for p in node.step.parents]
        self.facts[name] = facts
        self.value[name] = fingerprint(facts)
        self.question[name] = fingerprint({"value": self.value[name], "standing": asked})
        self.standing[name] = self._standing(node)

    def _facts(self, node: Node, units: Mapping[str, str]) -> dict[str, Any]:
        facts = stage_facts(node.stage, identity_of(node.params, node.step.params))
        facts["reads"] = {c: self._column(node, c) for c in sorted(node.reads)}
        if node.where is not None:
            facts["where"] = node.where.text
        if node.step.given:
            facts["given"] = {
                k: [self.question[s], units[self.graph[s].frame]] for k, s in sorted(node.step.given.items())
            }  # fmt: skip
        if isinstance(node.stage, Source) and self.sample is not None:
            facts["sample"] = self.sample
        if isinstance(node.stage, Ask):
            facts["prompts"] = conversation(node.stage.prompts(node.params))
        if isinstance(node.stage, Map | Reduce) and node.stage.derived:
            read = node.stage.reads_of(node.params)
            facts["derived"] = [_provider_facts(p) for c, p in sorted(node.stage.derived.items()) if c in read]
        return facts

    def _column(self, node: Node, column: str) -> Any:
        owners = {self.graph[p].columns[column].owner for p in node.step.parents if column in self.graph[p].columns}
        names = [o for owner in sorted(owners) for o in owner.split("+")]
        values = [self.value[n] for n in names if n in self.value]
        return values[0] if len(values) == 1 else values

    def _standing(self, node: Node) -> frozenset[str]:
        own = frozenset([self.question[node.name]])
        if node.shape in ("base", "rows", "dataset"):
            return own
        if node.shape == "verdict":
            return self.standing[home(node, self.graph).name] | own
        before = frozenset[str]().union(*(self.standing[p] for p in node.step.parents))
        return before | own if "drop_reason" in node.writes else before


def stage_facts(stage: Stage, params: Mapping[str, Any]) -> dict[str, Any]:
    """Stage, version, parameters and the libraries that shape its bytes; for stages that are not ours also their source."""
    facts: dict[str, Any] = {"stage": stage.name, "version": stage.version, "params": dict(params)}
    if stage.libraries:
        facts["libraries"] = {name: _version(name) for name in stage.libraries}
    if stage.name.split(".")[0] not in ROOMS:
        facts["code"] = _module_hash(stage.name.rpartition(".")[0])
    return facts


def _provider_facts(name: str) -> dict[str, Any]:
    return stage_facts(resolve(name, name), {})


@cache
def _version(distribution: str) -> str:
    try:
        return metadata.version(distribution)
    except metadata.PackageNotFoundError:
        return "absent"


def _module_hash(module: str) -> str:
    return hashlib.blake2b(inspect.getsource(sys.modules[module]).encode(), digest_size=12).hexdigest()
