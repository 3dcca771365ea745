"""A token list to the blocks of a page: runs of text with the element that holds each, in one walk with a bounded stack.

A block is the text between two block-level tags (or two `<br>` in a row). Elements that hold blocks are kept as nodes with
their parent, meanings of their class names (`tags.ROLES`) and the range of blocks that they span, so that any sum over an
element is the difference of two prefix sums. End tags that HTML leaves out (p, li, td, ...) are implied as browsers do;
formatting elements are not tracked. Depth beyond `MAX_DEPTH` is flattened, which bounds every search on the stack.
"""

from __future__ import annotations

import threading
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from stages.compiled import kernel, making
from stages.extract.attributes import S_CLASS, S_HREF, S_MASK, S_SKIP, S_TOKEN, read_attributes
from stages.extract.formulas import write_formulas
from stages.extract.markup import END, START, TEXT, has_formulas, tokenize
from stages.extract.tags import BLOCK, ID, KIND, SKIP
from stages.extract.text import S_BEGIN, S_OUT, S_PENDING, S_PRE, put_text

MAX_DEPTH = 256
N_PARENT, N_TAG, N_MASK, N_PATH_MASK, N_DEPTH, N_TOKEN0, N_TOKEN1, N_PATH, N_BLOCK0, N_BLOCK1, N_CLASS = range(11)
B_NODE, B_TEXT0, B_TEXT1, B_LINKED, B_LINKS, B_BREAKS, B_STRONG, B_PRE, B_INLINE, B_IMAGES, B_HTML = range(11)
S_DEPTH, S_OVER, S_NODES, S_BLOCKS, S_LINK, S_STRONG, S_TITLE0, S_TITLE1, S_AT = range(16, 25)
"""Slots of the walk's state vector; slots below 16 belong to `attributes` and `text`, slots from 32 count for the open block."""
C_LINKED, C_LINKS, C_BREAKS, C_STRONG, C_INLINE, C_IMAGES = range(32, 38)
S_SIZE = 40

Table = NDArray[np.int32]
State = NDArray[np.int64]

_A, _B, _STRONG, _BR, _IMG = ID["a"], ID["b"], ID["strong"], ID["br"], ID["img"]
_P, _LI, _PRE, _TITLE, _BODY, _TABLE, _TR = ID["p"], ID["li"], ID["pre"], ID["title"], ID["body"], ID["table"], ID["tr"]
_TD, _TH, _H1, _H6, _DT, _DD, _HR = ID["td"], ID["th"], ID["h1"], ID["h6"], ID["dt"], ID["dd"], ID["hr"]
_NOSCRIPT, _BUTTON = ID["noscript"], ID["button"]


def _stops() -> NDArray[np.bool_]:
    """[opened, open]: does the open element end the search for one that the opened tag closes?"""
    stops = np.zeros((len(KIND), len(KIND)), np.bool_)
    cells = [ID[name] for name in ("td", "th", "table", "caption")]
    for opened, walls in {"li": "ul ol dir menu", "dt": "dl", "dd": "dl", "td": "table tr", "th": "table tr"}.items():
        stops[ID[opened], [ID[wall] for wall in walls.split()]] = True
    for opened in ("li", "dt", "dd"):
        stops[ID[opened], cells] = True
    for opened in ("tr", "tbody", "thead", "tfoot"):
        stops[ID[opened], _TABLE] = True
    return stops


def _closes() -> NDArray[np.bool_]:
    """[opened, open]: does the opened tag imply the end of the open element?"""
    closes = np.zeros((len(KIND), len(KIND)), np.bool_)
    cell, row = ("td", "th"), ("td", "th", "tr")
    for opened, ended in {
        "li": ("li",), "dt": ("dt", "dd"), "dd": ("dt", "dd"), "td": cell, "th": cell, "tr": row,
        "tbody": (*row, "tbody", "thead", "tfoot"), "thead": row, "tfoot": (*row, "tbody", "thead"),
    }.items():  # fmt: skip
        closes[ID[opened], [ID[name] for name in ended]] = True
    return closes


_STOPS, _CLOSES = _stops(), _closes()
_IMPLIES: NDArray[np.bool_] = np.array([closes.any() or _H1 <= opened <= _H6 for opened, closes in enumerate(_CLOSES)])


