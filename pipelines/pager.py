"""The pager of `gristmill peek`: one document a screen, search, filters, the text before beside it, good and bad marks.

`Pager` is the conversation without a terminal: keys in, lines out. `run` gives it one.
"""

from __future__ import annotations

import textwrap
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import orjson

from manifests.catalog import CatalogError
from manifests.place import replace_file
from manifests.step_views import literal
from pipelines.look import Documents, beside, facts

MOST = 100_000
"""Documents that a filter or a search can lead through."""
HELP = "n p next, previous   ↑ ↓ scroll   / search   f filter   b before   g good   x bad   u unmark   q quit"
PROMPTS = {"/": "search: ", "f": "filter (SQL, empty for all): ", ":": "document number: "}


@dataclass
class Pager:
    """Where the reader is, and what was marked."""

    documents: Documents
    marks_file: Path
    at: int = 0
    top: int = 0
    beside: bool = False
    sought: str = ""
    condition: str = ""
    message: str = HELP
    done: bool = False
    asking: str | None = None
    """The key whose question is being answered in the last line."""
    marks: dict[str, dict[str, Any]] = field(default_factory=dict)
    _places: list[tuple[str, int]] | None = None
    _row: dict[str, Any] = field(default_factory=dict)
    _text: str | None = None

    def __post_init__(self) -> None:
        if self.marks_file.exists():
            lines = self.marks_file.read_bytes().splitlines()
            self.marks = {row["id"]: row for row in map(orjson.loads, lines)}
        self._open()

    @property
    def total(self) -> int:
        """How many documents there are to page through."""
        return self.documents.total() if self._places is None else len(self._places)

    def press(self, key: str) -> None:
        """Do what a key means."""
        actions: dict[str, Callable[[], None]] = {
            "n": lambda: self._go(self.at + 1), "p": lambda: self._go(self.at - 1), "home": lambda: self._go(0),
            "end": lambda: self._go(self.total - 1), "down": lambda: self._scroll(1), "up": lambda: self._scroll(-1),
            "pagedown": lambda: self._scroll(15), "pageup": lambda: self._scroll(-15), "b": self._turn,
            "g": lambda: self._mark(1), "x": lambda: self._mark(0), "u": lambda: self._mark(None), "q": self._quit,
        }  # fmt: skip
        if key in PROMPTS:
            self.asking = key
        elif key in actions:
            self.message = HELP
            actions[key]()

    def answer(self, typed: str) -> None:
        """The line that was typed after `/`, `f` or `:`."""
        key, self.asking = self.asking, None
        self.message = HELP
        if key == "/":
            self._seek(typed)
        elif key == "f":
            self._filter(typed)
        elif typed.strip().isdigit():
            self._go(int(typed) - 1)

    def _go(self, at: int) -> None:
        if not 0 <= at < self.total:
            self.message = "no document here" if not self.total else "this is the first" if at < 0 else "this is the last"
            return
        self.at = at
        self._open()

    def _open(self) -> None:
        self.top, self._row, self._text = 0, {}, None
        if self.total:
            place = self.documents.places([self.at]) if self._places is None else [self._places[self.at]]
            (self._row,) = self.documents.rows(place)
            self._text = self.documents.text(self._row)

    def _scroll(self, lines: int) -> None:
        self.top = max(0, self.top + lines)

    def _turn(self) -> None:
        self.beside = not self.beside
        self.top = 0

    def _quit(self) -> None:
        self.done = True

    def _narrow(self, condition: str) -> list[tuple[str, int]] | None:
        """Places that meet a condition; None with a message when there are none or it is not understood."""
        try:
            found = self.documents.where(condition, MOST)
        except CatalogError as error:
            self.message = " ".join(str(error).splitlines()[:2])
            return None
        if not found:
            self.message = f"nothing meets {condition}"
            return None
        return found

    def _filter(self, typed: str) -> None:
        """Page through those that meet an SQL condition; an empty one means all."""
        found = self._narrow(typed) if typed.strip() else None
        if typed.strip() and found is None:
            return
        self._places, self.condition, self.at = found, typed.strip(), 0
        self._open()

    def _seek(self, typed: str) -> None:
        """Go to the next document whose text or URL contains a text, after the last one from the start again."""
        self.sought = typed or self.sought
        if not self.sought:
            return
        columns = [c for c in ("text", "url") if c in self.documents.step.columns]
        like = " or ".join(f"contains(lower({c}), {literal(self.sought.lower())})" for c in columns)
        found = self._narrow(f"({self.condition or 'true'}) and ({like})")
        if found is None:
            self.message = f"no document contains {self.sought!r}"
            return
        wanted = set(found)
        places = self._places if self._places is not None else self.documents.where("true", MOST)
        ahead = [*range(self.at + 1, len(places)), *range(self.at + 1)]
        self.at = next((i for i in ahead if places[i] in wanted), self.at)
        self._open()
        self.message = f"{len(found):,} documents contain {self.sought!r}; / and Enter for the next"

    def _mark(self, label: int | None) -> None:
        """Keep a mark and save them all: a labelled data set of id, text, label, url, recipe and step."""
        if not self._row:
            return
        name, views = str(self._row["id"]), self.documents.views
        if label is None:
            self.marks.pop(name, None)
        else:
            self.marks[name] = {"id": name, "text": self._text, "label": label, "url": self._row.get("url"), "recipe": views.name,
                                "step": self.documents.step.name}  # fmt: skip
        replace_file(self.marks_file, b"".join(orjson.dumps(row) + b"\n" for row in self.marks.values()))
        good = sum(row["label"] for row in self.marks.values())
        self._go(self.at + 1) if label is not None and self.at + 1 < self.total else None
        self.message = f"{good:,} good, {len(self.marks) - good:,} bad in {self.marks_file}"

    def lines(self, width: int, height: int) -> list[tuple[str, str]]:
        """The screen as (style, text): a title, the facts, the text from where it is scrolled to, the message."""
        head = [("reverse", self._title()[:width].ljust(width))]
        if not self._row:
            return [
                *head,
                ("", f"no document is {self.documents.kind} here"),
                *[("", "")] * (height - 3),
                ("reverse", self.message),
            ]
        head += [("bold", str(self._row.get("url") or ""))] if self._row.get("url") else []
        head += [("fg:ansired", f"dropped: {self._row['drop_reason']}")] if self.documents.dropped else []
        head += [("fg:ansicyan", line) for line in facts(self.documents, self._row, width)]
        body = self._body(width)
        room = max(height - len(head) - 2, 1)
        self.top = min(self.top, max(len(body) - room, 0))
        shown = body[self.top : self.top + room]
        more = f"  line {self.top + 1}-{self.top + len(shown)} of {len(body)}" if len(body) > room else ""
        filled = [*head, ("", ""), *shown, *[("", "")] * (room - len(shown))]
        return [*filled, ("reverse", f"{self.message}{more}"[:width].ljust(width))]

    def _title(self) -> str:
        mark = {1: " [good]", 0: " [bad]"}.get(self.marks.get(str(self._row.get("id")), {}).get("label", -1), "")
        where = f"  filter: {self.condition}" if self.condition else ""
        views, step = self.documents.views, self.documents.step
        return (
            f"{views.name}.{step.name}  {self.at + 1 if self.total else 0:,} of {self.total:,} {self.documents.kind}{mark}{where}"
        )

    def _body(self, width: int) -> list[tuple[str, str]]:
        if self._text is None:
            return [("italic", "(the text is not stored, and its source could not be read again)")]
        if self.beside:
            older = self.documents.before([self._row])
            own = str(self._row["id"])
            before = older.get(own, older.get(own.rsplit("#", 1)[0]))
            if before is None:
                before = next((p.before for p in self.documents.again.passages(self._row, self.documents.step)[-1:]), None)
            return [("", line) for line in beside(before, self._text, width, 10_000)]
        wrapped = [line for paragraph in self._text.splitlines() for line in textwrap.wrap(paragraph, width) or [""]]
        hit = self.sought.lower()
        return [("bg:ansiyellow fg:ansiblack" if hit and hit in line.lower() else "", line) for line in wrapped]


