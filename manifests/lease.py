"""Leases: how a lock in an object store dies with its holder.

A process that holds locks below a root writes one lease object there and renews it. A lock names the lease of its holder.
Nobody compares clocks: who wants a lock watches its lease, and where that does not change for TERM seconds (several
renewals) the holder is dead and the lock is taken over, by a put on the condition that it is still the same. On the
holder's own machine a dead process is seen at once.

What a lease cannot do is stop a process that sleeps longer than TERM and wakes up. Such a one finds its lease gone at the
next renewal, and its next write of a log or a manifest fails, because those are conditional. The parts that it may still
write have the bytes that everybody else would write.
"""

from __future__ import annotations

import os
import socket
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING
from uuid import uuid4

from manifests.place import StoreError

if TYPE_CHECKING:
    from manifests.bucket import Bucket

TERM = float(os.environ.get("GRISTMILL_LEASE_SECONDS", "60"))
"""Seconds without a renewal after which a holder is dead. Renewed four times as often."""


class Lease:
    """The sign of life of this process below one root."""

    def __init__(self, bucket: Bucket) -> None:
        self.bucket = bucket
        self.key = f"leases/{_machine()}:{os.getpid()}:{_started(os.getpid())}:{uuid4().hex[:8]}"
        self.uses = 0
        self.lost = False
        self._dead: set[str] = set()
        self._count = 0
        self._etag = bucket.swap(self.key, b"0", None)
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._renew, name="lease", daemon=True)
        self._thread.start()

    def _renew(self) -> None:
        while not self._over.wait(TERM / 4):
            self._count += 1
            try:
                etag = self.bucket.swap(self.key, str(self._count).encode(), self._etag)
            except OSError:
                continue  # the store is out of reach: the next renewal tells whether that took too long
            if etag is None:
                self.lost = True
                return
            self._etag = etag

    def outlive(self, other: str, what: str) -> None:
        """Return when a lease is known to be dead; StoreError when its holder lives."""
        if other in self._dead:
            return
        if other == self.key:
            raise StoreError(f"{what}: this run is writing here already")
        seen = self._look(other)
        deadline = time.monotonic() + TERM
        while seen is not None and not gone(other):
            if time.monotonic() > deadline:
                break
            time.sleep(min(TERM / 20, 2.0))
            now = self._look(other)
            if now is not None and now != seen:
                raise StoreError(f"{what}: another run ({_holder(other)}) is writing here; wait for it, or stop it and run again")
            seen = now
        self._dead.add(other)
        self.bucket.remove_one(other)

    def _look(self, key: str) -> str | None:
        found = self.bucket.head(key)
        return None if found is None else str(found["e_tag"])

    def let_go(self) -> None:
        """One lock less; the lease ends with the last."""
        self.uses -= 1
        if self.uses <= 0:
            self._over.set()
            self._thread.join()
            self.bucket.remove_one(self.key)
            _leases.pop((os.getpid(), self.bucket.root), None)


_leases: dict[tuple[int, str], Lease] = {}
"""Leases of this process by root."""


def lease_of(bucket: Bucket) -> Lease:
    """The lease of this process below a root."""
    place = (os.getpid(), bucket.root)
    if place not in _leases:
        _leases[place] = Lease(bucket)
    if _leases[place].lost:
        raise StoreError(f"{bucket.root}: this run was taken for dead and its locks were taken over; run again")
    return _leases[place]


def living(bucket: Bucket, key: str) -> str | None:
    """The holder of a lease in words, with the time since its renewal; None when it is dead or has been silent for two terms.

    For people: this compares the store's clock with ours, which no decision does.
    """
    found = None if gone(key) else bucket.head(key)
    silent = time.time() - found["last_modified"].timestamp() if found is not None else 0.0
    return None if found is None or silent > 2 * TERM else f"{_holder(key)}, heard of {max(silent, 0):.0f} s ago"


def gone(key: str) -> bool:
    """Whether the holder was a process of this machine that has ended."""
    host, pid, started, _ = key.removeprefix("leases/").rsplit(":", 3)
    return host == _machine() and _started(int(pid)) != started


def _machine() -> str:
    """Name, boot and process namespace: two containers of one name do not take each other for dead."""
    boot = Path("/proc/sys/kernel/random/boot_id")
    try:
        return f"{socket.gethostname()}.{boot.read_text()[:8]}.{Path('/proc/self/ns/pid').readlink().name.strip('pid:[]')}"
    except OSError:
        return socket.gethostname()


def _started(pid: int) -> str:
    """When a process began, in clock ticks since boot: a number that a later process with the same id does not have."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[19]
    except (OSError, IndexError):
        return ""


def _holder(key: str) -> str:
    host, pid, _, _ = key.removeprefix("leases/").rsplit(":", 3)
    return f"process {pid} on {host.split('.')[0]}"