@kernel
def _flush(state: State, out: NDArray[np.uint8], blocks: Table, stack: Table) -> None:
    """End the open block; one without text vanishes."""
    stop = state[S_OUT]
    while stop > state[S_BEGIN] and out[stop - 1] <= 32:
        stop -= 1
    if stop > state[S_BEGIN]:
        row = blocks[state[S_BLOCKS]]
        row[B_NODE] = stack[state[S_DEPTH]]
        row[B_TEXT0], row[B_TEXT1] = state[S_BEGIN], stop
        row[B_LINKED], row[B_LINKS], row[B_BREAKS] = state[C_LINKED], state[C_LINKS], state[C_BREAKS]
        row[B_STRONG], row[B_INLINE], row[B_IMAGES] = state[C_STRONG], state[C_INLINE], state[C_IMAGES]
        row[B_PRE], row[B_HTML] = state[S_PRE], state[S_AT]
        state[S_BLOCKS] += 1
        state[32:40] = 0
    state[S_BEGIN] = state[S_OUT] = stop
    state[S_PENDING] = 0


@kernel
def _pop(state: State, depth: int, nodes: Table, stack: Table) -> None:
    """Close elements until `depth` of them are open."""
    while state[S_DEPTH] > depth:
        nodes[stack[state[S_DEPTH]], N_BLOCK1] = state[S_BLOCKS]
        state[S_DEPTH] -= 1


@kernel
def _push(tag: int, token0: int, state: State, nodes: Table, stack: Table) -> None:
    """Open an element whose attributes were just read."""
    if state[S_DEPTH] + 1 >= MAX_DEPTH:
        state[S_OVER] += 1
        return
    parent, number = stack[state[S_DEPTH]], state[S_NODES]
    node = nodes[number]
    node[N_PARENT], node[N_TAG], node[N_MASK] = parent, tag, state[S_MASK]
    node[N_PATH_MASK] = nodes[parent, N_PATH_MASK] | state[S_MASK]
    node[N_DEPTH] = nodes[parent, N_DEPTH] + 1
    node[N_TOKEN0], node[N_TOKEN1] = token0, state[S_TOKEN]
    node[N_CLASS] = state[S_CLASS]
    node[N_PATH] = np.int32(((nodes[parent, N_PATH] * 31 + tag * 7 + state[S_CLASS]) * 40503) & 0x7FFFFFFF)
    node[N_BLOCK0] = state[S_BLOCKS]
    state[S_NODES] += 1
    state[S_DEPTH] += 1
    stack[state[S_DEPTH]] = number


@kernel
def _imply(tag: int, state: State, nodes: Table, stack: Table) -> None:
    """Close what the start of `tag` closes."""
    top = nodes[stack[state[S_DEPTH]], N_TAG]
    if (top == _P and tag != _NOSCRIPT and tag != _BUTTON) or (_H1 <= tag <= _H6 and _H1 <= top <= _H6):
        _pop(state, state[S_DEPTH] - 1, nodes, stack)
    depth = state[S_DEPTH]
    while depth > 0:
        open_tag = nodes[stack[depth], N_TAG]
        if _CLOSES[tag, open_tag]:
            _pop(state, depth - 1, nodes, stack)
        elif _STOPS[tag, open_tag]:
            return
        depth -= 1


@kernel
def _open(tag: int, token0: int, state: State, out: NDArray[np.uint8], nodes: Table, blocks: Table, stack: Table) -> None:
    """The start tag of a block-level element."""
    if state[S_PRE] and tag != _PRE:
        return
    _flush(state, out, blocks, stack)
    if tag == _BODY and state[S_NODES] > 1:
        return
    if _IMPLIES[tag] or nodes[stack[state[S_DEPTH]], N_TAG] == _P:
        _imply(tag, state, nodes, stack)
    _push(tag, token0, state, nodes, stack)
    if tag == _PRE:
        state[S_PRE] = 1


