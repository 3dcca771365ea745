"""Vocabularies: one way to ask for token ids, whatever file they come from."""

from __future__ import annotations

import base64
import importlib
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pyarrow as pa
from pydantic import Field

from stages import engines
from stages.analysis import text_buffers
from stages.contract import TEXT, Params, file, knob

Ids = np.ndarray[Any, np.dtype[np.int32]]

TEKKEN = "tekken_240911.json"
LIBRARIES = ("mistral-common", "tiktoken", "tokenizers")
"""What shapes the bytes of a tokenized shard; mistral-common is where the default vocabulary lies."""

ENDS = ("<|endoftext|>", "<|end_of_text|>", "</s>", "<eos>", "<｜end▁of▁sentence｜>", "[EOS]", "[SEP]")
BEGINS = ("<|begin_of_text|>", "<s>", "<bos>", "<｜begin▁of▁sentence｜>", "[BOS]", "[CLS]")
"""Names under which common vocabularies keep the two marks; the first that is there is taken."""


class Vocabulary(Params):
    """Which tokenizer, and its special tokens."""

    tokenizer: str = file(
        "tekken",
        "tekken (Mistral's, 131,072 tokens) or a file: tokenizer.json, tekken.json, *.tiktoken, SentencePiece *.model.",
    )
    eod_token: str | None = Field(None, description="Name of the end-of-document token; null: the usual names are tried.")
    bos_token: str | None = Field(None, description="Name of the begin token; null: the usual names are tried.")
    pattern: str | None = Field(None, description="*.tiktoken only: the splitting pattern, which these files do not hold.")
    specials: dict[str, int] = Field({}, description="*.tiktoken only: special tokens and their ids.")
    engine: Literal["auto", "reference"] = knob("auto", "auto: a faster engine where its tokens are the same; reference: never.")


@dataclass(frozen=True)
class Tokenizer:
    """`encode` gives plain tokens: no special token is added, and none is recognised inside a text."""

    encode: Callable[[Sequence[str]], list[Ids]]
    vocab_size: int
    eod: int | None
    bos: int | None
    fast: engines.Encode | None = None
    """A faster engine for the same tokens, not yet proved."""
    lengths: Ids | None = None
    """Bytes of each token by its id, in a vocabulary whose tokens are bytes of the text."""
    located: Callable[[Sequence[str]], list[Ids]] | None = None
    """What `places` returns, in other vocabularies that know."""
    named: Callable[[str], int | None] = lambda _name: None
    """Id of a special token by its name; None where there is none."""

    def flat(self, texts: pa.ChunkedArray) -> engines.Flat:
        """Tokens of a column of texts one after the other, and how many each row has: none where there is no text."""
        whole = texts.cast(TEXT).fill_null("").combine_chunks()
        found = self.fast.column(whole) if isinstance(self.fast, engines.Watched) else None
        if found is not None:
            return found
        rows = whole.to_pylist()
        encoded = iter(self.encode([text for text in rows if text]))
        lists = [next(encoded) if text else np.empty(0, np.int32) for text in rows]
        counts = np.fromiter(map(len, lists), np.int64, len(lists))
        return np.concatenate([np.empty(0, np.int32), *lists]), counts

    def places(self, texts: Sequence[str]) -> list[Ids]:
        """For each text its tokens and the bytes of the text that each stands for, shape (n, 3): id, start, stop.

        ValueError where the vocabulary does not say (SentencePiece).
        """
        if self.lengths is None:
            if self.located is None:
                raise ValueError("this vocabulary does not say which bytes a token stands for; take a tokenizer.json, tekken.json "
                                 "or *.tiktoken")  # fmt: skip
            return self.located(texts)
        found = []
        for ids in self.encode(texts):
            stops = np.cumsum(self.lengths[ids], dtype=np.int32)
            found.append(np.column_stack([ids, stops - self.lengths[ids], stops]).astype(np.int32))
        return found


