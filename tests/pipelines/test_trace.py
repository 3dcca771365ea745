"""From a token back to its document, and the plan of a mixture as the command says it."""

from __future__ import annotations

import base64
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest

from manifests.catalog import Catalog
from manifests.store import StoreError
from pipelines.trace import token_place, trace_token

ROOT = Path(__file__).parents[2]
RECIPE = """
name: blend
params: {tokens: 4000}
steps:
  web:     {uses: stages.ingest.jsonl.rows, with: {paths: "${here}/web*.jsonl", columns: {id: id, text: text}}}
  wiki:    {uses: stages.ingest.jsonl.rows, with: {paths: "${here}/wiki*.jsonl", columns: {id: id, text: text}}}
  all:     {uses: stages.compact.keep, from: [web, wiki]}
  counted: {uses: stages.tokenize.count, from: all, with: {tokenizer: "${here}/bytes.tiktoken", pattern: '.', specials: {"<|endoftext|>": 256}}}
  sizes:   {uses: stages.blend.sizes, from: counted}
  budget:  {uses: stages.blend.budget, from: counted, given: {sizes: sizes}, with: {tokens: "${tokens}", shares: {web: 0.7, wiki: 0.3}}}
  mix:     {uses: stages.blend.take, from: counted, given: {budget: budget}}
  spread:  {uses: stages.shuffle.by_hash, from: mix, with: {shards: 2, columns: {phase: string, step: string, copies: int32}}}
  shards:  {uses: stages.export.megatron.shards, from: spread, with: {split_by: [phase, step], tokenizer: "${here}/bytes.tiktoken", pattern: '.', specials: {"<|endoftext|>": 256}}}
"""


@pytest.fixture
def blended(engine: Any) -> Any:
    engine.write("bytes.tiktoken", b"".join(base64.b64encode(bytes([b])) + b" %d\n" % b for b in range(256)))
    engine.rows("web.jsonl", [{"id": f"web{n}", "text": f"page {n} says " + "water " * (n % 7)} for n in range(90)])
    engine.rows("wiki.jsonl", [{"id": f"wiki{n}", "text": f"article {n} on mills " * 3} for n in range(9)])
    assert engine.run(RECIPE).code == 0
    return engine


def test_every_token_leads_back_to_the_document_it_came_from(blended: Any) -> None:
    checked = 0
    for shard in sorted((blended.store.root / "objects").glob("shards-*/parts/*.bin")):
        stem = str(shard).removesuffix(".bin")
        tokens = np.fromfile(shard, "<u2")
        ends = [*np.flatnonzero(tokens == 256), len(tokens)]
        expected, document = [], 0
        ids = pq.read_table(f"{stem}.docs.parquet")["id"].to_pylist()
        for offset in range(len(tokens)):
            expected.append(ids[document])
            document += offset == ends[document]
        for offset in (0, 1, len(tokens) // 2, len(tokens) - 1):
            for name in (str(shard), stem, f"parts/{Path(stem).name}"):
                assert trace_token(blended.store, name, offset) == expected[offset]
                checked += 1
        with pytest.raises(StoreError, match="there is no token"):
            trace_token(blended.store, stem, len(tokens))
    assert checked >= 24
    with pytest.raises(StoreError, match=r"no nothing\.docs\.parquet beside it"):
        trace_token(blended.store, "parts/nothing", 0)


def test_a_place_in_a_shard_is_told_from_ids_and_urls() -> None:
    assert token_place("/data/part-0.p1.web.bin:17") == ("/data/part-0.p1.web.bin", 17)
    for other in ("https://example.org:80", "web17", "a:b", "parts/x"):
        assert token_place(other) is None


def gristmill(*words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "pipelines.cli", *words], cwd=ROOT, capture_output=True, text=True, check=False
    )  # fmt: skip


def test_explain_goes_from_a_token_to_the_bytes_of_its_page(blended: Any) -> None:
    shard = next((blended.store.root / "objects").glob("shards-*/parts/*.wiki.bin"))
    done = gristmill("explain", f"{shard}:3", "--store", str(blended.store.root))
    assert done.returncode == 0, done.stderr
    document = trace_token(blended.store, str(shard), 3).split("#")[0]
    assert done.stdout.startswith(document)
    assert "bytes: wiki.jsonl from" in done.stdout
    assert "written" in done.stdout
    assert shard.name in done.stdout


def test_the_mixture_is_planned_before_it_is_made_and_refused_before_a_byte_is_written(engine: Any) -> None:
    engine.write("bytes.tiktoken", b"".join(base64.b64encode(bytes([b])) + b" %d\n" % b for b in range(256)))
    engine.rows("web.jsonl", [{"id": f"web{n}", "text": "water " * 9} for n in range(90)])
    engine.rows("wiki.jsonl", [{"id": f"wiki{n}", "text": "mill " * 9} for n in range(9)])
    recipe = str(engine.write("recipe.yaml", RECIPE))
    store = ("--store", str(engine.store.root))
    before = gristmill("mix", "plan", recipe, *store)
    assert before.returncode == 0
    assert "the sizes of its sources are not known" in before.stdout
    assert gristmill("run", recipe, *store, "--select", "sizes").returncode == 0
    known = gristmill("mix", "plan", recipe, *store, "--json")
    (mixture,) = json.loads(known.stdout)
    by_source = {row["source"]: row for row in mixture["sources"]}
    assert (by_source["web"]["wanted"], by_source["wiki"]["wanted"], by_source["wiki"]["documents"]) == (2800, 1200, 9)
    assert "can be made; seen more than once" in gristmill("plan", recipe, *store).stdout
    objects = sorted(p.name for p in (engine.store.root / "objects").iterdir())
    refused = gristmill("run", recipe, *store, "--set", "tokens=50000")
    assert refused.returncode == 2
    assert "step 'budget': the mixture wants" in refused.stderr
    assert "Either ask for that many, or let" in refused.stderr
    assert sorted(p.name for p in (engine.store.root / "objects").iterdir()) == objects


def test_the_view_of_mixtures_counts_copies(blended: Any) -> None:
    rows = Catalog(blended.store).run("select source, tokens from mixtures order by source").fetchall()
    budget = Catalog(blended.store).run("select source, sum(tokens) from blend.budget group by all order by source").fetchall()
    assert rows == budget