@kernel
def _close(tag: int, state: State, out: NDArray[np.uint8], nodes: Table, blocks: Table, stack: Table) -> None:
    """The end tag of a block-level element; one that matches nothing in its scope is ignored."""
    if state[S_PRE] and tag != _PRE:
        if state[S_OUT] > state[S_BEGIN] and out[state[S_OUT] - 1] != 10:
            out[state[S_OUT]] = 10
            state[S_OUT] += 1
        return
    _flush(state, out, blocks, stack)
    if tag == _PRE:
        state[S_PRE] = 0
    if state[S_OVER] > 0:
        state[S_OVER] -= 1
        return
    heading, cell = _H1 <= tag <= _H6, _TABLE <= tag <= _TH
    depth = state[S_DEPTH]
    while depth > 0 and tag != _BODY:
        open_tag = nodes[stack[depth], N_TAG]
        if open_tag == tag or (heading and _H1 <= open_tag <= _H6):
            _pop(state, depth - 1, nodes, stack)
            return
        if (open_tag == _TABLE) or (not cell and open_tag in (_TD, _TH)):
            return
        depth -= 1


@kernel
def _skip(tokens: Table, count: int, at: int, barred: NDArray[np.bool_]) -> int:
    """Index of the end tag that closes the start tag at `at`; `at` itself when there is none.

    A tag that was never closed once is not searched again, so that hostile pages cost one search for each tag name.
    """
    tag, deep, end = tokens[at, 1], 0, at
    if barred[tag]:
        return at
    while end < count:
        if tokens[end, 1] == tag and tokens[end, 0] == START:
            deep += 1
        elif tokens[end, 1] == tag and tokens[end, 0] == END:
            deep -= 1
            if deep == 0:
                return end
        end += 1
    barred[tag] = True
    return at


@kernel
def _inline(tag: int, state: State, out: NDArray[np.uint8], blocks: Table, stack: Table) -> None:
    """The start tag of an element inside a line of text."""
    state[C_INLINE] |= state[S_MASK]
    if tag == _A:
        state[S_LINK] = state[S_HREF]
        state[C_LINKS] += state[S_HREF]
    elif tag in (_B, _STRONG):
        state[S_STRONG] = 1
    elif tag == _IMG:
        state[C_IMAGES] += 1
    elif tag == _HR:
        _flush(state, out, blocks, stack)
    elif tag == _BR:
        _break(state, out, blocks, stack)


@kernel
def _break(state: State, out: NDArray[np.uint8], blocks: Table, stack: Table) -> None:
    """A `<br>`: the second in a row ends the block, as authors without `<p>` mean it."""
    last = state[S_OUT] - 1
    if last >= state[S_BEGIN]:
        if out[last] == 10 and not state[S_PRE]:
            _flush(state, out, blocks, stack)
            return
        out[last + 1] = 10
        state[S_OUT] += 1
        state[C_BREAKS] += 1
        state[S_PENDING] = 0


@kernel
def _text(page: NDArray[np.uint8], start: int, stop: int, state: State, out: NDArray[np.uint8]) -> None:
    if state[S_PRE] == 0:
        while start < stop and page[start] <= 32 and page[start] != 0:
            start += 1
            state[S_PENDING] = 1
        if start == stop:
            return
    before = state[S_OUT]
    put_text(page, start, stop, out, state)
    written = state[S_OUT] - before
    if state[S_LINK]:
        state[C_LINKED] += written
    if state[S_STRONG]:
        state[C_STRONG] += written


@kernel
def _end(tag: int, state: State, out: NDArray[np.uint8], nodes: Table, blocks: Table, stack: Table) -> None:
    if KIND[tag] & BLOCK:
        _close(tag, state, out, nodes, blocks, stack)
    elif tag == _A:
        state[S_LINK] = 0
    elif tag in (_B, _STRONG):
        state[S_STRONG] = 0
    elif tag == _BR:
        _break(state, out, blocks, stack)


