"""Carrying batches of cells out on a Ray cluster (extra ``scale``): a task per batch, with its CPUs and GPUs.

A worker that sees the driver's directory works in it. One that does not works in its own folder and sends the files back, which
the driver puts in place, each record last. A task whose worker is lost is begun again by Ray, as often as a cell may fail; on a shared
directory it goes on from the last checkpoint.
"""

from __future__ import annotations

import contextlib
import os
import secrets
import shutil
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath
from typing import Any

from vlprompt import artifact, disk
from vlprompt.bench.carry import Batch, Carrier, Outcomes
from vlprompt.bench.cells import Cell, Grid, Outcome
from vlprompt.bench.work import failure, run_cells
from vlprompt.bench.workspace import Desk
from vlprompt.engine.job import Means
from vlprompt.errors import DATA, UserError
from vlprompt.records import RESULT

LOCAL = "local"
INSTALL = "pip install 'vlprompt[scale]'"
PASSED = ("VLPROMPT_DATA", "VLPROMPT_CACHE", "XDG_CACHE_HOME", "HF_HOME", "HF_HUB_OFFLINE", "HF_TOKEN")
"""Variables of the driver that a task gets."""
STORE = 128 << 20
"""Bytes of a local cluster's object store: outcomes and small files are all that passes through it."""
LAST = (artifact.FACTS, RESULT)
"""Files that mean "finished" and are put in place after the others."""
_DESK: dict[Means, Desk] = {}
"""A worker's own: it serves many tasks."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Cluster:
    """Which Ray, and what a task takes of it."""

    address: str
    """``local``: a new one on this machine; ``auto``: the one this machine belongs to; else an address."""
    workers: int = 1
    """Of a local one."""
    cpus: int = 1
    """Of each task: its threads."""
    gpus: float | None = None
    """Of each task; None: one where the device is CUDA or may be and the cluster has some, else none."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Surroundings:
    """What a task has to find as the driver has it."""

    place: str
    """The driver's working directory, from which relative paths count."""
    token: str
    """A file of the grid's directory by which a worker sees that it is shared."""
    variables: Mapping[str, str]


Files = dict[str, bytes]
"""Path relative to the grid's directory -> content."""


@contextlib.contextmanager
def joined(cluster: Cluster) -> Iterator[Carrier]:
    """The carrier of a cluster, as long as the block lasts; a local one ends with it. UserError: the extra is missing, or no
    cluster is there."""
    ray = _ray()
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    if cluster.address != LOCAL:
        _require_somebody(cluster.address)
    quiet = {"logging_level": "ERROR", "log_to_driver": False}
    try:
        if cluster.address == LOCAL:
            size = {"num_cpus": cluster.workers * cluster.cpus, "object_store_memory": STORE}
            ray.init(include_dashboard=False, **size, **quiet)
        else:
            ray.init(address=cluster.address, **quiet)
    except (ConnectionError, RuntimeError, ValueError, OSError) as error:
        reason = (str(error) or type(error).__name__).splitlines()[0].rstrip(".")
        raise UserError(
            f"no Ray cluster at {cluster.address!r}: {reason}. Start one with `ray start --head`, join machines with "
            "`ray start --address=HEAD:6379`, or use --ray local.",
            exit_code=DATA,
        ) from error
    try:
        yield lambda batches, grid: _carried(ray, cluster, batches, grid)
    finally:
        ray.shutdown()


SECONDS_TO_ANSWER, SECONDS_TO_GREET = 5.0, 30.0
"""For any answer, and for one that only Ray gives."""


def _require_somebody(address: str) -> None:
    """UserError where nothing listens at an address, or something else: Ray itself would ask for minutes. ``auto`` is this machine's."""
    place = os.environ.get("RAY_ADDRESS", "") if address == "auto" else address
    if address == "auto" and not place:
        noted = Path(tempfile.gettempdir(), "ray", "ray_current_cluster")
        place = noted.read_text(encoding="utf-8").strip() if noted.is_file() else ""
    host, _, port = place.removeprefix("ray://").rpartition(":")
    try:
        socket.create_connection((host.strip("[]"), int(port)), timeout=SECONDS_TO_ANSWER).close()
        if not place.startswith("ray://"):
            asked = [sys.executable, "-m", "ray.scripts.scripts", "health-check", "--address", place]
            subprocess.run(asked, check=True, capture_output=True, timeout=SECONDS_TO_GREET)
    except subprocess.SubprocessError as error:
        raise UserError(
            f"no Ray cluster at {address!r}: {place} answers, but not as a Ray of this version does. Give the address that `ray start "
            "--head` printed, or use --ray local.",
            exit_code=DATA,
        ) from error
    except (OSError, ValueError, OverflowError) as error:
        raise UserError(
            f"no Ray cluster at {address!r}: nobody answers at {place or 'any known address'} ({error}). Start one with "
            "`ray start --head`, join machines with `ray start --address=HEAD:6379`, or use --ray local.",
            exit_code=DATA,
        ) from error


