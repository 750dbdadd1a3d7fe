"""A cluster that is lost, that asks for a token or that says nothing, told by a Ray that the test makes: nothing waits for it."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from tests.bench.made import grid_of, plan_of, request
from vlprompt.bench import Outcome, cluster, pulse
from vlprompt.bench.cells import batches
from vlprompt.bench.cluster import Cluster
from vlprompt.errors import DATA, UserError

HERE = {"NodeID": "here", "Alive": True, "Resources": {"CPU": 2.0}}


class RayError(Exception):
    """As Ray has it."""


class LocalRayletDiedError(RayError):
    """As Ray has it."""


class Ray:
    """What `cluster` asks of Ray. `nodes` is asked for the machines, `get` for what a task gave."""

    exceptions = SimpleNamespace(RayError=RayError, LocalRayletDiedError=LocalRayletDiedError)

    def __init__(self, nodes: Callable[[], list[dict[str, Any]]], get: Callable[[], Any]) -> None:
        self.nodes, self._get = nodes, get
        self.cancelled: list[object] = []

    def get_runtime_context(self) -> Any:
        return SimpleNamespace(get_node_id=lambda: "here")

    def cluster_resources(self) -> dict[str, float]:
        return {"CPU": 2.0}

    def remote(self, _: object) -> Any:
        task = SimpleNamespace(remote=lambda *_: object())
        return SimpleNamespace(options=lambda **_: task)

    def wait(self, tasks: Sequence[object], **_: object) -> tuple[list[object], list[object]]:
        return [tasks[0]], []

    def get(self, _: object) -> Any:
        return self._get()

    def cancel(self, task: object) -> None:
        self.cancelled.append(task)


@pytest.fixture
def hurried(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pulse, "SECONDS_OF_SILENCE", 0.3)
    monkeypatch.setattr(pulse, "SECONDS_BETWEEN_BEATS", 0.05)
    monkeypatch.setattr(pulse, "SECONDS_TO_ANSWER", 0.1)
    monkeypatch.setattr(cluster, "SECONDS_BETWEEN_LOOKS", 0.05)


@pytest.fixture
def endless() -> Iterator[Callable[[], Any]]:
    """A question that is not answered as long as the test lasts."""
    over = threading.Event()
    yield lambda: over.wait() and None
    over.set()


@pytest.fixture
def raylet() -> Iterator[int]:
    """The port of a process that is stopped."""
    with socket.create_server(("127.0.0.1", 0)) as stopped:
        yield stopped.getsockname()[1]


def carried(ray: Ray, clip_dir: Path, sets: Path, out: Path) -> list[Outcome]:
    grid = grid_of(out, sets)
    plan = plan_of(request(clip_dir, sets), grid)
    return list(cluster._carried(ray, Cluster(address="head:6379"), batches(plan.cells), grid))


@pytest.mark.usefixtures("hurried")
@pytest.mark.parametrize(
    ("state", "said"),
    [
        ("silent", "its head has not answered for"),
        ("angry", "its head has not answered for"),
        ("out", "this machine is no longer part of it"),
        ("small", "none of its 1 machines has the 1 CPUs and 0 GPUs of a task"),
        ("stopped", r"Ray's process on this machine \(raylet\) has not answered for"),
    ],
)
def test_a_lost_cluster_ends_the_grid(
    clip_dir: Path, sets: Path, tmp_path: Path, endless: Callable[[], Any], raylet: int, state: str, said: str
) -> None:
    """Whatever a task is waited for: the head hangs, raises, has dropped this machine, has no machine that can do a task, or this
    machine's raylet is stopped: it takes calls, and says nothing."""

    def nodes() -> list[dict[str, Any]]:
        if state == "silent":
            endless()
        if state == "angry":
            raise RayError
        if state == "stopped":
            return [{**HERE, "NodeManagerAddress": "127.0.0.1", "NodeManagerPort": raylet}]
        return [{**HERE, "Alive": state != "out", "Resources": {"CPU": 0.5}}]

    with pytest.raises(UserError, match=said) as found:
        carried(Ray(nodes, endless), clip_dir, sets, tmp_path / "out")
    assert found.value.exit_code == DATA
    assert "give the same command" in str(found.value)
    assert not list((tmp_path / "out").glob(".ray-*"))


@pytest.mark.usefixtures("hurried")
def test_a_lost_task_is_believed_of_a_cluster_that_answers(clip_dir: Path, sets: Path, tmp_path: Path) -> None:
    def get() -> Any:
        raise RayError("its worker was killed")

    (outcome,) = carried(Ray(lambda: [HERE], get), clip_dir, sets, tmp_path / "out")
    assert (outcome.state, outcome.again, outcome.reason) == ("failed", True, "its Ray task was lost (RayError)")

    def dead() -> list[dict[str, Any]]:
        raise RayError

    with pytest.raises(UserError, match="is lost: its head has not answered"):
        carried(Ray(dead, get), clip_dir, sets, tmp_path / "out")


@pytest.mark.usefixtures("hurried")
def test_a_cluster_that_takes_this_machine_with_it_is_no_failure_of_cells(
    clip_dir: Path, sets: Path, tmp_path: Path
) -> None:
    def get() -> Any:
        raise LocalRayletDiedError("the raylet died.\nMore of it")

    with pytest.raises(UserError, match=r"is lost: the raylet died\. What is finished"):
        carried(Ray(lambda: [HERE], get), clip_dir, sets, tmp_path / "out")


