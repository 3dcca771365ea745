import pyarrow as pa
import pytest

from stages.filters.urls import blocked


def reasons(addresses, **params):
    held = blocked.params(**params)
    table = pa.table({"url": pa.array(addresses, pa.string())})
    return blocked(table, held, model=blocked.model(held))["drop_reason"].to_pylist()


LISTS = {
    "domains": ["bad.co.uk", "blog.example.org"],
    "urls": ["https://fine.org/one-page"],
    "hard_words": ["Casino"],
    "soft_words": ["cheap", "pills", "win"],
    "substrings": ["free-gift"],
}


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("https://www.bad.co.uk/x", "domain"),
        ("https://notbad.co.uk/x", None),
        ("http://a.blog.example.org/", "subdomain"),
        ("http://example.org/blog", None),
        ("https://fine.org/one-page", "url"),
        ("https://fine.org/CASINO/royale", "hard_word"),
        ("https://fine.org/casinos", None),
        ("https://fine.org/cheap-pills", "soft_words"),
        ("https://fine.org/cheap-cheap", None),
        ("https://fine.org/get-your-FREE_gift-now", "substring"),
        (None, None),
        ("", None),
    ],
)
def test_every_kind_of_list_has_its_reason(url, expected):
    assert reasons([url], **LISTS) == [expected]


def test_lists_come_from_files_without_comments_and_blank_lines(tmp_path):
    listed = tmp_path / "domains.txt"
    listed.write_text("# a comment\n\nbad.com\n", encoding="utf-8")
    assert reasons(["http://bad.com", "http://good.com"], domains_file=str(listed)) == ["domain", None]


def test_without_lists_everything_stands_and_no_network_is_used(monkeypatch):
    monkeypatch.setattr("socket.socket.connect", lambda *_: pytest.fail("network"))
    assert reasons(["http://bad.com"]) == [None]
    assert reasons(["http://bad.com"], domains=["bad.com"]) == ["domain"]
