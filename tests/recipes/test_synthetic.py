"""The recipes that ask a model: against a server of rules, again from its ledger alone, and with the embedded model."""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

pytest.importorskip("aiohttp")

from manifests.catalog import Catalog
from pipelines.session import Wish, carry_out, planned

NILE = (
    "The Nile is the longest river in Africa and flows north through 11 countries.\n"
    "It ends in the Mediterranean Sea, where its mud has built a wide and fertile delta.\n"
    "Ancient Egypt depended on the floods of the river, which came back every year in summer.\n"
    "In 1970 the Aswan High Dam ended the floods, and farmers have needed fertiliser ever since."
)
WELL = (
    "The well in the yard is deep and old, and its wall was built of field stones.\n"
    "It holds cold water even in a dry summer, and refuses nobody who is thirsty and comes by."
)
SHORT = "Nothing to see."


GERMAN = (
    "Die Mühle steht seit dem Mittelalter am Fluss und mahlt noch heute das Korn der Bauern aus dem ganzen Tal. "
    "Ihr Rad wird vom Wasser getrieben, das im Frühling schnell und im Sommer langsam durch den alten Kanal fließt. "
    "Der Müller öffnet am Morgen das Wehr und schließt es am Abend, wenn das letzte Mehl in den Säcken liegt."
)


def answer(said):
    """A model of rules: it keeps three of four words of the passage, and refuses whatever speaks of a yard."""
    if "=====" in said and "into German" in said:
        return GERMAN.replace(". ", ".\n" * 4)
    if "SCORE: n" in said:
        return f"It was weighed.\nSCORE: {1 if 'bargain' in said else 4}"
    passage = said.split("Passage:\n")[-1].split("Text:\n")[-1]
    if "=====" in said:
        return "\n".join("EN " + line.replace("agua", "water") for line in said.split("=====")[1].strip().split("\n"))
    if "yard" in passage:
        return "I'm sorry, but I cannot do that."
    words = [w for i, w in enumerate(passage.split()) if i % 4 != 3]
    if "Question:" in said:
        return "\n\n".join(f"Question: What about {words[i]}?\nAnswer: {' '.join(words[i : i + 12])}" for i in (1, 14, 27))
    if '"- "' in said:
        return "\n".join(f"- {line}" for line in passage.split("\n"))
    lead = "REWRITTEN:\n" if "REWRITTEN" in said else "DISTILLED:\n" if "DISTILLED" in said else ""
    return lead + " ".join(words)


@pytest.fixture
def served(tmp_path, model):
    model.rule = answer
    models = tmp_path / "models.yaml"
    models.write_text(f'rules: {{engine: openai, endpoints: ["{model.url}"]}}\n')
    return models


def run(recipe: str, store: Path, models: Path | None, **settings: str):
    plan = planned(Wish(recipe, str(store), settings, workers=1, models=models))
    result = carry_out(plan, lambda *_: None)
    assert result.code == 0, result.errors + result.over_limit
    return Catalog(plan.layout.store)


def digests(store: Path) -> dict[str, bytes]:
    return {str(p.relative_to(store)): p.read_bytes() for p in store.glob("objects/*/parts/*")}


def documents(folder: Path, rows: list[tuple[str, int]]) -> str:
    path = folder / "documents.parquet"
    pq.write_table(pa.table({"text": [t for t, _ in rows], "bucket": pa.array([b for _, b in rows], pa.int32())}), path)
    return str(path)


LIMITS = {"max_output_tokens": "300", "min_output_tokens": "5"}


def test_five_tasks_routed_asked_checked_and_made_again_from_the_ledger(tmp_path, served, vocabulary):
    paths = documents(tmp_path, [(NILE, 19), (NILE.replace("Nile", "Amazon"), 3), (WELL, 19), (SHORT, 19), (NILE, 10)])
    settings = {"paths": paths, "model": "rules", "tokenizer": vocabulary, **LIMITS}
    catalog = run("nemotron-cc-synthetic", tmp_path / "store", served, **settings)
    asked = catalog.run("select count(*) from nemotron_cc_synthetic.distill_all").fetchone()
    assert asked == (3,), "bucket 19 is asked for distill, 3 and 10 are passed over"
    assert catalog.run("select count(*) from nemotron_cc_synthetic.wikipedia_all").fetchone() == (4,)
    reasons = catalog.run("select drop_reason, count(*) from nemotron_cc_synthetic.distill_all group by 1 order by 1").fetchall()
    assert dict(reasons) == {None: 1, "document_too_short": 1, "refusal": 1}
    rows = catalog.run("select step, text, source_text, generator.prompt from nemotron_cc_synthetic.synthetic").fetchall()
    assert {step for step, *_ in rows} == {"wikipedia", "diverse_qa", "distill", "knowledge", "facts"} - lost(catalog)
    assert ("distill", "nemotron_cc/distill") in {(step, prompt) for step, _, _, prompt in rows}
    assert all(source in (NILE, NILE.replace("Nile", "Amazon")) for _, _, source, _ in rows)
    replayed = tmp_path / "replay.yaml"
    replayed.write_text(f"rules: {{engine: replay, store: {tmp_path / 'store'}}}\n")
    run("nemotron-cc-synthetic", tmp_path / "again", replayed, **settings)
    assert digests(tmp_path / "again") == digests(tmp_path / "store")


def lost(catalog: Catalog) -> set[str]:
    """Tasks whose every answer was dropped by the checks: a list of the facts letter by letter is a copy."""
    dropped = catalog.run(
        "select step, drop_reason from nemotron_cc_synthetic.checked_all where drop_reason is not null"
    ).fetchall()
    assert ("facts", "copy") in dropped
    return {"facts"}


