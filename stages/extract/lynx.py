"""The page as the text browser lynx shows it: layout keeps equations, tables and code in order."""

from __future__ import annotations

import re
import shutil
import subprocess
from typing import Any

import pyarrow as pa
from pydantic import Field

from stages.contract import BYTES, TEXT, Params, map_stage
from stages.ingest.charset import decode


class Lynx(Params):
    """How to render. The defaults are those of the Nemotron-CC-Math pipeline (arXiv 2508.15096, NeMo Curator's tutorial)."""

    width: int = Field(10_000, ge=40, description="Columns of the screen: wide, so that lines end where the page ends them.")
    seconds: float = Field(20.0, gt=0, description="Longest time for one page; after it the page is dropped as lynx_timeout.")


def _open(_params: Lynx) -> str:
    """The path of the program, found once per worker."""
    path = shutil.which("lynx")
    if path is None:
        raise FileNotFoundError("stages.extract.lynx needs the program lynx on the PATH (Debian and Ubuntu: apt-get install lynx)")
    return path


@map_stage(
    version=1,
    reads={"html": BYTES, "charset": pa.string()},
    writes={"text": TEXT, "drop_reason": pa.string()},
    optional=("charset",),
    model=_open,
)
def main_text(batch: pa.Table, params: Lynx, *, model: str) -> pa.Table:
    """Turn `html` (bytes; `charset` is what the server declared) into `text`: all of the page, boilerplate as well.

    Reasons: `no_main_text`, `lynx_timeout`. The text depends on the version of lynx (measured with 2.9.0dev.12); scripts
    do not run and nothing is fetched.
    """
    pages = zip(batch["html"].to_pylist(), batch["charset"].to_pylist(), strict=True)
    rows = [_render(model, html, charset, params) if html else (None, "no_main_text") for html, charset in pages]
    return pa.table(
        {
            "text": pa.array([text for text, _ in rows], TEXT),
            "drop_reason": pa.array([reason for _, reason in rows], pa.string()),
        }
    )


def _render(program: str, html: bytes, charset: str | None, params: Lynx) -> tuple[str | None, str | None]:
    command: list[Any] = [
        program, "-dump", "-stdin", "-nolist", f"-width={params.width}", "-force_html",
        "-assume_charset=utf-8", "-display_charset=utf-8", "-localhost", "-cfg=/dev/null", "-lss=/dev/null",
    ]  # fmt: skip
    # A declared charset inside the page would win over the option, and the bytes are UTF-8 by now.
    page = re.sub(r"<meta[^>]*charset[^>]*>", "", decode(html, charset)[0], flags=re.IGNORECASE)
    environment = {"LANG": "C.UTF-8", "HOME": "/nonexistent", "TERM": "dumb"}
    try:
        done = subprocess.run(
            command, input=page.encode("utf-8", "replace"), capture_output=True, timeout=params.seconds, env=environment, check=True
        )
    except subprocess.TimeoutExpired:
        return None, "lynx_timeout"
    text = "\n".join(line.rstrip() for line in done.stdout.decode("utf-8", "replace").splitlines()).strip("\n")
    # Centred headings stand in the middle of a very wide screen; no code is indented as far.
    text = re.sub(r"^ {80,}", "", text, flags=re.MULTILINE)
    return (text, None) if text.strip() else (None, "no_main_text")
