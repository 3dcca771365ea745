"""The section of benchmarks/quality.py in benchmarks/RESULTS.md, and its headline."""

from results import machine, write_section

WHAT = {
    "form": "text statistics, linear head",
    "characters": "hashed character 2-5-grams, linear head",
    "words": "hashed words and pairs, linear head",
    "meaning": "MiniLM sentence embedding, linear head",
    "proxy_bag": "fastText, trained on proxies by source",
    "proxy_words": "words and pairs, trained on proxies",
    "proxy_form": "text statistics, trained on proxies",
    "demo_bag": "fastText of the recipe quality (demonstration)",
    "demo_characters": "character n-grams of the recipe quality (demonstration)",
}
ALL = "ensemble of all nine: "
ENSEMBLES = {
    "max": ALL + "highest rank, as Nemotron-CC",
    "mean": ALL + "mean rank",
    "suel": ALL + "ranks weighed by their agreement",
    "stacked": ALL + "linear head on ranks",
    "joint": "one linear head on the text statistics and the five scores without labels",
}


def headline(found):
    study = found["study"]
    chosen = study["gains"]["stacked"]
    return {
        "auc_human_best_single": round(study["table"][study["best"]]["auc"], 3),
        "auc_human_ensemble": round(study["table"]["stacked"]["auc"], 3),
        "recall_gain_at_equal_volume": round(chosen["recall_0.5"][0], 3),
        "fasttext_vs_datatrove": round(found["ours"]["fastText"] / found["datatrove"]["fastText"], 2),
        "bucket_10m_s": round(found["buckets"][10_000_000]["cut"], 1),
    }


def line(name, what, row):
    return (
        f"| {name} | {what} | {row['auc']:.3f} | {row['precision_0.25']:.2f} / {row['recall_0.25']:.2f} "
        f"| {row['precision_0.5']:.2f} / {row['recall_0.5']:.2f} |"
    )


def interval(values):
    return f"{values[0]:+.3f} ({values[1]:+.3f} to {values[2]:+.3f})"


def verdict(study):
    """What the intervals say, in a sentence each."""
    gain = study["gains"]["stacked"]
    won = gain["recall_0.5"][1] > 0
    told = "beats" if won else "does not beat"
    why = "" if won else " (the interval holds zero: counted as no gain)"
    lines = [f"With labels, the stacked ensemble {told} its best member, {study['best']}, in recall at half of the volume{why}."]
    if study["gains"]["max"]["auc"][2] < 0:
        lines.append("The maximum does worse than its best member: what one weak member ranks high by mistake stays high.")
    blind = study["gains"]["unlabelled suel"]
    better = [n for n in ("auc", "recall_0.25", "recall_0.5") if blind[n][1] > 0]
    said = f"gains over {blind['over']} in {', '.join(better)}" if better else f"gains nothing certain over {blind['over']}"
    return [*lines, f"Without labels, the SUEL ensemble {said}."]


def study_lines(study):
    table = study["table"]
    rows = ["| scorer | what | AUC | precision / recall, best 25 % kept | best 50 % kept |", "|---|---|---|---|---|"]
    rows += [line(n, WHAT[n], table[n]) for n in study["supervised"]]
    rows += [line(f"**{n}**", what, table[n]) for n, what in ENSEMBLES.items()]
    rows += [line(n, WHAT[n] + "; has seen no human label", table[n]) for n in study["fixed"]]
    rows += [line(f"**{n}**", "ensemble of those", table[n]) for n in table if n.startswith("unlabelled")]
    rows += ["", "| difference | over | AUC | recall at 25 % | recall at 50 % |", "|---|---|---|---|---|"]
    for name, gain in study["gains"].items():
        cells = " | ".join(interval(gain[n]) for n in ("auc", "recall_0.25", "recall_0.5"))
        rows.append(f"| {name} | {gain['over']} | {cells} |")
    weights = ", ".join(f"{n} {w:.2f}" for n, w in study["suel_weights"].items())
    return [*rows, "", *verdict(study), f"SUEL's weights without labels (mean): {weights}."]


def speed_lines(found):
    rates, encoder = found["ours"], found["encoders"]
    ours, theirs = rates["fastText"], found["datatrove"]["fastText"]
    plain = f"transformers in batches of 32: {encoder['transformers']:,.1f} | {encoder['ours'] / encoder['transformers']:.2f}"
    rows = ["| scorer | docs / CPU second and core | peer | ratio |", "|---|---|---|---|"]
    rows.append(f"| fastText (dim 100, bigrams; scores differ by {found['apart']:.0e}) | {ours:,.0f} ")
    rows[-1] += f"| datatrove: {theirs:,.0f} | {ours / theirs:.2f} |"
    rows.append(
        f"| BERT of 4 x 128, 512 tokens (scores differ by {encoder['difference']:.0e}) | {encoder['ours']:,.1f} | {plain} |"
    )
    rows += [f"| {name} | {rate:,.0f} | | |" for name, rate in rates.items() if name != "fastText"]
    return [*rows, f"| MiniLM (int8, ONNX), up to 6 x 256 tokens | {found['meaning']['rate']:,.1f} | | |"]


def bucket_lines(found):
    rows = [
        "| scores | cut points, CPU s | with labels, CPU s | memory grown, MB | smallest and largest bucket |",
        "|---|---|---|---|---|",
    ]
    for count, run in found["buckets"].items():
        held = f"{run['smallest']:,} and {run['largest']:,}"
        rows.append(f"| {count:,} | {run['cut']:.1f} | {run['seconds']:.1f} | {run['grown_mb']:.0f} | {held} |")
    return rows


def write(found, quick):
    study = found["study"]
    pages = f"{study['rows']} web pages judged by people ({study['good']} good; subset dclm_human of the shared quality set)"
    how = f"Nested cross-validation, 5 folds, {study['seeds']} seeds; differences with 95 % intervals of a paired bootstrap."
    cuts = "exact quantiles of scores with 6 decimals, in batches as the engine cuts them; making the scores is in the time."
    lines = ["## Quality classifiers", "", f"`benchmarks/quality.py{' --quick' if quick else ''}`. {machine()}.", ""]
    lines += [f"**Agreement with people**: {pages}. {how}", "", *study_lines(study), ""]
    docs, few = found["documents"]
    lines += [
        f"**Speed**, one core, {docs:,} documents of that set ({few} for encoders):",
        "",
        *speed_lines(found),
        "",
        f"**Cut points**: {cuts}",
        "",
        *bucket_lines(found),
    ]
    write_section("quality", "\n".join(lines))
