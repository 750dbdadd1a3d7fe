"""A tiny CLIP and a folder of pictures for every test of the commands, and a way to run one."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.images import write_squares
from vlprompt import cli

COLORS = {"red": (220, 40, 40), "green": (40, 200, 40), "blue_bird": (40, 60, 220)}
PER_CLASS = 8


@dataclass(frozen=True)
class Done:
    """What a command left: its exit code and its two streams."""

    code: int
    out: str
    err: str


Vlprompt = Callable[..., Done]


@pytest.fixture
def vlprompt(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Vlprompt:
    """Runs a command line in an empty directory with a cache of its own."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")

    def run(*arguments: object) -> Done:
        capsys.readouterr()
        code = cli.run([str(one) for one in arguments])
        streams = capsys.readouterr()
        assert "Traceback" not in streams.err
        return Done(code, streams.out, streams.err)

    return run


@pytest.fixture(scope="session")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three classes of noisy colours, without train and test folders. Not to be changed: see `own_photos`."""
    return write_photos(tmp_path_factory.mktemp("data") / "photos")


@pytest.fixture
def own_photos(photos: Path, tmp_path: Path) -> Path:
    """A copy that a test may spoil."""
    return Path(shutil.copytree(photos, tmp_path / "photos"))


def write_photos(root: Path, seed: int = 0) -> Path:
    return write_squares(root, COLORS, {"": PER_CLASS}, seed=seed)


@pytest.fixture(scope="session")
def trained(clip_dir: Path, photos: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run of two seeds. Not to be changed: copy it."""
    root = tmp_path_factory.mktemp("runs")
    code = cli.run(
        [
            *train_arguments(clip_dir, photos),
            "--seeds",
            "1,2",
            "--out",
            str(root / "run"),
            "--cache",
            str(root / "cache"),
        ]
    )
    assert code == 0
    return root / "run"


def train_arguments(clip_dir: Path, photos: Path) -> list[str]:
    """The shortest training there is."""
    return [
        *("train", "--data", str(photos), "--model", str(clip_dir), "--method", "plpp+coop"),
        *("--shots", "2", "--set", "epochs=2", "--set", "n_ctx=3", "--views", "1", "--device", "cpu"),
    ]