@pytest.mark.usefixtures("hurried")
def test_a_short_silence_is_not_a_loss(clip_dir: Path, sets: Path, tmp_path: Path) -> None:
    asked = [0]

    def nodes() -> list[dict[str, Any]]:
        asked[0] += 1
        if asked[0] in (2, 3):
            raise RayError
        return [HERE]

    def get() -> Any:
        while asked[0] < 6:
            time.sleep(0.01)
        return [], {}

    assert carried(Ray(nodes, get), clip_dir, sets, tmp_path / "out") == []


@pytest.mark.usefixtures("hurried")
def test_a_task_that_ray_waits_for_in_vain_is_begun_again(
    clip_dir: Path, sets: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As often as a cell may fail."""
    waited: list[object] = []

    def wait(tasks: Sequence[object], **_: object) -> tuple[list[object], list[object]]:
        (task,) = tasks
        waited[:] = [*waited, task] if task not in waited else waited
        time.sleep(0.01)
        return ([task], []) if len(waited) > 2 else ([], [])

    def look(watch: Any, alive: Sequence[str]) -> list[str]:
        assert list(alive) == ["here"]
        return [f"{watch._prefix}:{plan.cells[0].place.as_posix()}"]

    monkeypatch.setattr(cluster.SignWatch, "look", look)
    grid = grid_of(tmp_path / "out", sets)
    plan = plan_of(request(clip_dir, sets), grid)
    ray = Ray(lambda: [HERE], lambda: ([], {}))
    monkeypatch.setattr(ray, "wait", wait)
    assert carried(ray, clip_dir, sets, grid.out) == []
    assert len(ray.cancelled) == 2
    assert ray.cancelled == waited[:2]
    waited.clear()
    monkeypatch.setattr(ray, "wait", lambda tasks, **_: (time.sleep(0.01), ([], []))[1])
    (outcome,) = carried(ray, clip_dir, sets, tmp_path / "other")
    assert (outcome.state, outcome.again, outcome.reason) == ("failed", True, "its Ray task was lost (TimeoutError)")


def test_what_is_not_answered_in_time(endless: Callable[[], Any]) -> None:
    assert pulse.within(5, lambda: 3) == 3
    with pytest.raises(KeyError):
        pulse.within(5, lambda: {}["x"])
    with pytest.raises(TimeoutError, match="no answer within 0 s"):
        pulse.within(0.01, endless)


def test_a_process_that_runs_greets_and_one_that_is_stopped_does_not(
    monkeypatch: pytest.MonkeyPatch, raylet: int
) -> None:
    monkeypatch.setattr(pulse, "SECONDS_TO_ANSWER", 0.1)
    assert not pulse.greets("127.0.0.1", raylet)
    with socket.create_server(("127.0.0.1", 0)) as running:

        def answer() -> None:
            call, _ = running.accept()
            with call:
                assert call.recv(len(pulse.GREETING)) == pulse.GREETING
                call.sendall(bytes(9))

        thread = threading.Thread(target=answer)
        thread.start()
        assert pulse.greets("127.0.0.1", running.getsockname()[1])
        thread.join()
    assert not pulse.greets("127.0.0.1", 1)  # nobody listens
    monkeypatch.setenv("RAY_USE_TLS", "1")
    assert pulse.greets("127.0.0.1", raylet)


def test_the_time_in_which_the_command_stood_still_does_not_count(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [100.0]
    monkeypatch.setattr(pulse.time, "monotonic", lambda: now[0])
    one = pulse.Pulse(lambda: "")
    for later, lost in ((3.0, False), (1000.0, False), (4.0, False), *[(4.0, False)] * 5, (4.0, True)):
        now[0] += later
        one.awake()
        assert bool(one.lost()) == lost, now


@pytest.mark.parametrize("address", ["{}", "auto"])
def test_a_cluster_that_asks_for_a_token(monkeypatch: pytest.MonkeyPatch, address: str) -> None:
    """Ray gives its token to the cluster of this machine by itself, and to an address only where the user says so."""
    tried: list[dict[str, str]] = []

    def greeted(place: str, **variables: str) -> str:
        tried.append(variables)
        return "" if variables else "ray.exceptions.AuthenticationError: no token"

    monkeypatch.setattr(pulse, "_greeted", greeted)
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    with socket.create_server(("127.0.0.1", 0)) as head:
        place = f"127.0.0.1:{head.getsockname()[1]}"
        monkeypatch.setattr(pulse, "_of_this_machine", lambda: place)
        if address == "auto":
            pulse.require_somebody(address)
            assert tried == [{}, {"RAY_AUTH_MODE": "token"}]
            monkeypatch.setenv("RAY_ADDRESS", place)
        with pytest.raises(UserError, match="RAY_AUTH_MODE=token"):
            pulse.require_somebody(address.format(place))


@pytest.mark.parametrize("address", ["head", "ray://head", "head:x", "auto"])
def test_what_is_no_address(monkeypatch: pytest.MonkeyPatch, address: str) -> None:
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    monkeypatch.setattr(pulse, "_of_this_machine", lambda: "")
    with pytest.raises(UserError, match=r"nobody answers at .*that is no HOST:PORT"):
        pulse.require_somebody(address)


def test_rays_client_is_named_where_it_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cluster, "find_spec", {"ray": True}.get)
    with pytest.raises(UserError, match=r"ray\[client\]"):
        cluster.require_ray("ray://head:10001")
