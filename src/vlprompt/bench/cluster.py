"""Carrying batches of cells out on a Ray cluster (extra ``scale``): a task per batch, with its CPUs and GPUs.

A worker that sees the driver's directory works in it. One that does not works in its own folder and sends the files back, which
the driver puts in place, each record last. A task whose worker is lost is begun again by Ray, as often as a cell may fail; on a shared
directory it goes on from the last checkpoint.
"""

from __future__ import annotations

import os
import secrets
import shutil
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from importlib.util import find_spec
from pathlib import Path, PurePosixPath
from queue import Empty, SimpleQueue
from typing import Any

from vlprompt import artifact, disk
from vlprompt.bench import hung
from vlprompt.bench.carry import Carrier, CellBatch, Outcomes
from vlprompt.bench.cells import Cell, Grid, Outcome
from vlprompt.bench.hung import TASK, UNHEARD, SignWatch, living
from vlprompt.bench.pulse import ASKING, Gone, Pulse, Unheard, greets, unreachable, within
from vlprompt.bench.work import failure, run_cells
from vlprompt.bench.workspace import Desk
from vlprompt.engine.config import Means
from vlprompt.errors import UserError, data_error, reason_of
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


@contextmanager
def joined(cluster: Cluster) -> Iterator[Carrier]:
    """The carrier of a cluster, as long as the block lasts; a local one ends with it. In a process that Ray may freeze or end, and that
    ends without Python's clearing up: `driver.joined` has one. UserError: no cluster is there, or it was lost."""
    # Else a late question to a cluster that was left starts another one.
    os.environ.setdefault("RAY_ENABLE_AUTO_CONNECT", "0")
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    import ray

    quiet: dict[str, Any] = {"logging_level": "ERROR", "log_to_driver": False}
    try:
        if cluster.address == LOCAL:
            size: dict[str, Any] = {"num_cpus": cluster.workers * cluster.cpus, "object_store_memory": STORE}
            ray.init(include_dashboard=False, **size, **quiet)
        else:
            within(SECONDS_TO_JOIN, lambda: ray.init(address=cluster.address, **quiet))
    except (ConnectionError, RuntimeError, ValueError, OSError) as error:
        raise unreachable(cluster.address, reason_of(error)) from error
    try:
        yield lambda batches, grid: _carried(ray, cluster, batches, grid)
    finally:
        with suppress(TimeoutError):
            within(SECONDS_TO_LEAVE, ray.shutdown)


def require_ray(address: str) -> None:
    """UserError where Ray, or what it needs for an address, is not installed."""
    if not _installed("ray"):
        raise data_error(f"--ray needs Ray, which is not installed: {INSTALL}.")
    if address.startswith("ray://") and not _installed("grpc"):
        raise data_error("an address with ray:// needs Ray's client: pip install 'ray[client]'.")


def _installed(name: str) -> bool:
    try:
        return find_spec(name) is not None
    except ValueError:  # something else stands under its name
        return False


def _carried(ray: Any, cluster: Cluster, batches: Sequence[CellBatch], grid: Grid) -> Outcomes:
    """All batches as tasks; outcomes as tasks end. UserError: the cluster is lost."""
    grid.out.mkdir(parents=True, exist_ok=True)
    token = grid.out / f"{tokens_of(os.getpid())}{secrets.token_hex(8)}"
    token.touch()
    variables = {name: os.environ[name] for name in PASSED if name in os.environ}
    around = Surroundings(place=os.getcwd(), token=token.name, variables=variables)
    tasks = _Tasks(ray, cluster, around)
    pulse = Pulse(tasks.hindered)
    try:
        with pulse.beating():
            tasks.begin(batches, grid)
            left = len(batches)
            while left:
                pulse.awake()
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


def tokens_of(process: int) -> str:
    """How the name of each token of a process begins."""
    return f".ray-{process}-"


