"""The packaged recipes do to the sample crawl what its table of truth says they must."""

from __future__ import annotations

import struct
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml

ROOT = Path(__file__).parents[2]
RECIPES = ROOT / "pipelines" / "recipes"
SAMPLE = RECIPES / "sample" / "sample.warc.gz"
CRAWL = ROOT / ".." / "shared" / "data" / "dev" / "crawl"
SETTINGS = {
    "quickstart": {},
    "web": {"paths": str(SAMPLE)},
    "fineweb": {"paths": str(SAMPLE)},
    "nemotron-cc": {"paths": str(SAMPLE), "languages": "[en, de, es, ru]"},
}
TEXTS = {"page", "exact_dup", "near_dup", "spam", "short", "scripts_only"}
"""Kinds of responses that are HTML pages with status 200 and a body."""
SPAM = {
    "tags.htm": ("repetition", "top_4_gram"),
    "locksmith-near-me": ("repetition", "dup_lines"),
    "cheap-running-shoes-online": ("repetition", "dup_lines"),
    "links88.htm": ("repetition", "top_3_gram"),
    "sample-page-14": ("language", "language_score_low"),
    "honest-kettle-review": ("quality", "too_few_letter_words"),
}
"""What FineWeb's filters say of each page of spam; sample-page-14 is filler in Latin."""
NO_DROPS = {
    "repaired", "allowed", "lines", "web", "distinct", "signatures", "clusters", "private", "shuffled", "shards", "files",
}  # fmt: skip
"""Steps that may drop nothing: they rewrite, add columns, move rows or write files, and no URL list is given."""


@pytest.fixture(params=SETTINGS)
def recipe(request, ran):
    name = request.param
    done = ran(name, **SETTINGS[name])
    assert done.result.code == 0, done.result.errors + done.result.over_limit
    return name, done


def asked(name):
    """Languages that a recipe keeps as these tests run it."""
    given = SETTINGS[name].get("languages") or yaml.safe_load((RECIPES / f"{name}.yaml").read_text())["params"]["languages"]
    return set(yaml.safe_load(given) if isinstance(given, str) else given)


def families(truth):
    """Members of each family of duplicates: its page, copies and near copies."""
    found: dict[str, list[dict]] = {}
    for record in truth.values():
        if record["dup_group"]:
            found.setdefault(record["dup_group"], []).append(record)
    return found


def test_only_pages_get_through_the_reader(recipe, truth):
    _, done = recipe
    assert done.funnel["crawl"].reasons == {
        "warcinfo": 1, "request": 103, "metadata": 69, "status_404": 1, "status_301": 1, "non_html": 4, "empty": 1, "quarantined": 1,
    }  # fmt: skip
    assert done.standing("crawl") == {offset for offset, record in truth.items() if record["kind"] in TEXTS}


def test_the_broken_record_is_quarantined_where_it_lies(recipe, truth):
    _, done = recipe
    (offset,) = (o for o, record in truth.items() if record["kind"] == "corrupt")
    assert done.ask('select step, "offset" from quarantine') == [("crawl", offset)]


def test_every_row_is_accounted_for(recipe):
    _, done = recipe
    counted = [line for line in done.funnel.values() if line.step != "pairs"]
    assert all(line.came == line.left + sum(line.reasons.values()) for line in counted)
    lefts = [line.left for line in counted]
    assert lefts == sorted(lefts, reverse=True)
    assert [line.came for line in counted[1:]] == lefts[:-1]
    assert done.funnel["crawl"].came == 276


def test_pages_are_of_the_languages_asked_for(recipe, truth):
    name, done = recipe
    kept = [truth[offset] for offset in done.standing("web")]
    assert {record["language"] for record in kept} == asked(name)


def test_the_funnel_of_sql_shows_where_every_record_went(ran):
    rows = ran("quickstart").ask("select rows_in, skipped, standing, dropped, quarantined from funnel('quickstart')")
    assert rows[0][0] == 276, "records of all types"
    assert all(came == skipped + standing + dropped + sick for came, skipped, standing, dropped, sick in rows)


def test_no_honest_page_of_a_language_asked_for_is_lost_by_the_main_job(ran, truth):
    for name in ("quickstart", "web"):
        done = ran(name, **SETTINGS[name])
        dropped = {o: why for o, why in done.dropped().items() if truth[o]["kind"] in ("page", "near_dup")}
        lost = {truth[o]["url"]: why for o, why in dropped.items() if truth[o]["language"] in asked(name)}
        assert {reason for _, reason in lost.values()} == {"exact_duplicate"}


@pytest.mark.parametrize(("name", "step"), [("quickstart", "twins"), ("web", "twins"), ("nemotron-cc", "same")])
def test_every_family_of_exact_duplicates_keeps_exactly_one(ran, truth, name, step):
    done = ran(name, **SETTINGS[name])
    dropped = {offset for offset, (where, _) in done.dropped().items() if where == step}
    exact = {group: [r for r in members if r["kind"] != "near_dup"] for group, members in families(truth).items()}
    exact = {group: members for group, members in exact.items() if len(members) > 1 and members[0]["language"] in asked(name)}
    left = {group: len([r for r in members if r["offset"] not in dropped]) for group, members in exact.items()}
    assert left == dict.fromkeys(exact, 1)
    assert len(dropped) == sum(len(members) - 1 for members in exact.values()), "nothing else is called a copy"


