"""Where a process of this machine keeps drafts and copies of what lies in an object store."""

from __future__ import annotations

import os
import shutil
import socket
import tempfile
from pathlib import Path

_TEMPORARY = Path(tempfile.gettempdir())
"""As it was when the process began: a settle has its own for a while."""


def spool() -> Path:
    """The folder of this process for drafts and copies; its name tells whose it is."""
    return _spools() / f"{socket.gethostname()}-{os.getpid()}"


def _spools() -> Path:
    return Path(os.environ.get("GRISTMILL_SPOOL") or _TEMPORARY / f"gristmill-spool-{os.getuid()}")


def sweep_spools() -> None:
    """Remove the folders of processes of this machine that are gone."""
    host = socket.gethostname()
    for name in os.listdir(_spools()) if _spools().exists() else []:
        owner, _, pid = name.rpartition("-")
        if owner == host and not Path(f"/proc/{pid}").exists():
            shutil.rmtree(_spools() / name, ignore_errors=True)
