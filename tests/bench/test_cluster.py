"""Cells as Ray tasks: a cluster of two workers on this machine, one of them killed in mid-cell, and workers that share no disk."""

from __future__ import annotations

import os
import signal
import socket
import sys
import threading
import time
from dataclasses import asdict, replace
from pathlib import Path

import pytest

from tests.bench.made import grid_of, plan_of, request
from vlprompt import records
from vlprompt.bench import Grid, Means, Plan, cluster, driver, pulse, work_off
from vlprompt.bench.carry import carrier
from vlprompt.bench.cells import batches
from vlprompt.bench.cluster import Cluster, Surroundings, files_of, keep, work_batch
from vlprompt.engine.checkpoint import CHECKPOINT
from vlprompt.errors import UserError

TIMES = ("seconds", "seconds_features", "peak_mib")
PATIENCE = 120.0
"""Seconds until the one that kills gives up."""


def facts(plan: Plan, grid: Grid) -> list[dict[str, object]]:
    """All of the plan's records, but for times and memory."""
    found = [asdict(records.read(grid.of(cell))) for cell in plan.cells]
    return [{name: value for name, value in one.items() if name not in TIMES} for one in found]


def workers_of(parent: int) -> list[int]:
    """Processes below this one that Ray has given a task to."""
    parents, titles = {}, {}
    for place in Path("/proc").iterdir():
        if place.name.isdecimal():
            try:
                titles[int(place.name)] = (place / "cmdline").read_bytes()
                parents[int(place.name)] = int(
                    (place / "stat").read_text(encoding="utf-8").rpartition(")")[2].split()[1]
                )
            except (OSError, ValueError, IndexError):
                continue
    found = []
    for number, title in titles.items():
        above = number
        while above in parents and above != parent:
            above = parents[above]
        if above == parent and title.startswith(b"ray::vlprompt"):
            found.append(number)
    return found


def kill_one(out: Path, killed: list[int]) -> None:
    """Kill a worker as soon as some prompt has a checkpoint, so that it dies in mid-cell."""
    end = time.monotonic() + PATIENCE
    while time.monotonic() < end:
        if out.is_dir() and any(out.rglob(CHECKPOINT)) and (found := workers_of(os.getpid())):
            os.kill(found[0], signal.SIGKILL)
            killed.append(found[0])
            return
        time.sleep(0.01)


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc").is_dir(), reason="finds the worker to kill in /proc")
def test_a_killed_worker_and_the_records_of_the_local_run(clip_dir: Path, sets: Path, tmp_path: Path) -> None:
    pytest.importorskip("ray", reason="needs the extra scale")
    long = {"epochs": "150", "n_ctx": "3", "batch": "4", "lr": "0.01"}
    asked = request(clip_dir, sets, "few-shot", methods=("zero-shot", "coop"), seeds=(1, 2, 3), overrides=long)
    here = grid_of(tmp_path / "here", sets)
    plan = plan_of(asked, here)
    work_off(plan.cells, here, carrier(1))
    there = grid_of(tmp_path / "there", sets)
    killed: list[int] = []
    killer = threading.Thread(target=kill_one, args=(there.out, killed))
    with driver.joined(Cluster(address="local", workers=2)) as carry:
        killer.start()
        outcomes = work_off(plan.cells, there, carry)
        killer.join()
    assert killed
    assert {one.state for one in outcomes.values()} == {"done"}, outcomes
    assert len(outcomes) == 4
    assert facts(plan, there) == facts(plan, here)
    assert not list(there.out.glob(".ray-*"))
    for cell in plan.cells:
        one, two = (grid.learned(cell.course) / "prompt.safetensors" for grid in (here, there))
        assert one.is_file() == two.is_file() == (cell.course.method == "coop")
        if one.is_file():
            assert one.read_bytes() == two.read_bytes()


def test_a_worker_without_the_drivers_disk_sends_its_files(
    clip_dir: Path, sets: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    here, there = grid_of(tmp_path / "here", sets), grid_of(tmp_path / "there", sets)
    plan = plan_of(request(clip_dir, sets, "base-to-novel"), here)
    work_off(plan.cells, here, carrier(1))
    (batch,) = batches(plan.cells)
    around = Surroundings(place="/nowhere", token="no-such-file", variables={"VLPROMPT_TEST": "1"})
    elsewhere = replace(there, out=tmp_path / "another/machine")
    outcomes, files = work_batch(batch, elsewhere, around, {})
    assert [one.state for one in outcomes] == ["done", "done"]
    assert os.environ.pop("VLPROMPT_TEST") == "1"
    assert not elsewhere.out.exists()
    keep(files, there)
    assert facts(plan, there) == facts(plan, here)
    again, none = work_batch(batch, elsewhere, around, files_of(there, batch))
    assert [one.top1 for one in again] == [one.top1 for one in outcomes]
    assert none == {}


def test_a_shared_directory_is_worked_in(clip_dir: Path, sets: Path, tmp_path: Path) -> None:
    grid = grid_of(tmp_path / "grid", sets)
    plan = plan_of(request(clip_dir, sets), grid)
    grid.out.mkdir()
    (grid.out / ".ray-1").touch()
    around = Surroundings(place=str(tmp_path), token=".ray-1", variables={})
    before = Path.cwd()
    try:
        outcomes, files = work_batch(batches(plan.cells)[0], grid, around, {})
    finally:
        os.chdir(before)
    assert files == {}
    assert [one.state for one in outcomes] == ["done"]
    assert all(grid.finished(cell) for cell in plan.cells)


def test_what_is_finished_is_not_written_over(clip_dir: Path, sets: Path, tmp_path: Path) -> None:
    grid = grid_of(tmp_path / "grid", sets)
    plan = plan_of(request(clip_dir, sets), grid)
    work_off(plan.cells, grid, carrier(1))
    name = f"{plan.cells[0].place}/{records.RESULT}"
    before = (grid.out / name).read_bytes()
    keep({name: b"other"}, grid)
    assert (grid.out / name).read_bytes() == before


@pytest.mark.parametrize(
    ("device", "there", "asked", "gpus", "seen"),
    [
        ("auto", 0, None, 0.0, "auto"),
        ("auto", 2, None, 1.0, "auto"),
        ("cpu", 2, None, 0.0, "cpu"),
        ("cuda:1", 2, None, 1.0, "cuda"),
        ("cuda", 2, 0.5, 0.5, "cuda"),
    ],
)
def test_what_a_task_takes(device: str, there: int, asked: float | None, gpus: float, seen: str) -> None:
    means = Means(device=device)
    taken = cluster._gpus(Cluster(address="auto", gpus=asked), means, {"GPU": there})
    assert taken == gpus
    made = cluster._means(means, 3, taken)
    assert (made.device, made.threads) == (seen, 3)


def test_without_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(UserError, match=r"vlprompt\[scale\]"), driver.joined(Cluster(address="local")):
        pass


def test_an_address_where_another_program_listens_ends_soon(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pulse, "SECONDS_TO_GREET", 1.0)
    with socket.create_server(("127.0.0.1", 0)) as other:
        place = f"127.0.0.1:{other.getsockname()[1]}"
        with pytest.raises(UserError, match="it takes calls, and says nothing"), driver.joined(Cluster(address=place)):
            pass
    with pytest.raises(UserError, match="nobody answers"), driver.joined(Cluster(address=place)):
        pass
