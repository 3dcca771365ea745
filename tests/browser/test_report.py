"""The report in a real browser: nothing is requested, nothing complains, plots are drawn, tables sort and filter."""

from __future__ import annotations

import pytest

from manifests.store import Store
from pipelines.report_page.facts import Facts
from pipelines.report_page.page import render, write_report
from pipelines.report_page.plots import plots

pytestmark = pytest.mark.browser


@pytest.fixture(scope="module")
def report(tmp_path_factory, engine_in):
    from pipelines.session import PACKAGED

    engine = engine_in(tmp_path_factory.mktemp("report"))
    assert engine.run(str(PACKAGED / "quickstart.yaml")).code == 0
    return write_report(Store(engine.store.root), "quickstart", engine.folder / "quickstart.html", 0.05)


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_a_report_draws_everything_and_asks_for_nothing(watched, report, scheme):
    shown = watched(report, scheme)
    assert shown.drawn(scheme) >= 6
    page = shown.page
    assert page.locator("html").get_attribute("data-theme") == scheme
    assert page.locator(".dag a").count() == 10
    assert page.get_by_text("cost per million documents").count() == 1
    headings = page.locator("section > h2").all_inner_texts()
    assert headings == [
        "Graph",
        "Funnel",
        "Steps",
        "Drops",
        "Content",
        "Scores and buckets",
        "Duplicates",
        "Samples",
        "Time and cost",
        "Quarantine",
    ]
    assert "removed: exact_duplicate" in page.locator("#samples").inner_text()
    assert page.locator("#samples pre").filter(has_text="sourdough").count() + page.locator("#samples pre").count() > 3
    shown.quiet()


def test_tables_sort_and_filter_by_mouse_and_keyboard(watched, report):
    shown = watched(report, "light")
    page = shown.page
    drops = page.locator("#drops")
    reasons = drops.locator("tbody tr td:nth-child(2)")
    drops.get_by_role("searchbox").fill("twins exact")
    page.wait_for_function("document.querySelectorAll('#drops tbody tr').length === 1")
    assert reasons.all_inner_texts() == ["exact_duplicate"]
    assert drops.locator(".count").inner_text() == "1 rows"
    drops.get_by_role("searchbox").fill("")
    rows = drops.get_by_role("button", name="rows", exact=True)
    rows.focus()
    page.keyboard.press("Enter")
    numbers = [int(n.replace(",", "")) for n in drops.locator("tbody tr td:nth-child(4)").all_inner_texts()]
    assert numbers == sorted(numbers, reverse=True)
    assert drops.locator("th[aria-sort=descending]").count() == 1
    rows.press("Enter")
    numbers = [int(n.replace(",", "")) for n in drops.locator("tbody tr td:nth-child(4)").all_inner_texts()]
    assert numbers == sorted(numbers)
    page.locator(".dag a[data-step=quality]").click()
    page.wait_for_function("[...document.querySelectorAll('#drops tbody tr td:first-child')].every(c => c.innerText === 'quality')")
    shown.quiet()


def test_the_theme_button_turns_light_to_dark_and_draws_again(watched, report):
    shown = watched(report, "light")
    shown.drawn("light")
    before = shown.page.evaluate("getComputedStyle(document.body).backgroundColor")
    shown.page.locator("#theme").click()
    shown.drawn("dark")
    assert shown.page.evaluate("getComputedStyle(document.body).backgroundColor") != before
    shown.quiet()


def contrast(page, selector: str) -> float:
    """WCAG contrast of an element's text with the background that it stands on."""
    return page.evaluate(
        """selector => {
            const node = document.querySelector(selector), light = (c) => {
                const [r, g, b] = c.match(/[\\d.]+/g).map(Number).map(v => (v /= 255) <= 0.03928 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4);
                return 0.2126 * r + 0.7152 * g + 0.0722 * b; };
            let under = node;
            while (getComputedStyle(under).backgroundColor === 'rgba(0, 0, 0, 0)') under = under.parentElement;
            const [a, b] = [getComputedStyle(node).color, getComputedStyle(under).backgroundColor].map(light).sort((x, y) => y - x);
            return (a + 0.05) / (b + 0.05); }""",
        selector,
    )


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_text_has_contrast_and_controls_have_names(watched, report, scheme):
    shown = watched(report, scheme)
    page = shown.page
    for selector in (".hint", ".numbers dt", "nav a", "td", "th button", "summary", ".url", "pre", ".count"):
        assert contrast(page, selector) >= 4.5, selector
    nameless = "[...document.querySelectorAll('button, input, [role=img], [role=region]')].filter(e => !(e.ariaLabel || e.innerText)).length"
    assert page.evaluate(nameless) == 0
    assert page.evaluate("[...document.querySelectorAll('table')].every(t => t.caption && t.querySelector('th[scope=col]'))")


def big() -> Facts:
    """A thousand steps and a hundred thousand drop rows."""
    steps = [
        {"position": i + 1, "step": f"step_{i}", "stage": "stages.sample.rows", "shape": "layer", "parents": [f"step_{i - 1 - i % 3}"] if i > 2 else [],
         "given": [], "complete": True, "in": 10_000_000 - i, "out": 9_999_000 - i, "dropped": 1000, "skipped": 0, "quarantined": 0,
         "tokens": None, "bytes": 1000, "seconds": 2.5, "parts": 3, "with": [f"step_{i}"]}
        for i in range(1000)
    ]  # fmt: skip
    drops = [
        {"step": f"step_{i % 1000}", "reason": f"reason_{i // 1000}", "kind": "dropped", "rows": i, "percent": 0.5}
        for i in range(100_000)
    ]
    return Facts("big", {"id": None}, steps, drops)


def test_a_thousand_steps_and_a_hundred_thousand_drops_stay_usable(watched, tmp_path):
    path = tmp_path / "big.html"
    facts = big()
    path.write_text(render(facts, plots(facts), [], 0.0), encoding="utf-8")
    shown = watched(path, "light")
    page = shown.page
    assert page.locator(".dag a").count() == 1000
    assert shown.drawn("light") == 3
    assert "1 to 20 of 100,000 rows" in page.locator("#drops .count").inner_text()
    page.locator("#drops").get_by_role("searchbox").fill("step_77 reason_9")
    page.wait_for_function("document.querySelector('#drops .count').textContent === '1 to 20 of 121 rows'")
    page.locator("#drops").get_by_role("button", name="next").click()
    assert "21 to 40 of 121 rows" in page.locator("#drops .count").inner_text()
    assert page.locator("#drops tbody tr").count() == 20
    shown.quiet()