@kernel
def walk(
    page: NDArray[np.uint8], tokens: Table, count: int, state: State, out: NDArray[np.uint8], nodes: Table, blocks: Table,
    classes: NDArray[np.uint32], stack: NDArray[np.int32], barred: NDArray[np.bool_],
) -> None:  # fmt: skip
    """Fill nodes, blocks, class-name hashes and text; the counts stand in `state`. Node 0 is the page itself.

    `stack` has `MAX_DEPTH` zeros and `barred` a False for each tag.
    """
    state[S_NODES], nodes[0] = 1, 0
    at = 0
    while at < count:
        kind, tag, start, stop = tokens[at, 0], tokens[at, 1], tokens[at, 2], tokens[at, 3]
        state[S_AT] = start
        if kind == TEXT:
            _text(page, start, stop, state, out)
        elif kind == END:
            _end(tag, state, out, nodes, blocks, stack)
        elif kind == START:
            token0 = state[S_TOKEN]
            read_attributes(page, start, stop, state, classes)
            if KIND[tag] & SKIP or state[S_SKIP]:
                at = _skip(tokens, count, at, barred)
            elif KIND[tag] & BLOCK:
                _open(tag, token0, state, out, nodes, blocks, stack)
            else:
                state[S_TOKEN] = token0
                _inline(tag, state, out, blocks, stack)
        elif tag == _TITLE and state[S_TITLE1] == 0:
            state[S_TITLE0], state[S_TITLE1] = start, stop
        at += 1
    _flush(state, out, blocks, stack)
    _pop(state, 0, nodes, stack)
    nodes[0, N_BLOCK1] = state[S_BLOCKS]


class Page(NamedTuple):
    """A page in blocks: `text` holds the bytes that blocks point into, `classes` the hashed words of attributes.

    `about` are the tokens of the tags that tell something about the page: html, meta, link, time.
    """

    html: bytes
    text: NDArray[np.uint8]
    nodes: Table
    blocks: Table
    classes: NDArray[np.uint32]
    title: bytes
    about: Table


_ABOUT = np.isin(np.arange(KIND.size), [ID[name] for name in ("html", "meta", "link", "time")])


@making
def about(tokens: Table) -> Table:
    """Tokens of start tags that tell something about the page."""
    count = 0
    for n in range(len(tokens)):
        count += tokens[n, 0] == START and _ABOUT[tokens[n, 1]]
    found = np.empty((count, 4), np.int32)
    count = 0
    for n in range(len(tokens)):
        if tokens[n, 0] == START and _ABOUT[tokens[n, 1]]:
            found[count] = tokens[n]
            count += 1
    return found


SMALL = 1 << 20
"""Bytes of a page up to which the buffers of the page before are used again: new memory costs a page fault each 4 KiB."""


class _Buffers(threading.local):
    """Buffers of this thread, by name; they grow and are never shared between two of a page."""

    def __init__(self) -> None:
        self.held: dict[str, NDArray[Any]] = {}

    def get(self, name: str, rows: int, width: int, kind: Any) -> NDArray[Any]:
        """An array of at least `rows` rows with anything in it."""
        if rows * width > SMALL:
            return np.empty((rows, width), kind)
        if name not in self.held or len(self.held[name]) < rows:
            self.held[name] = np.empty((rows + rows // 2, width), kind)
        return self.held[name]


_BUFFERS = _Buffers()


def _tokens(html: bytes) -> Table:
    """The tokens of a page (rows of kind, tag, from, to), in a buffer that the next page overwrites."""
    page = np.frombuffer(html, np.uint8)
    tokens = _BUFFERS.get("tokens", 3 * int(np.count_nonzero(page == 60)) + 2, 4, np.int32)
    return tokens[: tokenize(page, tokens)]


def read_page(html: bytes, *, formulas: bool = True) -> Page:
    """UTF-8 bytes of a page to its blocks, formulas written as LaTeX unless told otherwise."""
    tokens = _tokens(html)
    if formulas and has_formulas(np.frombuffer(html, np.uint8), tokens):
        html = write_formulas(html)
        tokens = _tokens(html)
    state, rows = np.zeros(S_SIZE, np.int64), len(tokens) + 2
    out, classes = _BUFFERS.get("out", len(html) + 16, 1, np.uint8), _BUFFERS.get("classes", len(html) // 2 + 16, 1, np.uint32)
    nodes, blocks = _BUFFERS.get("nodes", rows, 11, np.int32), _BUFFERS.get("blocks", rows, 11, np.int32)
    stack, barred = np.zeros(MAX_DEPTH, np.int32), np.zeros(KIND.size, np.bool_)
    walk(np.frombuffer(html, np.uint8), tokens, len(tokens), state, out[:, 0], nodes, blocks, classes[:, 0], stack, barred)
    return Page(
        html, out[: state[S_OUT], 0].copy(), nodes[: state[S_NODES]].copy(), blocks[: state[S_BLOCKS]].copy(),
        classes[: state[S_TOKEN], 0].copy(), html[state[S_TITLE0] : state[S_TITLE1]], about(tokens),
    )  # fmt: skip
