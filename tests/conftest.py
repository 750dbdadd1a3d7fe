"""Fixtures that every test may use."""

from __future__ import annotations

import os
from pathlib import Path

os.environ["VLPROMPT_MODEL"] = "pocket-s"  # the faster one, where a test names no model

import pytest
import torch
from hypothesis import settings

from tests import tiny
from vlprompt.towers import Clip

torch.set_num_threads(1)
settings.register_profile("busy", deadline=None)  # a busy machine is slow at times: time is not what is tested
settings.load_profile("busy")


@pytest.fixture(autouse=True)
def no_columns(monkeypatch: pytest.MonkeyPatch) -> None:
    """Test runners set COLUMNS; tables in pipes are as wide as they are for a user who does not."""
    monkeypatch.delenv("COLUMNS", raising=False)


@pytest.fixture(scope="session")
def clip_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny random CLIP directory; read it, never write into it."""
    return tiny.clip_dir(tmp_path_factory.mktemp("clip") / "tiny-clip")


@pytest.fixture(scope="session")
def clip(clip_dir: Path) -> Clip:
    """The same, loaded in float32."""
    from vlprompt.towers import load

    return load(clip_dir)
