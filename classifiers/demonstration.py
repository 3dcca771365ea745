"""Texts to train demonstration classifiers on: Python's own documentation against junk made from the same words.

Good: the language reference that every Python installation carries (module pydoc_data.topics; PSF licence), its paragraphs
with the line breaks of the manual taken out. Poor: what a page looks like when its main text was missed or never was there,
made by a seed from the same vocabulary: menus, shelves of a shop, keyword spam, threads, footers, clipped lines. Nothing is
shipped and nothing is downloaded. What is learned is form and a little tone: enough to show how an ensemble works, and no
more. How it does on pages judged by people stands in benchmarks/RESULTS.md; for real work train on labels of your own.
"""

from __future__ import annotations

import hashlib
import importlib.util
import random
import re
from collections.abc import Callable, Iterator
from pathlib import Path

import pyarrow as pa
from pydantic import Field

from stages.contract import TEXT, Chunk, Params, Unit, source

SPOT = pa.struct([("unit", pa.string()), ("offset", pa.int64()), ("length", pa.int64())])
OFFERS = (
    "Buy now",
    "Free shipping",
    "Add to cart",
    "Best price",
    "Order today",
    "Limited offer",
    "Click here",
    "Save 40%",
    "On sale",
)
DOORS = (
    "Home",
    "About us",
    "Contact",
    "Login",
    "Search",
    "Help",
    "Site map",
    "Register",
    "Next",
    "Previous",
    "Read more",
    "Archive",
)
LEGAL = (
    "All rights reserved.",
    "Terms of use",
    "Privacy policy",
    "Cookie settings",
    "Powered by",
    "Copyright 2011",
    "Advertise with us",
)
NAMES = ("mikey77", "anna_b", "TheRealJo", "guest", "zed", "Kathryn", "oldtimer", "admin")


class Demonstration(Params):
    """How much, and from which seed."""

    poor: float = Field(1.0, gt=0, le=10, description="Poor texts for each good one.")
    paragraphs: int = Field(4, ge=1, le=50, description="Paragraphs of a good text, at most.")
    seed: int = Field(0, ge=0, description="Seed of the poor texts.")


def _place() -> Path:
    spec = importlib.util.find_spec("pydoc_data.topics")
    if spec is None or spec.origin is None:
        raise ValueError(
            "this Python carries no documentation (pydoc_data); install the full standard library, such as libpython3-stdlib"
        )
    return Path(spec.origin)


def _units(_params: Demonstration) -> Iterator[Unit]:
    path = _place()
    content = path.read_bytes()
    yield Unit("pydoc_data/topics.py", str(path), len(content), hashlib.sha256(content).hexdigest())


def good_texts(most: int) -> list[str]:
    """The prose of the language reference, up to `most` paragraphs a text; grammar, tables and code left out."""
    from pydoc_data.topics import topics

    found = []
    for _, page in sorted(topics.items()):
        blocks = [re.sub(r"\s+", " ", block).strip() for block in re.split(r"\n\s*\n", page) if not block.startswith("   ")]
        prose = [
            b.replace("*", "").replace("“", '"').replace("”", '"')
            for b in blocks
            if len(b) > 120 and "::=" not in b and "===" not in b
        ]
        found += ["\n\n".join(prose[low : low + most]) for low in range(0, len(prose), most)]
    return found


def _menu(words: list[str], rng: random.Random) -> str:
    lines = [" ".join(rng.sample(words, rng.randint(1, 3))).title() for _ in range(rng.randint(8, 40))]
    return rng.choice(("\n", " | ", "\n- ")).join([*rng.sample(DOORS, 4), *lines])


def _shop(words: list[str], rng: random.Random) -> str:
    shelf = []
    for _ in range(rng.randint(4, 15)):
        name = " ".join(rng.sample(words, 3)).title()
        shelf.append(f"{name} ${rng.randint(5, 900)}.{rng.randint(0, 99):02d} {rng.choice(OFFERS)}!")
    return "\n".join(shelf)


def _spam(words: list[str], rng: random.Random) -> str:
    keys = rng.sample(words, 4)
    return " ".join(
        f"{rng.choice(OFFERS).lower()} {' '.join(rng.sample(keys, 3))} {rng.choice(words)}," for _ in range(rng.randint(15, 60))
    )


def _thread(words: list[str], rng: random.Random) -> str:
    posts = []
    for _ in range(rng.randint(3, 10)):
        said = " ".join(rng.sample(words, rng.randint(3, 14))) + rng.choice(("...", "!!", " lol", ""))
        posts.append(
            f"{rng.choice(NAMES)}\nPosted {rng.randint(1, 28)}/{rng.randint(1, 12)}/20{rng.randint(10, 24)}\n{said}\nReply"
        )
    return "\n".join(posts)


def _footer(words: list[str], rng: random.Random) -> str:
    return "\n".join(
        [*rng.sample(LEGAL, 4), " ".join(rng.sample(words, 2)).title(), *rng.sample(DOORS, 5), f"© 20{rng.randint(10, 24)}"]
    )


def _clipped(words: list[str], rng: random.Random) -> str:
    return "\n".join(
        " ".join(rng.sample(words, rng.randint(4, 9))) + rng.choice(("...", "", " [...]", " >>")) for _ in range(rng.randint(5, 20))
    )


KINDS: tuple[Callable[[list[str], random.Random], str], ...] = (_menu, _shop, _spam, _thread, _footer, _clipped)


def poor_texts(good: list[str], count: int, seed: int) -> list[str]:
    """Junk of every kind in turn, in the words of single good texts."""
    rng = random.Random(seed)
    found = []
    for number in range(count):
        words = [*sorted(set(re.findall(r"[a-z]{3,}", good[rng.randrange(len(good))]))), "python", "page", "list", "free", "new"]
        found.append(KINDS[number % len(KINDS)](words if len(words) > 20 else words * 5, rng))
    return found


@source(version=1, units=_units, writes={"text": TEXT, "label": pa.float64()})
def texts(unit: Unit, params: Demonstration) -> Iterator[Chunk]:
    """English texts with a `label`: 1 for documentation, 0 for junk made from its words. For demonstration classifiers only.

    ValueError where Python was installed without its documentation.
    """
    good = good_texts(params.paragraphs)
    poor = poor_texts(good, int(len(good) * params.poor), params.seed)
    rows = good + poor
    spots = [{"unit": unit.name, "offset": row, "length": 1} for row in range(len(rows))]
    labels = [1.0] * len(good) + [0.0] * len(poor)
    yield Chunk(pa.table({"text": pa.array(rows, TEXT), "label": labels, "origin": pa.array(spots, SPOT)}), len(rows))
