"""Hub ids: the cache, offline mode, what is fetched, and what an error says."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from fnmatch import fnmatch
from pathlib import Path

import pytest
import torch

from tests.towers.layouts import refused
from vlprompt.towers import Clip, load


def cached(home: Path, model: str, source: Path) -> Path:
    """A model as the Hub's own cache keeps it."""
    folder = home / "hub" / f"models--{model.replace('/', '--')}"
    (folder / "refs").mkdir(parents=True)
    (folder / "refs" / "main").write_text("0123abcd", encoding="utf-8")
    shutil.copytree(source, folder / "snapshots" / "0123abcd")
    return folder


@pytest.fixture
def offline(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty HF_HOME, without a network."""
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "home" / "hub"))
    return tmp_path / "home"


@pytest.mark.parametrize("name", ["sharded", "openclip", "openclip_pickled"])
def test_cached_models_load_without_a_network(
    paths: dict[str, Path], reference: Clip, offline: Path, name: str
) -> None:
    cached(offline, "someone/clip", paths[name])
    assert load("someone/clip").weight_hash == reference.weight_hash
    assert load("hf-hub:someone/clip").weight_hash == reference.weight_hash


def test_what_the_cache_lacks_says_what_to_do(paths: dict[str, Path], offline: Path) -> None:
    assert "Go online once" in refused("someone/absent")
    folder = cached(offline, "someone/clip", paths["huggingface"])
    (folder / "snapshots" / "0123abcd" / "model.safetensors").unlink()
    assert "has no weights that can be read" in refused("someone/clip")
    assert "is neither a Hub id" in refused("some one/cl ip")


def test_hf_home_and_offline_mode_are_honoured(paths: dict[str, Path], reference: Clip, tmp_path: Path) -> None:
    cached(tmp_path / "home", "someone/clip", paths["openclip"])
    code = "import sys, vlprompt.towers as t; print(t.load('someone/clip').weight_hash)"
    env = {**os.environ, "HF_HOME": str(tmp_path / "home"), "HF_HUB_OFFLINE": "1"}
    env.pop("HF_HUB_CACHE", None)
    done = subprocess.run([sys.executable, "-c", code], env=env, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == reference.weight_hash


def test_only_the_weights_that_are_needed_are_fetched(
    paths: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, reference: Clip
) -> None:
    remote, local = tmp_path / "remote", tmp_path / "local"
    for name in ("huggingface", "openclip", "openclip_pickled"):
        shutil.copytree(paths[name], remote, dirs_exist_ok=True)
    torch.save({}, remote / "pytorch_model.bin")

    def fetch(model: str, allow_patterns: list[str]) -> str:
        assert model == "someone/clip"
        local.mkdir(exist_ok=True)
        for path in remote.iterdir():
            if any(fnmatch(path.name, pattern) for pattern in allow_patterns):
                shutil.copy(path, local)
        return str(local)

    def weights() -> set[str]:
        return {path.name for path in local.iterdir() if path.suffix in (".safetensors", ".bin")}

    monkeypatch.setattr("huggingface_hub.snapshot_download", fetch)
    assert load("someone/clip").weight_hash == reference.weight_hash
    assert weights() == {"model.safetensors"}
    shutil.rmtree(local)
    (remote / "config.json").unlink()
    assert load("hf-hub:someone/clip").weight_hash == reference.weight_hash
    assert weights() == {"open_clip_model.safetensors"}


@pytest.mark.parametrize(
    ("kind", "text", "message"),
    [
        ("GatedRepoError", "gated", "accepted its terms"),
        ("RepositoryNotFoundError", "absent", "has no model 'a/b'"),
        ("HfHubHTTPError", "503 busy.", "503 busy. Go online once"),
        ("LocalEntryNotFoundError", "not cached.", "not cached. Go online once"),
        (None, "no route.", "no route. Go online once"),
    ],
)
def test_errors_of_the_hub_say_what_to_do(
    monkeypatch: pytest.MonkeyPatch, kind: str | None, text: str, message: str
) -> None:
    from huggingface_hub import errors

    class Raised(ConnectionError if kind is None else getattr(errors, kind)):  # type: ignore[misc]
        def __init__(self) -> None:  # the Hub's own constructors want a response of the HTTP library of their version
            Exception.__init__(self, text)

        def __str__(self) -> str:
            return text

    def fail(*_: object, **__: object) -> str:
        raise Raised

    monkeypatch.setattr("huggingface_hub.snapshot_download", fail)
    assert message in refused("a/b")
