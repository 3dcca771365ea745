"""The verb about prompt files: list them, show one with a document in it."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from pipelines.verbs.options import DONE, JsonOption, guarded

if TYPE_CHECKING:
    from stages.prompt import Prompt

FLOORS = ("synthetic", "classifiers")
"""Top-level packages with a folder `prompts`."""

prompts_app = typer.Typer(help="Prompts: list them, show one on a document.", invoke_without_command=True, rich_markup_mode=None)


@prompts_app.callback()
def prompts_list(context: typer.Context, as_json: JsonOption = False) -> None:
    """List every prompt of the distribution."""
    if context.invoked_subcommand is None:
        guarded(lambda: _say_list(as_json=as_json))


@prompts_app.command("list")
def prompts_listed(as_json: JsonOption = False) -> None:
    """List every prompt of the distribution."""
    guarded(lambda: _say_list(as_json=as_json))


@prompts_app.command("show")
def prompts_show(
    name: Annotated[str, typer.Argument(metavar="PROMPT", help="Name of a prompt, or the path of a prompt file.")],
    on: Annotated[Path | None, typer.Option("--on", help="A text file, or a JSONL file whose columns are the variables.")] = None,
    row: Annotated[int, typer.Option("--row", min=0, help="Line of the JSONL file.")] = 0,
    values: Annotated[list[str] | None, typer.Option("--set", metavar="NAME=VALUE", help="The value of a variable.")] = None,
    tokenizer: Annotated[
        str | None, typer.Option("--tokenizer", help="Count tokens: tokenizer.json, *.gguf or smollm2-135m-instruct.")
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """The messages that a model would get. Without a document the places of the variables stay visible."""

    def work() -> int:
        from pipelines.session import settings_of

        prompt = _find(name)
        given = _values(prompt, on, row) | settings_of(values or [])
        typer.echo(_render(prompt, given, tokenizer, as_json=as_json))
        return DONE

    guarded(work)


def packaged() -> Iterator[Path]:
    """Prompt files of the distribution, in order."""
    for floor in FLOORS:
        yield from sorted((Path(__file__).parents[2] / floor / "prompts").rglob("*.md"))


def _all() -> dict[str, Prompt]:
    from stages.prompt import read_prompt

    return {prompt.name: prompt for prompt in map(read_prompt, packaged())}


def _say_list(*, as_json: bool) -> int:
    found = _all()
    if as_json:
        record = [{"name": p.name, "version": p.version, "variables": p.variables, "purpose": p.purpose} for p in found.values()]
        typer.echo(json.dumps(record, indent=2))
        return DONE
    width = max(map(len, found), default=0)
    for prompt in found.values():
        typer.echo(f"{prompt.name.ljust(width)}  v{prompt.version}  {prompt.purpose} ({', '.join(prompt.variables)})")
    return DONE


def _find(name: str) -> Prompt:
    """A prompt by name or by path; RecipeError with near misses."""
    from pipelines.recipe import RecipeError, hint
    from stages.prompt import read_prompt

    try:
        if Path(name).is_file():
            return read_prompt(name)
        found = _all()
    except ValueError as error:
        raise RecipeError(str(error)) from error
    if name not in found:
        raise RecipeError(f"there is no prompt '{name}'{hint(name, list(found))}")
    return found[name]


def _values(prompt: Prompt, on: Path | None, row: int) -> dict[str, str]:
    """Variables out of a document; RecipeError for a line that is not there or no object."""
    from pipelines.recipe import RecipeError

    if on is None:
        return {}
    text = on.read_text(encoding="utf-8", errors="replace")
    if on.suffix != ".jsonl":
        return {"text" if "text" in prompt.variables else prompt.variables[0]: text} if prompt.variables else {}
    try:
        record = json.loads(text.splitlines()[row])
        return {name: str(record[name]) for name in prompt.variables if name in record}
    except (IndexError, ValueError, TypeError) as error:
        raise RecipeError(f"{on}: line {row} is not a row ({error})") from error


def _render(prompt: Prompt, given: Mapping[str, str], tokenizer: str | None, *, as_json: bool) -> str:
    """Messages, sampling and limits; RecipeError for a variable that the prompt does not have."""
    from pipelines.recipe import RecipeError, hint

    for name in given:
        if name not in prompt.variables:
            raise RecipeError(f"prompt {prompt.name} has no variable '{name}'{hint(name, list(prompt.variables))}")
    request = prompt.request({name: given.get(name, f"{{{{{name}}}}}") for name in prompt.variables})
    tokens = _count(tokenizer, [m.content for m in request.messages]) if tokenizer else None
    facts: dict[str, Any] = {
        "prompt": prompt.name, "version": prompt.version, "max_tokens": request.sampling.max_tokens,
        "temperature": request.sampling.temperature, "top_p": request.sampling.top_p, **prompt.limits,
    }  # fmt: skip
    if tokens is not None:
        facts["tokens"] = tokens
    if as_json:
        return json.dumps({**facts, "messages": [{"role": m.role, "content": m.content} for m in request.messages]}, indent=2)
    head = "  ".join(f"{name}={value}" for name, value in facts.items())
    return "\n".join([head, *(f"\n# {m.role}\n{m.content}" for m in request.messages)])


def _count(tokenizer: str, texts: list[str]) -> int:
    from pipelines.recipe import RecipeError
    from synthetic.tokens import counter

    try:
        return sum(map(counter(tokenizer), texts))
    except ValueError as error:
        raise RecipeError(str(error)) from error
