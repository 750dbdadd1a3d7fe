"""Workers that hang: their signs of life stop, and they are ended on their machine."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
import warnings
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from vlprompt.bench import cluster, hung
from vlprompt.bench.cells import Outcome


class Table:
    """A cluster's table of keys and values."""

    def __init__(self) -> None:
        self.rows: dict[bytes, bytes] = {}
        self.put = 0
        self.ended = False
        """Whether a process that is asked to end does."""

    def _internal_kv_initialized(self) -> bool:
        return True

    def _internal_kv_put(self, key: str, value: str, **_: object) -> None:
        self.rows[key.encode()] = value.encode()
        self.put += 1

    def _internal_kv_get(self, key: bytes, **_: object) -> bytes | None:
        return self.rows.get(key)

    def _internal_kv_list(self, prefix: str, **_: object) -> list[bytes]:
        return [key for key in self.rows if key.startswith(prefix.encode())]

    def _internal_kv_del(self, key: str | bytes, **_: object) -> None:
        self.rows.pop(key if isinstance(key, bytes) else key.encode(), None)


def ray_of(table: Table, ended: list[tuple[str, int]]) -> Any:
    """A Ray of one machine, `here`, that notes which process it is asked to end, and where."""

    def options(*, scheduling_strategy: Any, **_: object) -> Any:
        return SimpleNamespace(remote=lambda process: ended.append((scheduling_strategy.node, process)) or "ending")

    strategies = SimpleNamespace(
        NodeAffinitySchedulingStrategy=lambda node, soft: SimpleNamespace(node=node, soft=soft)
    )
    return SimpleNamespace(
        experimental=SimpleNamespace(internal_kv=table),
        util=SimpleNamespace(scheduling_strategies=strategies),
        remote=lambda _: SimpleNamespace(options=options),
        wait=lambda tasks, **_: (tasks if table.ended else [], []),
        nodes=lambda: [{"NodeID": "here", "NodeName": "a-host"}],
        get_runtime_context=lambda: SimpleNamespace(get_node_id=lambda: "here"),
    )


def test_a_worker_that_gives_no_sign_is_ended_and_others_are_not(monkeypatch: pytest.MonkeyPatch) -> None:
    now, table, ended = [0.0], Table(), list[tuple[str, int]]()
    monkeypatch.setattr(hung.time, "monotonic", lambda: now[0])
    watch = hung.SignWatch(ray_of(table, ended), "token")
    for second in range(0, 60, 20):
        now[0] = float(second)
        table._internal_kv_put("token:1", json.dumps({"node": "here", "process": 7, "signs": 0}))
        table._internal_kv_put("token:2", json.dumps({"node": "here", "process": 8, "signs": second}))
        table._internal_kv_put("other:3", json.dumps({"node": "here", "process": 9, "signs": 0}))
        watch.look(["here"])
    assert ended == []
    now[0] = 61.0
    with pytest.warns(UserWarning, match="process 7 of a-host has given no sign of life for 60 s"):
        watch.look(["here"])
    assert ended == [("here", 7)]
    assert watch.look(["here"]) == []
    assert b"token:1" in table.rows
    table.ended = True
    assert watch.look(["here"]) == []
    assert ended == [("here", 7)]
    assert sorted(table.rows) == [b"other:3", b"token:2"]


def test_a_worker_that_outlives_its_end_and_one_without_a_machine_are_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    now, table, ended = [0.0], Table(), list[tuple[str, int]]()
    monkeypatch.setattr(hung.time, "monotonic", lambda: now[0])
    watch = hung.SignWatch(ray_of(table, ended), "token")
    table._internal_kv_put("token:1", json.dumps({"node": "here", "process": 7, "signs": 0}))
    table._internal_kv_put("token:2", json.dumps({"node": "there", "process": 8, "signs": 0}))
    with warnings.catch_warnings(action="ignore", category=UserWarning):
        for second, lost in ((0, []), (19, []), (21, ["token:2"]), (61, []), (119, []), (121, ["token:1"]), (130, [])):
            now[0] = float(second)
            assert watch.look(["here"]) == lost, second
    assert ended == [("here", 7)]
    assert table.rows == {}


