"""docs/threats.md, held by tests."""

from __future__ import annotations

import ast
import io
import tarfile
from pathlib import Path

import pytest

from manifests.catalog import Catalog, CatalogError
from pipelines.recipe import RecipeError, load
from pipelines.session import Wish, carry_out, planned

ROOT = Path(__file__).parents[2]
FIVE = ("pipelines", "stages", "classifiers", "synthetic", "manifests")
RECIPE = """
name: small
steps:
  lines: {uses: stages.ingest.jsonl.rows, with: {paths: "${here}/rows.jsonl", columns: {id: id, text: text}}}
  some:  {uses: stages.filters.length.by_words, from: lines, with: {min_words: 1}}
"""


def fill(engine):
    engine.rows("rows.jsonl", [{"id": f"r{i}", "text": "word " * (i + 1)} for i in range(6)])


@pytest.mark.parametrize("tag", ["!!python/object/apply:os.system ['touch owned']", "!!python/name:os.system"])
def test_yaml_builds_no_objects(engine, tag, monkeypatch):
    monkeypatch.chdir(engine.folder)
    path = engine.write("recipe.yaml", RECIPE.replace("min_words: 1", f"min_words: {tag}"))
    with pytest.raises(RecipeError):
        planned(Wish(str(path), str(engine.folder / "store")))
    assert not Path("owned").exists()


def calls(name):
    """Places in the five packages where a function of this name is called."""
    for room in FIVE:
        for path in (ROOT / room).rglob("*.py"):
            for node in ast.walk(ast.parse(path.read_text())):
                if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == name:
                    yield f"{path.relative_to(ROOT)}:{node.lineno}"


def test_no_text_is_run_as_code():
    cell = "stages/code/trial_cell.py"  # runs generated code in its own confined process: what it is for
    assert [place for name in ("eval", "exec", "compile") for place in calls(name) if not place.startswith(cell)] == []
    shells = []
    for room in FIVE:
        for path in (ROOT / room).rglob("*.py"):
            for node in ast.walk(ast.parse(path.read_text())):
                if isinstance(node, ast.keyword) and node.arg == "shell" and getattr(node.value, "value", False) is True:
                    shells.append(f"{path.relative_to(ROOT)}:{node.value.lineno}")
    assert shells == []


def test_a_where_clause_is_no_code(engine):
    fill(engine)
    path = engine.write("recipe.yaml", RECIPE.replace("with: {min_words: 1}", "where: \"__import__('os').system('touch owned')\""))
    with pytest.raises(RecipeError, match="where"):
        planned(Wish(str(path), str(engine.folder / "store")))


@pytest.mark.parametrize(
    "query",
    ["select * from read_text('{secret}')", "select * from read_csv('{secret}')", "copy (select 1) to '{out}'", "attach '{out}' as other",
     "set enable_external_access = true", "install httpfs", "load httpfs", "export database '{out}'"],
)  # fmt: skip
def test_sql_sees_the_store_and_nothing_else(engine, query, tmp_path):
    fill(engine)
    assert engine.run(RECIPE).code == 0
    secret, out = tmp_path / "secret.txt", tmp_path / "out"
    secret.write_text("a,b\n1,2\n")
    with pytest.raises(CatalogError):
        Catalog(engine.store).run(query.format(secret=secret, out=out)).fetchall()
    assert not out.exists()


@pytest.mark.parametrize("name", ["../../out", "a/b", ".", "/tmp/x", "a\x00b"])
def test_names_in_a_recipe_cannot_leave_the_store(engine, name):
    fill(engine)
    for text in (
        RECIPE.replace("name: small", f'name: "{name}"'),
        RECIPE + f'publish: {{"{name}": some}}\n',
        RECIPE.replace("some:", f'"{name}":'),
    ):
        with pytest.raises((RecipeError, ValueError)):
            load(engine.write("recipe.yaml", text))


def test_names_in_data_cannot_leave_the_store(engine):
    engine.rows("rows.jsonl", [{"id": f"../../../{i}", "text": "word", "url": "file:///etc/passwd"} for i in range(3)])
    assert engine.run(RECIPE).code == 0
    inside = {p.resolve() for p in engine.folder.rglob("*") if p.is_file()}
    assert all(str(p).startswith(str(engine.folder.resolve())) for p in inside)
    assert sorted(p.name for p in engine.folder.iterdir()) == ["recipe.yaml", "rows.jsonl", "store"]


def test_an_archive_writes_nothing_outside(engine, monkeypatch):
    from stages.ingest import archive

    held = io.BytesIO()
    with tarfile.open(fileobj=held, mode="w") as made:
        for name, kind in (("../../escaped.txt", tarfile.REGTYPE), ("link", tarfile.SYMTYPE), ("/abs.txt", tarfile.REGTYPE)):
            info = tarfile.TarInfo(name)
            info.type, info.linkname, info.size = kind, "/etc/passwd", 4 if kind == tarfile.REGTYPE else 0
            made.addfile(info, io.BytesIO(b"text"))
    engine.write("bad.tar", held.getvalue())
    source = Path(archive.__file__).read_text()
    assert "extractall" not in source
    assert ".extract(" not in source
    unpacks = [
        p
        for room in FIVE
        for p in (ROOT / room).rglob("*.py")
        if "extractall(" in p.read_text() or "unpack_archive(" in p.read_text()
    ]
    assert unpacks == [], "archives are read as streams, never unpacked"


def test_a_secret_of_the_environment_is_written_nowhere(engine, monkeypatch):
    monkeypatch.setenv("SECRET_FOLDER", str(engine.folder))
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "aws-secret-value")
    fill(engine)
    text = RECIPE.replace("${here}", "${env:SECRET_FOLDER}")
    path = engine.write("recipe.yaml", text)
    told = []
    assert (
        carry_out(planned(Wish(str(path), str(engine.store.root), workers=1)), lambda event, _: told.append(str(event))).code == 0
    )
    held = {p: p.read_bytes() for p in engine.store.root.rglob("*") if p.is_file() and "cache" not in p.parts}
    assert len(held) > 5
    for needle in (b"aws-secret-value", f'"{engine.folder}/rows.jsonl"'.encode()):
        assert [str(p) for p, data in held.items() if needle in data] == []
    assert not any("aws-secret-value" in line for line in told)


def test_the_environment_is_not_sent_to_other_machines(monkeypatch):
    pytest.importorskip("ray")
    from pipelines.executors.cluster import environment

    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "aws-secret-value")
    sent = environment(ROOT / "tests")
    assert "env_vars" not in sent
    assert "aws-secret-value" not in str(sent)
    assert {Path(p).name for p in sent["py_modules"]} >= set(FIVE)
