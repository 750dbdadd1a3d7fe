"""Carrying batches of cells out on a Ray cluster (extra ``scale``): a task per batch, with its CPUs and GPUs.

A worker that sees the driver's directory works in it. One that does not works in its own folder and sends the files back, which
the driver puts in place, each record last. A task whose worker is lost is begun again by Ray, as often as a cell may fail; on a shared
directory it goes on from the last checkpoint.
"""

from __future__ import annotations

import atexit
import contextlib
import os
import secrets
import shutil
import tempfile
import threading
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from importlib.util import find_spec
from pathlib import Path, PurePosixPath
from queue import Empty, SimpleQueue
from typing import Any

from vlprompt import artifact, disk
from vlprompt.bench.carry import Carrier, CellBatch, Outcomes
from vlprompt.bench.cells import Cell, Grid, Outcome
from vlprompt.bench.pulse import ASKING, Gone, Pulse, require_somebody, within
from vlprompt.bench.work import failure, run_cells
from vlprompt.bench.workspace import Desk
from vlprompt.engine.config import Means
from vlprompt.errors import DATA, UserError, reason_of
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


SECONDS_TO_JOIN, SECONDS_TO_LEAVE = 20.0, 10.0
"""What joining a cluster that answers, and leaving one, may take."""
SECONDS_BETWEEN_LOOKS = 1.0


@contextlib.contextmanager
def joined(cluster: Cluster) -> Iterator[Carrier]:
    """The carrier of a cluster, as long as the block lasts; a local one ends with it. UserError: the extra is missing, no cluster
    is there, or it was lost."""
    ray = _ray()
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    if cluster.address.startswith("ray://") and find_spec("grpc") is None:
        raise UserError("an address with ray:// needs Ray's client: pip install 'ray[client]'.", exit_code=DATA)
    if cluster.address != LOCAL:
        require_somebody(cluster.address)
    quiet = {"logging_level": "ERROR", "log_to_driver": False}
    try:
        if cluster.address == LOCAL:
            size = {"num_cpus": cluster.workers * cluster.cpus, "object_store_memory": STORE}
            ray.init(include_dashboard=False, **size, **quiet)
        else:
            within(SECONDS_TO_JOIN, lambda: ray.init(address=cluster.address, **quiet))
    except (ConnectionError, RuntimeError, ValueError, OSError) as error:
        raise UserError(
            f"no Ray cluster at {cluster.address!r}: {reason_of(error)}. Start one with `ray start --head`, join machines with "
            "`ray start --address=HEAD:6379`, or use --ray local.",
            exit_code=DATA,
        ) from error
    try:
        yield lambda batches, grid: _carried(ray, cluster, batches, grid)
    finally:
        try:
            within(SECONDS_TO_LEAVE, ray.shutdown)
        except TimeoutError:
            atexit.unregister(ray.shutdown)  # it would wait again


def _ray() -> Any:
    # Else a late question to a cluster that was left starts another one.
    os.environ.setdefault("RAY_ENABLE_AUTO_CONNECT", "0")
    try:
        import ray
    except ImportError as error:
        raise UserError(f"--ray needs Ray, which is not installed: {INSTALL}.", exit_code=DATA) from error
    return ray


def _carried(ray: Any, cluster: Cluster, batches: Sequence[CellBatch], grid: Grid) -> Outcomes:
    """All batches as tasks; outcomes as tasks end. UserError: the cluster is lost."""
    grid.out.mkdir(parents=True, exist_ok=True)
    token = grid.out / f".ray-{secrets.token_hex(8)}"
    token.touch()
    variables = {name: os.environ[name] for name in PASSED if name in os.environ}
    around = Surroundings(place=os.getcwd(), token=token.name, variables=variables)
    tasks = _Tasks(ray, cluster, around)
    try:
        with Pulse(tasks.hindered) as pulse:
            tasks.begin(batches, grid)
            left = len(batches)
            while left:
                try:
                    batch, found = tasks.ended.get(timeout=SECONDS_BETWEEN_LOOKS)
                except Empty:
                    if why := pulse.lost():
                        raise lost(cluster, why, grid) from None
                    continue
                left -= 1
                if not isinstance(found, Exception):
                    outcomes, files = found
                    keep(files, grid)
                    yield from outcomes
                elif batch and not isinstance(found, ray.exceptions.LocalRayletDiedError) and pulse.answers():
                    yield from (_lost(cell, found) for cell in batch)
                else:
                    raise lost(cluster, pulse.lost() or reason_of(found), grid) from found
    finally:
        tasks.leave()
        token.unlink(missing_ok=True)


