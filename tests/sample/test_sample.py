"""The packaged sample crawl is what its sources say, a well-formed WARC file, and as varied as its table of truth claims."""

from __future__ import annotations

import collections
import hashlib
import html
import io
import ipaddress
import json
import re
import subprocess
import sys
import zlib
from functools import cache
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
from warcio.archiveiterator import ArchiveIterator  # type: ignore[import-untyped]
from warcio.exceptions import ArchiveLoadFailed  # type: ignore[import-untyped]

HERE = Path(__file__).parent
PACKAGED = HERE.parents[1] / "pipelines" / "recipes" / "sample"
SAMPLE = (PACKAGED / "sample.warc.gz").read_bytes()
TRUTH: dict[str, Any] = json.loads((HERE / "truth.json").read_text(encoding="utf-8"))
RECORDS: list[dict[str, Any]] = TRUTH["records"]
RESPONSES = [row for row in RECORDS if row["type"] == "response"]
GOOD = [row for row in RECORDS if row.get("kind") != "corrupt"]
BAD = next(i for i, row in enumerate(RECORDS) if row.get("kind") == "corrupt")
WRITTEN = ("page", "exact_dup", "near_dup", "spam", "short")
RESERVED = (".example", ".example.org", ".example.net", ".example.com")
DOCUMENTATION = [ipaddress.ip_network(block) for block in ("192.0.2.0/24", "198.51.100.0/24", "203.0.113.0/24")]


def member(row: dict[str, Any]) -> bytes:
    return SAMPLE[row["offset"] : row["offset"] + row["length"]]


def record(row: dict[str, Any]) -> bytes:
    return zlib.decompress(member(row), 31)


def by_warcio(row: dict[str, Any]) -> tuple[Any, bytes]:
    found = next(iter(ArchiveIterator(io.BytesIO(member(row)), check_digests="raise")))
    return found, found.content_stream().read()


@cache
def markup(index: int) -> str:
    row = RESPONSES[index]
    return by_warcio(row)[1].decode(row["charset"])


def of_kind(*kinds: str) -> list[int]:
    return [i for i, row in enumerate(RESPONSES) if row["kind"] in kinds]


def with_trait(trait: str) -> list[int]:
    return [i for i, row in enumerate(RESPONSES) if trait in row["traits"]]


def visible(text: str) -> str:
    return html.unescape(re.sub(r"<[^>]+>", "", text))


@pytest.fixture(scope="module")
def rebuilt(tmp_path_factory: pytest.TempPathFactory) -> Path:
    into = tmp_path_factory.mktemp("rebuilt")
    subprocess.run([sys.executable, "-X", "utf8", str(HERE / "build.py"), "--into", str(into)], check=True, capture_output=True)
    return into


def test_rebuilding_gives_the_records_of_the_packaged_file(rebuilt: Path) -> None:
    fresh = json.loads((rebuilt / "truth.json").read_text(encoding="utf-8"))["records"]
    data = (rebuilt / "sample.warc.gz").read_bytes()
    assert [row["url"] for row in fresh] == [row["url"] for row in RECORDS]
    for i, (new, old) in enumerate(zip(fresh, RECORDS, strict=True)):
        if i != BAD:
            assert zlib.decompress(data[new["offset"] : new["offset"] + new["length"]], 31) == record(old)


@pytest.mark.skipif("ng" in zlib.ZLIB_RUNTIME_VERSION, reason="zlib-ng deflates to other bytes")
def test_rebuilding_gives_the_packaged_bytes_and_the_same_truth(rebuilt: Path) -> None:
    assert (rebuilt / "sample.warc.gz").read_bytes() == SAMPLE
    assert (rebuilt / "truth.json").read_bytes() == (HERE / "truth.json").read_bytes()


def test_truth_names_the_packaged_file() -> None:
    assert (TRUTH["bytes"], TRUTH["sha256"]) == (len(SAMPLE), hashlib.sha256(SAMPLE).hexdigest())
    assert len(SAMPLE) < 400_000


def test_the_members_follow_each_other_without_a_gap() -> None:
    ends = [row["offset"] + row["length"] for row in RECORDS]
    assert [row["offset"] for row in RECORDS] == [0, *ends[:-1]]
    assert ends[-1] == len(SAMPLE)
    assert all(member(row)[:8] == b"\x1f\x8b\x08\0\0\0\0\0" for row in RECORDS)


def test_every_good_member_is_one_record_of_the_announced_length() -> None:
    for row in GOOD:
        head, _, rest = record(row).partition(b"\r\n\r\n")
        length = re.search(rb"\r\nContent-Length: (\d+)", head)
        assert head.startswith(b"WARC/1.0\r\nWARC-Type: " + row["type"].encode() + b"\r\n")
        assert length is not None
        assert rest[int(length[1]) :] == b"\r\n\r\n"
        assert b"\n" not in head.replace(b"\r\n", b"")