def test_minhash_finds_at_least_six_of_eight_near_duplicates(ran, truth):
    done = ran("nemotron-cc", **SETTINGS["nemotron-cc"])
    kept = done.standing("web")
    near = {group: members for group, members in families(truth).items() if any(r["kind"] == "near_dup" for r in members)}
    standing = {group: sum(r["offset"] in kept for r in members) for group, members in near.items()}
    assert len(near) == 8
    assert all(standing.values()), "of each family one stays"
    assert sum(count == 1 for count in standing.values()) >= 6
    found = {offset for offset, (step, _) in done.dropped().items() if step == "twins"}
    assert all(truth[offset]["dup_group"] in near for offset in found), "and nothing else is near"


def test_the_twin_of_a_dropped_page_is_the_one_of_its_family_that_stays(ran, truth):
    done = ran("quickstart")
    rows = done.ask("select origin, json_extract_string(deciding, 'twin') from dropped where step = 'twins'")
    at = {key: origin["offset"] for key, origin in done.ask("select id, origin from quickstart.web")}
    pairs = {truth[origin["offset"]]["dup_group"]: truth[at[twin]]["dup_group"] for origin, twin in rows}
    assert len(rows) == 6
    assert all(group == other for group, other in pairs.items())


def test_fineweb_drops_all_spam_by_these_rules(ran, truth):
    done = ran("fineweb", **SETTINGS["fineweb"])
    dropped = done.dropped()
    spam = {r["url"].rpartition("/")[2]: dropped.get(o) for o, r in truth.items() if r["kind"] == "spam"}
    assert spam == SPAM


def test_fineweb_drops_pages_of_a_sentence_or_none(ran, truth):
    kept = ran("fineweb", **SETTINGS["fineweb"]).standing("web")
    assert not [truth[o]["url"] for o in kept if truth[o]["kind"] in ("short", "scripts_only")]


def sequences(prefix):
    """Documents of a Megatron shard, read by its format alone."""
    index = prefix.with_suffix(".idx").read_bytes()
    assert index[:9] == b"MMIDIDX\x00\x00"
    version, code, count, documents = struct.unpack_from("<QBQQ", index, 9)
    assert (version, code, documents) == (1, 4, count + 1)
    lengths = np.frombuffer(index, "<i4", count, 34)
    starts = np.frombuffer(index, "<i8", count, 34 + 4 * count)
    tokens = np.frombuffer(prefix.with_suffix(".bin").read_bytes(), "<i4")
    assert lengths.sum() == len(tokens)
    return [tokens[start // 4 : start // 4 + length] for start, length in zip(starts, lengths, strict=True)]


def test_survivors_are_in_the_shards_token_for_token(ran):
    from stages.tokenizers import Vocabulary, open_tokenizer

    done = ran("quickstart")
    tokenizer = open_tokenizer(Vocabulary())
    texts = dict(done.ask("select id, text from quickstart.web"))
    (folder,) = (done.engine.store.root / "objects").glob("shards-*/parts")
    found = {}
    for listed in sorted(folder.glob("part-*.docs.parquet")):
        ids = pq.read_table(listed)["id"].to_pylist()
        found |= dict(zip(ids, sequences(listed.with_name(listed.name.removesuffix(".docs.parquet"))), strict=True))
    assert found.keys() == texts.keys()
    for key, tokens in zip(texts, tokenizer.encode(list(texts.values())), strict=True):
        assert found[key].tolist() == [*tokens.tolist(), tokenizer.eod]
    blend = (folder / next(p.name for p in folder.glob("*blend.txt"))).read_text().split()
    assert sum(map(int, blend[::2])) == sum(map(len, found.values())) == done.funnel["shards"].tokens


def test_dedup_keeps_one_of_each_family_in_parquet(ran, truth, tmp_path_factory):
    source = ran("nemotron-cc", **SETTINGS["nemotron-cc"])
    path = tmp_path_factory.mktemp("texts") / "texts.parquet"
    rows = source.ask("select id, text, origin from nemotron_cc.repaired")
    pq.write_table(pa.table({"id": [r[0] for r in rows], "text": pa.array([r[1] for r in rows], pa.large_string())}), path)
    done = ran("dedup", paths=str(path), partitions="2")
    at = {key: origin["offset"] for key, _, origin in rows}
    kept = [truth[at[key]] for (key,) in done.ask("select id from dedup.unique")]
    groups = [record["dup_group"] for record in kept if record["dup_group"]]
    exact = {r["dup_group"] for r in truth.values() if r["kind"] == "exact_dup"}
    assert exact <= set(groups)
    assert len(set(groups)) == len(families(truth))
    assert len(groups) <= len(families(truth)) + 2, "at least six of eight near duplicates are found"
    singles = [record for record in kept if not record["dup_group"]]
    assert len(singles) == len([r for r in rows if not truth[r[2]["offset"]]["dup_group"]]), "nothing else is dropped"


@pytest.mark.slow
@pytest.mark.parametrize("name", ["web", "fineweb", "nemotron-cc"])
def test_on_a_real_crawl_every_step_keeps_some_and_drops_some(ran, name):
    if not CRAWL.exists():
        pytest.skip("../shared is absent")
    files = ["CC-SIM-dev-20260114030000-00000", "CC-SIM-dev-quirks-00000", "CC-SIM-dev-crawldiagnostics-00000"]
    done = ran(name, paths=",".join(str(CRAWL / f"{file}.warc.gz") for file in files))
    assert done.result.code == 0, done.result.errors + done.result.over_limit
    lines = [line for line in done.funnel.values() if line.step != "pairs"]
    assert [line.came for line in lines[1:]] == [line.left for line in lines[:-1]]
    assert all(line.came == line.left + sum(line.reasons.values()) for line in lines)
    assert all(line.left > 0 for line in lines)
    every_page_has_text = {"text"} if name == "web" else set()
    assert {line.step for line in lines if line.left == line.came} <= NO_DROPS | every_page_has_text
