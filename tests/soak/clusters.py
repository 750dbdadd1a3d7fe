"""A grid on a Ray cluster of a head and two machines (all of them here) of which a part is killed or stopped at random moments.

`python -m tests.soak.clusters ARGUMENTS` is `vlprompt ARGUMENTS` that takes a head of `SILENCE` seconds without a word for lost.
"""

from __future__ import annotations

import json
import os
import random
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.util import find_spec
from itertools import cycle
from pathlib import Path

from tests.soak import processes
from tests.soak.processes import strike
from vlprompt.bench import pulse
from vlprompt.cli import main

SILENCE, BETWEEN = 6.0, 0.5
LIMIT = 300.0
"""Seconds after which a grid counts as one that hangs."""
SOON = 60.0
"""Seconds within which a grid without a head has to end."""
FAULTS = ("a task killed", "a machine killed", "the head killed", "the head stopped", "the head's registry killed")
GRID = (
    *("bench", "few-shot", "--model", "pocket-s", "--data", "emoji-food,emoji-symbols", "--methods", "coop"),
    *("--shots", "1", "--seeds", "1,2", "--set", "epochs=40", "--device", "cpu"),
)
CELLS = 4
TIMES = ("seconds", "seconds_features", "peak_mib")


@dataclass(frozen=True, slots=True)
class Cluster:
    """Where it is, and the processes of its head and of each machine's raylet."""

    address: str
    head: list[int]
    machines: list[int]


@contextmanager
def cluster() -> Iterator[Cluster]:
    """A head without processors, and two machines with one each; nothing of it is left afterwards."""
    place = Path(tempfile.mkdtemp(prefix="v"))  # short: sockets lie in it
    with socket.create_server(("127.0.0.1", 0)) as free:
        address = f"127.0.0.1:{free.getsockname()[1]}"
    try:
        _ray("--head", "--port", address.rpartition(":")[2], "--num-cpus", "0", "--temp-dir", str(place))
        head = _of(place)
        for _ in range(2):
            _ray("--address", address, "--num-cpus", "1")
        raylets = [
            number for number, (_, said) in processes.table().items() if "raylet/raylet " in said and str(place) in said
        ]
        yield Cluster(address, head, [one for one in raylets if one not in head])
    finally:
        ours = _of(place)
        strike(ours, signal.SIGKILL)
        shutil.rmtree(place, ignore_errors=True)


def _of(place: Path) -> list[int]:
    named = [number for number, (_, said) in processes.table().items() if str(place) in said]
    return [*named, *processes.below(*named)]


def _ray(*arguments: str) -> None:
    size = ("--object-store-memory", str(128 << 20), "--disable-usage-stats", "--include-dashboard=false")
    size = size if "--head" in arguments else size[:3]
    for last in (False, False, True):  # a machine that is busy may take too long for Ray
        done = subprocess.run(
            [sys.executable, "-m", "ray.scripts.scripts", "start", *arguments, *size], check=last, capture_output=True
        )
        if not done.returncode:
            return


def faults(folder: Path, stream: random.Random, kinds: tuple[str, ...] = FAULTS) -> Iterator[str]:
    """Each fault in turn. A grid that loses a worker goes on; one that loses its head says so, and the same command goes on."""
    if sys.platform != "linux" or not find_spec("ray"):
        return
    began = _begun(folder / "plain", None)
    if began.wait(LIMIT):
        yield f"without Ray: {_told(folder / 'plain')[-300:]}"
        return
    wanted = _state(folder / "plain")
    for number, fault in enumerate(cycle(kinds)):
        out = folder / f"grid{number}"
        said = _struck(out, fault, stream)
        if not said:
            said = "" if _state(out) == wanted else "other records or prompts"
        yield f"{fault}: {said}" if said else ""


def _struck(out: Path, fault: str, stream: random.Random) -> str:
    """What is wrong, but for the result."""
    with cluster() as there:
        grid, moment = _begun(out, there.address), stream.randrange(2 if "head" in fault else CELLS)
        while grid.poll() is None and (_told(out).count("(zero-shot") < moment or not _hit(there, "a task killed")):
            time.sleep(0.05)
        time.sleep(stream.uniform(0, 1 if "head" in fault else 3))
        hit = _hit(there, fault)
        strike(hit, signal.SIGSTOP if fault == "the head stopped" else signal.SIGKILL)
        struck = time.monotonic()
        try:
            code = grid.wait(LIMIT)
        except subprocess.TimeoutExpired:
            grid.kill()
            return "it hangs"
        took = time.monotonic() - struck
    if code and "head" not in fault:
        return f"exit {code}: {_told(out)[-300:]}"
    if code and (code != 3 or "is lost" not in _told(out)):
        return f"it ended unclearly (exit {code}): {_told(out)[-300:]}"
    if code and took > SOON:
        return f"it ended after {took:.0f} s"
    if code:
        with cluster() as again:
            code = _begun(out, again.address).wait(LIMIT)
    return f"it does not go on (exit {code}): {_told(out)[-300:]}" if code else ""


def _hit(there: Cluster, fault: str) -> list[int]:
    """Processes of a fault."""
    table = processes.table()
    match fault:
        case "a task killed":
            found = processes.below(*there.machines)
            return [one for one in found if table.get(one, (0, ""))[1].startswith("ray::vlprompt")][:1]
        case "a machine killed":
            return [there.machines[0], *processes.below(there.machines[0])]
        case "the head's registry killed":
            return [one for one in there.head if "gcs_server" in table.get(one, (0, ""))[1]]
        case _:
            return there.head


def _begun(out: Path, address: str | None) -> subprocess.Popen[bytes]:
    joined = ("--ray", address) if address else ()
    with out.with_suffix(".log").open("ab") as log:
        return subprocess.Popen(
            [
                sys.executable,
                "-m",
                "tests.soak.clusters",
                *GRID,
                "--out",
                str(out),
                "--cache",
                str(out.parent / "cache"),
                *joined,
            ],
            stdout=log,
            stderr=log,
            env={**os.environ, "OMP_NUM_THREADS": "1"},  # as a task has: the number of threads changes the last bits
        )


def _told(out: Path) -> str:
    return out.with_suffix(".log").read_text(encoding="utf-8", errors="replace")


def _state(out: Path) -> dict[str, object]:
    """Every record without times, every answer and every prompt, by its place."""
    found: dict[str, object] = {}
    for path in sorted(out.rglob("*")):
        name = path.relative_to(out).as_posix()
        if path.name == "result.json":
            record = json.loads(path.read_text(encoding="utf-8"))
            found[name] = {key: value for key, value in record.items() if key not in TIMES}
        elif path.name in ("prompt.safetensors", "predictions.npz", "per_class.csv", "split.csv"):
            found[name] = path.read_bytes()
        elif path.name in ("attempts.json", "checkpoint.safetensors") or path.name.startswith(".ray-"):
            found[name] = "left over"
    assert sum(name.endswith("result.json") for name in found) == CELLS, sorted(found)
    return found


if __name__ == "__main__":
    pulse.SECONDS_OF_SILENCE, pulse.SECONDS_BETWEEN_BEATS = SILENCE, BETWEEN
    main()
