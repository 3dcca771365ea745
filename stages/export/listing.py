"""The list of files that every export of plain files leaves beside them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import orjson


def listing(summaries: Sequence[Mapping[str, Any]], suffix: str) -> dict[str, bytes]:
    """`files.json`: each shard's file and rows, in the order of names, and the rows of all."""
    files = [{"file": f"{s['name']}{suffix}", "rows": s["rows"]} for s in sorted(summaries, key=lambda s: str(s["name"]))]
    facts = {"rows": sum(int(s["rows"]) for s in summaries), "files": files}
    return {"files.json": orjson.dumps(facts, option=orjson.OPT_INDENT_2) + b"\n"}
