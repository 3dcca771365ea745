"""Faster engines for a vocabulary, taken only where they give the reference's tokens, id for id.

gigatoken caches whole words and encodes web text some ten times as fast as tiktoken. It does not open every vocabulary, and
a splitting scheme has to be named to it where the file holds none; so an engine is proved on probes when it is opened, and
on a sample of the documents while it works. Where a probe differs, the reference is used; where a document differs later,
the step stops, because tokens already written came from the same engine.
"""

from __future__ import annotations

import re
import tempfile
from collections.abc import Callable, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import orjson
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from stages.analysis import text_buffers
from stages.contract import Unusable

Ids = NDArray[np.int32]
Encode = Callable[[Sequence[str]], list[Ids]]
Flat = tuple[Ids, NDArray[np.int64]]
"""Tokens of texts one after the other, and how many each has."""

SCHEMES = {
    r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+|[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+"
    r"[\p{Ll}\p{Lm}\p{Lo}\p{M}]*|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+": "nemotron",
    r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+": "gpt2",
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|"
    r"\s+": "cl100k",
}
"""Splitting patterns that stand in files or recipes, and the engine's names of them; Tekken's is called nemotron there."""
PROBES = (
    "",
    " ",
    "\n\n\n",
    "a",
    "The mill grinds slowly, but it grinds exceedingly small.",
    "I'll don't WE'VE it's 'S",
    "x = [1, 22, 333, 4444]\n\n    return x\r\n",
    "Żółta łódź\u0301 e\u0301\u0300 ﬁ Ⅷ ½ ①",
    "水车磨得很慢。粉屋はゆっくり回る。방앗간은 천천히 돈다.",
    "мельница мелет медленно",
    "الطاحونة تطحن ببطء",
    "चक्की धीरे चलती है",
    "😀👩\u200d👩\u200d👧\u200d👦🏳\ufe0f\u200d🌈",
    "\u0000\u0001\u0004\u001f\u007f\u0080\u00a0\u200b\u2028\ufeff\ufffd",
    "</s><|endoftext|><|im_start|><s>[INST]",
    "a" * 3000,
    " " * 3000,
    "\t \n" * 500,
    "https://example.org/a_b-c?d=e&f=%20#g",
    "1234567890.0987654321e-10",
    "fooBarBAZ_quxQUUX",
    "\\frac{a}{b} \\sum_{i=0}^{n}",
    "…—“”‘’«»",
)
"""Texts on which splitting schemes, normalisers and special tokens differ first."""
FIRST, EVERY, LONGEST = 8, 4096, 20_000
"""Documents of a worker that are checked at its start, one in how many afterwards, and the most characters of one of them:
about 2 % of the engine's time."""

BLANK = 50_000
"""Characters of white space in a row beyond which tiktoken gives up, and our halving of the text is the reference."""
_BLANK = re.compile(rf"\s{{{BLANK}}}")


def proved(fast: Encode | None, reference: Encode) -> Watched | None:
    """The engine, checked as it works; None where there is none or a probe differs."""
    if fast is None:
        return None
    try:
        got = fast(PROBES)
    except Exception:  # an engine that fails on a probe is no engine: the reference does the work
        return None
    same = all(np.array_equal(a, b) for a, b in zip(got, reference(PROBES), strict=True))
    return Watched(fast, reference) if same else None


class Watched:
    """An engine whose tokens are compared with the reference's, on a sample of what it encodes."""

    def __init__(self, fast: Encode, reference: Encode) -> None:
        self._fast, self._reference, self._seen = fast, reference, 0

    def __call__(self, texts: Sequence[str]) -> list[Ids]:
        """Encode; Unusable when a document of the sample differs."""
        blank = [index for index, text in enumerate(texts) if len(text) >= BLANK and _BLANK.search(text)]
        found = _apart(self._fast, self._reference, texts, blank)
        for index in self._sample(len(texts)):
            self._check(texts[index], found[index])
        return found

    def column(self, texts: pa.LargeStringArray) -> Flat | None:
        """The same for a column without nulls and without a Python object for each text; None where the engine cannot."""
        column = getattr(self._fast, "column", None)
        long = pc.indices_nonzero(pc.greater_equal(pc.binary_length(texts), BLANK)).to_pylist()
        if column is None or any(_BLANK.search(texts[index].as_py()) for index in long):
            return None
        flat, counts = column(texts)
        stops = np.cumsum(counts)
        for index in self._sample(len(texts)):
            self._check(texts[index].as_py(), flat[stops[index] - counts[index] : stops[index]])
        return flat, counts

    def _sample(self, count: int) -> list[int]:
        """Which of the next `count` texts are checked."""
        chosen = dict.fromkeys([*range(max(FIRST - self._seen, 0)), *range(-self._seen % EVERY, count, EVERY)])
        self._seen += count
        return [index for index in chosen if index < count]

    def _check(self, text: str, found: Ids) -> None:
        if len(text) <= LONGEST and not np.array_equal(found, self._reference([text])[0]):
            raise Unusable(
                f"the fast engine gives other tokens than the vocabulary's own on a document that begins {text[:40]!r}; "
                "set engine: reference in this step"
            )


def _apart(fast: Encode, reference: Encode, texts: Sequence[str], left: Sequence[int]) -> list[Ids]:
    """Encode, the texts in the places `left` by the reference."""
    if not left:
        return fast(texts)
    plain = list(texts)
    for index in left:
        plain[index] = ""
    found = fast(plain)
    for index, ids in zip(left, reference([texts[index] for index in left]), strict=True):
        found[index] = ids
    return found


def of_ranks(ranks: dict[bytes, int], pattern: str, offset: int) -> Encode | None:
    """An engine for byte-pair ranks under a splitting pattern that it knows; None for others."""
    import base64

    scheme = SCHEMES.get(pattern)
    if scheme is None:
        return None
    with tempfile.NamedTemporaryFile(suffix=".tiktoken") as file:
        file.write(b"".join(base64.b64encode(token) + b" %d\n" % rank for token, rank in ranks.items()))
        file.flush()
        return _opened(lambda library: library.Tokenizer.from_tiktoken(file.name, pretokenizer=scheme), offset)


def of_json(path: Path) -> Encode | None:
    """An engine for a tokenizer.json; special tokens are taken out, so that a text that spells one out stays text."""
    content = orjson.loads(path.read_bytes())
    content["added_tokens"] = [token for token in content.get("added_tokens") or [] if not token.get("special")]
    content |= {"post_processor": None, "truncation": None, "padding": None}
    return _opened(lambda library: library.Tokenizer.from_json(orjson.dumps(content)), 0)


def of_sentencepiece(path: Path, controls: Sequence[str], reference: Encode) -> Encode | None:
    """An engine for a SentencePiece model; texts that spell out one of its control pieces are left to the reference."""
    fast = _opened(lambda library: library.Tokenizer.from_sentencepiece(str(path)), 0)
    if fast is None or not controls:
        return fast
    spelled = re.compile("|".join(map(re.escape, controls)))

    def encode(texts: Sequence[str]) -> list[Ids]:
        return _apart(fast, reference, texts, [index for index, text in enumerate(texts) if spelled.search(text)])

    return encode


def _opened(make: Callable[[Any], Any], offset: int) -> Encode | None:
    try:
        import gigatoken
    except ImportError:
        return None
    try:
        tokenizer = make(gigatoken)
    except (KeyboardInterrupt, SystemExit, MemoryError):
        raise
    except BaseException:  # its panics are no Exceptions; a vocabulary that it refuses is the reference's work
        return None

    return _Gigatoken(tokenizer, np.int32(offset))


class _Gigatoken:
    """The engine; `offset` is added to its ids."""

    def __init__(self, tokenizer: Any, offset: np.int32) -> None:
        self._tokenizer, self._offset = tokenizer, offset

    def __call__(self, texts: Sequence[str]) -> list[Ids]:
        """Encode texts."""
        flat, offsets = self._run(list(texts))
        return [flat[start:stop] for start, stop in pairwise(offsets.tolist())]

    def column(self, texts: pa.LargeStringArray) -> Flat:
        """Encode a column where it lies."""
        import awkward as ak

        data, offsets = text_buffers(texts)
        letters = ak.contents.NumpyArray(data, parameters={"__array__": "char"})
        content = ak.contents.ListOffsetArray(ak.index.Index64(offsets), letters, parameters={"__array__": "string"})
        flat, places = self._run(ak.Array(content))
        return flat, np.diff(places)

    def _run(self, texts: Any) -> tuple[Ids, NDArray[np.int64]]:
        layout = self._tokenizer.encode_batch(texts, parallel=False).layout
        flat = np.asarray(layout.content.data).view(np.int32)
        return flat + self._offset if self._offset else flat, np.asarray(layout.offsets)
