"""Synthetic documents that train a model to find things far back: many records, then questions about some of them.

Nemotron 3 Nano's long-context phase has about 1 % of such documents of up to 256k tokens; how they were made is not
published. Ours hold records of three kinds in random order, so that the answer stands at any depth:

    lookup    one record: who asked for a key gets its value
    latest    a key is written several times; the last value counts
    several   the values of three keys, in the order of the question

A document is drawn from seed and number alone.
"""

from __future__ import annotations

import hashlib
import math
import random
from collections.abc import Iterator
from typing import Any

import pyarrow as pa
from pydantic import Field

from stages.contract import TEXT, Chunk, Unit, source
from stages.tokenizers import LIBRARIES, Tokenizer, Vocabulary, open_tokenizer

CITIES = (
    "Aachen Bergen Cork Delft Evora Faro Ghent Huelva Ivrea Jena Kotor Lund Modena Narva Odense Parma Riga Siena Tartu Vigo Ypres"
)
TRADES = "baker binder brewer carver clerk cooper dyer fuller glazier joiner mason miller potter saddler smith tanner turner weaver"
THINGS = "anvil barrel basket bell chest crate flask kettle lamp ledger loom mirror parcel saw scale sieve spade trunk"
COLOURS = "amber black blue brown copper green grey ochre red silver violet white yellow"
KINDS = ("lookup", "latest", "several")
BATCH = 16


class Retrieval(Vocabulary):
    """How many documents, and how long."""

    documents: int = Field(ge=1, description="Documents made.")
    min_tokens: int = Field(4096, ge=256, description="Shortest document; lengths are spread evenly over powers of two.")
    max_tokens: int = Field(262_144, ge=256, description="Longest document, in tokens of the vocabulary.")
    questions: int = Field(8, ge=1, description="Questions at the end of a document.")
    seed: int = Field(0, ge=0, description="Another seed gives other documents.")
    unit_documents: int = Field(64, ge=1, description="Documents of one unit.")


def _units(params: Retrieval) -> Iterator[Unit]:
    if params.min_tokens > params.max_tokens:
        raise ValueError(f"min_tokens is {params.min_tokens}, max_tokens {params.max_tokens}: the first has to be the smaller")
    witness = f"{params.seed}/{params.min_tokens}/{params.max_tokens}/{params.questions}"
    for start in range(0, params.documents, params.unit_documents):
        stop = min(start + params.unit_documents, params.documents)
        yield Unit("retrieval", "retrieval", params.documents, witness, start, stop)


@source(
    version=1,
    units=_units,
    writes={"text": TEXT, "kind": pa.string(), "tokens": pa.int32(), "answers": pa.list_(pa.string())},
    libraries=LIBRARIES,
    model=open_tokenizer,
)
def documents(unit: Unit, params: Retrieval, *, model: Tokenizer) -> Iterator[Chunk]:
    """Make documents: `text` with at most `max_tokens` tokens, `kind`, `tokens` (without end mark) and the `answers` in order."""
    assert unit.stop is not None
    for start in range(unit.start, unit.stop, BATCH):
        numbers = range(start, min(start + BATCH, unit.stop))
        rows = [_document(number, params, model) for number in numbers]
        origin = [{"unit": unit.name, "offset": number, "length": 1} for number in numbers]
        columns = {name: [row[name] for row in rows] for name in ("text", "kind", "tokens", "answers")}
        table = pa.table(
            {
                "text": pa.array(columns["text"], TEXT),
                "kind": columns["kind"],
                "tokens": pa.array(columns["tokens"], pa.int32()),
                "answers": columns["answers"],
                "source": ["retrieval"] * len(rows),
                "language": ["en"] * len(rows),
                "origin": pa.array(origin, pa.struct([("unit", pa.string()), ("offset", pa.int64()), ("length", pa.int64())])),
            }
        )
        yield Chunk(table, len(rows))


def _document(number: int, params: Retrieval, model: Tokenizer) -> dict[str, Any]:
    dice = random.Random(hashlib.blake2b(f"{params.seed}/{number}".encode(), digest_size=8).digest())
    low, high = math.log2(params.min_tokens), math.log2(params.max_tokens)
    target = int(2 ** dice.uniform(low, high))
    kind = KINDS[number % len(KINDS)]
    keys = _keys(dice)
    room, records = target, list[tuple[str, int]]()
    while room > 0:
        wave = [(key, dice.randrange(10_000, 100_000)) for key in (next(keys) for _ in range(128))]
        if kind == "latest":
            wave += [(key, dice.randrange(10_000, 100_000)) for key, _ in dice.sample([*records, *wave], 64)]
            dice.shuffle(wave)
        for record, size in zip(wave, _sizes([_line(*record) for record in wave], model), strict=True):
            room -= size
            if room <= 0:
                break
            records.append(record)
    values = dict(records)
    asked = [_question(kind, values, dice) for _ in range(params.questions)]
    return _fitted(records, asked, target, model) | {"kind": kind, "answers": [answer for _, answer in asked]}


def _keys(dice: random.Random) -> Iterator[str]:
    """Names of things that occur once."""
    seen, lists = set[str](), [words.split() for words in (COLOURS, THINGS, TRADES, CITIES)]
    while True:
        colour, thing, trade, city = (dice.choice(words) for words in lists)
        key = f"the {colour} {thing} {dice.randrange(2, 1000)} of the {trade} in {city}"
        if key not in seen:
            seen.add(key)
            yield key


def _line(key: str, value: int) -> str:
    return f"The number of {key} is {value}.\n"


def _sizes(lines: list[str], model: Tokenizer) -> list[int]:
    return [len(ids) for ids in model.encode(lines)]


def _question(kind: str, values: dict[str, int], dice: random.Random) -> tuple[str, str]:
    if kind == "several":
        keys = dice.sample(list(values), 3)
        return f"What are the numbers of {keys[0]}, of {keys[1]}, and of {keys[2]}?", ", ".join(str(values[key]) for key in keys)
    key = dice.choice(list(values))
    what = "Which number was given last to" if kind == "latest" else "What is the number of"
    return f"{what} {key}?", str(values[key])


def _fitted(records: list[tuple[str, int]], asked: list[tuple[str, str]], target: int, model: Tokenizer) -> dict[str, Any]:
    """The text of a document and its tokens: records that no question needs are left out until it fits."""
    end = "\n" + "\n".join(f"Question: {question}\nAnswer: {answer}" for question, answer in asked) + "\n"
    spare = [n for n, (key, _) in enumerate(records) if not any(key in question for question, _ in asked)]
    while True:
        text = "".join(_line(*record) for record in records) + end
        tokens = len(model.encode([text])[0])
        if tokens <= target or not spare:
            return {"text": text, "tokens": tokens}
        for _ in range(max((tokens - target) // 16, 1)):
            if spare:
                records[spare.pop()] = ("", 0)
        records[:] = [record for record in records if record[0]]
        spare = [n for n, (key, _) in enumerate(records) if not any(key in question for question, _ in asked)]
