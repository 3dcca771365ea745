"""A real S3-compatible server for tests, in a process and an environment of its own (make test-far installs it)."""

from __future__ import annotations

import json
import os
import subprocess
import urllib.request
from multiprocessing import forkserver
from pathlib import Path
from uuid import uuid4

import pytest

ROOT = Path(__file__).parents[2]
MOTO = Path(os.environ.get("GRISTMILL_MOTO", ROOT / ".venv-moto" / "bin" / "python"))


class S3:
    """The server: its address, its faults, its counts, and new prefixes in its bucket."""

    def __init__(self, endpoint: str) -> None:
        self.endpoint = endpoint

    def _ask(self, path: str, data: dict | None = None) -> dict:
        body = None if data is None else json.dumps(data).encode()
        with urllib.request.urlopen(f"{self.endpoint}/-/{path}", data=body, timeout=30) as answer:
            return json.loads(answer.read())

    def faults(self, **wish: object) -> None:
        self._ask("faults", wish)

    def counts(self) -> dict[str, int]:
        return self._ask("counts")

    def root(self) -> str:
        return f"s3://mill/{uuid4().hex[:8]}"


@pytest.fixture(scope="session")
def server():
    if not MOTO.exists():
        pytest.skip("no S3 server here; `make test-far` installs one")
    process = subprocess.Popen(
        [str(MOTO), str(Path(__file__).with_name("bucket_server.py")), "0"], stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    s3 = S3(f"http://127.0.0.1:{int(process.stdout.readline())}")
    request = urllib.request.Request(
        f"{s3.endpoint}/mill",
        method="PUT",
        headers={"Authorization": "AWS4-HMAC-SHA256 Credential=a/20260101/us-east-1/s3/aws4_request"},
    )
    urllib.request.urlopen(request, timeout=30).close()
    yield s3
    process.kill()
    process.wait()
    process.stdout.close()


@pytest.fixture
def s3(server, monkeypatch, tmp_path):
    """Reached as a user reaches it: through the environment."""
    from manifests.place import place_of

    for name, value in {
        "AWS_ENDPOINT_URL": server.endpoint, "AWS_ACCESS_KEY_ID": "key-that-nobody-may-see", "AWS_SECRET_ACCESS_KEY": "secret-that-nobody-may-see",
        "AWS_REGION": "us-east-1", "GRISTMILL_SPOOL": str(tmp_path / "spool"),
    }.items():  # fmt: skip
        monkeypatch.setenv(name, value)
    server.faults()
    place_of.cache_clear()
    forkserver._forkserver._stop()  # one that an earlier test has started hands its own environment to the workers
    yield server
    server.faults()
    place_of.cache_clear()
    forkserver._forkserver._stop()