class _Tasks:
    """The tasks of a grid. All that Ray is asked is asked in a thread: any call to a cluster that is lost may last for ever."""

    def __init__(self, ray: Any, cluster: Cluster, around: Surroundings) -> None:
        self._ray, self._cluster, self._around = ray, cluster, around
        self.ended: SimpleQueue[tuple[CellBatch, tuple[list[Outcome], Files] | Exception]] = SimpleQueue()
        """A batch and what it gave; no batch and an error: no more are to come."""
        self._left = threading.Event()
        self._taken = (1.0, 0.0)
        self._own = ""
        self._thread = threading.Thread(daemon=True)

    def begin(self, batches: Sequence[CellBatch], grid: Grid) -> None:
        self._thread = threading.Thread(target=self._carry, args=(batches, grid), name=ASKING, daemon=True)
        self._thread.start()

    def leave(self) -> None:
        """Cancel what is not done, where the cluster still listens."""
        self._left.set()
        if self._thread.ident:
            self._thread.join(3 * SECONDS_BETWEEN_LOOKS)

    def hindered(self) -> str:
        """What keeps the cluster from doing a task, or nothing. Gone: this machine is out of it."""
        self._own = self._own or self._ray.get_runtime_context().get_node_id()
        alive = {one["NodeID"]: one["Resources"] for one in self._ray.nodes() if one["Alive"]}
        if self._own not in alive:
            raise Gone("this machine is no longer part of it")
        there = alive.values()
        cpus, gpus = self._taken
        if any(one.get("CPU", 0) >= cpus and one.get("GPU", 0) >= gpus for one in there):
            return ""
        return f"none of its {len(there)} machines has the {cpus:g} CPUs and {gpus:g} GPUs of a task"

    def _carry(self, batches: Sequence[CellBatch], grid: Grid) -> None:
        ray, cpus = self._ray, self._cluster.cpus
        try:
            gpus = _gpus(self._cluster, grid.means, ray.cluster_resources())
            self._taken = (cpus, gpus)
            grid = replace(grid, means=_means(grid.means, cpus, gpus))
            task = ray.remote(work_batch).options(
                name="vlprompt", num_cpus=cpus, num_gpus=gpus, max_retries=grid.attempts
            )
            tasks = {task.remote(batch, grid, self._around, files_of(grid, batch)): batch for batch in batches}
            while tasks and not self._left.is_set():
                done, _ = ray.wait(list(tasks), num_returns=1, timeout=SECONDS_BETWEEN_LOOKS)
                for one in done:
                    batch = tasks.pop(one)
                    try:
                        self.ended.put((batch, ray.get(one)))
                    except ray.exceptions.RayError as error:
                        self.ended.put((batch, error))
            for one in tasks:
                ray.cancel(one)
        except Exception as error:
            self.ended.put(((), error))


def lost(cluster: Cluster, why: str, grid: Grid) -> UserError:
    return UserError(
        f"the Ray cluster at {cluster.address!r} is lost: {why}. What is finished is kept in {grid.out}. Mend or start the cluster "
        "(`ray start --head`, `ray start --address=HEAD:6379`) and give the same command: it does what is missing.",
        exit_code=DATA,
    )


def work_batch(batch: CellBatch, grid: Grid, around: Surroundings, given: Files) -> tuple[list[Outcome], Files]:
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


def files_of(grid: Grid, batch: CellBatch) -> Files:
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
