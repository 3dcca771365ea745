"""The five rephrasing tasks of Nemotron-CC (arXiv 2412.02595, section 2.4) with the limits of NeMo Curator's recipes.

Every task: the document is cut at line breaks into passages that fit the prompt, each passage is one request, and the
answer is cleaned and held to a minimum length. Prompts are ours (synthetic/prompts/nemotron_cc). What does not come to be a
text has a reason: no_lead_in, unfinished, refusal, too_short, no_pairs, no_list, nothing_useful, prompt_echo,
document_too_short.
"""

from __future__ import annotations

import hashlib
import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, Literal

import pyarrow as pa
from pydantic import Field

from stages.contract import TEXT, AskParams, ask_stage, file
from stages.prompt import Exchange, Prompt, Refused, Request, read_prompt
from synthetic import answers
from synthetic.segments import passages
from synthetic.tokens import Count, counter

PROMPTS = Path(__file__).parent / "prompts"
LEAD_INS = {"wikipedia": "REWRITTEN", "distill": "DISTILLED"}
WRITES = {"text": TEXT, "source_text": TEXT, "task": pa.string()}


class Rephrase(AskParams):
    """Parameters of a rephrasing task. Token counts are those of the model's own vocabulary."""

    prompt: str | None = file(None, "A prompt file of your own with the variable `text`; none: the packaged one of the task.")
    tokenizer: str | None = file(None, "tokenizer.json or GGUF of the model; none: the embedded model's vocabulary.")
    temperature: float = Field(0.5, ge=0, description="Sampling temperature (Nemotron-CC: 0.5).")
    top_p: float = Field(0.9, gt=0, le=1, description="Nucleus of the sampling (Nemotron-CC: 0.9).")
    min_document_tokens: int = Field(30, ge=0, description="Shorter documents are not asked about.")
    min_passage_tokens: int = Field(30, ge=0, description="Shorter passages are not asked about.")
    max_input_tokens: int = Field(1000, ge=32, description="Tokens of prompt and passage together.")
    max_output_tokens: int = Field(600, ge=8, description="Tokens after which an answer is cut off, and then dropped.")
    min_output_tokens: int = Field(50, ge=0, description="Shorter answers are dropped.")


class _WithLeadIn(Rephrase):
    """Tasks whose answers begin with a line that the prompt asks for: who does not follow that seldom follows the rest."""

    lead_in: Literal["required", "optional"] = Field("required", description="optional: an answer without the line counts too.")


class Wikipedia(_WithLeadIn):
    """Limits of the Wikipedia-style task."""

    min_document_tokens: int = Field(5, ge=0, description="Shorter documents are not asked about.")
    min_passage_tokens: int = Field(5, ge=0, description="Shorter passages are not asked about.")
    max_input_tokens: int = Field(512, ge=32, description="Tokens of prompt and passage together.")
    max_output_tokens: int = Field(512, ge=8, description="Tokens after which an answer is cut off, and then dropped.")


class DiverseQA(Rephrase):
    """Limits of the question-answer task."""

    min_output_tokens: int = Field(100, ge=0, description="Shorter results (passage and pairs) are dropped.")
    passage_tokens_per_ten_pairs: int = Field(
        150, ge=1, description="At most ten pairs for so many tokens of passage, at least one."
    )
    language: str = Field("", description="Name of a language to ask and answer in; empty: the prompt does not say.")


class Distill(_WithLeadIn):
    """Limits of the distillation task."""

    min_passage_tokens: int = Field(10, ge=0, description="Shorter passages are not asked about.")
    max_input_tokens: int = Field(2000, ge=32, description="Tokens of prompt and passage together.")
    max_output_tokens: int = Field(1600, ge=8, description="Tokens after which an answer is cut off, and then dropped.")


class ExtractKnowledge(Rephrase):
    """Limits of the knowledge extraction task."""

    max_input_tokens: int = Field(1400, ge=32, description="Tokens of prompt and passage together.")
    max_output_tokens: int = Field(1400, ge=8, description="Tokens after which an answer is cut off, and then dropped.")


class KnowledgeList(Rephrase):
    """Limits of the knowledge list task."""


@cache
def _read(path: str) -> Prompt:
    return read_prompt(path)


def prompt_of(task: str, params: Rephrase) -> Prompt:
    """The prompt in use. ValueError names the file and the fault."""
    return _read(params.prompt or str(PROMPTS / "nemotron_cc" / f"{task}.md"))


