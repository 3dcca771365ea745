"""The packaged mixtures: their shares, and Nemotron 3 Nano's fifteen sources on real text, planned, killed, resumed, verified."""

from __future__ import annotations

import gzip
import json
import random
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml

from manifests.catalog import Catalog
from manifests.store import Store
from pipelines.recipe import load
from pipelines.report import finish
from stages.mixture import Mixture

ROOT = Path(__file__).parents[2]
RECIPES = ROOT / "pipelines" / "recipes"
NANO = RECIPES / "nemotron3-nano.yaml"
TOKENS = 400_000
WORDS = "mill wheel stone water grain flour sluice race hopper sack miller gear oak iron dust river weir bread oven loaf"


def phases(name: str) -> dict[str, dict[str, float]]:
    steps = yaml.safe_load((RECIPES / f"{name}.yaml").read_text())["steps"]
    return {phase: facts["shares"] for phase, facts in steps["budget"]["with"]["phases"].items()}


@pytest.mark.parametrize("name", ["nemotron3-nano", "nemotron3-nano-long", "nemotron3-super"])
def test_shares_sum_to_their_whole_and_name_the_steps_that_are_read(name: str) -> None:
    recipe = load(RECIPES / f"{name}.yaml")
    mixture = Mixture.model_validate(recipe.step("budget").params)
    assert mixture.sources == set(recipe.step("sources").parents)
    sums = {phase: round(sum(shares.values()), 1) for phase, shares in phases(name).items()}
    assert sums == {"phase1": 100.0, "phase2": 100.0 if name.endswith("super") else 100.1} | (
        {"long": 100.1} if "long" in sums else {}
    )


def test_the_long_phase_is_the_blend_of_phase_two_scaled_down() -> None:
    long = phases("nemotron3-nano-long")
    assert long["phase1"] == phases("nemotron3-nano")["phase1"]
    assert long["phase2"] == phases("nemotron3-nano")["phase2"]
    assert {
        name: round(share / 0.79, 2) for name, share in long["long"].items() if name not in ("document_qa", "retrieval")
    } == long["phase2"]
    assert (long["long"]["document_qa"], long["long"]["retrieval"]) == (20, 1)


def made_up() -> dict[str, list[str]]:
    """Fifteen sources of sentences, some too small for one epoch."""
    draw = random.Random(3)
    sizes = {"wiki": 4, "general_sft": 1, "code_sft": 15}
    return {
        name: [" ".join(draw.choices(WORDS.split(), k=draw.randint(20, 120))) for _ in range(sizes.get(name, 120))]
        for name in load(NANO).step("sources").parents
    }


def lines(path: Path) -> Iterator[dict[str, Any]]:
    with gzip.open(path, "rt", encoding="utf-8") as file:
        yield from map(json.loads, file)


def real(shared: Path) -> dict[str, list[str]]:
    """Real text for each of the fifteen sources."""
    import zstandard

    found: dict[str, list[str]] = {name: [] for name in load(NANO).step("sources").parents}
    quality = {
        "web_boilerplate": "crawl_medium", "web_commercial": "crawl_medium_high", "dclm_human": "syn_crawl_medium_high",
        "technical_book": "syn_crawl_high", "encyclopedia": "wiki", "textbook": "academic", "email_spam": "crawl_plus",
    }  # fmt: skip
    tests = {"gsm8k": "math", "mmlu": "stem_sft", "humaneval": "code_sft", "boolq": "general_sft", "winogrande": "general_sft"}
    for row in lines(shared / "quality.jsonl.gz"):
        if row["subset"] in quality:
            found[quality[row["subset"]]].append(row["text"])
    for row in lines(shared / "webpages" / "gold.jsonl.gz"):
        found["crawl_high"].append(row["text"] or "")
    for row in lines(shared / "decontam" / "benchmarks.jsonl.gz"):
        if row["benchmark"] in tests:
            found[tests[row["benchmark"]]].append(" ".join(str(v) for v in row.values() if isinstance(v, str)))
    found["multilingual"] = [row["text"] for row in lines(shared / "langid.jsonl.gz")][:4000]
    with zstandard.open(shared / "code.jsonl.zst", "rt", encoding="utf-8") as file:
        for row in map(json.loads, file):
            found["nemotron_cc_code" if row["language"] == "C" else "code"].append(row["content"])
    return found


def laid_down(folder: Path, sources: dict[str, list[str]]) -> dict[str, str]:
    """Files of the sources, and the settings that name them."""
    folder.mkdir()
    for name, texts in sources.items():
        pq.write_table(pa.table({"text": [text[:20_000] for text in texts if text.strip()]}), folder / f"{name}-0.parquet")
    return {name: str(folder / f"{name}-*.parquet") for name in sources}


def composition(store: Store) -> dict[tuple[str, str], tuple[int, int]]:
    query = "select step, phase, sum(tokens * copies), max(tokens) from nemotron3_nano.mix group by all"
    return {(step, phase): (int(tokens), longest) for step, phase, tokens, longest in Catalog(store).run(query).fetchall()}


