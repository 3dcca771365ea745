"""Buckets, a mixture and a language model in the report: a small recipe with all three, run against a model on loopback."""

from __future__ import annotations

import base64

import pytest

from manifests.store import Store
from pipelines.report_page.page import write_report

pytestmark = pytest.mark.browser

STAGE = '''
from stages.contract import TEXT, AskParams, ask_stage
from stages.prompt import Message, Prompt, Refused, Sampling

PROMPT = Prompt("own/retell", 2, "test", ("text",), (Message("user", "Retell: {{text}}"),), Sampling(max_tokens=40), {})

def parse(row, replies, params: AskParams):
    if "sorry" in replies[-1].reply.text:
        return Refused("refusal", replies[-1].reply.text)
    return [{"text": replies[-1].reply.text}]

@ask_stage(version=1, reads={"text": TEXT}, writes={"text": TEXT}, parse=parse, prompts=lambda p: [PROMPT])
def retell(row, so_far, params: AskParams):
    """Tell it in other words."""
    return None if so_far else [PROMPT.request({"text": row["text"]})]
'''
COUNT = """tokenizer: "${here}/bytes.tiktoken", pattern: '.', specials: {"<|endoftext|>": 256}"""
RECIPE = """
name: retold
steps:
  pages:   {uses: stages.ingest.jsonl.rows, with: {paths: "${here}/pages.jsonl", keep: {score: double}}}
  cuts:    {uses: classifiers.buckets.cut_points, from: pages, with: {columns: [score], buckets: 20}}
  ranked:  {uses: classifiers.buckets.label, from: pages, given: {cuts: cuts},
            with: {columns: [score], labels: {high: 16, medium: 8, low: 0}}}
  retold:  {uses: teller.retell, from: ranked, where: "bucket >= 12", with: {model: rules}}
  sources: {uses: stages.compact.keep, from: [ranked, retold]}
  counted: {uses: stages.tokenize.count, from: sources, with: {COUNT}}
  sizes:   {uses: stages.blend.sizes, from: counted}
  budget:
    uses: stages.blend.budget
    from: counted
    given: {sizes: sizes}
    with:
      tokens: 12000
      max_epochs: 2
      phases: {broad: {upto: 0.8, shares: {ranked: 80, retold: 20}}, fine: {upto: 1, shares: {ranked: 30, retold: 70}}}
  mix:     {uses: stages.blend.take, from: counted, given: {budget: budget}}
run: {models: {rules: {engine: openai, endpoints: ["URL"], in_flight: 4, price_prompt: 5000, price_completion: 15000}}}
""".replace("COUNT", COUNT)


def every_second_word(asked):
    """What the model says, who refuses what is about rain."""
    return "I am sorry." if "rain" in asked else " ".join(asked.split()[1::2])


@pytest.fixture(scope="module")
def server(play):
    with play(every_second_word) as model:
        yield model.url


@pytest.fixture(scope="module")
def report(tmp_path_factory, engine_in, server):
    engine = engine_in(tmp_path_factory.mktemp("parts"))
    engine.write("teller.py", STAGE)
    engine.write("bytes.tiktoken", b"".join(base64.b64encode(bytes([b])) + b" %d\n" % b for b in range(256)))
    texts = [f"page {n} tells of the mill and the {'rain' if n % 5 == 0 else 'river'} {'again ' * (n % 9)}" for n in range(160)]
    engine.rows("pages.jsonl", [{"text": text, "score": (n * 37 % 160) / 160} for n, text in enumerate(texts)])
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(engine.folder))
        result = engine.run(RECIPE.replace("URL", server))
    assert result.code == 0, result.errors
    return write_report(Store(engine.store.root), "retold", engine.folder / "retold.html", 0.05)


def cells(page, section: str) -> list[list[str]]:
    return [row.locator("td").all_inner_texts() for row in page.locator(f"#{section} tbody tr").all()]


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_buckets_mixture_and_model_are_drawn_and_told(watched, report, scheme):
    shown = watched(report, scheme)
    shown.drawn(scheme)
    page = shown.page
    titles = page.locator("figcaption").all_inner_texts()
    assert [t for t in titles if t.startswith("Buckets")] == ["Buckets (ranked)"], "cut points and sizes hold no documents"
    assert {"Planned and taken (budget)", "Acceptance", "Length of documents"} <= set(titles)
    legends = page.locator("#plot-buckets-ranked svg .role-legend-label").all_text_contents()
    assert legends == ["low", "medium", "high"]
    assert cells(page, "scores") == [["ranked", str(n), "low" if n < 8 else "medium" if n < 16 else "high", "8"] for n in range(20)]
    mixture = {(phase, source): (wanted, planned) for _, phase, source, _, _, wanted, _, planned, *_ in cells(page, "mixtures")}
    assert mixture == {
        ("broad", "ranked"): ("7,680", "80"), ("broad", "retold"): ("1,920", "20"),
        ("fine", "ranked"): ("720", "30"), ("fine", "retold"): ("1,680", "70"),
    }  # fmt: skip
    ((step, prompt, model, version, accepted, refused, share, asked, told, cost),) = cells(page, "prompts")
    assert [step, prompt, model, version, accepted, refused, share] == ["retold", "own/retell", "rules", "2", "52", "12", "81.25"]
    assert float(cost) == pytest.approx((int(asked) * 5 + int(told) * 15) / 1000, rel=1e-3)
    assert "retold: refusal, 12" in page.locator("#prompts").inner_text()
    shown.quiet()
