"""A recipe: YAML to frozen models. Every error carries file, line and step."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from difflib import get_close_matches
from pathlib import Path
from typing import Any, Self

import yaml

NAME = re.compile(r"[a-z][a-z0-9_]*\Z")
PUBLISHED = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.@-]*\Z")
"""A published name is a file's name in the store."""
_STEP_KEYS = ("uses", "from", "given", "with", "where", "keep", "onto")
_TOP_KEYS = ("name", "params", "steps", "publish", "run")
_RUN_KEYS = ("executor", "workers", "max_error_rate", "memory_per_worker", "keep_text_of_dropped", "models", "address",
             "resources")  # fmt: skip
_REFERENCE = re.compile(r"\$\{(env:)?([A-Za-z_][A-Za-z0-9_]*)\}")
_INT = re.compile(r"[-+]?[0-9][0-9_]*\Z")
_FLOAT = re.compile(r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?\Z")
_SPECIAL = {
    "": None, "~": None, "null": None, "Null": None, "NULL": None, "true": True, "True": True, "TRUE": True,
    "false": False, "False": False, "FALSE": False, ".inf": float("inf"), "-.inf": float("-inf"), ".nan": float("nan"),
}  # fmt: skip


class RecipeError(Exception):
    """The recipe cannot be understood; the message says file, line, fault and way out. The command exits with 2."""


@dataclass(frozen=True, slots=True)
class Place:
    """Where something stands in a recipe file."""

    file: str
    line: int

    def __str__(self) -> str:
        return f"{self.file}:{self.line}"


@dataclass(frozen=True, slots=True)
class Step:
    """One step, as written."""

    name: str
    uses: str
    parents: tuple[str, ...]
    given: Mapping[str, str]
    params: Mapping[str, Any]
    where: str | None
    keep: bool
    onto: str | None
    place: Place


@dataclass(frozen=True, slots=True)
class RunBlock:
    """How to run; never part of an identity."""

    executor: str = "local"
    workers: int = 0
    """0: one per core."""
    max_error_rate: float = 0.01
    memory_per_worker: int = 4 << 30
    """Bytes of resident memory at which a worker is stopped and its row quarantined."""
    keep_text_of_dropped: bool = False
    models: Mapping[str, Any] = field(default_factory=dict)
    """Where each language model is served: engine, endpoints, limits, budgets; see synthetic.room."""
    address: str = "auto"
    """Of a Ray cluster; `auto` joins the one that is there and starts one here where there is none."""
    resources: Mapping[str, Mapping[str, float]] = field(default_factory=dict)
    """What a step needs on Ray beside one CPU, by step: {CPU: 4, GPU: 1, memory: bytes, anything: amount}."""


@dataclass(frozen=True, slots=True)
class Recipe:
    """A parsed recipe with its references filled in."""

    name: str
    file: str
    folder: Path
    steps: tuple[Step, ...]
    publish: Mapping[str, str]
    run: RunBlock
    text: str = field(repr=False, default="")

    def step(self, name: str) -> Step:
        """The step of this name; RecipeError suggests near misses."""
        for step in self.steps:
            if step.name == name:
                return step
        raise RecipeError(f"{self.file}: there is no step '{name}'{hint(name, [s.name for s in self.steps])}")


class Environment(str):  # noqa: SLOT000
    """A value from the environment: usable like any text, but written into records and identities as its reference."""

    reference: str

    def __new__(cls, value: str, reference: str) -> Self:
        """A text, and how it was written."""
        self = super().__new__(cls, value)
        self.reference = reference
        return self


def hint(word: str, known: Sequence[str]) -> str:
    """`; did you mean 'x'?`, or the names there are."""
    near = get_close_matches(word, known, 1)
    if near:
        return f"; did you mean '{near[0]}'?"
    return f"; there are: {', '.join(known)}" if known else ""


def load(path: Path | str, settings: Mapping[str, str] | None = None) -> Recipe:
    """Read a recipe file; `settings` are the KEY=VALUE of --set. RecipeError on anything that is not a recipe."""
    path = Path(path)
    try:
        text = path.read_text(encoding="utf-8")
    except OSError as error:
        raise RecipeError(f"{path}: cannot read the recipe ({error.strerror})") from error
    except UnicodeDecodeError as error:
        raise RecipeError(f"{path}: not UTF-8 text (byte {error.start}); is this a recipe?") from error
    return parse(text, str(path), path.resolve().parent, settings)


def parse(text: str, file: str, folder: Path, settings: Mapping[str, str] | None = None) -> Recipe:
    """Parse the text of a recipe."""
    try:
        node = yaml.compose(text, Loader=yaml.CSafeLoader if hasattr(yaml, "CSafeLoader") else yaml.SafeLoader)
    except yaml.MarkedYAMLError as error:
        line = error.problem_mark.line + 1 if error.problem_mark else 1
        raise RecipeError(f"{file}:{line}: not valid YAML: {error.problem}") from error
    except yaml.YAMLError as error:
        raise RecipeError(f"{file}: not valid YAML: {error}") from error
    return _Reader(file, folder, text).recipe(node, settings or {})


def load_models(path: Path) -> dict[str, Any]:
    """A file that says where models are served: what stands under `run.models` of a recipe, `${env:X}` included."""
    try:
        text = path.read_text(encoding="utf-8")
        node = yaml.compose(text, Loader=yaml.SafeLoader)
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise RecipeError(f"{path}: cannot read the models ({error})") from error
    reader = _Reader(str(path), path.resolve().parent, text)
    return {} if node is None else {name: reader.value(child) for name, child in reader.mapping(node, "the file").items()}


class _Reader:
    """From YAML nodes to a Recipe; holds what every error needs."""

    def __init__(self, file: str, folder: Path, text: str) -> None:
        self.file, self.folder, self.text = file, folder, text
        self.values: dict[str, Any] = {"here": str(folder)}

    def place(self, node: yaml.Node) -> Place:
        return Place(self.file, node.start_mark.line + 1)

    def fail(self, node: yaml.Node, message: str) -> RecipeError:
        return RecipeError(f"{self.place(node)}: {message}")

    def recipe(self, node: yaml.Node | None, settings: Mapping[str, str]) -> Recipe:
        if node is None:
            raise RecipeError(f"{self.file}: the recipe is empty; it needs at least 'name' and 'steps'")
        top = self.mapping(node, "the recipe", _TOP_KEYS)
        for needed in ("name", "steps"):
            if needed not in top:
                raise self.fail(node, f"the recipe has no '{needed}'")
        self.values = self.params(top.get("params"), settings)
        name = self.name(top["name"], "the recipe's name")
        steps = tuple(self.steps(top["steps"]))
        publish = {k: self.text_of(v, f"publish.{k}") for k, v in self.optional(top.get("publish"), "publish").items()}
        run = self.run_block(top.get("run"))
        recipe = Recipe(name, self.file, self.folder, steps, publish, run, self.text)
        for ref, target in publish.items():
            if not PUBLISHED.match(ref):
                raise self.fail(
                    top["publish"],
                    f"publish: the name '{ref}' has to be letters, digits and _ . @ -, and to begin with a letter, a digit or _",
                )
            if target not in {s.name for s in steps}:
                raise self.fail(top["publish"], f"publish '{ref}' names step '{target}'{hint(target, [s.name for s in steps])}")
        return recipe

    def params(self, node: yaml.Node | None, settings: Mapping[str, str]) -> dict[str, Any]:
        values = {k: self.value(v) for k, v in self.optional(node, "params").items()}
        for key, raw in settings.items():
            if key not in values:
                raise RecipeError(f"{self.file}: --set {key}: the recipe has no parameter '{key}'{hint(key, list(values))}")
            values[key] = _setting(raw, values[key])
        return values | {"here": str(self.folder)}

    def steps(self, node: yaml.Node) -> Iterator[Step]:
        found = self.mapping(node, "steps")
        if not found:
            raise self.fail(node, "'steps' is empty; a recipe needs at least one step")
        for name, body in found.items():
            if not NAME.match(name):
                raise self.fail(body, f"step name '{name}' must match [a-z][a-z0-9_]* (step names are SQL names)")
            yield self.step(name, body)

    def step(self, name: str, node: yaml.Node) -> Step:
        keys = self.mapping(node, f"step '{name}'", _STEP_KEYS)
        if "uses" not in keys:
            raise self.fail(node, f"step '{name}' has no 'uses' (the import path of a stage)")
        parents = self.value(keys["from"]) if "from" in keys else []
        parents = [parents] if isinstance(parents, str) else parents
        if not isinstance(parents, list) or not all(isinstance(p, str) for p in parents):
            raise self.fail(keys["from"], f"step '{name}': 'from' is a step name or a list of them")
        given = {k: self.text_of(v, f"given.{k}") for k, v in self.optional(keys.get("given"), "given").items()}
        keep = self.value(keys["keep"]) if "keep" in keys else False
        if not isinstance(keep, bool):
            raise self.fail(keys["keep"], f"step '{name}': 'keep' is true or false")
        return Step(
            name=name,
            uses=self.text_of(keys["uses"], f"step '{name}': uses"),
            parents=tuple(parents),
            given=given,
            params={k: self.value(v) for k, v in self.optional(keys.get("with"), "with").items()},
            where=self.text_of(keys["where"], f"step '{name}': where") if "where" in keys else None,
            keep=keep,
            onto=self.text_of(keys["onto"], f"step '{name}': onto") if "onto" in keys else None,
            place=self.place(node),
        )

    def run_block(self, node: yaml.Node | None) -> RunBlock:
        keys = self.mapping(node, "run", _RUN_KEYS) if node is not None else {}
        values = {k: self.value(v) for k, v in keys.items()}
        if values.get("workers") == "auto":
            values["workers"] = 0
        wanted = {"executor": str, "workers": int, "max_error_rate": float, "memory_per_worker": int,
                  "keep_text_of_dropped": bool, "models": dict, "address": str, "resources": dict}  # fmt: skip
        for key, value in values.items():
            kind = wanted[key]
            if not isinstance(value, (int, float) if kind is float else kind) or (kind is int and isinstance(value, bool)):
                raise self.fail(keys[key], f"run.{key} is {value!r}, not a {kind.__name__}")
        return replace(RunBlock(), **values)

    def optional(self, node: yaml.Node | None, what: str) -> dict[str, yaml.Node]:
        return {} if node is None else self.mapping(node, f"'{what}'")

    def mapping(self, node: yaml.Node, what: str, allowed: Sequence[str] | None = None) -> dict[str, yaml.Node]:
        if not isinstance(node, yaml.MappingNode):
            raise self.fail(node, f"{what} is not a mapping of keys to values")
        found: dict[str, yaml.Node] = {}
        for key_node, value_node in node.value:
            key = str(key_node.value)
            if key in found:
                raise self.fail(
                    key_node, f"{what}: the key '{key}' is there twice (first at line {found[key].start_mark.line + 1})"
                )
            if allowed is not None and key not in allowed:
                raise self.fail(key_node, f"{what}: unknown key '{key}'{hint(key, allowed)}")
            found[key] = value_node
        return found

    def name(self, node: yaml.Node, what: str) -> str:
        name = self.text_of(node, what)
        if not NAME.match(name):
            raise self.fail(node, f"{what} '{name}' must match [a-z][a-z0-9_]* (it becomes a SQL schema)")
        return name

    def text_of(self, node: yaml.Node, what: str) -> str:
        value = self.value(node)
        if not isinstance(value, str):
            raise self.fail(node, f"{what} is {value!r}, not a text")
        return value

    def value(self, node: yaml.Node) -> Any:
        if isinstance(node, yaml.MappingNode):
            return {key: self.value(child) for key, child in self.mapping(node, "this mapping").items()}
        if isinstance(node, yaml.SequenceNode):
            return [self.value(child) for child in node.value]
        assert isinstance(node, yaml.ScalarNode)
        plain = not node.style  # None or '' by loader
        whole = _REFERENCE.fullmatch(node.value)
        if whole:
            return self.referenced(node, whole)
        found = {match.group(): self.referenced(node, match) for match in _REFERENCE.finditer(node.value)}
        text = _REFERENCE.sub(lambda match: str(found[match.group()]), node.value)
        if any(isinstance(value, Environment) for value in found.values()):
            return Environment(text, _REFERENCE.sub(lambda match: _written(found[match.group()]), node.value))
        return scalar(text) if plain and text == node.value else text

    def referenced(self, node: yaml.Node, match: re.Match[str]) -> Any:
        env, key = match.groups()
        if env:
            if key not in os.environ:
                raise self.fail(node, f"the environment variable {key} is not set")
            return Environment(os.environ[key], f"${{env:{key}}}")
        if key not in self.values:
            raise self.fail(node, f"${{{key}}} is not in 'params'{hint(key, list(self.values))}")
        return self.values[key]


def _written(value: Any) -> str:
    """A value as it may be written down: of the environment only the name."""
    return str(getattr(value, "reference", value))


def _setting(raw: str, default: Any) -> Any:
    """The text of --set as the kind of value that the recipe has: a text, a comma-separated list, or a scalar."""
    if isinstance(default, list):
        return [scalar(item.strip()) for item in raw.strip("[]").split(",") if item.strip()]
    return raw if isinstance(default, str) else scalar(raw)


def scalar(text: str) -> Any:
    """A plain scalar by the YAML 1.2 core schema (with _ in integers): `no` is a text, `1e3` a number."""
    if text in _SPECIAL:
        return _SPECIAL[text]
    if _INT.match(text):
        return int(text.replace("_", ""))
    return float(text) if _FLOAT.match(text) else text
