"""The same promises on a disk and in an object store; in the latter also while it misbehaves."""

from __future__ import annotations

import hashlib
import threading

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from manifests import lease
from manifests.manifest import Receipt
from manifests.place import StoreError, place_of, read_parquet
from manifests.shard import PartDraft
from manifests.store import Journal, Store

pytestmark = pytest.mark.far
ALL = ["503", "429", "half", "lost"]


@pytest.fixture(params=["disk", "s3"])
def root(request, tmp_path):
    return str(tmp_path / "store") if request.param == "disk" else request.getfixturevalue("s3").root()


@pytest.fixture(autouse=True)
def short(monkeypatch):
    monkeypatch.setattr(lease, "TERM", 1.0)


def test_a_key_is_written_read_listed_and_removed(root):
    place = place_of(root)
    for key in ("a/b/c", "a/b/d", "a/e"):
        place.put(key, key.encode())
    place.put("a/e", b"again")
    assert place.read("a/e") == b"again"
    assert place.names("a") == ["b", "e"]
    assert place.sizes("a") == {"a/b/c": 5, "a/b/d": 5, "a/e": 5}
    assert place.range("a/b/c", 2, 4) == b"b/"
    with place.open("a/b/d") as file:
        file.seek(-1, 2)
        assert file.read(5) == b"d"
    place.remove("a/b")
    assert not place.exists("a/b/c")
    with pytest.raises(FileNotFoundError):
        place.read("a/b/c")
    assert place.names("nothing") == []
    place.remove("nothing")


