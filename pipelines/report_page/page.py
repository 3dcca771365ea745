"""Facts, plots and samples put together into one HTML file with everything inlined."""

from __future__ import annotations

import contextlib
import difflib
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from html import escape
from importlib import metadata
from pathlib import Path
from typing import Any

import orjson

from manifests.store import Store
from pipelines.answers import cell
from pipelines.compare import record_of
from pipelines.report_page.dag import dag, short
from pipelines.report_page.facts import Facts, gather
from pipelines.report_page.plots import Plot, plots
from pipelines.report_page.samples import samples

HERE = Path(__file__).parent
SECTIONS = {"funnel": "Funnel", "steps": "Steps", "drops": "Drops", "content": "Content", "scores": "Scores and buckets",
            "duplicates": "Duplicates", "mixtures": "Mixture", "prompts": "Language models", "samples": "Samples",
            "time": "Time and cost", "quarantine": "Quarantine"}  # fmt: skip
TABLES: dict[str, dict[str, str]] = {
    "steps": {
        "position": "#", "step": "step", "stage": "stage", "in": "rows in", "out": "rows out", "kept": "kept %",
        "dropped": "dropped", "skipped": "skipped", "quarantined": "quarantined", "tokens": "tokens", "megabytes": "MB",
        "seconds": "seconds", "rate": "rows/s",
    },
    "drops": {"step": "step", "reason": "reason", "kind": "kind", "rows": "rows", "percent": "% of rows in"},
    "content": {"domain": "domain", "read": "rows read", "rows": "rows at the end", "kept": "kept %"},
    "duplicates": {"step": "step", "size": "documents in a cluster", "clusters": "clusters"},
    "scores": {"step": "step", "bucket": "bucket", "label": "label", "rows": "rows"},
    "mixtures": {
        "step": "step", "phase": "phase", "source": "source", "rows": "rows", "tokens": "tokens", "wanted": "tokens wanted",
        "share": "share %", "planned": "planned %", "available": "one epoch, tokens", "epochs": "epochs",
    },
    "prompts": {
        "step": "step", "prompt": "prompt", "model": "model", "version": "version", "accepted": "accepted", "refused": "refused",
        "acceptance": "accepted %", "prompt_tokens": "prompt tokens", "completion_tokens": "completion tokens",
        "cost": "cost",
    },
    "quarantine": {"step": "step", "unit": "file", "offset": "offset", "reason": "reason", "detail": "detail", "url": "url"},
    "time": {
        "pass": "pass over rows", "seconds": "worker seconds", "rows": "rows in", "rate": "rows/s",
        "hours": "core hours per million rows", "cost": "cost per million rows",
    },
}  # fmt: skip
"""Columns of each table and their headings; a column without any value is left out."""


def write_report(store: Store, name: str, out: Path, price: float) -> Path:
    """The report of a run, recipe or published name; `price` is the cost of one core hour."""
    facts, catalog, views = gather(store, name)
    record, _, _ = record_of(store, name)
    shown = samples(catalog, views, record)
    page = render(facts, plots(facts), shown, price)
    draft = out.with_name(f".{out.name}.{os.getpid()}")
    draft.write_text(page, encoding="utf-8")
    draft.replace(out)
    return out


def render(facts: Facts, drawn: Sequence[Plot], shown: Sequence[Mapping[str, Any]], price: float) -> str:
    """The whole page."""
    tables = {name: rows for name, rows in _tables(facts, price).items() if rows}
    present = {p.section for p in drawn} | set(tables) | ({"samples"} if shown else set())
    body = "".join(_section(s, t, drawn, tables, shown, facts, price) for s, t in SECTIONS.items() if s in present)
    links = "".join(f'<a href="#{s}">{t}</a>' for s, t in SECTIONS.items() if s in present)
    rows = {n: [[r.get(c) for c in _used(n, found)] for r in found] for n, found in tables.items()}
    data = {
        "plots": {p.id: p.spec for p in drawn},
        "tables": {n: {"columns": _columns(n, found), "rows": rows[n]} for n, found in tables.items()},
    }
    fills = {
        "TITLE": escape(f"{facts.name}: gristmill report"), "NAME": escape(facts.name), "STYLE": _text("page.css"), "LINKS": links,
        "SUMMARY": _summary(facts, price), "DAG": dag(facts.steps), "BODY": body, "DATA": _json(data), "VEGA": _vega(),
        "SCRIPT": _text("page.js"),
    }  # fmt: skip
    page = _text("page.html")
    for key, value in fills.items():
        page = page.replace(f"<!--{key}-->", value, 1)
    return page