def open_tokenizer(params: Vocabulary) -> Tokenizer:
    """Open the vocabulary that the parameters name; ValueError for what is not one.

    A faster engine encodes where it gives the same tokens: proved on probes here, and on a sample while it works.
    """
    found = _opened(params)
    if found.vocab_size > 2**31:
        raise ValueError(f"{params.tokenizer}: token ids go up to {found.vocab_size - 1:,}; they have to fit into 31 bits")
    fast = engines.proved(found.fast, found.encode) if params.engine == "auto" else None
    return replace(found, encode=fast or found.encode, fast=fast)


def _opened(params: Vocabulary) -> Tokenizer:
    path = Path(params.tokenizer)
    if params.tokenizer == "tekken":
        from mistral_common import __file__ as package

        return _tekken(Path(package).parent / "data" / TEKKEN, params)
    if path.suffix == ".tiktoken":
        return _tiktoken(path, params)
    if path.suffix == ".model" or ".model.v" in path.name:
        return _sentencepiece(path, params)
    return _json(path, params)


def special(params: Vocabulary, kind: str, tokenizer: Tokenizer) -> int:
    """Id of the `eod` or `bos` token; ValueError with the way out when the vocabulary has none."""
    found: int | None = getattr(tokenizer, kind)
    if found is None:
        fault = f"{params.tokenizer} has no {kind} token under a usual name"
        raise ValueError(f"{fault}: name it with {kind}_token, or set {kind}: false")
    return found


def _mark(named: str | None, usual: Sequence[str], find: Callable[[str], int | None]) -> int | None:
    """The id of the named token (which must be there) or of the first usual one."""
    if named is not None and find(named) is None:
        raise ValueError(f"the vocabulary has no token {named!r}")
    found = (find(name) for name in ([named] if named is not None else usual))
    return next((token for token in found if token is not None), None)


def _json(path: Path, params: Vocabulary) -> Tokenizer:
    import orjson

    content = orjson.loads(path.read_bytes())
    if "model" in content:
        return _huggingface(path, params)
    if "pattern" in content.get("config", {}):
        return _tekken(path, params)
    raise ValueError(f"{path} is neither a Hugging Face tokenizer.json nor a tekken.json")


def _huggingface(path: Path, params: Vocabulary) -> Tokenizer:
    # One worker process a core runs already; its threads would only crowd the others out.
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    from tokenizers import Tokenizer as Fast

    fast = Fast.from_file(str(path))
    # Files saved for inference may cut and pad; "</s>" in a page about HTML must not end a document.
    fast.no_truncation()
    fast.no_padding()
    fast.encode_special_tokens = True

    def encode(texts: Sequence[str]) -> list[Ids]:
        return [np.array(one.ids, np.int32) for one in fast.encode_batch_fast(list(texts), add_special_tokens=False)]

    eod, bos = _mark(params.eod_token, ENDS, fast.token_to_id), _mark(params.bos_token, BEGINS, fast.token_to_id)
    size = max(fast.get_vocab(with_added_tokens=True).values()) + 1

    def located(texts: Sequence[str]) -> list[Ids]:
        found = []
        for text, one in zip(texts, fast.encode_batch(list(texts), add_special_tokens=False), strict=True):
            characters = np.array(one.offsets, np.int64).reshape(-1, 2)
            found.append(np.column_stack([np.array(one.ids, np.int32), _bytes_before(text)[characters]]).astype(np.int32))
        return found

    return Tokenizer(encode, size, eod, bos, engines.of_json(path), located=located, named=fast.token_to_id)


def _bytes_before(text: str) -> Ids:
    """Bytes of UTF-8 before each character of a text, and at last those of all."""
    codes = np.frombuffer(text.encode("utf-32-le"), "<u4")
    widths = 1 + (codes >= 0x80).astype(np.int32) + (codes >= 0x800) + (codes >= 0x10000)
    return np.append(0, np.cumsum(widths)).astype(np.int32)


def _lengths(ranks: dict[bytes, int], offset: int) -> Ids:
    """Bytes of each token by its id."""
    found = np.zeros(max(ranks.values()) + offset + 1, np.int32)
    found[np.array(list(ranks.values())) + offset] = [len(token) for token in ranks]
    return found