def test_tasks_without_signs_are_begun_again_after_a_machine_has_left(monkeypatch: pytest.MonkeyPatch) -> None:
    """Ray may wait for ever for a machine's answer to whether it takes a task."""
    now, table = [0.0], Table()
    monkeypatch.setattr(hung.time, "monotonic", lambda: now[0])
    watch = hung.SignWatch(ray_of(table, []), "token")
    for second, machines, lost in (
        (0, ["here", "there"], []),
        (300, ["here", "there"], []),
        (301, ["here"], []),
        (320, ["here"], []),
        (322, ["here"], [hung.UNHEARD]),
        (380, ["here"], []),
        (383, ["here"], [hung.UNHEARD]),
        (444, ["here"], []),
        (502, ["here"], []),
        (504, ["here"], [hung.UNHEARD]),
    ):
        now[0] = float(second)
        table._internal_kv_put("token:1", json.dumps({"node": "here", "process": 7, "signs": second}))
        if second > 322:
            table.rows.clear()
        assert watch.look(machines) == lost, second
        assert watch.heard("token:1") == (second <= 322)
    for second in range(510, 900, 10):
        now[0] = float(second)
        table._internal_kv_put("token:2", json.dumps({"node": "here", "process": 7, "signs": second}))
        assert watch.look(["here"]) == []


def test_a_worker_gives_signs_as_long_as_it_works(monkeypatch: pytest.MonkeyPatch) -> None:
    table = Table()
    monkeypatch.setitem(sys.modules, "ray", ray_of(table, []))
    monkeypatch.setattr(hung, "SECONDS_BETWEEN_SIGNS", 0.01)
    with hung.living("token:1"):
        while table.put < 3:
            time.sleep(0.01)
        said = json.loads(table.rows[b"token:1"])
    assert (said["node"], said["process"]) == ("here", os.getpid())
    assert said["signs"] >= 2
    assert table.rows == {}
    monkeypatch.setitem(sys.modules, "ray", SimpleNamespace())
    with hung.living("token:1"):
        pass
    assert table.rows == {}


@pytest.mark.skipif(not Path("/proc/self").is_dir(), reason="asks /proc for the name of a process")
def test_only_a_task_is_ended() -> None:
    """The number may belong to another process by then."""
    for title, code in (("sleep", None), (f"ray::{hung.TASK}", -9)):
        with subprocess.Popen([title, "60"], executable="/bin/sleep") as process:
            while title.encode() not in Path(f"/proc/{process.pid}/cmdline").read_bytes():
                time.sleep(0.01)
            hung.end_worker(process.pid)
            found = process.wait() if code else process.poll()
            process.kill()
        assert found == code


def test_a_lock_that_a_hung_worker_has_ends_the_cell_after_a_while(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its machine hangs, so nobody can end it; other processes may hold a cell as long as they like."""

    class RayError(Exception):
        pass

    busy, done = (Outcome(place=Path(name), state=state) for name, state in (("a", "busy"), ("b", "done")))
    ray = SimpleNamespace(get=lambda _: ([busy, done], {}), exceptions=SimpleNamespace(RayError=RayError))
    around = cluster.Surroundings(place="", token="t", variables={})
    tasks = cluster._Tasks(ray, cluster.Cluster(address="auto"), around)
    batch: Any = (SimpleNamespace(place=Path("a")), SimpleNamespace(place=Path("b")))
    assert tasks._found(None, batch, begun_before=False) == ([busy, done], {})
    assert tasks._found(None, batch, begun_before=True) is None, "it may let go"
    monkeypatch.setattr(hung, "SECONDS_OF_HANGING", 0.0)
    found = tasks._found(None, batch, begun_before=True)
    assert isinstance(found, tuple)
    first, second = found[0]
    assert (first.state, first.exit_code, first.again, second) == ("failed", 3, False, done)
    assert "its machine hangs" in first.reason
