"""The ledger: nothing that was added is lost, whatever is torn, merged, followed or asked for twice."""

from __future__ import annotations

import hashlib
import multiprocessing
import os
import random
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, invariant, rule

import synthetic.ledger as ledger_module
from stages.prompt import Reply
from synthetic.asking import Rejected
from synthetic.claims import Claims
from synthetic.ledger import Ledger
from synthetic.ledger_index import Run, covered, joined_stretches, redundant
from synthetic.shelf import LedgerError, Shelf

MODEL = "some/model-7b"


def key(n: int) -> str:
    return hashlib.blake2b(str(n).encode(), digest_size=16).hexdigest()


def reply(n: int) -> Reply:
    return Reply(f'answer {n}\nwith "quotes", Füße and \0', "stop", n % 7, n % 5)


@pytest.fixture
def small_tails(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ledger_module, "TAIL", 16)


def files(root: Path, kind: str) -> list[Path]:
    return sorted(root.glob(f"ledger/*/{kind}/*"))


def test_what_was_added_is_found_by_everybody(tmp_path, small_tails):
    writer, follower = Ledger.open(tmp_path, MODEL), Ledger.open(tmp_path, MODEL)
    for n in range(1000):
        writer.add(key(n), reply(n))
    assert follower.find(key(3)) is None
    follower.refresh()
    later = Ledger.open(tmp_path, MODEL)
    for ledger in (writer, follower, later):
        assert [ledger.find(key(n)) for n in range(1000)] == [reply(n) for n in range(1000)]
        assert ledger.find(key(1000)) is None
        assert ledger.spent == (sum(n % 7 for n in range(1000)), sum(n % 5 for n in range(1000)))
    assert len(files(tmp_path, "answers")) == 1
    assert len(files(tmp_path, "index")) < 20, "62 runs of 16 are merged"
    for ledger in (writer, follower, later):
        ledger.close()


def test_index_files_may_be_removed_at_any_time(tmp_path, small_tails):
    writer, follower = Ledger.open(tmp_path, MODEL), Ledger.open(tmp_path, MODEL)
    for n in range(100):
        writer.add(key(n), reply(n))
    follower.refresh()
    for close in (False, True):
        assert files(tmp_path, "index")
        for path in files(tmp_path, "index"):
            path.unlink()
        for ledger in (writer, follower):
            ledger.refresh()
            assert [ledger.find(key(n)) for n in range(100)] == [reply(n) for n in range(100)]
        writer.add(key(100), reply(100))
        for n in range(100, 150):
            writer.add(key(n), reply(n))
        if close:
            writer.close()
    for path in files(tmp_path, "index"):
        path.unlink()
    again = Ledger.open(tmp_path, MODEL)
    assert [again.find(key(n)) for n in range(100)] == [reply(n) for n in range(100)]
    assert files(tmp_path, "index"), "made again by whoever opens first"
    again.close()


@given(st.integers(0, 10**6), st.integers(1, 30))
@settings(max_examples=30)
def test_a_torn_last_line_costs_that_line_only(tmp_path_factory, cut, n):
    root = tmp_path_factory.mktemp("torn")
    writer = Ledger.open(root, MODEL)
    for i in range(n):
        writer.add(key(i), reply(i))
    (path,) = files(root, "answers")
    data = path.read_bytes()
    size = cut % len(data)
    os.truncate(path, size)
    whole = data[:size].count(b"\n")
    os.close(writer._own.file)  # as if it had died: the kernel drops its lock
    again = Ledger.open(root, MODEL)
    assert [again.find(key(i)) for i in range(n)] == [reply(i) if i < whole else None for i in range(n)]
    again.add(key(n - 1), reply(n - 1))
    assert again.find(key(n - 1)) == reply(n - 1)
    again.close()
    assert Ledger.open(root, MODEL).find(key(n - 1)) == reply(n - 1)


