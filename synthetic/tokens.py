"""Counting in a model's own tokens, for limits of segments: the count of another model's tokenizer is off by a third.

What is counted is the text alone: no begin or end mark, no chat template. Two traps follow. A sum over pieces is not the
count of the joined text (the separator costs, and merges across it save); count what will be sent. And the prompt around a
text costs too: count the filled prompt with an empty text once, and subtract it from the limit.
"""

from __future__ import annotations

import mmap
import struct
from collections.abc import Callable, Mapping
from functools import lru_cache
from pathlib import Path
from typing import Any

from stages.tokenizers import Vocabulary, open_tokenizer
from synthetic.asking import Deferred
from synthetic.served import EMBEDDED

Count = Callable[[str], int]

_CONTRACTIONS = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)"
_WORDS = r"|[^\r\n\p{L}\p{N}]?\p{L}+|"
_REST = r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
SPLITS: Mapping[str, str | None] = {
    "gpt-2": None,
    "smollm": r"\p{N}",
    "qwen2": _CONTRACTIONS + _WORDS + r"\p{N}" + _REST,
    "llama-bpe": _CONTRACTIONS + _WORDS + r"\p{N}{1,3}" + _REST,
}
"""How a text is cut before merging, by the name that llama.cpp keeps in a GGUF (tokenizer.ggml.pre). The first two end with
GPT-2's own cut."""


def counter(model: str | Path) -> Count:
    """A function that counts tokens: of `smollm2-135m-instruct`, of a GGUF, or of a tokenizer file.

    `model` is that name, a path of *.gguf, tokenizer.json (or a folder with one), tekken.json or SentencePiece *.model.
    ValueError names what cannot be read and what would be right.
    """
    return _counter(str(model))


@lru_cache(maxsize=8)
def _counter(model: str) -> Count:
    path = _embedded() if model == EMBEDDED else Path(model)
    if path.is_dir():
        path = path / "tokenizer.json"
    if model != "tekken" and not path.is_file():
        raise ValueError(
            f"{model}: no tokenizer here; give the model's tokenizer.json (or its folder), its *.gguf, or '{EMBEDDED}'"
        )
    if path.suffix == ".gguf":
        return _of_gguf(path)
    tokenizer = open_tokenizer(Vocabulary.model_validate({"tokenizer": model if model == "tekken" else str(path)}))
    return lambda text: len(tokenizer.encode([text])[0])


def _embedded() -> Path:
    from synthetic.engines.llamacpp import embedded_weights

    try:
        return embedded_weights()
    except Deferred as error:
        raise ValueError(str(error)) from error


def _of_gguf(path: Path) -> Count:
    """The byte-pair vocabulary of a GGUF, in the hands of `tokenizers`."""
    head = read_gguf(path)
    kind, cut = head.get("tokenizer.ggml.model"), str(head.get("tokenizer.ggml.pre", "gpt-2"))
    if kind != "gpt2" or cut not in SPLITS:
        raise ValueError(
            f"{path}: its tokenizer is '{kind}' with cut '{cut}', known are gpt2 with {list(SPLITS)}; "
            "give the model's tokenizer.json"
        )
    from tokenizers import Regex, Tokenizer, models, pre_tokenizers

    vocabulary = {token: i for i, token in enumerate(head["tokenizer.ggml.tokens"])}
    merges = [tuple(pair.split(" ", 1)) for pair in head["tokenizer.ggml.merges"]]
    tokenizer = Tokenizer(models.BPE(vocabulary, merges))
    split = SPLITS[cut]
    steps: list[Any] = []
    if split is not None:
        steps.append(pre_tokenizers.Split(Regex(split), "isolated"))
    steps.append(pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=cut in ("gpt-2", "smollm")))
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(steps)
    # The marks of the template are not taught to it: "<|im_end|>" in a page is seven plain tokens, not the end of a turn.
    return lambda text: len(tokenizer.encode(text, add_special_tokens=False))


_FORMATS = {0: "B", 1: "b", 2: "H", 3: "h", 4: "I", 5: "i", 6: "f", 7: "?", 10: "Q", 11: "q", 12: "d"}
_TEXT, _LIST = 8, 9


def read_gguf(path: str | Path) -> dict[str, Any]:
    """The metadata of a GGUF file (versions 2 and 3 of the format); ValueError for anything else."""
    with Path(path).open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
        if data[:4] != b"GGUF":
            raise ValueError(f"{path} is not a GGUF file")
        try:
            return _Head(data).read()
        except (struct.error, KeyError, UnicodeDecodeError) as error:
            raise ValueError(f"{path}: its GGUF head is damaged or of an unknown version ({error})") from error


class _Head:
    """A cursor in the head of a GGUF file."""

    def __init__(self, data: mmap.mmap) -> None:
        self._data, self._at = data, 4

    def read(self) -> dict[str, Any]:
        version = self._number("I")
        if version not in (2, 3):
            raise KeyError(version)
        self._number("Q")  # tensors
        return {self._text(): self._value(self._number("I")) for _ in range(self._number("Q"))}

    def _number(self, form: str) -> Any:
        (value,) = struct.unpack_from(f"<{form}", self._data, self._at)
        self._at += struct.calcsize(f"<{form}")
        return value

    def _text(self) -> str:
        size = self._number("Q")
        raw = self._data[self._at : self._at + size]
        self._at += size
        return raw.decode()

    def _value(self, kind: int) -> Any:
        if kind == _TEXT:
            return self._text()
        if kind == _LIST:
            inner = self._number("I")
            return [self._value(inner) for _ in range(self._number("Q"))]
        return self._number(_FORMATS[kind])
