import shutil
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from stages.contract import BYTES
from stages.extract.lynx import Lynx, main_text

PAGE = """<html><head><meta charset="latin-1"><title>t</title></head><body><h1>Żółta</h1><p>A very long line &copy; that
goes on.</p><pre>for x in y:
    print(x)</pre><p>x<sup>2</sup> + 1</p><script>no()</script></body></html>"""


def pages(*rows: tuple[bytes | None, str | None]) -> pa.Table:
    return pa.table({"html": pa.array([r[0] for r in rows], BYTES), "charset": pa.array([r[1] for r in rows], pa.string())})


@pytest.fixture(scope="module")
def lynx() -> Any:
    if shutil.which("lynx") is None:
        pytest.skip("lynx is not installed")
    return main_text.model(Lynx())


def test_layout_survives(lynx: Any) -> None:
    out = main_text(pages((PAGE.encode(), None)), Lynx(), model=lynx)
    text = out["text"][0].as_py()
    assert text.startswith("Żółta\n")
    assert "A very long line © that goes on." in text
    assert "for x in y:\n    print(x)" in text
    assert "x^2 + 1" in text
    assert "no()" not in text


def test_empty_pages_get_a_reason_and_the_header_counts_when_the_bytes_are_not_utf8(lynx: Any) -> None:
    rows = pages((b"", None), (None, None), (b"<p></p>", None), ("<p>łódź</p>".encode("cp1250"), "windows-1250"))
    out = main_text(rows, Lynx(), model=lynx)
    assert out["drop_reason"].to_pylist() == ["no_main_text", "no_main_text", "no_main_text", None]
    assert out["text"][3].as_py().strip() == "łódź"


def test_a_page_that_takes_too_long_is_dropped_alone(tmp_path: Path) -> None:
    slow = tmp_path / "slow"
    slow.write_text("#!/bin/sh\nread line\ncase $line in *slow*) exec sleep 5;; *) echo text;; esac\n")
    slow.chmod(0o755)
    rows = pages((b"slow\n", None), (b"quick\n", None))
    out = main_text(rows, Lynx(seconds=0.3), model=str(slow))
    assert out["drop_reason"].to_pylist() == ["lynx_timeout", None]


def test_a_missing_program_is_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(FileNotFoundError, match="apt-get install lynx"):
        main_text.model(Lynx())