def open_counter(params: Rephrase) -> Count:
    """The token counter, opened once per worker."""
    return counter(params.tokenizer or params.model)


@dataclass(frozen=True)
class Task:
    """What the five have in common: cut, ask, clean."""

    name: str

    def prompts(self, params: Rephrase) -> list[Prompt]:
        """For the contract: every prompt in use."""
        return [self.prompt(params)]

    def ask(self, row: Mapping[str, Any], so_far: Sequence[Exchange], params: Rephrase, model: Count) -> list[Request] | None:
        """One request for every passage of the document; none at the second call."""
        if so_far or model(row["text"]) < params.min_document_tokens:
            return None
        prompt = self.prompt(params)
        empty = prompt.request(self._values(params, ""))
        frame = sum(model(m.content) for m in empty.messages)
        room = params.max_input_tokens - frame - 2
        if room < 1:
            raise ValueError(f"the prompt {prompt.name} alone has {frame} tokens; max_input_tokens is {params.max_input_tokens}")
        sampling = {
            "temperature": params.temperature,
            "top_p": params.top_p,
            "max_tokens": params.max_output_tokens,
            "seed": params.seed,
        }
        parts = passages(row["text"], model, room, floor=params.min_passage_tokens)
        return [prompt.request(self._values(params, p), tag=p, **sampling) for p in parts]

    def prompt(self, params: Rephrase) -> Prompt:
        """The prompt file in use under these parameters."""
        native = isinstance(params, DiverseQA) and params.language
        return prompt_of(f"{self.name}_native" if native else self.name, params)

    def _values(self, params: Rephrase, text: str) -> dict[str, str]:
        language = params.language if isinstance(params, DiverseQA) else ""
        return {"text": text, "language": language} if language else {"text": text}

    def parse(
        self, row: Mapping[str, Any], replies: Sequence[Exchange], params: Rephrase, model: Count
    ) -> Sequence[Mapping[str, Any] | Refused] | Refused:
        """A row for every passage whose answer is fit to be a text; Refused in the place of the others."""
        if not replies:
            return _nothing_asked(row, params, model)
        return [self._row(row, n, exchange, params, model) for n, exchange in enumerate(replies)]

    def _row(
        self, row: Mapping[str, Any], n: int, exchange: Exchange, params: Rephrase, model: Count
    ) -> Mapping[str, Any] | Refused:
        cleaned = self._unechoed(f"{row['id']}/{n}/{params.seed}", exchange, params, model)
        if isinstance(cleaned, Refused):
            return cleaned
        if model(cleaned) < params.min_output_tokens:
            return Refused("too_short", exchange.reply.text)
        return {"text": cleaned, "source_text": exchange.request.tag, "task": self.name}

    def _unechoed(self, seed: str, exchange: Exchange, params: Rephrase, model: Count) -> str | Refused:
        cleaned = self._cleaned(seed, exchange, params, model)
        if isinstance(cleaned, str) and answers.echoes(cleaned, exchange.request.tag, self.prompt(params)):
            return Refused("prompt_echo", exchange.reply.text)
        return cleaned

    def _cleaned(self, seed: str, exchange: Exchange, params: Rephrase, model: Count) -> str | Refused:
        reply = exchange.reply
        if reply.finish != "stop":
            return Refused("filtered" if reply.finish == "filtered" else "unfinished", reply.text)
        if answers.is_refusal(reply.text):
            return Refused("refusal", reply.text)
        if self.name in LEAD_INS:
            assert isinstance(params, _WithLeadIn)
            body = answers.after_lead_in(reply.text, LEAD_INS[self.name])
            body = reply.text if body is None and params.lead_in == "optional" else body
            return Refused("no_lead_in", reply.text) if body is None else _plain(body)
        if self.name == "diverse_qa":
            assert isinstance(params, DiverseQA)
            return _with_pairs(seed, exchange, params, model, self.prompt(params))
        if self.name == "knowledge_list":
            items = answers.bullets(reply.text)
            return "\n".join(items) if items else Refused("no_list", reply.text)
        body = _plain(reply.text)
        return Refused("nothing_useful") if body.strip(" .*").upper() == "NOTHING" else body


def _plain(text: str) -> str:
    """Without bold type, quotation marks around it, and labels of the prompt."""
    return answers.without_echo(answers.unquoted(answers.without_bold(text)), ("Text", "Passage"))


def _nothing_asked(row: Mapping[str, Any], params: Rephrase, model: Count) -> Refused:
    return Refused("document_too_short" if model(row["text"]) < params.min_document_tokens else "no_passage_fits")