def test_a_damaged_line_is_counted_and_passed_over(tmp_path):
    writer = Ledger.open(tmp_path, MODEL)
    for n in range(5):
        writer.add(key(n), reply(n))
    os.close(writer._own.file)
    (path,) = files(tmp_path, "answers")
    lines = path.read_bytes().splitlines(keepends=True)
    path.write_bytes(lines[0] + b"\0" * (len(lines[1]) - 1) + b"\n" + b'{"key": "zz", "text": 1}\n' + b"".join(lines[2:]))
    (path.parents[1] / "lock").touch()
    with (path.parents[1] / "lock").open("a") as held:  # nobody may index it meanwhile
        import fcntl

        fcntl.flock(held, fcntl.LOCK_EX)
        again = Ledger.open(tmp_path, MODEL)
    assert again.damaged == 2
    assert [again.find(key(n)) is not None for n in range(5)] == [True, False, True, True, True]


def test_the_smallest_of_two_answers_wins_in_any_order(tmp_path):
    answers = [Reply(t, "stop", 1, 1) for t in ("b", "a", "c")]
    for n, order in enumerate([(0, 1, 2), (2, 1, 0), (1, 0, 2)]):
        writers = [Ledger.open(tmp_path / str(n), MODEL) for _ in range(3)]
        for writer, which in zip(writers, order, strict=True):
            writer.add(key(1), answers[which])
        writers[0].refresh()
        assert writers[0].find(key(1)).text == "a"
        for writer in writers:
            writer.close()
        assert Ledger.open(tmp_path / str(n), MODEL).find(key(1)).text == "a"


def test_an_answer_wins_over_a_rejection(tmp_path):
    ledger = Ledger.open(tmp_path, MODEL)
    ledger.add(key(1), Rejected("too long"))
    assert str(ledger.find(key(1))) == "too long"
    ledger.add(key(1), Reply("zzz"))
    assert ledger.find(key(1)) == Reply("zzz")


def test_a_ledger_of_another_model_is_refused(tmp_path):
    ledger = Ledger.open(tmp_path, MODEL, "r1")
    ledger.add(key(1), reply(1))
    ledger.close()
    assert Ledger.open(tmp_path, MODEL, "r2").find(key(1)) is None
    there, here = Shelf.of(tmp_path, MODEL, "r1").path, Shelf.of(tmp_path, "other", "").path
    there.rename(here)
    with pytest.raises(LedgerError, match=r"ledger of 'some/model-7b' at revision 'r1', not of 'other'.*another store"):
        Ledger.open(tmp_path, "other")
    (here / "model.json").write_text("{")
    with pytest.raises(LedgerError, match="not the head of a ledger"):
        Ledger.open(tmp_path, "other")


def test_a_store_that_is_no_folder_is_refused():
    with pytest.raises(LedgerError, match=r"s3://bucket/store: a ledger needs a store on a disk.*--store FOLDER"):
        Ledger.open("s3://bucket/store", MODEL)


