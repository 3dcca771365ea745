"""A real Chromium, and what its pages say and ask for."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

CHROMIUM = os.environ.get("CHROMIUM") or shutil.which("chromium") or shutil.which("chromium-browser")


class Watched:
    """A page, and everything that it said or asked for."""

    def __init__(self, browser, path: Path, scheme: str) -> None:
        self.page = browser.new_page(viewport={"width": 1280, "height": 900}, color_scheme=scheme)
        self.page.set_default_timeout(120_000)
        self.path = path
        self.said: list[str] = []
        self.asked: list[str] = []
        self.page.on("console", lambda m: self.said.append(f"{m.type}: {m.text}"))
        self.page.on("pageerror", lambda e: self.said.append(f"error: {e}"))
        self.page.on("request", lambda r: self.asked.append(r.url))
        self.page.goto(path.as_uri())

    def drawn(self, scheme: str) -> int:
        """Waits until every plot is drawn for a theme; how many there are."""
        self.page.wait_for_function(
            "s => [...document.querySelectorAll('.plot')].every(p => p.dataset.ready === s && p.querySelector('svg'))", arg=scheme
        )
        return self.page.locator(".plot").count()

    def quiet(self) -> None:
        assert self.said == []
        assert [a for a in self.asked if a != self.path.as_uri() and not a.startswith("data:")] == []


@pytest.fixture(scope="session")
def browser():
    from playwright.sync_api import sync_playwright

    assert CHROMIUM, "chromium is not installed; `make test-browser` installs it"
    with sync_playwright() as play:
        opened = play.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"], timeout=180_000)
        yield opened
        opened.close()


@pytest.fixture
def watched(browser) -> Callable[[Path, str], Watched]:
    """Open a page in a colour scheme; pages close behind the test."""
    opened: list[Watched] = []

    def look(path: Path, scheme: str) -> Watched:
        opened.append(Watched(browser, path, scheme))
        return opened[-1]

    yield look
    for one in opened:
        one.page.close()
