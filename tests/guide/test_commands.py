"""Every command in the guide and the README: run in a shell where it can run here, else held against the command's options."""

from __future__ import annotations

import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import click
import pytest
import typer

from pipelines.cli import app

ROOT = Path(__file__).parents[2]
PAGES = sorted([*ROOT.glob("docs/*.md"), *ROOT.glob("docs/how-to/*.md"), ROOT / "README.md"])
FENCE = re.compile(r"^ *```(?P<kind>[^\n]*)\n(?P<body>.*?)^ *```", re.MULTILINE | re.DOTALL)
SAMPLE = ROOT / "pipelines" / "recipes" / "sample" / "sample.warc.gz"


def blocks(path: Path, kind: str) -> list[str]:
    """Fenced blocks of a page: `sh` ones run here, `{ .sh .elsewhere }` ones need a network, a server or data of the reader."""
    return [m["body"] for m in FENCE.finditer(path.read_text(encoding="utf-8")) if m["kind"].strip() == kind]


RUN = [p for p in PAGES if blocks(p, "sh") and p.name != "language-models.md"]
"""Pages whose commands follow each other in one folder. The page about models has servers in all of its commands."""


def commands(path: Path) -> Iterator[list[str]]:
    """Words of each `gristmill` command of a page, comments and continued lines taken care of."""
    for kind in ("sh", "{ .sh .elsewhere }", ""):
        for body in blocks(path, kind):
            for line in body.replace("\\\n", " ").splitlines():
                text = line.strip().removeprefix("$ ")
                if text.startswith("gristmill "):
                    yield shlex.split(text, comments=True)[1:]


@pytest.mark.parametrize("path", PAGES, ids=lambda p: p.stem)
def test_every_command_has_verbs_arguments_and_options_that_exist(path):
    top = typer.main.get_command(app)
    for words in commands(path):
        command, rest = top, list(words)
        while isinstance(command, click.Group) or hasattr(command, "commands"):
            if not rest or rest[0].startswith("-"):
                break
            assert rest[0] in command.commands, f"{path.name}: gristmill {' '.join(words)}: no verb {rest[0]}"
            command = command.commands[rest.pop(0)]
        with command.make_context("gristmill", rest, resilient_parsing=False) as context:
            assert context.args == [], f"{path.name}: gristmill {' '.join(words)}: {context.args} is left over"


@pytest.mark.slow
@pytest.mark.parametrize("path", RUN, ids=lambda p: p.stem)
def test_the_commands_of_a_page_run_one_after_the_other(path, tmp_path):
    program = f'{shlex.quote(sys.executable)} -m pipelines.cli "$@"'
    lines = [f"gristmill() {{ {program}; }}", f"cd {shlex.quote(str(tmp_path))}"]
    for body in blocks(path, "sh"):
        lines.append(body.replace("$SAMPLE", str(SAMPLE)))
    env = {"PATH": "/usr/bin:/bin", "HOME": str(Path.home()), "PYTHONPATH": f"{ROOT}:{tmp_path}", "TERM": "dumb", "LANG": "C.UTF-8"}
    done = subprocess.run(["bash", "-euc", "\n".join(lines)], capture_output=True, text=True, env=env, check=False, timeout=600)
    assert done.returncode == 0, f"{path.name}:\n{done.stdout[-3000:]}\n{done.stderr[-3000:]}"
    assert "Traceback" not in done.stderr


def test_pages_link_to_pages_that_are_there():
    for path in PAGES:
        for target in re.findall(r"\]\(([^)#:]+\.md)[^)]*\)", path.read_text(encoding="utf-8")):
            made = target.startswith("stages/") or "/stages/" in target
            assert made or (path.parent / target).exists(), f"{path.name} links to {target}"
