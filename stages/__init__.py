"""What happens to rows, with no weights and no language model."""

import os
import platform
from pathlib import Path

# Compiled kernels go to the user's cache, by machine: site-packages may be read-only, and a home shared by two kinds of
# machine must not share machine code (numba itself checks the CPU as well).
os.environ.setdefault(
    "NUMBA_CACHE_DIR",
    str(Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache")) / "gristmill" / f"numba-{platform.machine()}"),
)
