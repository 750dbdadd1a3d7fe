"""One random model in every layout, written once."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.towers import layouts
from vlprompt.towers import Clip, load


@pytest.fixture(scope="session")
def paths(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Layout -> the path that a user would give; read them, never write into them."""
    folder, tensors = tmp_path_factory.mktemp("layouts"), layouts.weights(layouts.config())
    return {name: layouts.write(name, folder / name, tensors) for name in layouts.NAMES}


@pytest.fixture(scope="session")
def reference(paths: dict[str, Path]) -> Clip:
    """The model as the Hugging Face layout gives it."""
    return load(paths["huggingface"])
