from __future__ import annotations

from pathlib import Path

from stages.ingest.wet import texts


def test_conversion_records_become_texts_with_their_language(make, write):
    plain = {"Content_Type": "text/plain", "WARC_Identified_Content_Language": "deu,eng"}
    records = [
        make.record("warcinfo", b"x: y"),
        make.record("conversion", "Grüße".encode(), **plain),
        make.record("conversion", b" \n", **plain),
        make.record("conversion", b"{}", Content_Type="application/json"),
        make.record("conversion", b"a \xff b", Content_Type="text/plain"),
    ]
    params = texts.params(paths=write("a.warc.wet.gz", b"".join(map(make.member, records))), source="wet")
    (chunk,) = [chunk for unit in texts.units(params) for chunk in texts(unit, params)]
    assert chunk.rows.select(["source", "language", "text"]).to_pylist() == [
        {"source": "wet", "language": "deu,eng", "text": "Grüße"},
        {"source": "wet", "language": None, "text": "a \ufffd b"},
    ]
    assert (chunk.records, chunk.skipped) == (5, {"warcinfo": 1, "empty": 1, "non_text": 1})


def test_a_real_file_is_read(shared: Path):
    params = texts.params(paths=str(shared / "warc_real/*.wet*"))
    rows = [row for unit in texts.units(params) for chunk in texts(unit, params) for row in chunk.rows.to_pylist()]
    assert [(row["language"], row["url"]) for row in rows] == [("spa", "https://an.wikipedia.org/wiki/Escopete")] * 2
    assert rows[0]["text"] == rows[1]["text"]
