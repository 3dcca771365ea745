"""`gristmill prompts`: what is listed, what a model would get, and what is wrong with a prompt file."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from pipelines.cli import app
from pipelines.verbs.prompts import packaged
from stages.prompt import read_prompt

PROMPT = """---
name: mine/ask
version: 2
purpose: A test.
variables: [text, language]
sampling: {temperature: 0.3, max_tokens: 9}
limits: {max_input_tokens: 100}
---
# system
Answer in {{language}}.
# user
{{text}}
"""


def run(*arguments: str | Path, code: int = 0) -> str:
    result = CliRunner().invoke(app, ["prompts", *map(str, arguments)])
    assert result.exit_code == code, result.output
    return result.output


def test_every_packaged_prompt_is_listed_and_can_be_shown():
    listed = {entry["name"]: entry for entry in json.loads(run("list", "--json"))}
    prompts = [read_prompt(path) for path in packaged()]
    assert set(listed) == {prompt.name for prompt in prompts}
    assert len(prompts) == len(listed) > 5
    for prompt in prompts:
        assert f"{prompt.name} " in run()
        shown = json.loads(run("show", prompt.name, "--json"))
        assert shown["version"] == prompt.version
        assert all(f"{{{{{name}}}}}" in "".join(m["content"] for m in shown["messages"]) for name in prompt.variables)


def test_a_prompt_on_a_document(tmp_path):
    prompt, text, lines = tmp_path / "p.md", tmp_path / "d.txt", tmp_path / "d.jsonl"
    prompt.write_text(PROMPT)
    text.write_text("What is {{language}}?")
    lines.write_text(json.dumps({"text": "zero"}) + "\n" + json.dumps({"text": "eins", "language": "German", "id": 3}) + "\n")
    shown = run("show", prompt, "--on", text, "--set", "language=French")
    assert shown.startswith("prompt=mine/ask  version=2  max_tokens=9  temperature=0.3")
    assert shown.endswith("# system\nAnswer in French.\n\n# user\nWhat is {{language}}?\n")
    shown = json.loads(run("show", prompt, "--on", lines, "--row", "1", "--tokenizer", "tekken", "--json"))
    assert [m["content"] for m in shown["messages"]] == ["Answer in German.", "eins"]
    assert 4 <= shown["tokens"] <= 8


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["nemotron_cc/distil"], "there is no prompt 'nemotron_cc/distil'; did you mean 'nemotron_cc/distill'?"),
        (["{prompt}", "--set", "langage=x"], "prompt mine/ask has no variable 'langage'; did you mean 'language'?"),
        (["{prompt}", "--on", "{lines}", "--row", "7"], "line 7 is not a row"),
        (["{prompt}", "--on", "/nowhere.txt"], "/nowhere.txt: No such file"),
        (["{prompt}", "--tokenizer", "/nowhere"], "/nowhere: no tokenizer here"),
        (["{broken}"], "broken.md: the prompt uses ['txet'] which 'variables' does not declare"),
    ],
)
def test_faults_are_one_line(tmp_path, arguments, says):
    files = {"prompt": tmp_path / "p.md", "lines": tmp_path / "d.jsonl", "broken": tmp_path / "broken.md"}
    files["prompt"].write_text(PROMPT)
    files["broken"].write_text(PROMPT.replace("{{text}}", "{{txet}}{{text}}"))
    files["lines"].write_text("{}\n")
    result = CliRunner().invoke(app, ["prompts", "show", *(a.format(**files) for a in arguments)])
    assert result.exit_code in (1, 2)
    assert says in result.output
    assert result.output.count("\n") == 1
