import pyarrow as pa
import pytest

from stages.contract import BYTES, TEXT
from stages.datatrove import Block, BlockError, block

pytest.importorskip("datatrove")
pytest.importorskip("spacy")
FILTERS = "datatrove.pipeline.filters"


def rows(texts, **more):
    count = len(texts)
    columns = {"id": pa.array([str(i) for i in range(count)]), "url": pa.array([f"http://a.org/{i}" for i in range(count)])}
    return pa.table({"text": pa.array(texts, TEXT), "language": pa.array(["en"] * count), **columns, **more})


def run(table, path, rewrites=False, **arguments):
    params = Block.model_validate({"block": path, "with": arguments, "rewrites": rewrites})
    return block(table, params, model=block.model(params)).to_pylist()


def test_a_filter_keeps_its_own_reasons():
    prose = "The wooden house that we have bought stands beside the sea and to be there with friends is a great joy. " * 5
    found = run(rows([prose, "too short"]), f"{FILTERS}.gopher_quality_filter.GopherQualityFilter", min_doc_words=20)
    assert [row["drop_reason"] for row in found] == [None, "gopher_short_doc"]


def test_a_filter_without_reasons_gets_one_and_sees_metadata():
    keep = run(
        rows(["a", "b"]), f"{FILTERS}.lambda_filter.LambdaFilter", filter_function=lambda doc: doc.metadata["url"][-1] == "1"
    )
    assert [row["drop_reason"] for row in keep] == ["dropped", None]


def test_a_filter_that_rewrites_writes_the_text_when_asked():
    text = "no end mark\n" + "\n".join(f"Sentence number {i} is here." for i in range(6))
    path = f"{FILTERS}.c4_filters.C4QualityFilter"
    assert run(rows([text]), path, rewrites=True)[0]["text"].startswith("Sentence number 0")
    assert run(rows([text]), path)[0]["text"] == text


def test_a_formatter_rewrites_the_text():
    [row] = run(rows(["write to jane@firm.com now"]), "datatrove.pipeline.formatters.pii.PIIFormatter")
    assert "jane@firm.com" not in row["text"]
    assert "drop_reason" not in row


def test_an_extractor_turns_html_into_text_and_drops_what_is_empty():
    pytest.importorskip("trafilatura")
    page = "<html><body><article><p>" + "Straße am Meer, wo wir wohnen und leben. " * 10 + "</p></article></body></html>"
    html = pa.array([page.encode("latin-1"), b"<p></p>"], BYTES)
    table = rows(["", ""], html=html, charset=pa.array(["latin-1", None]))
    found = run(table, "datatrove.pipeline.extractors.trafilatura.Trafilatura")
    assert "Straße am Meer" in found[0]["text"]
    assert [row["drop_reason"] for row in found] == [None, "empty"]


@pytest.mark.parametrize(
    ("path", "message"),
    [
        (f"{FILTERS}.GopherQualityFiler", "did you mean GopherQualityFilter"),
        ("datatrove.pipeline.filter.X", "there is no module datatrove.pipeline.filter"),
        ("datatrove.data.Document", "this is none"),
        ("GopherQualityFilter", "give the import path"),
    ],
)
def test_a_wrong_path_is_refused_with_the_way_out(path, message):
    with pytest.raises(BlockError, match=message):
        block.writes_of(Block.model_validate({"block": path}))


def test_wrong_arguments_are_refused_by_name():
    with pytest.raises(BlockError, match="min_words"):
        run(rows(["a"]), f"{FILTERS}.GopherQualityFilter", min_words=3)


def test_without_datatrove_the_error_says_what_to_install(monkeypatch):
    import importlib

    def missing(name):
        raise ModuleNotFoundError("No module named 'datatrove'", name="datatrove")

    monkeypatch.setattr(importlib, "import_module", missing)
    with pytest.raises(BlockError, match=r"gristmill\[datatrove\]"):
        block.writes_of(Block.model_validate({"block": f"{FILTERS}.GopherQualityFilter"}))