def _with_pairs(seed: str, exchange: Exchange, params: DiverseQA, model: Count, prompt: Prompt) -> str | Refused:
    """Passage, then the pairs in random order: 1 to max(1, 10 * tokens / 150) of them (NeMo Curator)."""
    passage = exchange.request.tag
    said = answers.pairs(exchange.reply.text)
    found = [(q, a) for q, a in said if not answers.echoes(f"Question: {q}\nAnswer: {a}", passage, prompt)]
    if not found:
        return Refused("prompt_echo" if said else "no_pairs", exchange.reply.text)
    dice = random.Random(hashlib.blake2b(seed.encode(), digest_size=8).digest())
    dice.shuffle(found)
    most = max(1, 10 * model(passage) // params.passage_tokens_per_ten_pairs)
    kept = found[: dice.randint(1, most)]
    return "\n\n".join([passage, *(f"Question: {q}\nAnswer: {a}" for q, a in kept)])


class _WholeDocument(Task):
    """The Wikipedia-style task joins the passages of a document again; one that failed leaves the document without it."""

    def parse(
        self, row: Mapping[str, Any], replies: Sequence[Exchange], params: Rephrase, model: Count
    ) -> Sequence[Mapping[str, Any] | Refused] | Refused:
        if not replies:
            return _nothing_asked(row, params, model)
        found = [self._unechoed("", exchange, params, model) for exchange in replies]
        good = [text for text in found if isinstance(text, str)]
        if not good:
            return next(f for f in found if isinstance(f, Refused))
        text = "\n".join(good)
        if model(text) < params.min_output_tokens:
            return Refused("too_short", text)
        used = "\n".join(e.request.tag for e, f in zip(replies, found, strict=True) if isinstance(f, str))
        return [{"text": text, "source_text": used, "task": self.name}, *(f for f in found if isinstance(f, Refused))]


_WIKIPEDIA, _QA, _DISTILL = _WholeDocument("wikipedia"), Task("diverse_qa"), Task("distill")
_EXTRACT, _LIST = Task("extract_knowledge"), Task("knowledge_list")


@ask_stage(
    version=2, reads={"text": TEXT}, writes=WRITES, parse=_WIKIPEDIA.parse, model=open_counter, prompts=_WIKIPEDIA.prompts
)  # fmt: skip
def wikipedia(row: Mapping[str, Any], so_far: Sequence[Exchange], params: Wikipedia, model: Count) -> list[Request] | None:
    """Retell each passage in the register of an encyclopaedia; the passages of a document are joined again."""
    return _WIKIPEDIA.ask(row, so_far, params, model)


@ask_stage(
    version=2, reads={"text": TEXT}, writes=WRITES, parse=_QA.parse, model=open_counter, prompts=_QA.prompts
)  # fmt: skip
def diverse_qa(row: Mapping[str, Any], so_far: Sequence[Exchange], params: DiverseQA, model: Count) -> list[Request] | None:
    """Questions of different kinds with their answers; a row is the passage followed by its pairs."""
    return _QA.ask(row, so_far, params, model)


@ask_stage(
    version=2, reads={"text": TEXT}, writes=WRITES, parse=_DISTILL.parse, model=open_counter, prompts=_DISTILL.prompts
)  # fmt: skip
def distill(row: Mapping[str, Any], so_far: Sequence[Exchange], params: Distill, model: Count) -> list[Request] | None:
    """The same content in fewer words."""
    return _DISTILL.ask(row, so_far, params, model)


@ask_stage(
    version=2, reads={"text": TEXT}, writes=WRITES, parse=_EXTRACT.parse, model=open_counter, prompts=_EXTRACT.prompts
)  # fmt: skip
def extract_knowledge(
    row: Mapping[str, Any], so_far: Sequence[Exchange], params: ExtractKnowledge, model: Count
) -> list[Request] | None:
    """What can be learnt from a passage, told as a textbook would."""
    return _EXTRACT.ask(row, so_far, params, model)


@ask_stage(
    version=2, reads={"text": TEXT}, writes=WRITES, parse=_LIST.parse, model=open_counter, prompts=_LIST.prompts
)  # fmt: skip
def knowledge_list(row: Mapping[str, Any], so_far: Sequence[Exchange], params: KnowledgeList, model: Count) -> list[Request] | None:
    """The facts of a passage as lines of a list."""
    return _LIST.ask(row, so_far, params, model)