def test_translation_is_checked_and_refusals_have_reasons(tmp_path, served, vocabulary):
    spanish = "El agua del río es fría.\nLa casa está cerca del agua y tiene 12 ventanas."
    path = tmp_path / "pages.parquet"
    pq.write_table(pa.table({"text": [spanish, "The house stands by the river and has many windows."]}), path)
    settings = {"paths": str(path), "model": "rules", "tokenizer": vocabulary, "min_score": "0.3"}
    catalog = run("translate-to-english", tmp_path / "store", served, **settings)
    assert catalog.run("select drop_reason from translate_to_english.foreign_all order by text").fetchall() == [
        (None,),
        ("language_not_kept",),
    ]
    ((text, source, why),) = catalog.run("select text, source_text, drop_reason from translate_to_english.english_all").fetchall()
    assert (text, source, why) == (answer(f"=====\n{spanish}\n====="), spanish, None)
    ((why,),) = catalog.run("select drop_reason from translate_to_english.checked_all").fetchall()
    assert why in ("language", "not_translated"), "the rules translate one word"


def manual(*topics: str) -> list[str]:
    """Prose that the demonstration classifiers were taught to like."""
    from pydoc_data.topics import topics as known

    return [" ".join(known[name].split())[:1500] for name in topics]


def test_translations_are_scored_graded_and_asked_for_four_of_five_tasks(tmp_path, served, vocabulary, ran):
    quality = ran("quality")
    (cuts,) = (quality.engine.store.root / "objects").glob("cuts-*/parts")
    for_loop, classes, function = manual("for", "class", "function")
    pages = [for_loop, classes, f"{function} What a bargain!", "Buy now! Free shipping. Add to cart. Best price. On sale. " * 5]
    pq.write_table(pa.table({"text": pages}), tmp_path / "translated.parquet")
    settings = {"paths": str(tmp_path / "translated.parquet"), "cuts": str(cuts / "*.parquet"), **LIMITS}
    told = {"model": "rules", "judge": "rules", "tokenizer": vocabulary}
    catalog = run("translated-quality", tmp_path / "store", served, **settings, **told)
    labels = dict(catalog.run("select text, label from translated_quality.ranked_all").fetchall())
    assert [labels[page] for page in pages[:3]] == ["high"] * 3
    assert labels[pages[3]] not in ("high", "medium_high")
    judged = catalog.run(
        "select grade, drop_reason, count(*) from translated_quality.judged_all group by all order by all"
    ).fetchall()
    assert judged == [(1.0, "low_substance", 1), (4.0, None, 2)], "the fourth page is not asked about"
    tasks = ("ask_wikipedia", "ask_diverse_qa", "ask_distill", "ask_extract_knowledge", "ask_knowledge_list")
    routed = catalog.run(f"select distinct {', '.join(tasks)} from translated_quality.routed_all").fetchall()
    assert routed == [(False, True, True, True, True)]
    for step in ("diverse_qa", "distill", "knowledge", "facts"):
        parents = catalog.run(f"select count(distinct parent_id) from translated_quality.{step}_all").fetchone()
        assert parents == (2,), step
    written = catalog.run("select distinct step from translated_quality.synthetic").fetchall()
    assert written
    assert {step for (step,) in written} <= {"diverse_qa", "distill", "knowledge", "facts"}
    served.write_text("rules: {engine: replay}\n")
    stricter = run("translated-quality", tmp_path / "store", served, **settings, **told, min_grade="5")
    assert stricter.run("select count(*) from translated_quality.good").fetchone() == (0,), "another limit asks nobody"


def test_questions_in_another_language_both_ways(tmp_path, served, vocabulary):
    for name, text in (("native", GERMAN), ("english", NILE)):
        pq.write_table(pa.table({"text": [text]}), tmp_path / f"{name}.parquet")
    settings = {name: str(tmp_path / f"{name}.parquet") for name in ("native", "english")}
    limits = {"model": "rules", "tokenizer": vocabulary, "min_output_tokens": "5"}
    catalog = run("multilingual-qa", tmp_path / "store", served, **settings, **limits)
    ((text, prompt),) = catalog.run("select text, generator.prompt from multilingual_qa.native_qa").fetchall()
    assert text.startswith(GERMAN)
    assert "Question: " in text
    assert prompt == "nemotron_cc/diverse_qa_native"
    ((language, why),) = catalog.run("select language, drop_reason from multilingual_qa.translated_checked_all").fetchall()
    assert language == "de"
    assert why in ("lines", "numbers"), "the rules answer with another text than they were given"


@pytest.mark.slow
@pytest.mark.llm
def test_the_embedded_model_writes_for_real(tmp_path):
    paths = documents(tmp_path, [(NILE, 18)])
    settings = {"paths": paths, "max_output_tokens": "48", "min_output_tokens": "5", "lead_in": "optional", "routing": "v2.1"}
    catalog = run("nemotron-cc-synthetic", tmp_path / "store", None, **settings)
    for step in ("wikipedia", "diverse_qa", "distill", "knowledge", "facts"):
        rows = catalog.run(
            f"select generator.model, completion_tokens, prompt_tokens from nemotron_cc_synthetic.{step}_all"
        ).fetchall()
        assert rows, "a refused answer is a row with a reason, whatever this model said"
        assert {model for model, *_ in rows} == {"smollm2-135m-instruct"}
        assert 0 < sum(tokens for _, tokens, _ in rows) <= 48
        assert sum(tokens for *_, tokens in rows) > 100, "the prompt and the passage"