def test_of_many_writers_one_wins(root):
    place = place_of(root)
    won: list[int] = []
    threads = [
        threading.Thread(target=lambda i=i: won.append(i) if place.create("m/x.json", b"%d" % i) else None) for i in range(8)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(won) == 1
    assert place.read("m/x.json") == b"%d" % won[0]
    assert place.create("m/x.json", b"%d" % won[0]), "who wrote the same bytes is told that they stand"


def test_a_part_appears_whole_or_not_at_all(root):
    store = Store.open(root)
    target = store.object("a-1")
    big = bytes(range(256)) * 4096 * 20  # above the size of one piece of an upload
    with PartDraft(target.url, "u") as draft:
        draft.open(".bin").write(big)  # and left without a commit
    assert store.place.names("objects/a-1/parts") == []
    with PartDraft(target.url, "u") as draft:
        draft.open(".bin").write(big)
        sealed = draft.commit()
    assert sealed[".bin"] == (len(big), hashlib.sha256(big).hexdigest())
    assert store.place.read("objects/a-1/parts/u.bin") == big
    assert list(store.place.drafts("objects/a-1").glob("*")) == []


def test_columns_of_a_table_are_read_without_the_others(root, request):
    place = place_of(root)
    table = pa.table({"n": range(20000), "text": [f"{i:0100d}" for i in range(20000)]})
    sink = pa.BufferOutputStream()
    pq.write_table(table, sink, row_group_size=4000, compression="none", use_dictionary=False)
    place.put("t.parquet", sink.getvalue().to_pybytes())
    assert read_parquet(place.url("t.parquet"), ["n"]).equals(table.select(["n"]))
    if not place.local:
        s3 = request.getfixturevalue("s3")
        before = s3.counts()["GET"]
        read_parquet(place.url("t.parquet"), ["n"])
        assert s3.counts()["GET"] - before <= 6, "a footer and a range for each group of rows"


def receipts(store, count, start=0):
    return [Receipt(f"u{i}", f"unit {i}", i, {".parquet": (1, "d")}) for i in range(start, start + count)]


def test_a_journal_goes_on_where_it_ended(root, monkeypatch):
    monkeypatch.setattr("manifests.bucket.SEGMENT", 2000)
    store = Store.open(root)
    target = store.object("a-1")
    for start in (0, 15, 30):
        journal = Journal(target)
        for receipt in receipts(store, 15, start):
            journal.append(receipt)
            if store.place.local:
                store.place.put(f"objects/a-1/parts/{receipt.unit}.parquet", b"x")
        journal.close()
    assert list(target.receipts()) == [f"u{i}" for i in range(45)]


def test_two_runs_never_write_the_same_object(root):
    target = Store.open(root).object("a-1")
    journal = Journal(target)
    with pytest.raises(StoreError, match="writing here"):
        Journal(target)
    journal.close()
    Journal(target).close()


def test_an_answer_that_contradicts_another_is_refused(root):
    store = Store.open(root)
    target = store.object("a-1")
    target.answer("u", receipts(store, 2), {})
    target.answer("u", receipts(store, 2), {"seconds": 3})
    with pytest.raises(StoreError, match="different answers"):
        target.answer("u", receipts(store, 2, start=5), {})


# from here on only in an object store


class Stranger:
    """A run on another machine: its lease is renewed until it dies."""

    def __init__(self, place, key):
        self.place, self.lease = place, "leases/elsewhere:77:1:abcd"
        place.put(self.lease, b"0")
        place.put(key, self.lease.encode())
        self.over = threading.Event()
        self.thread = threading.Thread(target=self.live)
        self.thread.start()

    def live(self):
        count = 0
        while not self.over.wait(0.1):
            count += 1
            self.place.put(self.lease, str(count).encode())

    def die(self):
        self.over.set()
        self.thread.join()


def test_a_lease_that_is_renewed_holds_and_a_silent_one_is_taken_over(s3, monkeypatch):
    monkeypatch.setattr(lease, "TERM", 60.0)  # a renewal is seen long before, however busy the machine is
    store = Store.open(s3.root())
    target = store.object("a-1")
    stranger = Stranger(store.place, "objects/a-1/lock")
    try:
        with pytest.raises(StoreError, match="process 77 on elsewhere"):
            Journal(target)
        assert "process 77 on elsewhere" in store.place.holder("objects/a-1/lock")
    finally:
        stranger.die()
    monkeypatch.setattr(lease, "TERM", 1.0)
    Journal(target).close()
    assert store.place.names("leases") == [], "nothing is left of either"


def test_a_driver_that_comes_back_from_the_dead_is_refused(s3):
    store = Store.open(s3.root())
    target = store.object("a-1")
    first = Journal(target)
    first.append(receipts(store, 1)[0])
    first.flush()
    stranger = Stranger(store.place, "objects/a-1/lock")  # has taken over and goes on with the journal
    stranger.die()
    log = store.place.log("objects/a-1/journal")
    log.append(receipts(store, 1, start=1)[0].to_json() + b"\n")
    log.close()
    first.append(receipts(store, 1, start=2)[0])
    with pytest.raises(StoreError, match="taken this object over"):
        first.flush()
    assert list(target.receipts()) == ["u0", "u1"]


@pytest.mark.parametrize("seed", range(3))
def test_every_promise_holds_while_the_store_misbehaves(s3, monkeypatch, seed):
    monkeypatch.setattr("manifests.bucket.PAUSE", 0.01)
    store = Store.open(s3.root())
    s3.faults(rate=0.3, seed=seed, kinds=ALL)
    target = store.object("a-1")
    journal = Journal(target)
    for receipt in receipts(store, 10):
        with PartDraft(target.url, receipt.unit) as draft:
            draft.open(".parquet").write(b"part" * 1000)
            draft.commit()
        journal.append(receipt)
        journal.flush()
    target.answer("u", receipts(store, 10), {})
    journal.close()
    s3.faults()
    assert store.place.names("objects/a-1/parts") == sorted(f"u{i}.parquet" for i in range(10))
    assert list(target.receipts()) == [f"u{i}" for i in range(10)]
    assert target.manifest("u").rows == 45


def test_a_half_finished_multipart_upload_is_made_again_or_aborted(s3, monkeypatch):
    monkeypatch.setattr("manifests.bucket.PAUSE", 0.01)
    big = bytes(1 << 20) * 40
    s3.faults(rate=0.25, seed=4, kinds=ALL)
    target = Store.open(s3.root()).object("a-1")
    with PartDraft(target.url, "u") as draft:
        draft.open(".bin").write(big)
        draft.commit()
    s3.faults()
    assert target.place.read("objects/a-1/parts/u.bin") == big


def test_a_store_that_stays_down_is_one_clear_line(s3, monkeypatch):
    monkeypatch.setattr("manifests.bucket.PAUSE", 0.001)
    s3.faults(down=30)
    with pytest.raises(OSError, match=r"format\.json: .*503") as caught:
        Store.open(s3.root())
    assert "\n" not in str(caught.value)


def test_keys_of_the_user_come_from_the_shared_files(s3, monkeypatch, tmp_path):
    (tmp_path / "config").write_text(f"[profile far]\nregion = us-east-1\nendpoint_url = {s3.endpoint}\n")
    (tmp_path / "credentials").write_text("[far]\naws_access_key_id = a\naws_secret_access_key = b\n")
    for name in ("AWS_ENDPOINT_URL", "AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_REGION"):
        monkeypatch.delenv(name)
    monkeypatch.setenv("AWS_PROFILE", "far")
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "config"))
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "credentials"))
    place = place_of(s3.root())
    place.put("x", b"1")
    assert place.read("x") == b"1"
