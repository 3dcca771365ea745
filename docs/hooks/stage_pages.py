"""One page per stage, made from the code while the site is built; links out of the guide lead to the repository's files."""

from __future__ import annotations

import re
from typing import Any

from mkdocs.structure.files import File

from pipelines.manual import Entry, entry
from pipelines.resolve import catalogue

ROOMS = {
    "stages.ingest": "Read", "stages.extract": "Extract text", "stages.clean": "Clean", "classifiers": "Classify",
    "stages.filters": "Filter",
    "stages.dedup": "Deduplicate", "stages.decontam": "Decontaminate", "stages.code": "Code",
    "synthetic": "Ask a language model", "stages.export": "Export", "stages": "Shape and mix",
}  # fmt: skip

INTRODUCTION = """Every stage of the distribution; `gristmill stages show NAME` prints the same. Costs were measured on the packaged
sample, on one core of a shared machine: compare them with each other."""


def on_files(files: Any, config: Any) -> Any:
    """Add the pages."""
    groups: dict[str, list[tuple[str, str]]] = {room: [] for room in ROOMS}
    for name, summary in catalogue().items():
        room = next(r for r in ROOMS if name.startswith(f"{r}."))
        groups[room].append((name, summary))
        files.append(File.generated(config, f"stages/{name}.md", content=_page(entry(name))))
    files.append(File.generated(config, "stages/index.md", content=_index(groups)))
    return files


def _index(groups: dict[str, list[tuple[str, str]]]) -> str:
    lines = ["# Stages", "", INTRODUCTION, ""]
    for room, title in ROOMS.items():
        lines += [f"## {title}", "", "| stage | what it does |", "|---|---|"] if groups[room] else []
        lines += [f"| [`{name}`]({name}.md) | {_cell(summary)} |" for name, summary in groups[room]]
        lines.append("")
    return "\n".join(lines)


def _page(found: Entry) -> str:
    rows = [f"| `{name}` | {_cell(kind)} | {_code(default)} | {_cell(about)} |" for name, kind, default, about in found.params]
    params = ["| parameter | type | default | |", "|---|---|---|---|", *rows] if rows else ["None."]
    return "\n".join(
        [f"# {found.name.rsplit('.', 1)[-1]}", "", f"`{found.name}` · {found.kind}, version {found.version}",
         "", "```text", found.doc, "```", "", "## Parameters", "", *params, "", "## Columns", "", f"Reads {_code(found.reads)}", "",
         f"Writes {_code(found.writes)}", "", "## Cost", "", found.cost, "", "## Example", "", "```yaml", found.example, "```", ""]
    )  # fmt: skip


def _cell(text: str) -> str:
    return text.replace("|", "\\|").replace("<", "&lt;").replace("\n", " ")


def _code(text: str) -> str:
    return f"`{text}`".replace("|", "\\|")


def on_page_markdown(markdown: str, page: Any, **_: Any) -> str:
    """Links to files outside docs/ would be broken in the site: they become plain names of files."""
    del page
    return re.sub(r"\[([^\]]+)\]\((?:\.\./)+(?!how-to|stages|decisions)([\w./-]+)\)", r"\1 (`\2`)", markdown)
