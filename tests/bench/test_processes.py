"""Several processes: workers that die, two grids in one directory of which one is killed, Ctrl-C."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import pytest

from tests.bench.made import grid_of, plan_of, request
from vlprompt import artifact, cli, records
from vlprompt.bench import Cell, Grid, Means, Outcome, carrier, carry, work_off
from vlprompt.bench.cells import PROMPTS
from vlprompt.bench.work import ATTEMPTS

PATIENCE = 90.0
"""Seconds until a test that waits gives up; nothing is asserted on them."""


def test_two_processes_give_the_records_of_one_and_encode_no_image_twice(
    clip_dir: Path, sets: Path, tmp_path: Path
) -> None:
    found = []
    for jobs in (1, 2):
        cache = tmp_path / f"cache{jobs}"
        grid = Grid(out=tmp_path / f"jobs{jobs}", means=Means(device="cpu", cache=cache))
        plan = plan_of(request(clip_dir, sets, "base-to-novel", methods=("zero-shot", "coop"), seeds=(1, 2)), grid)
        outcomes = work_off(plan.cells, grid, carrier(jobs))
        assert {one.state for one in outcomes.values()} == {"done"}, outcomes
        found.append([records.read(grid.of(cell)) for cell in plan.cells])
        assert encoded_once(cache)
    for one, two in zip(*found, strict=True):
        for name in (
            "method",
            "dataset",
            "subset",
            "seed",
            "split_hash",
            "config_hash",
            "top1",
            "val_top1",
            "per_class",
        ):
            assert getattr(one, name) == getattr(two, name), name
        assert one.ece == pytest.approx(two.ece, abs=1e-3)  # batches of another make-up: other last bits


def encoded_once(cache: Path) -> bool:
    """Whether no image has its features in two blocks of a space."""
    for space in (cache / "features").iterdir():
        blocks = [path for path in space.glob("*.json") if path.name != "space.json"]
        hashes = [one for path in blocks for one in json.loads(path.read_text(encoding="utf-8"))["hashes"]]
        assert hashes
        if len(hashes) > len(set(hashes)):
            return False
    return True


def dies_once(cells: Sequence[Cell], grid: Grid, *_: object):  # type: ignore[no-untyped-def]
    """What a worker does: the first one that comes here ends as if the system had killed it."""
    mark = grid.out / "died"
    if not mark.exists():
        mark.parent.mkdir(parents=True, exist_ok=True)
        mark.touch()
        os.kill(os.getpid(), signal.SIGKILL)
    for cell in cells:
        yield Outcome(place=cell.place, state="done", seconds=float(os.getpid()))


def serve_dying(pipe, grid: Grid) -> None:  # type: ignore[no-untyped-def]
    carry.run_cells = dies_once
    carry._serve(pipe, grid)


def test_a_worker_that_is_killed_takes_one_cell_with_it_and_is_replaced(
    clip_dir: Path, sets: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Context:
        """Starts processes whose work is `dies_once`."""

        def __init__(self) -> None:
            self.real = carry.multiprocessing.get_context("spawn")
            self.Pipe = self.real.Pipe

        def Process(self, target, args, daemon):  # type: ignore[no-untyped-def]
            return self.real.Process(target=serve_dying, args=args, daemon=daemon)

    context = Context()
    monkeypatch.setattr(carry.multiprocessing, "get_context", lambda _: context)
    grid = grid_of(tmp_path / "out", sets)
    plan = plan_of(request(clip_dir, sets, "base-to-novel", seeds=(1, 2)), grid)
    batches = [plan.cells[:2], plan.cells[2:]]
    outcomes = list(carry.in_processes(batches, grid, jobs=2))
    bad = [one for one in outcomes if one.state == "failed"]
    assert [one.reason for one in bad] == ["its process was ended by signal SIGKILL"]
    assert bad[0].again
    assert {one.place for one in outcomes} == {cell.place for cell in plan.cells}
    assert len(outcomes) == 4


def command(clip_dir: Path, sets: Path, out: Path, *more: str) -> list[str]:
    """A grid of three prompts, each of which takes about a second."""
    return [
        *(sys.executable, "-m", "vlprompt", "bench", "base-to-novel", "--data", str(sets / "shades")),
        *("--model", str(clip_dir), "--methods", "coop", "--shots", "4", "--seeds", "1-3", "--views", "1"),
        *("--set", "epochs=30", "--set", "n_ctx=4", "--set", "batch=2", "--device", "cpu"),
        *("--cache", str(sets / "cache"), "--out", str(out), *more),
    ]


def start(arguments: list[str]) -> subprocess.Popen[str]:
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    pipe = subprocess.PIPE
    return subprocess.Popen(
        arguments,
        stderr=pipe,
        stdout=pipe,
        text=True,
        env=environment,
        start_new_session=True,
        preexec_fn=heed_interrupts,
    )


def heed_interrupts() -> None:
    """A process that a shell starts in the background ignores Ctrl-C, and so do its children."""
    signal.signal(signal.SIGINT, signal.default_int_handler)


def wait_for(process: subprocess.Popen[str], out: Path, pattern: str) -> None:
    """Until the process has left a file of this name."""
    until = time.monotonic() + PATIENCE
    while not any(out.rglob(pattern)) and process.poll() is None and time.monotonic() < until:
        time.sleep(0.02)
    assert any(out.rglob(pattern)), process.communicate(timeout=PATIENCE)


def test_of_two_processes_in_one_directory_one_may_be_killed(clip_dir: Path, sets: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    first = start(command(clip_dir, sets, out))
    wait_for(first, out, "checkpoint.safetensors")
    second = start(command(clip_dir, sets, out))
    wait_for(second, out / PROMPTS / "shades/base/coop/shots4/seed2", "checkpoint.safetensors")
    first.kill()
    first.communicate(timeout=PATIENCE)
    _, said = second.communicate(timeout=PATIENCE)
    assert second.returncode == 0, said
    found = dict(records.find(out))
    assert len(found) == 6
    assert {record.seed for record in found.values()} == {1, 2, 3}
    assert not list(out.rglob(ATTEMPTS))
    for place in out.glob(f"{PROMPTS}/shades/base/coop/shots4/seed*"):
        assert len((place / "metrics.jsonl").read_text(encoding="utf-8").splitlines()) == 30
    whole = tmp_path / "whole"
    assert cli.run(command(clip_dir, sets, whole)[3:]) == 0
    for path in whole.rglob(artifact.TENSORS):
        assert path.read_bytes() == (out / path.relative_to(whole)).read_bytes()


@pytest.mark.parametrize("jobs", ["1", pytest.param("2", marks=pytest.mark.slow)])
def test_ctrl_c_is_clean_and_the_next_call_ends_the_work(clip_dir: Path, sets: Path, tmp_path: Path, jobs: str) -> None:
    out = tmp_path / "out"
    process = start(command(clip_dir, sets, out, "--jobs", jobs))
    wait_for(process, out, "checkpoint.safetensors")
    os.killpg(process.pid, signal.SIGINT)  # to every process of the group, as a terminal does
    _, said = process.communicate(timeout=PATIENCE)
    assert process.returncode == 130, said
    assert "Traceback" not in said
    assert "What was done is kept. Go on with" in said
    assert not list(out.rglob(ATTEMPTS))
    assert len(list(records.find(out))) < 6
    assert cli.run(command(clip_dir, sets, out)[3:]) == 0
    assert len(list(records.find(out))) == 6