def test_warcio_reads_everything_before_the_damaged_record_and_the_digests_agree() -> None:
    seen = []

    def walk() -> None:
        for found in ArchiveIterator(io.BytesIO(SAMPLE), check_digests="raise"):
            found.content_stream().read()
            seen.append((found.rec_type, found.rec_headers.get_header("WARC-Target-URI")))

    with pytest.raises(ArchiveLoadFailed):
        walk()
    assert seen == [(row["type"], row["url"]) for row in RECORDS[:BAD]]


def test_the_records_after_the_damaged_one_are_good() -> None:
    assert len(RECORDS) - BAD > 100
    for row in RECORDS[BAD + 1 :]:
        found, _ = by_warcio(row)
        assert (found.rec_type, found.rec_headers.get_header("WARC-Target-URI")) == (row["type"], row["url"])


def test_the_damaged_record_begins_like_a_record_and_does_not_inflate() -> None:
    inflater = zlib.decompressobj(31)
    start = inflater.decompress(member(RECORDS[BAD])[:300])
    assert start.startswith(b"WARC/1.0\r\nWARC-Type: response")
    with pytest.raises(zlib.error):
        record(RECORDS[BAD])


def test_requests_and_metadata_point_at_their_response() -> None:
    known = {by_warcio(row)[0].rec_headers.get_header("WARC-Record-ID"): row["url"] for row in GOOD if row["type"] == "response"}
    for row in RECORDS:
        if row["type"] in ("request", "metadata") and row["url"] != RECORDS[BAD]["url"]:
            found, _ = by_warcio(row)
            assert known[found.rec_headers.get_header("WARC-Concurrent-To")] == row["url"]


def test_counts_by_kind_match_the_truth() -> None:
    assert TRUTH["kinds"] == dict(collections.Counter(row["kind"] for row in RESPONSES))
    least = {"page": 60, "exact_dup": 4, "near_dup": 4, "spam": 5, "short": 3}
    assert all(TRUTH["kinds"][kind] >= count for kind, count in least.items())
    once = ("corrupt", "empty", "image", "not_found", "pdf", "redirect", "robots", "scripts_only")
    assert [TRUTH["kinds"][kind] for kind in once] == [1] * len(once)


def test_the_readme_gives_the_same_counts() -> None:
    readme = (PACKAGED / "README.md").read_text(encoding="utf-8")
    listed = re.findall(r"^\| `(\w+)` \| (\d+) \|", readme, flags=re.MULTILINE)
    assert {kind: int(count) for kind, count in listed} == TRUTH["kinds"]
    assert f"finds {BAD} of {len(RECORDS)} records" in readme


def test_at_least_five_languages_have_several_pages() -> None:
    counts = collections.Counter(RESPONSES[i]["language"] for i in of_kind("page"))
    assert len([language for language, count in counts.items() if count >= 3]) >= 5
    assert counts.most_common(1)[0][0] == "en"


def test_pages_hold_their_text_from_the_first_words_to_the_last() -> None:
    for i in of_kind(*WRITTEN):
        text = visible(markup(i)).replace("\n", "")
        assert text.count(RESPONSES[i]["opens"].replace("\n", "")) >= 1
        assert RESPONSES[i]["closes"].replace("\n", "") in text


def test_pages_are_between_eighty_and_five_hundred_words() -> None:
    spaced = [RESPONSES[i]["words"] for i in of_kind("page") if RESPONSES[i]["language"] not in ("zh", "ja")]
    assert 80 <= min(spaced) <= max(spaced) <= 500
    assert min(RESPONSES[i]["chars"] for i in of_kind("page")) > 250
    assert max(RESPONSES[i]["words"] for i in of_kind("short")) < 15


def test_exact_duplicates_have_the_bytes_of_their_original() -> None:
    for i in of_kind("exact_dup"):
        twins = [j for j in of_kind("page") if RESPONSES[j]["dup_group"] == RESPONSES[i]["dup_group"]]
        assert [by_warcio(RESPONSES[j])[1] for j in twins] == [by_warcio(RESPONSES[i])[1]]
        assert RESPONSES[i]["url"] != RESPONSES[twins[0]]["url"]


def shingles(index: int) -> set[str]:
    """Character 12-grams of the paragraphs and list items, menus included."""
    text = " ".join(re.findall(r"<(?:p|P|li)>([^<]*)", markup(index)))
    return {text[k : k + 12] for k in range(len(text) - 11)}


