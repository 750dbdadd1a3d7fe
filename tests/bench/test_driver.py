"""The process that speaks to Ray: what it says, and that the command outlives it however it ends."""

from __future__ import annotations

import os
import signal
import time
import warnings
from multiprocessing.connection import Connection
from pathlib import Path

import pytest

from tests.bench.made import grid_of, plan_of, request
from vlprompt.bench import Outcome, driver
from vlprompt.bench.cells import batches
from vlprompt.bench.cluster import Cluster, tokens_of
from vlprompt.errors import DATA, UserError

AWAY = Cluster(address="head:6379")


def frozen(pipe: Connection, *_: object) -> None:
    """A call that never comes back to Python, here before the cluster is joined."""
    pipe.send(driver.READY)
    time.sleep(600)


def ended(pipe: Connection, _: Cluster, written: str) -> None:
    """Ray ends its process in mid-grid, and leaves its words and our token."""
    pipe.send(driver.READY)
    pipe.recv()
    pipe.send(driver.JOINED)
    found, grid = pipe.recv()
    pipe.send(driver.ALIVE)
    pipe.send(Outcome(place=found[0][0].place, state="done"))
    grid.out.mkdir()
    (grid.out / f"{tokens_of(os.getpid())}1").touch()
    Path(written).write_text("[2026 E 1] raylet.cc:1: It is dead. Look there.\n\n", encoding="utf-8")
    os.kill(os.getpid(), signal.SIGKILL)


def talking(pipe: Connection, *_: object) -> None:
    """A grid with a warning, then one whose cluster is lost."""
    pipe.send(driver.READY)
    pipe.recv()
    pipe.send(driver.JOINED)
    found, _ = pipe.recv()
    pipe.send(UserWarning("a worker hangs"))
    pipe.send(Outcome(place=found[0][0].place, state="done"))
    pipe.send(driver.END)
    pipe.recv()
    pipe.send(UserError("is lost", exit_code=DATA))


@pytest.fixture
def begun(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(driver.cluster, "require_ray", lambda _: None)
    monkeypatch.setattr(driver.pulse, "require_somebody", lambda _: None)
    monkeypatch.setattr(driver, "SECONDS_TO_JOIN", 0.3)
    monkeypatch.setattr(driver.pulse, "SECONDS_TO_ANSWER", 0.1)


@pytest.mark.usefixtures("begun")
def test_a_process_that_freezes_while_it_joins(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(driver, "serve", frozen)
    said = r"no Ray cluster at 'head:6379': Ray has not let go .* for 0 s\. .* \(raylet\) may hang"
    with pytest.raises(UserError, match=said) as found, driver.joined(AWAY):
        pass
    assert found.value.exit_code == DATA


@pytest.mark.usefixtures("begun")
@pytest.mark.skipif(os.name != "posix", reason="ends a process by a signal")
def test_a_process_that_ray_ends_in_mid_grid(
    monkeypatch: pytest.MonkeyPatch, clip_dir: Path, sets: Path, tmp_path: Path
) -> None:
    monkeypatch.setattr(driver, "serve", ended)
    monkeypatch.setattr(driver, "SECONDS_TO_JOIN", 60)
    grid = grid_of(tmp_path / "out", sets)
    plan = plan_of(request(clip_dir, sets), grid)
    heard = []
    said = r"is lost: Ray's part of the command was ended by signal SIGKILL \(Ray: \"raylet.cc:1: It is dead\"\)\. What"
    with pytest.raises(UserError, match=said) as found, driver.joined(AWAY) as carry:
        heard += carry(batches(plan.cells), grid)
    assert found.value.exit_code == DATA
    assert list(grid.out.iterdir()) == []


@pytest.mark.usefixtures("begun")
def test_what_it_says_reaches_the_command(
    monkeypatch: pytest.MonkeyPatch, clip_dir: Path, sets: Path, tmp_path: Path
) -> None:
    monkeypatch.setattr(driver, "serve", talking)
    monkeypatch.setattr(driver, "SECONDS_TO_JOIN", 60)
    grid = grid_of(tmp_path / "out", sets)
    plan = plan_of(request(clip_dir, sets), grid)
    with driver.joined(AWAY) as carry:
        with pytest.warns(UserWarning, match="a worker hangs"):
            outcomes = list(carry(batches(plan.cells), grid))
        assert [one.place for one in outcomes] == [plan.cells[0].place]
        with pytest.raises(UserError, match="is lost"), warnings.catch_warnings():
            list(carry(batches(plan.cells), grid))
