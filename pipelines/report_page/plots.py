"""The plots of a report as Vega-Lite specifications; colours for text and axes come from the page's theme."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from pipelines.report_page.facts import Facts

COLOURS = {"kept": "#2f7ebc", "dropped": "#d9642c", "skipped": "#8a939c", "quarantined": "#a05fb4"}
"""Each has a contrast of 3:1 or more with the light and with the dark background."""
MOST_BARS = 25


@dataclass(frozen=True, slots=True)
class Plot:
    """A plot and what a screen reader says about it."""

    id: str
    section: str
    title: str
    description: str
    spec: dict[str, Any]


def plots(facts: Facts) -> list[Plot]:
    """Every plot that has data."""
    return [plot for make in (_funnel, _reasons, _time, _languages, _domains, _lengths, _scores, _buckets, _clusters, _mixtures,
                              _prompts) for plot in make(facts)]  # fmt: skip


def _bars(
    rows: Sequence[dict[str, Any]], y: str, x: str, colour: str | None = None, *, title: str, step: int = 18, zero: str = "zero"
) -> dict[str, Any]:  # fmt: skip
    """Horizontal bars in the order of the rows; `colour` names what became of a row."""
    import altair as alt

    encoding: dict[str, Any] = {
        "y": alt.Y(f"{y}:N", sort=None, title=None, axis=alt.Axis(labelLimit=260)),
        "x": alt.X(
            f"{x}:Q",
            title=title,
            stack=zero if colour else None,
            axis=alt.Axis(format="%" if zero == "normalize" else "~s", tickCount=8),
        ),
        "tooltip": [alt.Tooltip(f"{y}:N"), *([alt.Tooltip(f"{colour}:N")] if colour else []), alt.Tooltip(f"{x}:Q", format=",")],
    }
    if colour:
        known = [c for c in COLOURS if any(r[colour] == c for r in rows)]
        scale = alt.Scale(domain=known, range=[COLOURS[c] for c in known]) if known else alt.Scale(scheme="tableau10")
        encoding["color"] = alt.Color(f"{colour}:N", scale=scale, title=None, legend=alt.Legend(orient="top"))
        encoding["order"] = alt.Order("rank:Q")
    mark = {} if colour else {"color": COLOURS["kept"]}
    chart = alt.Chart(alt.Data(values=list(rows))).mark_bar(**mark).encode(**encoding)
    return _spec(chart.properties(height=step * len({r[y] for r in rows})))


def _ranges(rows: Sequence[dict[str, Any]], title: str, *, log: bool = False) -> dict[str, Any]:
    """A histogram whose bins are given; stacked by what became of the rows where they say it."""
    import altair as alt

    split = "fate" in rows[0]
    scale = alt.Scale(type="log") if log else alt.Scale(zero=False)
    encoding: dict[str, Any] = {
        "x": alt.X("from:Q", bin="binned", title=title, scale=scale) if not log else alt.X("from:Q", title=title, scale=scale),
        "x2": "to:Q",
        "y": alt.Y("rows:Q", title="rows", axis=alt.Axis(format="~s"), stack="zero" if split else None),
        "tooltip": [alt.Tooltip("from:Q", format=",.4~g"), alt.Tooltip("to:Q", format=",.4~g"), alt.Tooltip("rows:Q", format=",")],
    }
    if split:
        names = [n for n in ("kept", "dropped") if any(r["fate"] == n for r in rows)]
        palette = alt.Scale(domain=names, range=[COLOURS[n] for n in names])
        encoding["color"] = alt.Color("fate:N", scale=palette, title=None, legend=alt.Legend(orient="top"))
    else:
        encoding["color"] = alt.value(COLOURS["kept"])
    if not split:
        encoding["y2"] = alt.datum(0)
    chart = alt.Chart(alt.Data(values=list(rows))).mark_bar(binSpacing=1).encode(**encoding)
    return _spec(chart.properties(height=240))


def _spec(chart: Any) -> dict[str, Any]:
    """A chart as wide as the place it stands in."""
    spec: dict[str, Any] = chart.properties(width="container", autosize={"type": "fit-x", "contains": "padding"}).to_dict()
    return spec


def _funnel(facts: Facts) -> Iterator[Plot]:
    rows = []
    for step in facts.steps:
        fates = {"kept": step["out"], "dropped": step["dropped"], "skipped": step["skipped"], "quarantined": step["quarantined"]}
        rows += [{"step": step["step"], "fate": f, "rows": n, "rank": i} for i, (f, n) in enumerate(fates.items()) if n]
    if rows:
        told = "Rows that each step kept, dropped, skipped and quarantined, in recipe order."
        yield Plot("funnel", "funnel", "Rows by step", told, _bars(rows, "step", "rows", "fate", title="rows"))


def _reasons(facts: Facts) -> Iterator[Plot]:
    top = sorted((d for d in facts.drops if d["kind"] == "dropped"), key=lambda d: -d["rows"])[:MOST_BARS]
    if top:
        rows = [{"reason": f"{d['step']}: {d['reason']}", "rows": d["rows"]} for d in top]
        told = f"The {len(rows)} most frequent reasons for which rows were dropped."
        yield Plot("reasons", "drops", "Most frequent reasons", told, _bars(rows, "reason", "rows", title="rows dropped"))


def _time(facts: Facts) -> Iterator[Plot]:
    rows = [{"step": _pass_name(s["with"]), "seconds": s["seconds"]} for s in facts.steps if s["seconds"]]
    if rows:
        told = "Processor seconds by pass over rows; the steps of one pass run together."
        yield Plot("time", "time", "Time by pass", told, _bars(rows, "step", "seconds", title="worker seconds", step=22))


def _pass_name(steps: Sequence[str]) -> str:
    return steps[0] if len(steps) == 1 else f"{steps[0]} … {steps[-1]} ({len(steps)} steps)"


def _languages(facts: Facts) -> Iterator[Plot]:
    top = facts.languages[:MOST_BARS]
    rows = [{"language": r["language"], "fate": f, "rows": r[f], "rank": i}
            for r in top for i, f in enumerate(("kept", "dropped")) if r[f]]  # fmt: skip
    if rows:
        told = f"Rows kept and dropped by language, the {len(top)} most frequent of {len(facts.languages)}."
        yield Plot("languages", "content", "Languages", told, _bars(rows, "language", "rows", "fate", title="rows"))


def _lengths(facts: Facts) -> Iterator[Plot]:
    if facts.lengths:
        step = facts.lengths[0]["step"]
        told = f"Characters of the documents that stand at {step}, on a logarithmic axis."
        yield Plot("lengths", "content", "Length of documents", told, _ranges(facts.lengths, "characters", log=True))


def _scores(facts: Facts) -> Iterator[Plot]:
    groups: dict[tuple[str, str], list[dict[str, Any]]] = {}
    for row in facts.scores:
        groups.setdefault((row["step"], row["column"]), []).append({**row, "fate": "kept" if row["kept"] else "dropped"})
    for number, ((step, column), rows) in enumerate(groups.items()):
        if rows[0]["from"] == rows[-1]["to"]:
            continue
        told = f"Values of {column} at step {step}, rows that it kept and rows that it dropped."
        yield Plot(f"score-{number}", "scores", f"{column} ({step})", told, _ranges(rows, column))


def _buckets(facts: Facts) -> Iterator[Plot]:
    import altair as alt

    rows = [r for r in facts.buckets if r["bucket"] is not None]
    for step in dict.fromkeys(r["step"] for r in rows):
        mine = [{**r, "label": r["label"] or "no label"} for r in rows if r["step"] == step]
        labels = list(dict.fromkeys(r["label"] for r in sorted(mine, key=lambda r: r["bucket"])))  # from the worst to the best
        scale = alt.Scale(domain=labels, scheme="tableau10")
        chart = alt.Chart(alt.Data(values=mine)).mark_bar().encode(
            x=alt.X("bucket:O", title="bucket"), y=alt.Y("rows:Q", axis=alt.Axis(format="~s")),
            color=alt.Color("label:N", title=None, scale=scale, legend=alt.Legend(orient="top")),
            tooltip=["bucket:O", "label:N", alt.Tooltip("rows:Q", format=",")],
        ).properties(height=200)  # fmt: skip
        yield Plot(f"buckets-{step}", "scores", f"Buckets ({step})", f"Rows by quality bucket at {step}.", _spec(chart))


def _domains(facts: Facts) -> Iterator[Plot]:
    if facts.domains:
        rows = [{"domain": r["domain"], "rows": r["rows"]} for r in facts.domains[:MOST_BARS]]
        told = f"The {len(rows)} domains with most rows at {facts.domains[0]['step']}."
        yield Plot("domains", "content", "Domains", told, _bars(rows, "domain", "rows", title="rows"))


def _clusters(facts: Facts) -> Iterator[Plot]:
    for step in dict.fromkeys(r["step"] for r in facts.clusters):
        rows = [{"size": str(r["size"]), "clusters": r["clusters"]} for r in facts.clusters if r["step"] == step][:40]
        told = f"How many clusters of duplicates have so many documents, at {step}."
        yield Plot(
            f"clusters-{step}", "duplicates", f"Cluster sizes ({step})", told, _bars(rows, "size", "clusters", title="clusters")
        )


def _mixtures(facts: Facts) -> Iterator[Plot]:
    import altair as alt

    for step in dict.fromkeys(r["step"] for r in facts.mixtures):
        mine, sides = [r for r in facts.mixtures if r["step"] == step], (("planned", "wanted"), ("taken", "tokens"))
        rows = [{"phase": f"{r['phase']}, {s}", "source": r["source"], "tokens": r[key] or 0} for r in mine for s, key in sides]
        share = alt.X("tokens:Q", stack="normalize", title="share of tokens", axis=alt.Axis(format="%"))
        legend = alt.Legend(orient="top", columns=5)
        chart = alt.Chart(alt.Data(values=rows)).mark_bar().encode(
            x=share, y=alt.Y("phase:N", title=None),
            color=alt.Color("source:N", title=None, scale=alt.Scale(scheme="tableau20"), legend=legend),
            tooltip=["phase:N", "source:N", alt.Tooltip("tokens:Q", format=",")],
        ).properties(height=28 * len({r["phase"] for r in rows}))  # fmt: skip
        told = f"Share of each source in the tokens of each phase of {step}, planned and taken."
        yield Plot(f"mixture-{step}", "mixtures", f"Planned and taken ({step})", told, _spec(chart))


def _prompts(facts: Facts) -> Iterator[Plot]:
    rows = []
    for r in facts.prompts:
        name = f"{r['step']}: {r['prompt']} ({r['model']})"
        rows += [{"prompt": name, "fate": fate, "rows": r[key], "rank": i}
                 for i, (fate, key) in enumerate((("kept", "accepted"), ("dropped", "refused"))) if r[key]]  # fmt: skip
    if rows:
        told = "Share of answers accepted and refused, by prompt and model."
        yield Plot("prompts", "prompts", "Acceptance", told, _bars(rows, "prompt", "rows", "fate", title="share", zero="normalize"))
