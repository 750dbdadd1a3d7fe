"""Small versions of what `make soak` runs."""

from __future__ import annotations

import os
import random
from functools import partial
from itertools import islice
from pathlib import Path

import pytest

from tests.soak import clusters, files, kills, long, ranks


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork")
@pytest.mark.parametrize("full", [False, True])
def test_no_file_operation_is_a_bad_moment(tmp_path: Path, full: bool) -> None:
    told = list(kills.killed_in_turn(tmp_path, full=full))
    assert len(told) > 5
    assert [one for one in told if one] == []


@pytest.mark.parametrize("kind", files.KINDS, ids=lambda kind: kind.name.split(",")[0])
def test_some_tries_of_each_kind(tmp_path: Path, kind: files.Kind) -> None:
    told = islice(files.tries(kind, tmp_path, random.Random(7)), 3 if "model" in kind.name else 25)
    assert [one for one in told if one] == []


LONG = {
    "vanished": (long.vanished, 2),
    "clocks": (long.clocks, 20),
    "steps": (partial(long.steps, each=30), 3),
    "rows": (partial(long.rows, number=3000, per_folder=500), 1),
}


@pytest.mark.skipif(not hasattr(os, "link") or os.name != "posix", reason="this system has no hard links as POSIX has")
@pytest.mark.parametrize("name", LONG)
def test_some_tries_of_what_takes_long(tmp_path: Path, name: str) -> None:
    harness, number = LONG[name]
    told = list(islice(harness(tmp_path, random.Random(3)), number))
    assert len(told) == number
    assert [one for one in told if one and not one.startswith(long.FACT)] == []


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc").is_dir(), reason="finds the processes to kill in /proc")
def test_a_rank_that_is_killed_and_one_that_hangs(tmp_path: Path) -> None:
    """The other faults: `python -m tests.soak --only pretraining`."""
    kinds = ("rank 0 killed", "a rank stopped")
    assert list(islice(ranks.faults(tmp_path, random.Random(1), kinds), len(kinds))) == [""] * len(kinds)


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc").is_dir(), reason="finds the processes to kill in /proc")
def test_a_ray_cluster_that_loses_a_machine_and_one_that_loses_its_head(tmp_path: Path) -> None:
    """The other faults: `python -m tests.soak --only Ray`."""
    pytest.importorskip("ray", reason="needs the extra scale")
    kinds = ("a machine killed", "the head killed")
    assert list(islice(clusters.faults(tmp_path, random.Random(1), kinds), len(kinds))) == [""] * len(kinds)