TOKENS = pa.large_binary()
"""Tokens of a document and their places: three int32 each, little endian: id, first byte, byte after the last."""


def token_places(column: pa.ChunkedArray) -> tuple[Ids, np.ndarray[Any, np.dtype[np.int64]]]:
    """All tokens of a column of TOKENS, shape (n, 3), and for each row the number of its first one."""
    data, offsets = text_buffers(column)
    used = np.frombuffer(data[offsets[0] : offsets[-1]].tobytes(), "<i4").reshape(-1, 3)
    return used, (offsets - offsets[0]) // 12


def _tekken(path: Path, params: Vocabulary) -> Tokenizer:
    """Mistral's format: byte-level ranks that begin after the special tokens."""
    import orjson

    content = orjson.loads(path.read_bytes())
    config = content["config"]
    offset = int(config["default_num_special_tokens"])
    size = int(config["default_vocab_size"])
    ranks = {base64.b64decode(token["token_bytes"]): token["rank"] for token in content["vocab"][: size - offset]}
    # Files up to version 7 do not list their special tokens; the first three have been the same ever since.
    listed = content.get("special_tokens") or []
    names = {token["token_str"]: int(token["rank"]) for token in listed} or {"<unk>": 0, "<s>": 1, "</s>": 2}
    eod, bos = _mark(params.eod_token, ENDS, names.get), _mark(params.bos_token, BEGINS, names.get)
    quick = engines.of_ranks(ranks, config["pattern"], offset)
    return Tokenizer(_byte_pairs(config["pattern"], ranks, offset), size, eod, bos, quick, _lengths(ranks, offset), named=names.get)


def _tiktoken(path: Path, params: Vocabulary) -> Tokenizer:
    if params.pattern is None:
        raise ValueError(f"{path}: a .tiktoken file does not hold its splitting pattern; give it as pattern")
    pairs = (line.split() for line in path.read_bytes().splitlines() if line)
    ranks = {base64.b64decode(token): int(rank) for token, rank in pairs}
    eod = _mark(params.eod_token, ENDS, params.specials.get)
    bos = _mark(params.bos_token, BEGINS, params.specials.get)
    size = max([*ranks.values(), *params.specials.values()]) + 1
    quick = engines.of_ranks(ranks, params.pattern, 0)
    return Tokenizer(_byte_pairs(params.pattern, ranks, 0), size, eod, bos, quick, _lengths(ranks, 0), named=params.specials.get)


def _byte_pairs(pattern: str, ranks: dict[bytes, int], offset: int) -> Callable[[Sequence[str]], list[Ids]]:
    import tiktoken

    model = tiktoken.Encoding("vocabulary", pat_str=pattern, mergeable_ranks=ranks, special_tokens={})

    def encode_one(text: str) -> Ids:
        try:
            return model.encode_to_numpy(text, disallowed_special=()).astype(np.int32) + np.int32(offset)
        except ValueError:
            # The splitting pattern backs up over runs of white space and gives up on some hundred thousand of it.
            half = len(text) // 2
            if not half:
                raise
            return np.concatenate([encode_one(text[:half]), encode_one(text[half:])])

    return lambda texts: [encode_one(text) for text in texts]


def _sentencepiece(path: Path, params: Vocabulary) -> Tokenizer:
    try:
        library = importlib.import_module("sentencepiece")
    except ModuleNotFoundError as error:
        raise ValueError(f"{path} is a SentencePiece vocabulary: install sentencepiece") from error
    model = library.SentencePieceProcessor(model_file=str(path))

    def find(name: str) -> int | None:
        token = int(model.piece_to_id(name))
        return None if token == model.unk_id() else token

    def encode(texts: Sequence[str]) -> list[Ids]:
        return [np.array(ids, np.int32) for ids in model.encode(list(texts), num_threads=1)]

    eod, bos = _mark(params.eod_token, ENDS, find), _mark(params.bos_token, BEGINS, find)
    size = int(model.vocab_size())
    controls = [model.id_to_piece(token) for token in range(size) if model.is_control(token)]
    return Tokenizer(encode, size, eod, bos, engines.of_sentencepiece(path, controls, encode), named=find)
