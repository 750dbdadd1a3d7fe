"""Workers that hang in mid-cell (stopped, or waiting for a disk that is gone), or whose machine went without a word. Ray waits for them
for ever.

Each says every few seconds that it lives, in the cluster's own table of keys and values. One that has said so and no longer does is
ended on its machine, and Ray begins its task again as that of any worker that is lost. Where that cannot be, the driver begins it again.
"""

from __future__ import annotations

import json
import math
import os
import signal
import sys
import threading
import time
import warnings
from collections.abc import Collection, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

SECONDS_OF_HANGING, SECONDS_BETWEEN_SIGNS = 60.0, 2.0
SECONDS_FOR_RAY = 20.0
"""In which Ray may begin the tasks of a machine again that is out of the cluster. Where its calls were cut and not closed, it does not."""
UNHEARD = ""
"""Instead of a key: every task that nobody gives signs of."""
TASK = "vlprompt"
"""Name of a task, which Ray puts into the title of its process."""
NAMESPACE = b"vlprompt"


def table_of(ray: Any) -> Any:
    """The table's functions, where this Ray has them and is part of a cluster; else None."""
    table = getattr(getattr(ray, "experimental", None), "internal_kv", None)
    return table if table is not None and table._internal_kv_initialized() else None


@contextmanager
def living(key: str) -> Iterator[None]:
    """In a worker: signs of life under a key, as long as the block lasts."""
    ray = sys.modules.get("ray")
    table = table_of(ray)
    if ray is None or table is None:
        yield
        return
    end, about = threading.Event(), {"node": ray.get_runtime_context().get_node_id(), "process": os.getpid()}

    def say() -> None:
        signs = 0
        while not end.is_set():
            with suppress(Exception):  # a head that is away for a moment
                table._internal_kv_put(key, json.dumps({**about, "signs": signs}), namespace=NAMESPACE)
            signs += 1
            end.wait(SECONDS_BETWEEN_SIGNS)

    thread = threading.Thread(target=say, daemon=True)
    thread.start()
    try:
        yield
    finally:
        end.set()
        thread.join(SECONDS_BETWEEN_SIGNS)
        with suppress(Exception):
            table._internal_kv_del(key, namespace=NAMESPACE)


@dataclass(slots=True)
class _Sign:
    """Of a worker: its last sign, when it came, and the task that ends it."""

    said: bytes
    since: float
    ending: Any = None


class SignWatch:
    """The signs of life of a grid's workers, as the driver sees them by its own clock."""

    def __init__(self, ray: Any, prefix: str) -> None:
        """prefix: of the keys."""
        self._ray, self._prefix = ray, prefix
        self._seen: dict[bytes, _Sign] = {}
        self._machines: frozenset[str] = frozenset()
        self._due, self._soon = math.inf, True
        """When tasks that nobody gives signs of are to be begun again, and whether others that work do not put that off."""
        self._wait = SECONDS_OF_HANGING

    def look(self, alive: Collection[str]) -> list[str]:
        """End the workers that hang, with a warning for each. alive: the machines that the cluster has.

        The keys of those that nobody can end or hear of any more: their machine is out of the cluster, or they outlive their end. Also
        `UNHEARD`, some time after a machine has left, and again whenever nobody works.
        """
        if (table := table_of(self._ray)) is None:
            return []
        lost, now, before, self._seen = [], time.monotonic(), self._seen, {}
        for key in table._internal_kv_list(self._prefix, namespace=NAMESPACE):
            said = table._internal_kv_get(key, namespace=NAMESPACE)
            if said is None:
                continue
            seen = before.get(key)
            if seen is None or seen.said != said:
                seen = _Sign(said, now)
            silent, worker = now - seen.since, json.loads(said)
            away = worker["node"] not in alive and silent > SECONDS_FOR_RAY
            over = seen.ending is not None and bool(self._ray.wait([seen.ending], timeout=0)[0])
            if away or silent > 2 * SECONDS_OF_HANGING:
                lost.append(key.decode())
            if away or over or silent > 2 * SECONDS_OF_HANGING:
                table._internal_kv_del(key, namespace=NAMESPACE)
                continue
            if silent > SECONDS_OF_HANGING and seen.ending is None and worker["node"] in alive:
                seen.ending = self._end(worker)
            self._seen[key] = seen
        if self._machines - set(alive):
            self._due, self._soon = now + SECONDS_FOR_RAY, True
        elif self._seen and not self._soon:
            self._wait = SECONDS_OF_HANGING
            self._due = now + self._wait
        if now > self._due:
            lost.append(UNHEARD)
            self._due, self._soon = now + self._wait, False
            self._wait *= 2  # a worker that takes long to start is not to be stopped for ever
        self._machines = frozenset(alive)
        return lost

    def heard(self, key: str) -> bool:
        """Whether somebody works under a key."""
        return key.encode() in self._seen

    def _end(self, worker: dict[str, Any]) -> Any:
        where = self._ray.util.scheduling_strategies.NodeAffinitySchedulingStrategy(worker["node"], soft=False)
        task = self._ray.remote(end_worker).options(
            name="end-worker", num_cpus=0, max_retries=0, scheduling_strategy=where
        )
        machine = next((one["NodeName"] for one in self._ray.nodes() if one["NodeID"] == worker["node"]), "a machine")
        warnings.warn(
            f"process {worker['process']} of {machine} has given no sign of life for {SECONDS_OF_HANGING:.0f} s. It is ended, and its "
            "cells are begun again.",
            UserWarning,
            stacklevel=2,
        )
        return task.remote(worker["process"])


def end_worker(process: int) -> None:
    """On the machine of a worker that hangs, where /proc says that it is one."""
    title = Path(f"/proc/{process}/cmdline")
    if title.is_file() and title.read_bytes().startswith(f"ray::{TASK}".encode()):
        with suppress(ProcessLookupError):
            os.kill(process, signal.SIGKILL)