class _Tasks:
    """The tasks of a grid. All that Ray is asked is asked in a thread: any call to a cluster that is lost may last for ever."""

    def __init__(self, ray: Any, cluster: Cluster, around: Surroundings) -> None:
        self._ray, self._cluster, self._around = ray, cluster, around
        self.ended: SimpleQueue[tuple[CellBatch, tuple[list[Outcome], Files] | Exception]] = SimpleQueue()
        """A batch and what it gave; no batch and an error: no more are to come."""
        self._left = threading.Event()
        self._taken = (1.0, 0.0)
        self._own = ""
        self._watch, self._abandoned = SignWatch(ray, around.token), SimpleQueue[str]()
        self._held_since: dict[str, float] = {}
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
        nodes = self._ray.nodes()
        alive = {one["NodeID"]: one["Resources"] for one in nodes if one["Alive"]}
        if self._own not in alive:
            raise Gone("this machine is no longer part of it")
        self._require_own_raylet(nodes)
        with suppress(Exception):  # the head answers; what is asked here can wait
            for key in self._watch.look(alive):
                self._abandoned.put(key)
        there = alive.values()
        cpus, gpus = self._taken
        if any(one.get("CPU", 0) >= cpus and one.get("GPU", 0) >= gpus for one in there):
            return ""
        return f"none of its {len(there)} machines has the {cpus:g} CPUs and {gpus:g} GPUs of a task"

    def _given_up(self, tasks: Mapping[Any, CellBatch]) -> list[tuple[Any, CellBatch, bool]]:
        """The tasks that Ray waits for and nobody does, and whether a worker had begun them."""
        keys, found = set(), []
        while not self._abandoned.empty():
            keys.add(self._abandoned.get())
        for one, batch in tasks.items() if keys else ():
            key = _key(self._around, batch)
            if key in keys or (UNHEARD in keys and not self._watch.heard(key)):
                found.append((one, batch, key in keys))
        return found

    def _require_own_raylet(self, nodes: Sequence[Mapping[str, Any]]) -> None:
        """Unheard where this machine's raylet hangs, which the head finds out after a minute. (With ray:// it is another machine's.)"""
        own = next(one for one in nodes if one["NodeID"] == self._own)
        if self._cluster.address.startswith("ray://") or "NodeManagerPort" not in own:
            return
        if not greets(own["NodeManagerAddress"], own["NodeManagerPort"]):
            raise Unheard("Ray's process on this machine (raylet)")

    def _found(
        self, task: Any, batch: CellBatch, *, begun_before: bool
    ) -> tuple[list[Outcome], Files] | Exception | None:
        """What a task gave. begun_before: by a worker that was given up. None: that one has a cell's lock, and may let go of it yet."""
        try:
            outcomes, files = self._ray.get(task)
        except self._ray.exceptions.RayError as error:
            return error  # type: ignore[no-any-return]
        if not begun_before or all(outcome.state != "busy" for outcome in outcomes):
            return outcomes, files
        since = self._held_since.setdefault(_key(self._around, batch), time.monotonic())
        if time.monotonic() < since + hung.SECONDS_OF_HANGING:
            return None
        cells = {cell.place: cell for cell in batch}
        return [_held(cells[one.place]) if one.state == "busy" else one for one in outcomes], files

    def _carry(self, batches: Sequence[CellBatch], grid: Grid) -> None:
        ray, cpus = self._ray, self._cluster.cpus
        try:
            gpus = _gpus(self._cluster, grid.means, ray.cluster_resources())
            self._taken = (cpus, gpus)
            grid = replace(grid, means=_means(grid.means, cpus, gpus))
            work, tasks, again = ray.remote(work_batch), {}, Counter[str]()

            def begin(batch: CellBatch) -> None:
                # Tasks that differ in nothing share what was asked of machines, also of one that will never answer: so a byte more.
                apart = {"memory": again[""]} if again[""] else {}
                task = work.options(name=TASK, num_cpus=cpus, num_gpus=gpus, max_retries=grid.attempts, **apart)
                tasks[task.remote(batch, grid, self._around, files_of(grid, batch))] = batch

            held: list[CellBatch] = []
            for batch in batches:
                begin(batch)
            while (tasks or held) and not self._left.is_set():
                done = ray.wait(list(tasks), num_returns=1, timeout=SECONDS_BETWEEN_LOOKS)[0] if tasks else []
                if held:
                    self._left.wait(SECONDS_BETWEEN_LOOKS)
                    for batch in held:
                        begin(batch)
                    held = []
                for one in done:
                    batch = tasks.pop(one)
                    found = self._found(one, batch, begun_before=again[_key(self._around, batch)] > 0)
                    if found is None:
                        held.append(batch)
                    else:
                        self.ended.put((batch, found))
                given_up = self._given_up(tasks)
                again[""] += bool(given_up)
                for one, batch, begun in given_up:
                    tasks.pop(one)
                    with suppress(Exception):
                        ray.cancel(one)
                    again[_key(self._around, batch)] += begun
                    if again[_key(self._around, batch)] < grid.attempts:
                        begin(batch)
                    else:
                        self.ended.put((batch, TimeoutError("its worker is silent")))
            for one in tasks:
                ray.cancel(one)
        except Exception as error:
            self.ended.put(((), error))


def lost(cluster: Cluster, why: str, grid: Grid) -> UserError:
    return data_error(
        f"the Ray cluster at {cluster.address!r} is lost: {why}. What is finished is kept in {grid.out}. Mend or start the cluster "
        "(`ray start --head`, `ray start --address=HEAD:6379`) and give the same command: it does what is missing."
    )


def work_batch(batch: CellBatch, grid: Grid, around: Surroundings, given: Files) -> tuple[list[Outcome], Files]:
    """In a worker: the outcomes of a batch, and the files that the driver has to put in place (none where the directory is
    shared). given: what is there already of the course, for a worker that cannot see it."""
    with living(_key(around, batch)):
        return _worked(batch, grid, around, given)


def _worked(batch: CellBatch, grid: Grid, around: Surroundings, given: Files) -> tuple[list[Outcome], Files]:
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


def _key(around: Surroundings, batch: CellBatch) -> str:
    return f"{around.token}:{batch[0].place.as_posix()}"


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
            raise data_error(f"a worker sent a file outside of {grid.out}: {name!r}.")
        target = grid.out / name
        if not any((target.parent / last).is_file() for last in LAST):
            disk.write_bytes(target, files[name])


def _lost(cell: Cell, error: Exception) -> Outcome:
    """The outcome of a cell whose task Ray could not finish."""
    return replace(failure(cell, error), reason=f"its Ray task was lost ({type(error).__name__})", again=True)


def _held(cell: Cell) -> Outcome:
    """The outcome of a cell that a worker holds which hangs and which nobody can end."""
    return failure(
        cell,
        data_error(
            "a worker of this grid holds it, and gives no sign of life: its machine hangs. End the machine's Ray processes (`ray stop "
            "--force` there), and give the same command: it does what is missing."
        ),
    )


def _gpus(cluster: Cluster, means: Means, resources: Mapping[str, float]) -> float:
    if cluster.gpus is not None:
        return cluster.gpus
    wanted = means.device.startswith("cuda") or (means.device == "auto" and resources.get("GPU", 0) > 0)
    return 1.0 if wanted else 0.0


def _means(means: Means, cpus: int, gpus: float) -> Means:
    """A task sees no GPU but its own, so a number after ``cuda`` means nothing there."""
    device = "cuda" if gpus and means.device.startswith("cuda") else means.device
    return replace(means, threads=cpus, device=device)
