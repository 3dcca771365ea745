"""Kept blocks back to text: paragraphs, headings, lists, tables, quotations and code."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from stages.compiled import making
from stages.extract.blocks import B_NODE, B_PRE, B_TEXT0, B_TEXT1, N_PARENT, N_TAG, Page
from stages.extract.tags import ID

Ints = NDArray[np.int32]

L_ITEM, L_ROW, L_CELL, L_LISTS, L_QUOTES, L_HEADING, L_LIST = range(7)
"""Layout of an element: its list item, table row and cell (0: none), depth of lists, of quotations, heading level, its list."""

_H1, _H6, _LI, _TR, _TD, _TH = ID["h1"], ID["h6"], ID["li"], ID["tr"], ID["td"], ID["th"]
_UL, _OL, _QUOTE, _TABLE = ID["ul"], ID["ol"], ID["blockquote"], ID["table"]
LONGEST_CELL = 400
"""Bytes of a cell in a pipe row; tables with longer cells lay out a page and are written as paragraphs."""


@making
def layout(nodes: Ints) -> Ints:
    """Layout (`L_*`) of every element, inherited from its parent."""
    found = np.zeros((len(nodes), 7), np.int32)
    for n in range(1, len(nodes)):
        row, tag = found[n], nodes[n, N_TAG]
        for column in range(7):
            row[column] = found[nodes[n, N_PARENT], column]
        if tag == _LI:
            row[L_ITEM] = n
        elif tag == _TR:
            row[L_ROW], row[L_CELL] = n, 0
        elif tag in (_TD, _TH):
            row[L_CELL], row[L_ITEM], row[L_LISTS] = n, 0, 0
        elif tag == _TABLE:
            row[L_ROW] = row[L_CELL] = 0
        elif tag in (_UL, _OL):
            row[L_LISTS] += 1
            row[L_LIST] = n
        elif tag == _QUOTE:
            row[L_QUOTES] += 1
        if _H1 <= tag <= _H6:
            row[L_HEADING] = tag - _H1 + 1
    return found


class Piece(NamedTuple):
    """A kept block: its text, what it is part of, and how it is laid out."""

    text: str
    node: int
    tag: int
    pre: bool
    item: int
    row: int
    cell: int
    lists: int
    quotes: int
    heading: int
    list: int


def _pieces(page: Page, kept: NDArray[np.int64]) -> list[Piece]:
    blocks = page.blocks[kept]
    layouts = layout(page.nodes)[blocks[:, B_NODE]].tolist()
    tags = page.nodes[blocks[:, B_NODE], N_TAG].tolist()
    text = page.text.tobytes()
    columns = blocks[:, [B_TEXT0, B_TEXT1, B_NODE, B_PRE]].tolist()
    return [
        Piece(text[start:stop].decode("utf-8", "replace"), node, tag, bool(pre), *where)
        for (start, stop, node, pre), tag, where in zip(columns, tags, layouts, strict=True)
    ]


def _rows(pieces: list[Piece]) -> dict[int, int]:
    """Table rows that are written with pipes, and their number of cells: two or more short cells of one block each."""
    cells: dict[int, list[int]] = {}
    long: set[int] = set()
    for piece in pieces:
        if piece.row:
            cells.setdefault(piece.row, []).append(piece.cell)
            if len(piece.text) > LONGEST_CELL or piece.pre or piece.lists:
                long.add(piece.row)
    return {row: len(held) for row, held in cells.items() if row not in long and len(held) > 1 and len(set(held)) == len(held)}


def _marks(piece: Piece, opens: bool, ordered: dict[int, int], page: Page, *, markdown: bool) -> str:
    """One block with the marks of its kind; `opens` says that it is the first of its list item."""
    text = piece.text
    if piece.pre:
        return f"```\n{text}\n```" if markdown else text
    if piece.heading and markdown:
        return "#" * piece.heading + " " + text.replace("\n", " ")
    if piece.item:
        indent = "  " * max(piece.lists - 1, 0)
        mark = "- "
        if markdown and piece.list and page.nodes[piece.list, N_TAG] == _OL:
            ordered[piece.list] = ordered.get(piece.list, 0) + opens
            mark = f"{ordered[piece.list]}. "
        text = indent + (mark if opens else " " * len(mark)) + text.replace("\n", "\n" + indent + " " * len(mark))
    if piece.quotes and markdown:
        text = "> " + text.replace("\n", "\n> ")
    return text


def _table(rows: list[list[str]], *, markdown: bool) -> str:
    """Consecutive rows of one table."""
    if not markdown:
        return "\n".join(" | ".join(row) for row in rows)
    lines = ["| " + " | ".join(cell.replace("|", "\\|") for cell in row) + " |" for row in rows]
    lines.insert(1, "|" + " --- |" * len(rows[0]))
    return "\n".join(lines)


def render(page: Page, kept: NDArray[np.int64], *, markdown: bool) -> str:
    """The text of the blocks `kept` (ascending numbers). Blank lines part paragraphs; list items and table rows stand on lines."""
    pieces = _pieces(page, kept)
    piped = _rows(pieces)
    parts: list[str] = []
    rows: list[list[str]] = []
    ordered: dict[int, int] = {}
    before: Piece | None = None
    for piece in pieces:
        if piece.row in piped:
            if before is not None and before.row == piece.row:
                rows[-1].append(piece.text.replace("\n", " "))
            else:
                rows.append([piece.text.replace("\n", " ")])
        else:
            _end_table(rows, parts, markdown=markdown)
            opens = before is None or before.item != piece.item
            if parts:
                parts.append("\n" if piece.item and before is not None and before.item else "\n\n")
            parts.append(_marks(piece, opens, ordered, page, markdown=markdown))
        before = piece
    _end_table(rows, parts, markdown=markdown)
    return "".join(parts)


def _end_table(rows: list[list[str]], parts: list[str], *, markdown: bool) -> None:
    if rows:
        if parts:
            parts.append("\n\n")
        parts.append(_table(rows, markdown=markdown))
        rows.clear()