def test_a_full_disk_leaves_no_half_line(tmp_path, monkeypatch):
    ledger = Ledger.open(tmp_path, MODEL)
    ledger.add(key(1), reply(1))
    real = os.write

    def half(file: int, data: bytes) -> int:
        return real(file, data[: len(data) // 2])

    monkeypatch.setattr(os, "write", half)
    with pytest.raises(OSError, match="no space left"):
        ledger.add(key(2), reply(2))
    monkeypatch.setattr(os, "write", real)
    ledger.add(key(3), reply(3))
    ledger.close()
    again = Ledger.open(tmp_path, MODEL)
    assert [again.find(key(n)) for n in (1, 2, 3)] == [reply(1), None, reply(3)]
    assert again.damaged == 0


def test_a_merge_that_was_killed_before_its_end_counts_nothing_twice(tmp_path, small_tails):
    writer = Ledger.open(tmp_path, MODEL)
    for n in range(16 * 7):
        writer.add(key(n), reply(n))
    before = {path: path.read_bytes() for path in files(tmp_path, "index")}
    spent = writer.spent
    for n in range(16 * 7, 16 * 8):
        writer.add(key(n), reply(n))
    writer.close()
    for path, data in before.items():  # as if they had not been removed yet
        path.write_bytes(data)
    again = Ledger.open(tmp_path, MODEL)
    assert again.spent[0] == sum(n % 7 for n in range(128)) > spent[0]
    assert again.find(key(5)) == reply(5)
    again.close()


def test_stretches_and_redundancy(tmp_path):
    assert joined_stretches([("a", 5, 9), ("a", 0, 5), ("b", 3, 4), ("a", 8, 12)]) == [("a", 0, 12), ("b", 3, 4)]

    class Fake(Run):
        def __init__(self, name, count, *stretches):
            self.path, self.count, self.stretches = Path(name), count, list(stretches)

    runs = [
        Fake("x", 1, ("a", 0, 5)),
        Fake("y", 3, ("a", 0, 9), ("b", 0, 2)),
        Fake("z", 1, ("b", 1, 3)),
        Fake("w", 3, ("a", 0, 9), ("b", 0, 2)),
    ]
    assert {run.path.name for run in redundant(runs)} == {"x", "y"}
    assert covered(runs) == {"a": 9, "b": 3}


def _write(root: str, start: int, stop: int) -> None:
    ledger = Ledger.open(root, MODEL)
    for n in range(start, stop):
        ledger.add(key(n), reply(n))
    os._exit(0)


def test_many_writers_that_die_without_a_word(tmp_path, small_tails):
    context = multiprocessing.get_context("fork")
    workers = [context.Process(target=_write, args=(str(tmp_path), i * 50, i * 50 + 70)) for i in range(6)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    ledger = Ledger.open(tmp_path, MODEL)
    assert [ledger.find(key(n)) for n in range(320)] == [reply(n) for n in range(320)]
    assert len(files(tmp_path, "answers")) == 6
    assert sum(Run(path).count for path in files(tmp_path, "index")) == 6 * 70
    ledger.close()


def test_claims_exclude_and_die_with_their_holder(tmp_path):
    mine, other = Claims(tmp_path / "claims"), Claims(tmp_path / "claims")
    assert mine.take(key(1))
    assert not other.take(key(1))
    assert other.take(key(2))
    mine.release(key(1))
    assert other.take(key(1))
    other.close()
    assert mine.take(key(1))
    assert mine.take(key(2))
    mine.close()


class Ledgers(RuleBasedStateMachine):
    """Several processes' ledgers on one shelf against a dictionary: open, add, follow, die, lose the index."""

    names = Bundle("names")

    def __init__(self) -> None:
        super().__init__()
        import tempfile

        self.root = Path(tempfile.mkdtemp())
        self.truth: dict[str, Reply] = {}
        self.open: list[Ledger] = []
        self.tail, ledger_module.TAIL = ledger_module.TAIL, 4
        self.random = random.Random(0)

    @rule()
    def begin(self) -> None:
        if len(self.open) < 4:
            self.open.append(Ledger.open(self.root, MODEL))

    @rule(who=st.integers(0, 3), n=st.integers(0, 60), times=st.integers(1, 9))
    def add(self, who: int, n: int, times: int) -> None:
        if self.open:
            for i in range(n, n + times):
                ledger = self.open[who % len(self.open)]
                ledger.add(key(i), reply(i))
                self.truth[key(i)] = reply(i)
                assert ledger.find(key(i)) == reply(i)

    @rule(who=st.integers(0, 3), cleanly=st.booleans())
    def end(self, who: int, cleanly: bool) -> None:
        if self.open:
            ledger = self.open.pop(who % len(self.open))
            if cleanly:
                ledger.close()
            elif ledger._own is not None:
                os.close(ledger._own.file)

    @rule()
    def lose_the_index(self) -> None:
        for path in self.root.glob("ledger/*/index/*.idx"):
            path.unlink()

    @invariant()
    def all_find_all(self) -> None:
        for ledger in self.open:
            ledger.refresh()
            assert {k: ledger.find(k) for k in self.truth} == self.truth
            assert ledger.find(key(1000)) is None

    def teardown(self) -> None:
        import shutil

        ledger_module.TAIL = self.tail
        for ledger in self.open:
            ledger.close()
        shutil.rmtree(self.root)


TestLedgers = Ledgers.TestCase
TestLedgers.settings = settings(max_examples=25, stateful_step_count=20, deadline=None)
