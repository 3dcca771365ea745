"""Files behind HTTP: what they are, and reading them from any byte on, patiently.

Busy servers answer 503 (`SlowDown`) or 429: every request is tried again after a pause that doubles and is drawn at
random below its bound (full jitter), so that many workers do not come back together. A connection that breaks midway
is taken up at the byte where it broke.
"""

from __future__ import annotations

import http.client
import io
import random
import time
import urllib.error
import urllib.request
from dataclasses import dataclass
from typing import Any

BUSY = (408, 425, 429, 500, 502, 503, 504)
LONGEST_PAUSE = 60.0
AGENT = "gristmill"


@dataclass(frozen=True, slots=True)
class Patience:
    """How often a request is tried, the bound of the first pause in seconds, and how long one answer may take."""

    attempts: int = 8
    pause: float = 1.0
    timeout: float = 60.0

    def wait(self, attempt: int, asked: str | None) -> None:
        """Sleep before the next attempt: at random, and at least as long as the server asked for."""
        bound = min(LONGEST_PAUSE, self.pause * 2**attempt)
        least = float(asked) if asked and asked.isdigit() else 0.0
        time.sleep(min(LONGEST_PAUSE, least) + random.uniform(0, bound))


@dataclass(frozen=True, slots=True)
class Description:
    """Size in bytes (None if the server does not say) and checksum (empty if there is none)."""

    size: int | None
    checksum: str


def request(url: str, patience: Patience, method: str = "GET", start: int | None = None, stop: int | None = None) -> Any:
    """The answer to one request, for the bytes [start, stop) where they are given.

    Raises FileNotFoundError for 403, 404 and 410, and OSError naming the URL when the attempts are used up.
    """
    headers = {"User-Agent": AGENT}
    if start is not None:
        headers["Range"] = f"bytes={start}-{'' if stop is None else stop - 1}"
    fault: Exception | None = None
    for attempt in range(patience.attempts):
        asked = None
        try:
            return urllib.request.urlopen(urllib.request.Request(url, headers=headers, method=method), timeout=patience.timeout)  # noqa: S310 (the caller names http or https)
        except urllib.error.HTTPError as error:
            error.close()
            if error.code in (403, 404, 410):
                raise FileNotFoundError(f"{url}: the server answers {error.code} {error.reason}") from error
            if error.code not in BUSY:
                raise OSError(f"{url}: the server answers {error.code} {error.reason}") from error
            fault, asked = error, error.headers.get("Retry-After")
        except (urllib.error.URLError, http.client.HTTPException, TimeoutError, ConnectionError) as error:
            fault = error
        if attempt + 1 < patience.attempts:
            patience.wait(attempt, asked)
    raise OSError(f"{url}: given up after {patience.attempts} attempts; the last fault was {fault}") from fault


def describe(url: str, patience: Patience | None = None) -> Description:
    """Size and checksum (ETag) of a file, without reading it."""
    with request(url, patience or Patience(), "HEAD") as answer:
        size, tag = answer.headers.get("Content-Length"), answer.headers.get("ETag") or ""
    tag = tag.removeprefix("W/").strip('"')
    return Description(int(size) if size and size.isdigit() else None, f"etag:{tag}" if tag else "")


class WebFile(io.RawIOBase):
    """A file behind HTTP: one streaming request from the position on, renewed after a seek or a broken connection."""

    def __init__(self, url: str, patience: Patience | None = None) -> None:
        super().__init__()
        self._url = url
        self._patience = patience or Patience()
        self._position = 0
        self._answer: Any = None
        self._size: int | None = None

    def readable(self) -> bool:
        """True."""
        return True

    def seekable(self) -> bool:
        """True: a seek costs one request."""
        return True

    def tell(self) -> int:
        """The position of the next byte."""
        return self._position

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        """Go to another byte; from the end only where the server tells the size."""
        if whence == io.SEEK_END:
            self._size = describe(self._url, self._patience).size if self._size is None else self._size
            if self._size is None:
                raise OSError(f"{self._url}: the server does not say how long the file is")
        base = {io.SEEK_SET: 0, io.SEEK_CUR: self._position, io.SEEK_END: self._size or 0}[whence]
        if base + offset != self._position:
            self._drop()
        self._position = base + offset
        return self._position

    def readinto(self, buffer: Any) -> int:
        """Fill the buffer from the stream; 0 at the end. Raises OSError when the connection keeps breaking."""
        view = memoryview(buffer).cast("B")
        for attempt in range(self._patience.attempts):
            try:
                if self._answer is None:
                    self._answer = self._opened()
                if self._answer is None:
                    return 0
                count = int(self._answer.readinto(view))
                # A server that closes early sends less than it announced; http.client reports that as an end.
                if count or not self._answer.length:
                    self._position += count
                    return count
            except (http.client.HTTPException, TimeoutError, ConnectionError):
                if attempt + 1 == self._patience.attempts:
                    raise
            self._drop()
            self._patience.wait(attempt, None)
        raise OSError(f"{self._url}: the connection broke {self._patience.attempts} times at byte {self._position}")

    def _opened(self) -> Any:
        """An answer that begins at the position; None behind the end of the file."""
        try:
            answer = request(self._url, self._patience, start=self._position)
        except OSError as error:
            if isinstance(error.__cause__, urllib.error.HTTPError) and error.__cause__.code == 416:
                return None
            raise
        if self._position and answer.status != 206:
            answer.close()
            raise OSError(f"{self._url}: the server does not send ranges, so parts of the file cannot be read")
        return answer

    def _drop(self) -> None:
        if self._answer is not None:
            self._answer.close()
            self._answer = None

    def close(self) -> None:
        """End the request that is open."""
        self._drop()
        super().close()