def run(pager: Pager) -> None:
    """Show the pager in a terminal until it is left; it follows changes of the window's size."""
    from prompt_toolkit.application import Application
    from prompt_toolkit.buffer import Buffer
    from prompt_toolkit.filters import Condition
    from prompt_toolkit.formatted_text import StyleAndTextTuples
    from prompt_toolkit.key_binding import KeyBindings
    from prompt_toolkit.layout import BufferControl, ConditionalContainer, FormattedTextControl, HSplit, Layout, Window
    from prompt_toolkit.output import create_output

    asking, keys = Condition(lambda: pager.asking is not None), KeyBindings()

    def accept(buffer: Buffer) -> bool:
        pager.answer(buffer.text)
        app.layout.focus(screen)
        return False

    def text() -> StyleAndTextTuples:
        size = app.output.get_size()
        shown = pager.lines(size.columns, size.rows - (2 if pager.asking else 0))
        return [*((style, f"{line}\n") for style, line in shown[:-1]), *shown[-1:]]

    line = Buffer(accept_handler=accept, multiline=False)
    screen = Window(FormattedTextControl(text, focusable=True, show_cursor=False))
    prompt = FormattedTextControl(lambda: PROMPTS.get(pager.asking or "", ""))
    question = HSplit([Window(prompt, height=1, dont_extend_height=True), Window(BufferControl(line), height=1)])
    layout = Layout(HSplit([screen, ConditionalContainer(question, asking)]), focused_element=screen)
    app: Application[None] = Application(layout=layout, key_bindings=keys, full_screen=True, output=create_output())

    def bind(name: str) -> None:
        @keys.add(name, filter=~asking)
        def _(event: Any) -> None:
            pager.press(name)
            if pager.asking is not None:
                line.reset()
                event.app.layout.focus(line)
            if pager.done:
                event.app.exit()

    for name in (*"npbgxuq/f:", "up", "down", "pageup", "pagedown", "home", "end"):
        bind(name)

    @keys.add("escape", filter=asking, eager=True)
    @keys.add("c-c")
    def _(event: Any) -> None:
        if pager.asking is None:
            event.app.exit()
        pager.asking = None
        event.app.layout.focus(screen)

    app.run()
