"""A few of the runs of benchmarks/chaos.py, and the mutant that they must find; all thirty are `python benchmarks/chaos.py`."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parents[2] / "benchmarks"))

from chaos import Bench, at_point, at_random, reach, undisturbed

pytestmark = [pytest.mark.far, pytest.mark.slow]


@pytest.fixture(scope="module")
def bench(server, tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        for name in ("AWS_ENDPOINT_URL", "AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_REGION", "PYTHONPATH",
                     "GRISTMILL_LEASE_SECONDS", "GRISTMILL_STORE_TIMEOUT"):  # fmt: skip
            patch.setenv(name, "1")  # `reach` sets them all; what was there comes back afterwards
        reach(server.endpoint)
        made = Bench(tmp_path_factory.mktemp("chaos"), server.endpoint)
        made.lay()
        made.took = undisturbed(made)
        yield made


@pytest.mark.parametrize(
    ("point", "n"), [("half_upload", 2), ("after_journal", 5), ("before_manifest_head", 1), ("before_drop_spill", 1)]
)
def test_a_driver_that_dies_at_a_commit_point_loses_and_doubles_nothing(bench, point, n):
    row = at_point(bench, point, n)
    assert (row.lost, row.doubled, row.fault) == (0, 0, ""), row


@pytest.mark.parametrize(("seed", "kind"), [(1, "local driver"), (2, "local worker"), (3, "local outage")])
def test_whatever_dies_at_a_random_moment_nothing_is_lost(bench, seed, kind):
    row = at_random(bench, seed, bench.took, kind)
    assert (row.lost, row.doubled, row.fault) == (0, 0, ""), row


def test_a_receipt_before_its_files_would_be_found(bench):
    row = at_point(bench, "after_journal", 5, "reversed")
    assert row.lost
    assert "never ended" in row.fault
