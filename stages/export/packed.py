"""Packed sequences for SFT-style data: several documents in a row of fixed capacity, with their loss mask and starts.

A document is a text, a prompt and a text, or a conversation of which the assistant's turns are learned.

Columns and conventions are those of Nemotron's data preparation: `input_ids`, `loss_mask` shifted left inside each document,
`seq_start_id` with starts only.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, Self

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray
from pydantic import Field, model_validator

from stages import chat
from stages.columns import MESSAGES
from stages.contract import TEXT, FileGroup, export_stage
from stages.export.listing import listing
from stages.export.rowgroups import RowGroups
from stages.tokenizers import LIBRARIES, Tokenizer, Vocabulary, open_tokenizer, special

SCHEMA = pa.schema(
    [("input_ids", pa.list_(pa.int32())), ("loss_mask", pa.list_(pa.uint8())), ("seq_start_id", pa.list_(pa.int32()))]
)
PIECE = 256
"""Packed rows handed to the writer at once."""


class Packed(Vocabulary):
    """How documents are packed."""

    capacity: int = Field(4096, ge=2, description="Tokens of a packed row; longer documents are cut at it.")
    prompt: str | None = Field(
        None, description="Text column that stands before `text` and has no loss; null: every token has loss."
    )
    messages: str | None = Field(
        None, description="Column of conversations (role, content) instead of `text`; assistant turns and their ends have loss."
    )
    template: chat.Format = Field("chatml", description="How the turns of conversations are written.")
    roles: dict[str, str] = Field({}, description="Roles under other names, such as {human: user, gpt: assistant}.")
    eod: bool | None = Field(
        None, description="End every document with the end-of-document token, which has loss; null: texts yes, conversations no."
    )
    row_group_rows: int = Field(1000, ge=1, description="Rows of a row group.")

    @model_validator(mode="after")
    def _one_kind(self) -> Self:
        if self.messages and self.prompt:
            raise ValueError("give prompt or messages, not both")
        return self

    @property
    def ends(self) -> bool:
        """Whether documents end with the end-of-document token."""
        return not self.messages if self.eod is None else self.eod


def _open(params: Packed) -> Tokenizer:
    tokenizer = open_tokenizer(params)
    if params.ends:
        special(params, "eod", tokenizer)
    if params.messages:
        chat.open_marks(params.template, tokenizer)
    return tokenizer


def _reads(params: Packed) -> dict[str, pa.DataType]:
    if params.messages:
        return {"id": pa.string(), params.messages: MESSAGES}
    return {"id": pa.string(), "text": TEXT} | ({params.prompt: TEXT} if params.prompt else {})


def _finish(summaries: Sequence[Mapping[str, Any]], _params: Packed) -> dict[str, bytes]:
    return listing([{"name": s["name"], "rows": s["packs"]} for s in summaries], ".packed.parquet")


@export_stage(version=1, reads=_reads, finish=_finish, libraries=(*LIBRARIES, "pyarrow"), model=_open)
def sequences(batches: Iterable[pa.Table], params: Packed, files: FileGroup, *, model: Tokenizer) -> Mapping[str, Any]:
    """Write a shard as `.packed.parquet`: `input_ids` (int32), `loss_mask` (uint8) and `seq_start_id` (int32) lists.

    Documents are packed first-fit decreasing within the shard; packs stand in the order of their first document, documents
    within a pack in the order of the shard. `loss_mask[i]` says whether token i + 1 is learned: 0 before a prompt's tokens
    and at the end of each document; in conversations 1 only before the tokens of assistant turns and their end marks. Rows
    without text, and conversations in which no assistant speaks, are counted as `empty`; `unlearned` counts documents that
    the cut leaves without a token to learn. `.docs.parquet` has `id`, `start` (token number in the file), `tokens`, `pack`.
    """
    ids, documents, masks, rows = list[str](), list[NDArray[np.int32]](), list[NDArray[np.uint8]](), 0
    cut = 0
    for batch in batches:
        rows += batch.num_rows
        for document, whole, mask in _documents(batch, params, model):
            cut += max(len(whole) - params.capacity, 0)
            ids.append(document)
            documents.append(whole[: params.capacity])
            masks.append(mask[: params.capacity])
    packs = pack([len(tokens) for tokens in documents], params.capacity)
    writer = RowGroups(files.open(".packed.parquet"), SCHEMA, params.row_group_rows)
    for start in range(0, len(packs), PIECE):
        writer.write(_rows(packs[start : start + PIECE], documents, masks))
    writer.close()
    _write_documents(files, packs, ids, documents)
    tokens = sum(map(len, documents))
    return {
        "rows": rows, "documents": len(ids), "empty": rows - len(ids), "tokens": tokens, "cut_tokens": cut, "packs": len(packs),
        "unlearned": sum(not mask.any() for mask in masks),
        "filled": round(tokens / (len(packs) * params.capacity), 4) if packs else None,
    }  # fmt: skip


def _documents(batch: pa.Table, params: Packed, model: Tokenizer) -> Iterator[tuple[str, NDArray[np.int32], NDArray[np.uint8]]]:
    """(id, tokens, which of them are learned) of the rows that have something to learn."""
    end = np.array([special(params, "eod", model)] if params.ends else [], np.int32)
    for document, (tokens, learned) in (_spoken if params.messages else _written)(batch, params, model):
        yield document, np.concatenate([tokens, end]), np.concatenate([learned, np.ones(len(end), np.uint8)])


def _written(batch: pa.Table, params: Packed, model: Tokenizer) -> Iterator[tuple[str, chat.Masked]]:
    prompts = batch[params.prompt].to_pylist() if params.prompt else [None] * batch.num_rows
    full = [row for row in zip(batch["id"].to_pylist(), prompts, batch["text"].to_pylist(), strict=True) if row[2]]
    asked = model.encode([prompt or "" for _, prompt, _ in full])
    answered = model.encode([text for _, _, text in full])
    for (document, _, _), prompt, text in zip(full, asked, answered, strict=True):
        yield document, (np.concatenate([prompt, text]), (np.arange(len(prompt) + len(text)) >= len(prompt)).astype(np.uint8))


def _spoken(batch: pa.Table, params: Packed, model: Tokenizer) -> Iterator[tuple[str, chat.Masked]]:
    rows = zip(batch["id"].to_pylist(), batch[params.messages].to_pylist(), strict=True)
    turns = [(document, chat.renamed(row or (), params.roles)) for document, row in rows]
    full = [(document, row) for document, row in turns if any(turn["role"] == chat.TAUGHT for turn in row)]
    marks = chat.open_marks(params.template, model)
    yield from zip(
        (document for document, _ in full), chat.encoded([row for _, row in full], params.template, marks, model), strict=True
    )


def pack(lengths: Sequence[int], capacity: int) -> list[list[int]]:
    """First-fit decreasing: each document, longest first, into the first pack that has room for it.

    Source: Johnson, "Near-optimal bin packing algorithms" (1973): at most 11/9 of the fewest packs, and one more. A tree
    over the packs keeps the most room of each range, so finding the first fit takes log(packs) steps.
    """
    leaves = 1 << max(len(lengths) - 1, 0).bit_length()
    room = [capacity] * (2 * leaves)
    packs: list[list[int]] = []
    for index in sorted(range(len(lengths)), key=lambda i: -lengths[i]):
        node = 1
        while node < leaves:
            node = 2 * node if room[2 * node] >= lengths[index] else 2 * node + 1
        if node - leaves == len(packs):
            packs.append([])
        packs[node - leaves].append(index)
        room[node] -= lengths[index]
        while node > 1:
            node //= 2
            room[node] = max(room[2 * node], room[2 * node + 1])
    return sorted(sorted(members) for members in packs)


def _rows(packs: Sequence[Sequence[int]], documents: Sequence[NDArray[np.int32]], masks: Sequence[NDArray[np.uint8]]) -> pa.Table:
    columns: list[list[Any]] = [[], [], []]
    for members in packs:
        lengths = np.array([len(documents[i]) for i in members])
        columns[0].append(np.concatenate([documents[i] for i in members]))
        # One step to the left inside each document: the mask stands where the token is predicted.
        columns[1].append(np.concatenate([np.append(masks[i][1:], np.uint8(0)) for i in members]))
        columns[2].append((np.cumsum(lengths) - lengths).astype(np.int32))
    return pa.table([pa.array(column, kind) for column, kind in zip(columns, SCHEMA.types, strict=True)], schema=SCHEMA)


def _write_documents(
    files: FileGroup, packs: Sequence[Sequence[int]], ids: Sequence[str], documents: Sequence[NDArray[np.int32]]
) -> None:
    order = [index for members in packs for index in members]
    lengths = np.array([len(documents[index]) for index in order], np.int64)
    numbers = np.repeat(np.arange(len(packs)), [len(members) for members in packs])
    columns = {"id": pa.array([ids[i] for i in order], pa.string()), "start": np.cumsum(lengths) - lengths, "tokens": lengths}
    pq.write_table(pa.table({**columns, "pack": numbers}), files.open(".docs.parquet"), compression="zstd")