def check(store: Store, tokens: int) -> None:
    """What the mixture consists of is what was planned, within one document of each source."""
    shares = phases("nemotron3-nano")
    longest = dict(Catalog(store).run("select step, max(tokens) from nemotron3_nano.counted group by all").fetchall())
    found = composition(store)
    for phase, part in (("phase1", 0.94), ("phase2", 0.06)):
        for source, share in shares[phase].items():
            wanted = tokens * part * share / sum(shares[phase].values())
            assert abs(found.get((source, phase), (0, 0))[0] - wanted) <= longest[source] + 1, (source, phase)
    exported = json.loads(next((store.root / "objects").glob("shards-*/parts/dataset-*.megatron.json")).read_text())
    assert {tuple(g["values"][::-1]): g["weight"] for g in exported["groups"]} == {
        key: tokens for key, (tokens, _) in found.items()
    }


def words(path: Path) -> str:
    """A vocabulary of the made-up words."""
    from tokenizers import Tokenizer, models, pre_tokenizers

    tokenizer = Tokenizer(
        models.WordLevel({"<eos>": 0, "?": 1, **{word: n for n, word in enumerate(WORDS.split(), 2)}}, unk_token="?")
    )
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.save(str(path))
    return str(path)


def gristmill(*words: str) -> list[str]:
    return [sys.executable, "-m", "pipelines.cli", *words]


def options(settings: dict[str, str]) -> list[str]:
    return [word for key, value in settings.items() for word in ("--set", f"{key}={value}")]


def test_fifteen_sources_make_the_mixture_that_was_planned(engine: Any, tmp_path: Path) -> None:
    settings = laid_down(tmp_path / "sources", made_up()) | {"tokens": "60000", "shards": "2"}
    settings["tokenizer"] = words(tmp_path / "words.json")
    assert engine.run(str(NANO), settings).code == 0
    check(engine.store, 60_000)
    epochs = dict(Catalog(engine.store).run("select source, max(epoch) + 1 from nemotron3_nano.budget group by all").fetchall())
    assert max(epochs.values()) > 1
    refused = subprocess.run(
        gristmill("mix", "plan", str(NANO), "--store", str(engine.store.root), *options(settings | {"tokens": "1000000"})),
        cwd=ROOT, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert refused.returncode == 2
    assert "cannot be made: the mixture wants" in refused.stdout
    assert "the best that can be done is" in " ".join(refused.stdout.split())


def parts_of(store: Path) -> int:
    """Parts that are committed."""
    return sum(1 for _ in store.glob("objects/*/parts/*"))


def test_counting_the_sources_alone_ends_well(engine: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    settings = laid_down(tmp_path / "sources", made_up()) | {"tokens": "60000", "tokenizer": words(tmp_path / "words.json")}
    result = engine.run(str(NANO), settings, select=["sizes"])
    finish(engine.last, result, "gristmill run nemotron3-nano --select sizes")
    said = capsys.readouterr()
    assert "sizes" in said.out
    assert "published" not in said.out
    assert "done in" in said.err


@pytest.mark.slow
def test_real_text_planned_run_killed_resumed_and_verified(tmp_path: Path, shared: Path) -> None:
    settings = laid_down(tmp_path / "sources", real(shared)) | {"tokens": str(TOKENS), "shards": "3"}
    run = lambda store, *more: gristmill("run", str(NANO), "--store", str(tmp_path / store), *options(settings), *more)  # noqa: E731
    subprocess.run(run("straight", "--select", "sizes"), cwd=ROOT, capture_output=True, check=True)
    planned = subprocess.run(
        gristmill("mix", "plan", str(NANO), "--json", "--store", str(tmp_path / "straight"), *options(settings)),
        cwd=ROOT, capture_output=True, text=True, check=True,
    )  # fmt: skip
    (mixture,) = json.loads(planned.stdout)
    assert len(mixture["sources"]) == 15
    assert mixture["refusal"] is None
    subprocess.run(run("straight", "--workers", "1"), cwd=ROOT, capture_output=True, check=True)
    store = Store(tmp_path / "straight")
    check(store, TOKENS)
    longest = dict(Catalog(store).run("select step, max(tokens) from nemotron3_nano.counted group by all").fetchall())
    found = composition(store)
    for row in mixture["sources"]:
        for phase in ("phase1", "phase2"):
            taken = found.get((row["source"], phase), (0, 0))[0]
            assert abs(taken - row[f"wanted_{phase}"]) <= longest[row["source"]], (row, phase)
    # Killed at the first part, then after some more: whatever was being written at that moment.
    for parts in (1, 12, 30):
        process = subprocess.Popen(run("killed", "--workers", "2"), cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        while process.poll() is None and parts_of(tmp_path / "killed") < parts:
            time.sleep(0.05)
        process.kill()
        process.wait()
    subprocess.run(run("killed"), cwd=ROOT, capture_output=True, check=True)
    verified = subprocess.run(gristmill("verify", "--store", str(tmp_path / "killed")), cwd=ROOT, capture_output=True, check=False)
    assert verified.returncode == 0
    digests = [
        {p.name: p.read_bytes() for p in (tmp_path / store).glob("objects/shards-*/parts/*")} for store in ("straight", "killed")
    ]
    assert digests[0] == digests[1]
