"""From the page sources beside this file to finished HTML: a small markup, the site's template, the words around the text.

A source is a few `key: value` lines, a line of three dashes, then one block a line: a paragraph, `## heading`, `- item`,
`| table | row |`, `::: poster | time`, `$$ formula $$`, raw HTML from `<` on, and code between fences of three backticks.
"""

from __future__ import annotations

import html
import itertools
import re
import string
import tomllib
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from functools import cache
from pathlib import Path
from urllib.parse import quote

HERE = Path(__file__).parent


@cache
def table(name: str) -> dict[str, dict[str, str]]:
    """One of the TOML tables beside this file."""
    return tomllib.loads((HERE / name).read_text(encoding="utf-8"))


@dataclass(frozen=True)
class Page:
    """A page source: `key` is its path under pages/, `meta` its head, `blocks` pairs of a kind and its lines."""

    key: str
    meta: dict[str, str]
    blocks: tuple[tuple[str, tuple[str, ...]], ...]
    comments: tuple[str, ...] = ()
    extra: dict[str, str] = field(default_factory=dict)

    @property
    def site(self) -> dict[str, str]:
        """The site that shows the page."""
        return table("sites.toml")[self.meta["site"]]

    @property
    def lang(self) -> str:
        """Language of the text."""
        return self.meta.get("lang", self.site["lang"])

    @property
    def url(self) -> str:
        """Address; letters outside ASCII are percent-encoded as UTF-8, as crawlers store them."""
        return f"{self.site.get('scheme', 'https')}://{self.site['host']}{quote(self.meta['path'])}"

    @property
    def kind(self) -> str:
        """What the page stands for in truth.json."""
        return self.meta.get("kind", "page")


def kind_of(line: str) -> str:
    """The kind of block that a line outside code belongs to."""
    for mark, kind in (("## ", "heading"), ("- ", "item"), ("| ", "row"), ("::: ", "post"), ("$$", "formula"), ("<", "raw")):
        if line.startswith(mark):
            return kind
    return "text"


def parsed(body: str) -> Iterator[tuple[str, tuple[str, ...]]]:
    """Blocks of a source; rows and items that follow each other, and the lines of a code block, belong together."""
    parts = re.split(r"^```(.*)\n((?:.*\n)*?)```$", body, flags=re.MULTILINE)
    for prose, language, code in itertools.zip_longest(parts[0::3], parts[1::3], parts[2::3]):
        lines = [line for line in prose.split("\n") if line.strip()]
        for kind, run in itertools.groupby(lines, kind_of):
            if kind in ("row", "item"):
                yield kind, tuple(run)
            else:
                yield from ((kind, (line,)) for line in run)
        if code is not None:
            yield "code", (language, code)


def read(path: Path) -> Page:
    """The page source in a file."""
    head, _, body = path.read_text(encoding="utf-8").partition("\n---\n")
    pairs = [line.partition(":") for line in head.split("\n")]
    meta = {key: value.strip() for key, _, value in pairs if key != "comment"}
    comments = tuple(value.strip() for key, _, value in pairs if key == "comment")
    blocks = tuple(parsed(body)) * int(meta.get("repeat", "1"))
    key = path.relative_to(HERE / "pages").with_suffix("").as_posix()
    return Page(key, meta, blocks, comments)


def edited(page: Page, edits: list[list[str]], **meta: str) -> Page:
    """The page with some phrases replaced, on another site; a phrase that does not occur exactly once is an error."""
    text = [[*lines] for _, lines in page.blocks]
    for old, new in edits:
        places = [(i, j) for i, lines in enumerate(text) for j, line in enumerate(lines) if old in line]
        if len(places) != 1:
            raise ValueError(f"{page.key}: {old!r} occurs {len(places)} times")
        (i, j) = places[0]
        text[i][j] = text[i][j].replace(old, new)
    blocks = tuple((kind, tuple(lines)) for (kind, _), lines in zip(page.blocks, text, strict=True))
    return replace(page, meta={**page.meta, "lang": page.lang, "kind": "near_dup", **meta}, blocks=blocks, comments=())


def inline(text: str) -> str:
    """Markup within a line."""
    text = html.escape(text, quote=False)
    text = re.sub(r"`([^`]+)`", r"<code>\1</code>", text)
    text = re.sub(r"\[([^\]]+)\]\(([^)]+)\)", r'<a href="\2">\1</a>', text)
    return re.sub(r"\*([^*\s][^*]*)\*", r"<em>\1</em>", text)


def plain(text: str) -> str:
    """A line without its markup."""
    return re.sub(r"[`*]", "", re.sub(r"\[([^\]]+)\]\([^)]+\)", r"\1", text))


def main_text(page: Page) -> list[str]:
    """What an extractor should find: the lines of prose and the items, without markup."""
    return [plain(line.removeprefix("- ")) for kind, lines in page.blocks if kind in ("text", "item") for line in lines]


def cells(row: str) -> list[str]:
    """The cells of a table row."""
    return [inline(cell.strip()) for cell in row.strip().strip("|").split("|")]