def _text(name: str) -> str:
    return (HERE / name).read_text(encoding="utf-8")


def _json(data: Any) -> str:
    """JSON that cannot end the script element it stands in."""
    return orjson.dumps(data, default=str).decode().replace("<", "\\u003c")


def _vega() -> str:
    """Vega, Vega-Lite and vega-embed as one script; putting it together takes seconds, so the result is kept in the cache."""
    import vl_convert

    caches = Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache")) / "gristmill"
    path = caches / f"vega-{metadata.version('vl-convert-python')}.js"
    if path.exists():
        return path.read_text(encoding="utf-8")
    code: str = vl_convert.javascript_bundle("window.vegaEmbed = vegaEmbed;").replace("</script", "<\\/script")
    with contextlib.suppress(OSError):
        caches.mkdir(parents=True, exist_ok=True)
        draft = path.with_suffix(f".{os.getpid()}")
        draft.write_text(code, encoding="utf-8")
        draft.replace(path)
    return code


def _used(name: str, rows: Sequence[Mapping[str, Any]]) -> list[str]:
    """Columns of a table that have any value."""
    return [c for c in TABLES[name] if any(r.get(c) is not None for r in rows)]


def _columns(name: str, rows: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    number = {c: all(isinstance(r.get(c), int | float | None) for r in rows) for c in TABLES[name]}
    return [{"label": TABLES[name][c], "number": number[c]} for c in _used(name, rows)]


def _tables(facts: Facts, price: float) -> dict[str, list[dict[str, Any]]]:
    steps = [
        {
            **s,
            "kept": _percent(s["out"], s["in"]),
            "rate": _rate(s["in"], s["seconds"]),
            "megabytes": round(s["bytes"] / 1e6, 3) if s["bytes"] else None,
        }
        for s in facts.steps
    ]
    totals: dict[Any, dict[str, int]] = {}
    for m in facts.mixtures:
        total = totals.setdefault((m["step"], m["phase"]), {"tokens": 0, "wanted": 0})
        for key in total:
            total[key] += m[key] or 0
    return {
        "steps": steps, "drops": facts.drops, "duplicates": facts.clusters, "scores": facts.buckets, "quarantine": facts.quarantine,
        "content": [{**d, "kept": _percent(d["rows"], d["read"])} for d in facts.domains], "time": list(_passes(facts, price)),
        "mixtures": [
            {**m, "share": _percent(m["tokens"], totals[m["step"], m["phase"]]["tokens"]),
             "planned": _percent(m["wanted"], totals[m["step"], m["phase"]]["wanted"])}
            for m in facts.mixtures
        ],
        "prompts": [{**p, "acceptance": _percent(p["accepted"], p["accepted"] + p["refused"])} for p in facts.prompts],
    }  # fmt: skip


def _passes(facts: Facts, price: float) -> Iterator[dict[str, Any]]:
    """Time of each object: its steps ran in one pass over its rows."""
    came = {s["step"]: s["in"] for s in facts.steps}
    for step in facts.steps:
        if step["seconds"]:
            rows = came[step["with"][0]] or 0
            hours = step["seconds"] / 3600 / rows * 1e6 if rows else None
            cost = round(hours * price, 4) if hours is not None and price else None
            yield {"pass": " + ".join(step["with"]), "seconds": step["seconds"], "rows": rows, "rate": _rate(rows, step["seconds"]),
                   "hours": round(hours, 3) if hours is not None else None, "cost": cost}  # fmt: skip


def _percent(part: int | None, whole: int | None) -> float | None:
    return round(100 * part / whole, 2) if whole and part is not None else None


def _rate(rows: int | None, seconds: float | None) -> float | None:
    return round(rows / seconds, 1) if rows and seconds else None


def _summary(facts: Facts, price: float) -> str:
    """The few numbers that people look for first."""
    sources = [s for s in facts.steps if s["shape"] == "base" and s["complete"]]
    came, seconds = sum(s["in"] or 0 for s in sources), sum(s["seconds"] or 0 for s in facts.steps)
    read, last = sum(s["out"] or 0 for s in sources), next((s for s in reversed(facts.steps) if s["complete"]), None)
    tokens = next((s["tokens"] for s in reversed(facts.steps) if s["tokens"]), None)
    items = [("records read", f"{came:,}"), ("documents", f"{read:,}")]
    items += [(f"rows at {last['step']}", f"{last['out'] or 0:,}")] if last else []
    items += [("tokens", short(tokens))] if tokens else []
    items += [("worker time", _clock(seconds))]
    items += [("core hours per million documents", f"{seconds / 3600 / read * 1e6:,.1f}")] if read else []
    items += [("cost per million documents", f"{seconds / 3600 / read * 1e6 * price:,.2f}")] if read and price else []
    run = facts.run
    state = "" if run.get("id") is None else f"run {escape(str(run['id']))}"
    if run.get("code") is not None:
        state += f", exit code {run['code']}, {_clock(run.get('seconds') or 0)}"
    facts_list = "".join(f"<div><dt>{escape(k)}</dt><dd>{escape(v)}</dd></div>" for k, v in items)
    return f'<p class="state">{state}</p><dl class="numbers">{facts_list}</dl>'


def _clock(seconds: float) -> str:
    if seconds < 90:
        return f"{seconds:.1f} s"
    return f"{seconds / 60:.1f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"


def _section(
    name: str, title: str, drawn: Sequence[Plot], tables: Mapping[str, Any], shown: Sequence[Mapping[str, Any]], facts: Facts,
    price: float,
) -> str:  # fmt: skip
    figures = "".join(_figure(p) for p in drawn if p.section == name)
    parts = [f'<div class="plots">{figures}</div>' if figures else ""]
    if name == "samples":
        parts += [_sample_step(s) for s in shown]
    if name == "time" and price:
        parts.append(f"<p>One core hour costs {price:g}; what language models cost stands with them.</p>")
    if name == "prompts":
        parts.append(_refusals(facts))
    if name in tables:
        parts.append(f'<div class="table" data-table="{name}" data-caption="{escape(title)}"></div>')
    return f'<section id="{name}"><h2>{escape(title)}</h2>{"".join(parts)}</section>'


def _figure(plot: Plot) -> str:
    return (
        f'<figure><figcaption>{escape(plot.title)}</figcaption><div class="plot" id="plot-{escape(plot.id)}" '
        f'data-plot="{escape(plot.id)}" role="img" aria-label="{escape(plot.description)}"></div></figure>'
    )


def _refusals(facts: Facts) -> str:
    """Why answers were refused, most frequent first."""
    asked = {p["step"] for p in facts.prompts}
    found = sorted((d for d in facts.drops if d["step"] in asked), key=lambda d: -d["rows"])[:20]
    items = "".join(f"<li>{escape(d['step'])}: {escape(d['reason'])}, {d['rows']:,}</li>" for d in found)
    return f"<h3>Refusals</h3><ul>{items}</ul>" if items else ""


def _sample_step(step: Mapping[str, Any]) -> str:
    rows = "".join(_sample(row) for row in step["rows"])
    title = f"<code>{escape(step['step'])}</code> {escape(step['stage'])}"
    return f'<details class="sample" open><summary>{title}</summary>{rows}</details>'


def _sample(row: Mapping[str, Any]) -> str:
    place = f'<span class="url">{escape(row.get("url") or row["id"])}</span>'
    if row["kind"] == "removed":
        values = "  ".join(f"{escape(k)}={escape(str(cell(v)))}" for k, v in row["values"].items())
        text = escape(row["before"]) if row["before"] else "<em>its text is not stored and could not be read again</em>"
        return (
            f'<article class="removed"><p><strong>removed: {escape(str(row["reason"]))}</strong> {place}</p>'
            f'<p class="values">{values}</p><pre tabindex="0">{text}</pre></article>'
        )
    sides = zip(("before", "after"), _marked(row.get("before"), row.get("after") or ""), strict=True)
    pair = "".join(f'<div><h4>{side}</h4><pre tabindex="0">{text}</pre></div>' for side, text in sides)
    return f'<article class="changed"><p><strong>changed</strong> {place}</p><div class="pair">{pair}</div></article>'


def _marked(before: str | None, after: str) -> tuple[str, str]:
    """Two texts with the lines that differ marked."""
    if before is None:
        return "<em>there was no text before this step</em>", escape(after)
    old, new = before.splitlines(), after.splitlines()
    left: list[str] = []
    right: list[str] = []
    for tag, a, b, c, d in difflib.SequenceMatcher(None, old, new, autojunk=False).get_opcodes():
        same = tag == "equal"
        left += [escape(line) if same else f"<del>{escape(line)}</del>" for line in old[a:b]]
        right += [escape(line) if same else f"<ins>{escape(line)}</ins>" for line in new[c:d]]
    return "\n".join(left), "\n".join(right)


def as_json(facts: Facts) -> str:
    """The facts for scripts."""
    return orjson.dumps(asdict(facts), default=str, option=orjson.OPT_INDENT_2).decode()
