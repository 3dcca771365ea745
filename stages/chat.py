"""Conversations as tokens: templates of turns, and which of their tokens an assistant is taught."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from stages.tokenizers import Tokenizer

Turn = Mapping[str, Any]
Format = Literal["chatml", "llama3"]
ROLES = ("system", "user", "assistant", "tool")
TAUGHT = "assistant"
Masked = tuple[NDArray[np.int32], NDArray[np.uint8]]
"""Tokens of a conversation, and 1 for those that are learned."""


@dataclass(frozen=True, slots=True)
class Mark:
    """A special token, by its name in the vocabulary."""

    name: str


Piece = str | Mark


@dataclass(frozen=True, slots=True)
class Template:
    """What stands around the content of a turn; `{role}` in a text is the turn's role."""

    first: tuple[Mark, ...]
    """Before the first turn."""
    before: tuple[Piece, ...]
    after: tuple[Piece, ...]
    """The first of these, an assistant's end of turn, is learned."""
    trim: bool
    """Whether white space around the content is cut off."""

    def marks(self) -> Iterator[Mark]:
        """All special tokens that it needs."""
        yield from (piece for piece in (*self.first, *self.before, *self.after) if isinstance(piece, Mark))


TEMPLATES: Mapping[Format, Template] = {
    "chatml": Template((), (Mark("<|im_start|>"), "{role}\n"), (Mark("<|im_end|>"), "\n"), trim=False),
    "llama3": Template(
        (Mark("<|begin_of_text|>"),),
        (Mark("<|start_header_id|>"), "{role}", Mark("<|end_header_id|>"), "\n\n"),
        (Mark("<|eot_id|>"),),
        trim=True,
    ),
}
"""ChatML as Qwen, SmolLM and Nemotron use it, and the format of Llama 3. No system turn is made up where there is none."""


def open_marks(template: Format, tokenizer: Tokenizer) -> dict[str, int]:
    """Ids of a template's special tokens; ValueError for a vocabulary that lacks one."""
    found = {}
    for mark in TEMPLATES[template].marks():
        token = tokenizer.named(mark.name)
        if token is None:
            others = ", ".join(name for name in TEMPLATES if name != template)
            raise ValueError(f"the vocabulary has no token {mark.name!r}, which the template {template} needs; try {others}")
        found[mark.name] = token
    return found


def pieces(turns: Iterable[Turn], template: Template) -> list[tuple[Piece, bool]]:
    """A conversation as special tokens and texts between them, each with whether it is learned.

    Texts that a model reads in one go are one piece: tokens do not end where a template's words do. What it answers is a
    piece of its own, as it is when the model writes it. ValueError for a role that is none.
    """
    found: list[tuple[Piece, bool]] = [(mark, False) for mark in template.first]
    for turn in turns:
        role, content = turn["role"], turn["content"] or ""
        if role not in ROLES:
            raise ValueError(f"a turn has the role {role!r}; roles are {', '.join(ROLES)}: name others in roles")
        mine = role == TAUGHT
        rows = [(piece if isinstance(piece, Mark) else piece.format(role=role), False) for piece in template.before]
        rows.append((content.strip() if template.trim else content, mine))
        rows += [(piece, mine and not number) for number, piece in enumerate(template.after)]
        for piece, learned in rows:
            _append(found, piece, learned=learned)
    return found


def _append(found: list[tuple[Piece, bool]], piece: Piece, *, learned: bool) -> None:
    if piece == "":
        return
    if found and isinstance(piece, str) and isinstance(found[-1][0], str) and found[-1][1] == learned:
        found[-1] = (found[-1][0] + piece, learned)
    else:
        found.append((piece, learned))


def encoded(conversations: Sequence[Sequence[Turn]], template: Format, marks: Mapping[str, int], model: Tokenizer) -> list[Masked]:
    """Tokens and masks of conversations. A special token that a content spells out stays text."""
    laid = [pieces(turns, TEMPLATES[template]) for turns in conversations]
    texts = iter(model.encode([piece for one in laid for piece, _ in one if isinstance(piece, str)]))
    found = []
    for one in laid:
        tokens = [np.array([marks[piece.name]], np.int32) if isinstance(piece, Mark) else next(texts) for piece, _ in one]
        learned = [np.full(len(ids), flag, np.uint8) for ids, (_, flag) in zip(tokens, one, strict=True)]
        empty = np.empty(0, np.int32)
        found.append((np.concatenate([empty, *tokens]), np.concatenate([empty.astype(np.uint8), *learned])))
    return found


def renamed(turns: Iterable[Turn], roles: Mapping[str, str]) -> list[Turn]:
    """Turns with the roles of other conventions under ours."""
    return [{"role": roles.get(turn["role"], turn["role"]), "content": turn["content"]} for turn in turns]
