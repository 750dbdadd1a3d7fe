"""A grid on a Ray cluster of a head and two machines (all of them here) of which a part is killed or stopped at random moments.

`python -m tests.soak.clusters ARGUMENTS` is `vlprompt ARGUMENTS` that takes a head, or a task, of `SILENCE` seconds without a word for
lost.
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
from vlprompt.bench import hung, pulse
from vlprompt.cli import main

SILENCE, BETWEEN = 6.0, 0.5
LIMIT = 300.0
"""Seconds after which a grid counts as one that hangs."""
SOON = 60.0
"""Seconds within which a grid without a head has to end."""
FAULTS = (
    "a task killed",
    "a task stopped",
    "a machine killed",
    "a machine stopped",
    "the head killed",
    "the head stopped",
    "the head's registry killed",
    "the head's registry stopped",
    "the head's raylet stopped",
    "the process that speaks to the head killed",
)
GRID = (
    *("bench", "few-shot", "--model", "pocket-s", "--data", "emoji-food,emoji-symbols", "--methods", "coop"),
    *("--shots", "1", "--seeds", "1,2", "--set", "epochs=40", "--device", "cpu"),
)
CELLS = 4
IMPATIENT = {"RAY_health_check_timeout_ms": "2000", "RAY_health_check_failure_threshold": "3"}
"""A head strikes a silent machine off after a quarter of a minute, not after one."""
TRIES = 3
"""To start a cluster."""
RAYLET = "raylet/raylet "
"""In the command line of every machine's."""
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
    there, said = None, ""
    for _ in range(
        TRIES
    ):  # a machine that is busy may take longer than Ray waits, and a free port may be taken meanwhile
        place = Path(tempfile.mkdtemp(prefix="v"))  # short: sockets lie in it
        try:
            if isinstance(there := _started(place), Cluster):
                yield there
                return
            said = there
        finally:
            strike(_of(place), signal.SIGKILL)
            shutil.rmtree(place, ignore_errors=True)
    raise AssertionError(f"no cluster after {TRIES} tries: {said[-2000:]}")


def _started(place: Path) -> Cluster | str:
    """A new cluster whose files lie here, or what Ray said instead."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        address = f"127.0.0.1:{free.getsockname()[1]}"
    joins = ("--address", address, "--num-cpus", "1")
    begins = ("--head", "--port", address.rpartition(":")[2], "--num-cpus", "0", "--temp-dir", str(place))
    head: list[int] = []
    for arguments in ((*begins, "--include-dashboard=false"), joins, joins):
        size = ("--object-store-memory", str(128 << 20), "--disable-usage-stats")
        command = [sys.executable, "-m", "ray.scripts.scripts", "start", *arguments, *size]
        done = subprocess.run(command, capture_output=True, text=True, errors="replace", env=_surroundings())
        if done.returncode:
            return done.stdout + done.stderr
        head = head or _of(place)
    raylets = [number for number, (_, said) in processes.table().items() if RAYLET in said and str(place) in said]
    return Cluster(address, head, [one for one in raylets if one not in head])


def _surroundings() -> dict[str, str]:
    """Variables of everything here.

    One thread, as a task has: the number of threads changes the last bits. No token: where one lies in ~/.ray, as any local cluster
    leaves it there, `ray start --head` asks for it, and `ray start --address` does not give it.
    """
    return {**os.environ, **IMPATIENT, "OMP_NUM_THREADS": "1", "RAY_AUTH_MODE": "disabled"}


def _of(place: Path) -> list[int]:
    named = [number for number, (_, said) in processes.table().items() if str(place) in said]
    return [*named, *processes.below(*named)]


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
        if fault == "the process that speaks to the head killed":
            hit = [one for one in processes.below(grid.pid) if "spawn_main" in processes.table().get(one, (0, ""))[1]]
        strike(hit, signal.SIGSTOP if fault.endswith("stopped") else signal.SIGKILL)
        struck = time.monotonic()
        try:
            code = grid.wait(LIMIT)
        except subprocess.TimeoutExpired:
            grid.kill()
            return "it hangs"
        took = time.monotonic() - struck
    told = " ".join(_told(out).split())
    held = fault == "a machine stopped" and code == 3 and "gives no sign of life: its machine hangs" in told
    if code and "head" not in fault and not held:
        return f"exit {code}: {_told(out)[-300:]}"
    if code and not held and (code != 3 or "is lost" not in told):
        return f"it ended unclearly (exit {code}): {_told(out)[-300:]}"
    if code and not held and took > SOON:
        return f"it ended after {took:.0f} s"
    if code:
        with cluster() as again:
            code = _begun(out, again.address).wait(LIMIT)
    return f"it does not go on (exit {code}): {_told(out)[-300:]}" if code else ""


def _hit(there: Cluster, fault: str) -> list[int]:
    """Processes of a fault."""
    table = processes.table()
    match fault:
        case "a task killed" | "a task stopped":
            found = processes.below(*there.machines)
            return [one for one in found if table.get(one, (0, ""))[1].startswith("ray::vlprompt")][:1]
        case "a machine killed" | "a machine stopped":
            return [there.machines[0], *processes.below(there.machines[0])]
        case "the head's raylet stopped":  # the one that the command speaks to
            return [one for one in there.head if RAYLET in table.get(one, (0, ""))[1]]
        case "the head's registry killed" | "the head's registry stopped":
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
            env=_surroundings(),
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


if __name__ in ("__main__", "__mp_main__"):  # also in the process that speaks to Ray
    pulse.SECONDS_OF_SILENCE, pulse.SECONDS_BETWEEN_BEATS = SILENCE, BETWEEN
    hung.SECONDS_OF_HANGING = hung.SECONDS_FOR_RAY = SILENCE
if __name__ == "__main__":
    main()
