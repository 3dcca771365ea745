"""The SQL shell: history, completion of views and columns, queries over several lines."""

from __future__ import annotations

import contextlib
import os
import re
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from manifests.catalog import Catalog, CatalogError, plainly
from manifests.store import Store
from manifests.store_views import MACROS, NAMES
from pipelines.answers import table

if TYPE_CHECKING:
    from prompt_toolkit.completion import Completion
    from prompt_toolkit.document import Document

HELP = """End a query with ;   Tab completes views and columns   Up and Ctrl-R search former queries
.tables         views                  .timer on|off   say how long a query took
.schema NAME    columns of a view      .help  .quit    this text; leave (or Ctrl-D)
Views: recipe.step, recipe.step_all, published."name", steps, shards, drops, dropped, quarantine, lineage, refs, runs,
       buckets, mixtures, prompts
Macros: from funnel('recipe'), from domains('recipe.step'), from why('id or url')"""
COMMANDS = (".help", ".tables", ".schema", ".timer on", ".timer off", ".quit")
KEYWORDS = (
    "select",
    "from",
    "where",
    "group by all",
    "order by",
    "limit",
    "join",
    "having",
    "count(*)",
    "describe",
    "using sample",
)
NAMED = re.compile(r"[\w.\"@-]*$")


class Shell:
    """One conversation."""

    def __init__(self, store: Store, say: Callable[[str], object]) -> None:
        self.catalog, self.say, self.timer = Catalog(store), say, True
        self.catalog.refresh()

    def talk(self, ask: Callable[[str], str]) -> None:
        """Ask and answer until `.quit`; Ctrl-C forgets what was typed."""
        self.say(f"{self.catalog.store.url}: recipes {', '.join(self.catalog.views) or 'none'}; .help for help")
        typed = ""
        while True:
            try:
                line = ask("   ...> " if typed else "grist> ")
            except EOFError:
                return
            except KeyboardInterrupt:
                typed = ""
                continue
            typed = f"{typed}\n{line}".strip()
            if typed in (".quit", ".exit"):
                return
            if whole(typed):
                self._answer(typed)
                typed = ""

    def _answer(self, line: str) -> None:
        started = time.monotonic()
        try:
            with plainly():
                self.say(self._command(line) if line.startswith(".") else table(self.catalog.run(line)))
            if self.timer and not line.startswith("."):
                self.say(f"{time.monotonic() - started:.2f} s")
        except CatalogError as error:
            self.say(str(error))
        except KeyboardInterrupt:
            self.catalog.con.interrupt()
            self.say("stopped")

    def _command(self, line: str) -> str:
        name, *rest = line.rstrip(";").split()
        if name == ".help":
            return HELP
        if name == ".tables":
            self.catalog.refresh()
            lines = [f"{n}: {', '.join(s.name for s in v.steps.values() if v.complete(s))}" for n, v in self.catalog.views.items()]
            return "\n".join([*lines, f"store: {', '.join(NAMES)}"])
        if name == ".schema" and rest:
            return table(self.catalog.run(f"select column_name, column_type from (describe {rest[0]})"))
        if name == ".timer" and rest in (["on"], ["off"]):
            self.timer = rest == ["on"]
            return f"timer {rest[0]}"
        return f"no command {' '.join([name, *rest])}\n{HELP}"

    def words(self, before: str) -> Iterator[str]:
        """What can stand at the end of a text: commands, views after `from` and `join`, else columns and words of SQL."""
        if before.startswith("."):
            yield from COMMANDS if not before.startswith(".schema ") else self._views()
            return
        last = NAMED.search(before)
        earlier = before[: last.start()] if last else before
        if re.search(r"\b(from|join|describe)\s+$", earlier, re.IGNORECASE):
            yield from (*self._views(), *(f"{m}('" for m in MACROS))
            return
        yield from self._columns(before)
        yield from KEYWORDS
        yield from self._views()

    def _views(self) -> Iterator[str]:
        for name, views in self.catalog.views.items():
            complete = [s for s in views.steps.values() if views.complete(s)]
            yield from (f"{name}.{s.name}" for s in complete)
            yield from (f"{name}.{s.name}_all" for s in complete if s.shape != "export")
        yield from NAMES

    def _columns(self, text: str) -> list[str]:
        """Columns of the views that a text names, or of every view while it names none."""
        steps = [(n, s) for n, v in self.catalog.views.items() for s in v.steps.values()]
        named = [s for n, s in steps if re.search(rf"\b{re.escape(n)}\.{re.escape(s.name)}(_all)?\b", text)]
        return sorted({c for s in named or [s for _, s in steps] for c in s.columns})


def whole(typed: str) -> bool:
    """Whether a text is a command or a query with its end."""
    return typed.startswith(".") or typed.endswith(";")


def shell(
    store: Store, ask: Callable[[str], str] | None = None, say: Callable[[str], object] | None = None
) -> None:  # fmt: skip
    """Talk with a terminal, or with `ask` and `say`; lines of a pipe are taken as they come."""
    talk = Shell(store, say or (lambda text: sys.stdout.write(text + "\n")))
    if ask is None and sys.stdin.isatty():
        ask = _terminal(talk)
    talk.talk(ask or _piped)


def _piped(_prompt: str) -> str:
    line = sys.stdin.readline()
    if not line:
        raise EOFError
    return line


def _terminal(talk: Shell) -> Callable[[str], str]:
    """A prompt with history and completion; Enter ends a whole statement and opens a new line in others."""
    from prompt_toolkit import PromptSession
    from prompt_toolkit.auto_suggest import AutoSuggestFromHistory
    from prompt_toolkit.completion import Completer
    from prompt_toolkit.history import FileHistory, InMemoryHistory
    from prompt_toolkit.key_binding import KeyBindings
    from prompt_toolkit.lexers import PygmentsLexer
    from pygments.lexers.sql import SqlLexer

    class Names(Completer):
        def get_completions(self, document: Document, complete_event: Any) -> Iterator[Completion]:
            del complete_event
            yield from completions(talk, document.text_before_cursor)

    keys = KeyBindings()

    @keys.add("enter")
    def _(event: Any) -> None:
        typed = event.current_buffer.text.strip()
        event.current_buffer.validate_and_handle() if not typed or whole(typed) else event.current_buffer.insert_text("\n")

    path = history_path()
    session: PromptSession[str] = PromptSession(
        history=FileHistory(str(path)) if path else InMemoryHistory(), completer=Names(), complete_while_typing=False,
        auto_suggest=AutoSuggestFromHistory(), key_bindings=keys, multiline=True, lexer=PygmentsLexer(SqlLexer),
        prompt_continuation=lambda width, _number, _soft: "...> ".rjust(width),
    )  # fmt: skip
    return session.prompt


def completions(talk: Shell, before: str) -> Iterator[Completion]:
    """Completions of the word before the cursor."""
    from prompt_toolkit.completion import Completion

    last = before if before.startswith(".") and " " not in before else (found.group() if (found := NAMED.search(before)) else "")
    for word in dict.fromkeys(talk.words(before)):
        if word.lower().startswith(last.lower()) and word != last:
            yield Completion(word, start_position=-len(last))


def history_path() -> Path | None:
    """Where former queries are kept; None where that folder cannot be written."""
    state = os.environ.get("XDG_STATE_HOME")
    path = (Path(state) if state else Path.home() / ".local" / "state") / "gristmill" / "sql_history"
    with contextlib.suppress(OSError):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
        return path
    return None