def test_near_duplicates_share_most_of_their_text_and_not_their_template() -> None:
    for i in of_kind("near_dup"):
        (j,) = (j for j in of_kind("page") if RESPONSES[j]["dup_group"] == RESPONSES[i]["dup_group"])
        mine, theirs = shingles(i), shingles(j)
        assert 0.7 < len(mine & theirs) / len(mine | theirs) < 1
        assert markup(i)[:400] != markup(j)[:400]


def test_pages_of_no_common_group_have_little_in_common() -> None:
    alone = [i for i in of_kind("page") if RESPONSES[i]["language"] == "en"]
    grams = {i: shingles(i) for i in alone}
    worst = max(len(grams[i] & grams[j]) / len(grams[i] | grams[j]) for i in alone for j in alone if i < j)
    assert worst < 0.3


def test_pages_in_an_odd_charset_decode_in_the_true_one_only() -> None:
    found = {RESPONSES[i]["charset"] for i in with_trait("charset")}
    assert {"windows-1252", "koi8-r"} <= found
    for i in with_trait("charset"):
        assert RESPONSES[i]["opens"].split("\n")[0] in html.unescape(markup(i))
        with pytest.raises(UnicodeDecodeError):
            by_warcio(RESPONSES[i])[1].decode("utf-8")


def test_one_response_says_utf8_while_its_page_says_koi8r() -> None:
    (i,) = (i for i in with_trait("charset") if RESPONSES[i]["charset"] == "koi8-r")
    found, body = by_warcio(RESPONSES[i])
    assert found.http_headers.get_header("Content-Type") == "text/html; charset=utf-8"
    assert b'<meta charset="koi8-r">' in body


def test_code_keeps_its_indentation_and_its_tabs() -> None:
    pages = {RESPONSES[i]["url"].rpartition("/")[2]: markup(i) for i in with_trait("code")}
    assert "\n            items[j] = items[j - 1]\n            j -= 1\n" in pages["sorting"]
    assert "\n\tpandoc --css style.css -o $@ $&lt;\n" in pages["makefile"]


def test_formulas_come_as_mathml_and_as_latex() -> None:
    pages = [markup(i) for i in with_trait("formula")]
    assert any("<math " in page for page in pages)
    assert any("$$A = P\\,(1 + r)^{n}$$" in page for page in pages)


def test_tables_have_a_head_and_rows() -> None:
    assert all(markup(i).count("<tr>") > 3 and "<th>" in markup(i) for i in with_trait("table"))


def test_one_body_is_gzipped_and_one_is_chunked() -> None:
    (zipped,), (chunked,) = with_trait("gzip"), with_trait("chunked")
    assert b"\r\nContent-Encoding: gzip\r\n" in record(RESPONSES[zipped])
    assert record(RESPONSES[zipped]).split(b"\r\n\r\n")[2][:2] == b"\x1f\x8b"
    assert b"\r\nTransfer-Encoding: chunked\r\n\r\n3e8\r\n<!DOCTYPE" in record(RESPONSES[chunked])
    assert all(markup(i).startswith("<!DOCTYPE html>") and markup(i).endswith("</html>\n") for i in (zipped, chunked))


def test_personal_data_is_there_and_invented() -> None:
    (i,) = with_trait("pii")
    for needle in ("stan.bell@example.org", "192.0.2.44", "2001:db8::2c", "4111 1111 1111 1111", "(555) 010-0199"):
        assert needle in markup(i)


def test_what_is_not_a_page_is_what_it_says() -> None:
    bodies = {
        RESPONSES[i]["kind"]: by_warcio(RESPONSES[i])[1] for i in of_kind("pdf", "image", "robots", "empty", "redirect", "json")
    }
    assert bodies["pdf"].startswith(b"%PDF-1.4\n")
    assert bodies["image"].startswith(b"\x89PNG\r\n\x1a\n")
    assert bodies["robots"].startswith(b"User-agent: *\n")
    assert bodies["empty"] == bodies["redirect"] == b""
    assert json.loads(bodies["json"])["unit"] == "cm"
    assert {row["kind"]: row["status"] for row in RESPONSES if row["status"] != 200} == {"not_found": 404, "redirect": 301}


def test_every_host_and_address_is_reserved_for_documentation() -> None:
    for row in GOOD[1:]:
        assert ("." + urlsplit(row["url"]).netloc).endswith(RESERVED)
        address = by_warcio(row)[0].rec_headers.get_header("WARC-IP-Address")
        assert address is None or any(ipaddress.ip_address(address) in block for block in DOCUMENTATION)
    named = {urlsplit(link).netloc for i in of_kind(*WRITTEN) for link in re.findall(r"https?://[^\"'\s<]+", markup(i))}
    assert all(("." + host).endswith((*RESERVED, "www.w3.org", "schema.org")) for host in named)


def test_no_address_occurs_twice() -> None:
    assert len({row["url"] for row in RESPONSES}) == len(RESPONSES)
