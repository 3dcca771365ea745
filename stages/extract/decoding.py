"""Bytes of a page to text, for the extractors that take text."""

from __future__ import annotations


def decode(html: bytes, charset: str | None) -> str:
    """UTF-8 first: guessing an encoding costs more than reading the WARC, and most pages are UTF-8.

    Else what the server declared (`charset`), else the page's meta tag, else a guess.
    """
    from resiliparse.parse.encoding import bytes_to_str, detect_encoding, map_encoding_to_html5

    try:
        return html.decode("utf-8-sig")
    except UnicodeDecodeError:
        declared = charset and map_encoding_to_html5(charset, fallback_utf8=False)
        return str(bytes_to_str(html, declared or detect_encoding(html, from_html_meta=True) or "utf-8"))