def rows(lines: tuple[str, ...]) -> str:
    """A table whose first row is the head."""
    head = "".join(f"<th>{cell}</th>" for cell in cells(lines[0]))
    rest = ["<tr>" + "".join(f"<td>{cell}</td>" for cell in cells(line)) + "</tr>" for line in lines[1:]]
    return "\n".join(["<table>", f"<thead><tr>{head}</tr></thead>", "<tbody>", *rest, "</tbody>", "</table>"])


def words_of(page: Page) -> dict[str, str]:
    """The words around the text, in the language of the page or, for a language without any, of the site."""
    words = table("chrome.toml")
    return words.get(page.lang) or words[page.site["lang"]]


def heading(text: str, page: Page) -> str:
    """A heading, with the link that invites readers to edit where the site has one."""
    link = f'<span class="editsection"> [<a href="{page.url}?action=edit">{words_of(page)["edit"]}</a>]</span>'
    return f'<h2 id="{slug(text)}">{inline(text)}{link if page.site["template"] == "wiki" else ""}</h2>'


def slug(text: str) -> str:
    """A heading as an anchor."""
    return re.sub(r"\W+", "-", text.lower()).strip("-")


def post(text: str) -> str:
    """The opening of a forum post; the one before it is closed by the caller."""
    name, _, when = text.removeprefix("::: ").partition(" | ")
    who = f'<div class="profile"><b>{inline(name)}</b><br />Posts: {len(name) * 97}<br />Joined: 2014</div>'
    return f'<div class="post">{who}<div class="postbody"><p class="author">by <b>{inline(name)}</b> &raquo; {when}</p>'


def block(kind: str, lines: tuple[str, ...], page: Page) -> str:
    """One block as HTML."""
    match kind:
        case "code":
            return f'<pre><code class="language-{lines[0]}">{html.escape(lines[1], quote=False)}</code></pre>'
        case "heading":
            return heading(lines[0][3:], page)
        case "item":
            return "<ul>" + "".join(f"<li>{inline(line[2:])}</li>" for line in lines) + "</ul>"
        case "row":
            return rows(lines)
        case "post":
            return post(lines[0])
        case "formula":
            return f'<p class="math">{html.escape(lines[0], quote=False)}</p>'
        case "raw":
            return lines[0]
        case _:
            return f"<p>{inline(lines[0])}</p>"


def body(page: Page) -> str:
    """The text of a page as HTML; the old hand-written template leaves its paragraphs open."""
    out = []
    opened = False
    for kind, lines in page.blocks:
        if kind == "post" and opened:
            out.append("</div></div>")
        opened = opened or kind == "post"
        out.append(block(kind, lines, page))
    text = "\n".join([*out, *(["</div></div>"] if opened else [])])
    return text.replace("<p>", "<P>").replace("</p>", "") if page.site["template"] == "plain" else text


def menu(words: dict[str, str]) -> str:
    """The site's navigation."""
    names = ("home", "topics", "archive", "about", "contact")
    return "<ul>" + "".join(f'<li><a href="/{name}">{words[name]}</a></li>' for name in names) + "</ul>"


def links(page: Page, library: list[Page]) -> str:
    """Titles of the site's other pages; a site without any points at its archive."""
    near = [other for other in library if other.meta["site"] == page.meta["site"] and other.key != page.key][:5]
    shown = [(other.meta["path"], other.meta["title"]) for other in near] or [("/archive", page.site["name"])]
    return "<ul>" + "".join(f'<li><a href="{quote(path)}">{inline(title)}</a></li>' for path, title in shown) + "</ul>"


def replies(page: Page, words: dict[str, str]) -> str:
    """The comments below an article."""
    items = [comment.partition(" | ") for comment in page.comments]
    shown = [f"<li><b>{inline(who)}</b><p>{inline(what)}</p><a>{words['reply']}</a></li>" for who, _, what in items]
    return f'<ol class="comment-list">{"".join(shown)}</ol>' if shown else f'<p class="none">0 {words["comments"]}</p>'


def toc(page: Page) -> str:
    """Links to the headings of a page."""
    names = [lines[0][3:] for kind, lines in page.blocks if kind == "heading"]
    return '<ol class="toc">' + "".join(f'<li><a href="#{slug(n)}">{inline(n)}</a></li>' for n in names) + "</ol>" if names else ""


def charset_meta(page: Page) -> str:
    """The charset as the page itself declares it, in the notation of its time."""
    charset = page.meta.get("meta", "utf-8")
    if page.site["template"] in ("plain", "forum"):
        return f'<meta http-equiv="Content-Type" content="text/html; charset={charset}">'
    return f'<meta charset="{charset}">'


def printed(page: Page, library: list[Page]) -> str:
    """The page as HTML text."""
    words = words_of(page)
    values = {
        **{name: inline(word) for name, word in words.items()},
        **{name: inline(page.meta.get(name, "")) for name in ("title", "date", "author", "tags")},
        "site": inline(page.site["name"]),
        "tagline": inline(page.site["tagline"]),
        "lang": page.lang,
        "url": page.url,
        "meta": charset_meta(page),
        "body": body(page),
        "menu": menu(words),
        "links": links(page, library),
        "replies": replies(page, words),
        "toc": toc(page),
    }
    template = (HERE / "templates" / f"{page.site['template']}.html").read_text(encoding="utf-8")
    return string.Template(template).substitute(values)
