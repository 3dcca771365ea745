"""Who sends a request that two workers want at once: a lock on one byte of one file, at an offset made of the key.

Open-file-description locks are dropped by the kernel with their holder, however it dies, leave nothing behind and work
over NFSv4. Two keys that share 62 bits only wait for each other.
"""

from __future__ import annotations

import errno
import fcntl
import os
import struct
from pathlib import Path

_FORM = "@hhqqi4x"
"""struct flock on 64-bit Linux: type, whence, start, length, pid."""


class Claims:
    """The claims of one room."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._file = os.open(path, os.O_CREAT | os.O_RDWR | os.O_CLOEXEC, 0o666)

    def take(self, key: str) -> bool:
        """Claim a key; False when somebody else holds it. OSError where the file system has no such locks."""
        try:
            self._set(key, fcntl.F_WRLCK)
        except OSError as error:
            if error.errno in (errno.EAGAIN, errno.EACCES):
                return False
            raise OSError(
                error.errno, f"no byte-range locks here ({error.strerror}); put the store on a local disk or NFSv4", str(self._path)
            ) from error
        return True

    def release(self, key: str) -> None:
        """Give a key back."""
        self._set(key, fcntl.F_UNLCK)

    def _set(self, key: str, kind: int) -> None:
        form = struct.pack(_FORM, kind, os.SEEK_SET, int(key[:16], 16) >> 2, 1, 0)
        fcntl.fcntl(self._file, fcntl.F_OFD_SETLK, form)

    def close(self) -> None:
        """Give everything back."""
        os.close(self._file)