def _ray() -> Any:
    try:
        import ray
    except ImportError as error:
        raise UserError(f"--ray needs Ray, which is not installed: {INSTALL}.", exit_code=DATA) from error
    return ray


def _carried(ray: Any, cluster: Cluster, batches: Sequence[Batch], grid: Grid) -> Outcomes:
    """All batches as tasks; outcomes as tasks end."""
    gpus = _gpus(cluster, grid.means, ray.cluster_resources())
    grid = replace(grid, means=_means(grid.means, cluster.cpus, gpus))
    task = ray.remote(work_batch).options(
        name="vlprompt", num_cpus=cluster.cpus, num_gpus=gpus, max_retries=grid.attempts
    )
    grid.out.mkdir(parents=True, exist_ok=True)
    token = grid.out / f".ray-{secrets.token_hex(8)}"
    token.touch()
    variables = {name: os.environ[name] for name in PASSED if name in os.environ}
    around = Surroundings(place=os.getcwd(), token=token.name, variables=variables)
    tasks = {task.remote(batch, grid, around, files_of(grid, batch)): batch for batch in batches}
    try:
        while tasks:
            done, _ = ray.wait(list(tasks), num_returns=1)
            for one in done:
                batch = tasks.pop(one)
                try:
                    outcomes, files = ray.get(one)
                except ray.exceptions.RayError as error:
                    yield from (_lost(cell, error) for cell in batch)
                else:
                    keep(files, grid)
                    yield from outcomes
    finally:
        for one in tasks:
            ray.cancel(one)
        token.unlink(missing_ok=True)


def work_batch(batch: Batch, grid: Grid, around: Surroundings, given: Files) -> tuple[list[Outcome], Files]:
    """In a worker: the outcomes of a batch, and the files that the driver has to put in place (none where the directory is
    shared). given: what is there already of the course, for a worker that cannot see it."""
    os.environ.update(around.variables)
    if Path(around.place).is_dir():
        os.chdir(around.place)
    desk = _DESK.get(grid.means)
    if desk is None:
        _DESK.clear()
        desk = _DESK[grid.means] = Desk(grid.means)
    if (grid.out / around.token).is_file():
        return list(run_cells(batch, grid, desk)), {}
    scratch = replace(grid, out=Path(tempfile.mkdtemp(prefix="vlprompt-")))
    try:
        keep(given, scratch)
        outcomes = list(run_cells(batch, scratch, desk))
        return outcomes, {name: data for name, data in files_of(scratch, batch).items() if given.get(name) != data}
    finally:
        shutil.rmtree(scratch.out, ignore_errors=True)


def files_of(grid: Grid, batch: Batch) -> Files:
    """What stands in the directories of a batch's cells and of their courses, hidden files left out."""
    places = {*(grid.learned(cell.course) for cell in batch), *(grid.of(cell) for cell in batch)}
    return {
        path.relative_to(grid.out).as_posix(): path.read_bytes()
        for place in places
        if place.is_dir()
        for path in sorted(place.iterdir())
        if path.is_file() and not path.name.startswith(".")
    }


def keep(files: Files, grid: Grid) -> None:
    """Write files into a grid's directory, those that mean "finished" last. What is finished there already stays as it is."""
    for name in sorted(files, key=lambda name: LAST.index(Path(name).name) + 1 if Path(name).name in LAST else 0):
        if PurePosixPath(name).is_absolute() or ".." in PurePosixPath(name).parts:
            raise UserError(f"a worker sent a file outside of {grid.out}: {name!r}.", exit_code=DATA)
        target = grid.out / name
        if not any((target.parent / last).is_file() for last in LAST):
            disk.write_bytes(target, files[name])


def _lost(cell: Cell, error: Exception) -> Outcome:
    """The outcome of a cell whose task Ray could not finish."""
    return replace(failure(cell, error), reason=f"its Ray task was lost ({type(error).__name__})", again=True)


def _gpus(cluster: Cluster, means: Means, resources: Mapping[str, float]) -> float:
    if cluster.gpus is not None:
        return cluster.gpus
    wanted = means.device.startswith("cuda") or (means.device == "auto" and resources.get("GPU", 0) > 0)
    return 1.0 if wanted else 0.0


def _means(means: Means, cpus: int, gpus: float) -> Means:
    """A task sees no GPU but its own, so a number after ``cuda`` means nothing there."""
    device = "cuda" if gpus and means.device.startswith("cuda") else means.device
    return replace(means, threads=cpus, device=device)
