"""States on disk, and the lock on a run directory."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from vlprompt import disk
from vlprompt.disk import locked
from vlprompt.engine.checkpoint import Checkpoints, State
from vlprompt.errors import UserError


def state(epoch: int = 3) -> State:
    return State(
        epoch=epoch,
        parameters={"ctx": torch.arange(6.0).view(2, 3)},
        momentum={"ctx": torch.ones(2, 3)},
        average={"ctx": torch.full((2, 3), 1 / 3, dtype=torch.float64)},
        seconds=1.5,
    )


def test_a_state_comes_back_as_it_was(tmp_path: Path) -> None:
    checkpoints = Checkpoints(directory=tmp_path, config_hash="abc")
    assert checkpoints.load() is None
    checkpoints.save(state())
    first = checkpoints.path.read_bytes()
    back = checkpoints.load()
    assert back is not None
    assert (back.epoch, back.seconds) == (3, 1.5)
    for kind in ("parameters", "momentum", "average"):
        got, wanted = getattr(back, kind)["ctx"], getattr(state(), kind)["ctx"]
        assert got.dtype == wanted.dtype
        assert torch.equal(got, wanted)
    checkpoints.save(back)
    assert checkpoints.path.read_bytes() == first


def test_a_write_that_is_cut_off_leaves_the_state_before(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    checkpoints = Checkpoints(directory=tmp_path, config_hash="abc")
    checkpoints.save(state(3))

    def stop(*args: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(os, "replace", stop)
        with pytest.raises(KeyboardInterrupt):
            checkpoints.save(state(4))
    back = checkpoints.load()
    assert back is not None
    assert back.epoch == 3
    checkpoints.save(state(5))
    assert [path.name for path in tmp_path.iterdir()] == ["checkpoint.safetensors"]


@pytest.mark.parametrize("damage", [b"", b"\x00" * 40, b"not safetensors at all, and long enough to try"])
def test_damage_is_said(tmp_path: Path, damage: bytes) -> None:
    checkpoints = Checkpoints(directory=tmp_path, config_hash="abc")
    checkpoints.path.write_bytes(damage)
    with pytest.raises(UserError, match=r"is damaged .*Move it away"):
        checkpoints.load()


def test_another_configurations_state_is_refused(tmp_path: Path) -> None:
    Checkpoints(directory=tmp_path, config_hash="abc").save(state())
    with pytest.raises(UserError, match="another configuration"):
        Checkpoints(directory=tmp_path, config_hash="xyz").load()


def test_what_was_logged_after_the_last_state_is_cut_off(tmp_path: Path) -> None:
    checkpoints = Checkpoints(directory=tmp_path, config_hash="abc", every=2)
    for epoch in range(5):
        checkpoints.log({"epoch": epoch})
    with (tmp_path / "metrics.jsonl").open("a", encoding="utf-8") as file:
        file.write('{"epoch": 5, "lo')
    checkpoints.save(state(4))
    checkpoints.load()
    assert (tmp_path / "metrics.jsonl").read_text(encoding="utf-8").splitlines() == [
        f'{{"epoch": {epoch}}}' for epoch in range(4)
    ]


def test_one_process_at_a_time(tmp_path: Path) -> None:
    with locked(tmp_path / "run"):
        with pytest.raises(UserError, match="in use by another"), locked(tmp_path / "run"):
            pass
        with locked(tmp_path / "other"):
            pass
    with locked(tmp_path / "run"):
        pass


@pytest.mark.skipif(sys.platform == "win32", reason="kills a process the Unix way")
def test_a_kill_releases_the_lock(tmp_path: Path) -> None:
    code = (
        "import sys, time; from pathlib import Path; from vlprompt.disk import locked\n"
        "with locked(Path(sys.argv[1])):\n    print('held', flush=True)\n    time.sleep(600)"
    )
    with subprocess.Popen([sys.executable, "-c", code, str(tmp_path)], stdout=subprocess.PIPE, text=True) as other:
        assert other.stdout is not None
        assert other.stdout.readline() == "held\n"
        with pytest.raises(UserError, match=r"in use by another .*use another --out"), locked(tmp_path):
            pass
        os.kill(other.pid, signal.SIGKILL)
        other.wait()
    with locked(tmp_path):
        pass


def test_json_refuses_what_is_no_number(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="not JSON compliant"):
        disk.write_json(tmp_path / "a.json", {"loss": float("nan")})
    assert not list(tmp_path.iterdir())


def test_another_number_of_threads_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    place = Checkpoints(directory=tmp_path, config_hash="abc")
    place.save(State(epoch=1, parameters={"ctx": torch.zeros(2)}))
    assert place.load() is not None
    monkeypatch.setattr(torch, "get_num_threads", lambda: 7)
    with pytest.warns(UserWarning, match=r"written with 1 threads, and there are 7 now.*OMP_NUM_THREADS=1"):
        place.load()
