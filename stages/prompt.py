"""What is said to a language model and what comes back; prompts are Markdown files that are reviewed as prose.

A prompt file:

    ---
    name: nemotron_cc/distill
    version: 1
    purpose: Shorten a page and keep every fact.
    variables: [text]
    sampling: {temperature: 0.0, max_tokens: 512}
    limits: {max_input_tokens: 2000, min_output_tokens: 50}
    shape: Plain paragraphs.
    ---
    # system
    You edit web pages ...
    # user
    {{text}}

Headings `# system`, `# user` and `# assistant` begin a message. `{{name}}` is replaced in one pass: a document that
contains `{{text}}` itself is text and nothing else. The same holds for `<|im_end|>` and its kind: see `unmarked`. `limits` are
numbers for the stage that uses the prompt.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal, get_args

Role = Literal["system", "user", "assistant"]
_HEADING = re.compile(r"^# (\w+)[ \t]*$", re.MULTILINE)
_VARIABLE = re.compile(r"\{\{\s*(\w+)\s*\}\}")
_MARK = re.compile(
    r"<(?=\|[^|<>\s]{1,40}\|?>|[^|<>\s]{1,40}\|>"  # ChatML (Qwen, SmolLM), Llama 3, Phi, gpt-oss, Gemma 4
    r"|｜[^｜<>\s]{1,40}｜>"  # DeepSeek
    r"|/?s>|</?SYS>>|(?:bos|eos|pad|unk|sop|eop|start_of_turn|end_of_turn)>)"  # Llama 2, Mistral, Gemma, GLM
    r"|\[(?=/?(?:INST|SYSTEM_PROMPT|AVAILABLE_TOOLS|TOOL_CALLS|TOOL_RESULTS|TOOL_CONTENT|gMASK)\])"  # Mistral, GLM
)
_KEYS = ("name", "version", "purpose", "variables", "sampling", "limits", "shape", "schema")


@dataclass(frozen=True, slots=True)
class Message:
    """One turn of a conversation."""

    role: Role
    content: str


@dataclass(frozen=True, slots=True)
class Sampling:
    """How the model chooses tokens. The seed is part of the request: the same request has one answer in the ledger."""

    max_tokens: int = 512
    temperature: float = 0.0
    top_p: float = 1.0
    seed: int | None = 0
    stop: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Request:
    """One call of a model. `tag` is for the stage that asks (which piece is this?): it is neither sent nor part of the key."""

    messages: tuple[Message, ...]
    sampling: Sampling = field(default_factory=Sampling)
    schema: Mapping[str, Any] | None = None
    """A JSON schema that the answer must satisfy, where the server can enforce it; the stage parses strictly anyway."""
    tag: str = ""


@dataclass(frozen=True, slots=True)
class Reply:
    """An answer. `finish` is "stop", "length" (cut off at max_tokens) or "filtered" (withheld by the provider)."""

    text: str
    finish: str = "stop"
    prompt_tokens: int = 0
    completion_tokens: int = 0


@dataclass(frozen=True, slots=True)
class Exchange:
    """A request and its answer."""

    request: Request
    reply: Reply


@dataclass(frozen=True, slots=True)
class Refused:
    """What `parse` returns when no row came of a conversation: the reason is counted and stands in the table."""

    reason: str
    detail: str = ""


def unmarked(text: str) -> str:
    """The text with a space inside each mark of a chat template, so that no engine reads it as one.

    vLLM, llama.cpp and the servers built on them find marks in the whole text that the template makes, also inside a document:
    a page with `<|im_end|>` would end the user's turn and speak for the model. Written `< |im_end|>` it is text to all of them.
    """
    return _MARK.sub(lambda found: f"{found.group()} ", text)


@dataclass(frozen=True, slots=True)
class Prompt:
    """A prompt file, read and checked."""

    name: str
    version: int
    purpose: str
    variables: tuple[str, ...]
    messages: tuple[Message, ...]
    sampling: Sampling
    limits: Mapping[str, float]
    shape: str = ""
    schema: Mapping[str, Any] | None = None
    text: str = field(default="", repr=False)
    """The file as it stands: part of the identity of every result."""

    def request(self, values: Mapping[str, str], *, tag: str = "", **sampling: Any) -> Request:
        """Fill in the variables. KeyError names a value that is missing or that the prompt does not declare."""
        wrong = set(values) ^ set(self.variables)
        if wrong:
            raise KeyError(f"prompt {self.name}: values for {sorted(self.variables)} are needed, {sorted(values)} were given")
        clean = {name: unmarked(value) for name, value in values.items()}
        messages = tuple(Message(m.role, _VARIABLE.sub(lambda found: clean[found.group(1)], m.content)) for m in self.messages)
        return Request(messages, replace(self.sampling, **sampling), self.schema, tag)


def read_prompt(path: str | Path) -> Prompt:
    """Read a prompt file. ValueError names the file, the fault and what would be right."""
    path = Path(path)
    try:
        return parse_prompt(path.read_text(encoding="utf-8"), str(path))
    except (OSError, UnicodeDecodeError) as error:
        raise ValueError(f"{path}: the prompt cannot be read ({error})") from error


def parse_prompt(text: str, place: str) -> Prompt:
    """A prompt out of the text of its file; `place` is for messages."""
    front, body = _split(text, place)
    messages = _messages(body, place)
    variables = tuple(front.get("variables", ()))
    used = {name for m in messages for name in _VARIABLE.findall(m.content)}
    if used != set(variables):
        unknown, unused = sorted(used - set(variables)), sorted(set(variables) - used)
        fault = f"uses {unknown} which 'variables' does not declare" if unknown else f"declares {unused} and never uses it"
        raise ValueError(f"{place}: the prompt {fault}; variables: {list(variables)}")
    return Prompt(
        str(front["name"]), int(front["version"]), str(front["purpose"]), variables, messages, _sampling(front, place),
        {k: float(v) for k, v in front.get("limits", {}).items()}, str(front.get("shape", "")), front.get("schema"), text,
    )  # fmt: skip


def _split(text: str, place: str) -> tuple[dict[str, Any], str]:
    import yaml

    pieces = re.split(r"^---[ \t]*$", text, maxsplit=2, flags=re.MULTILINE)
    if len(pieces) != 3 or pieces[0].strip():
        raise ValueError(f"{place}: a prompt begins with front matter between two lines '---'")
    try:
        front = yaml.safe_load(pieces[1])
    except yaml.YAMLError as error:
        raise ValueError(f"{place}: the front matter is not YAML: {error}") from error
    if not isinstance(front, dict):
        raise ValueError(f"{place}: the front matter is a mapping with {list(_KEYS)}")  # noqa: TRY004
    missing = [k for k in ("name", "version", "purpose") if k not in front]
    unknown = [k for k in front if k not in _KEYS]
    if missing or unknown:
        raise ValueError(f"{place}: front matter {f'lacks {missing}' if missing else f'has unknown keys {unknown}'}")
    return front, pieces[2]


def _messages(body: str, place: str) -> tuple[Message, ...]:
    pieces = _HEADING.split(body)
    if pieces[0].strip() or len(pieces) < 3:
        raise ValueError(f"{place}: the text begins with a heading '# system' or '# user'")
    found: list[Message] = []
    for role, content in zip(pieces[1::2], pieces[2::2], strict=True):
        if role not in get_args(Role):
            raise ValueError(f"{place}: '# {role}' is no role; use {list(get_args(Role))}, or '##' for a heading of the text")
        found.append(Message(role, content.strip()))  # type: ignore[arg-type]
    return tuple(found)


def _sampling(front: Mapping[str, Any], place: str) -> Sampling:
    given = dict(front.get("sampling", {}))
    unknown = sorted(set(given) - set(Sampling.__slots__))
    if unknown:
        raise ValueError(f"{place}: sampling has unknown keys {unknown}; known are {list(Sampling.__slots__)}")
    given["stop"] = tuple(given.get("stop", ()))
    return Sampling(**given)


def conversation(prompts: Sequence[Prompt]) -> list[dict[str, Any]]:
    """Name, version and text of prompts, for the identity of a result."""
    return [{"prompt": p.name, "version": p.version, "text": p.text} for p in prompts]
