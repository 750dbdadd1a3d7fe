"""The small CLIP of these tests, in float32 and float64."""

from __future__ import annotations

import pytest

from tests import tiny
from tests.prompts.made import SIZES
from vlprompt.towers import Clip


@pytest.fixture(scope="session")
def uneven(tmp_path_factory: pytest.TempPathFactory) -> Clip:
    return tiny.clip(tmp_path_factory.mktemp("uneven") / "clip", **SIZES)


@pytest.fixture(scope="session")
def double(tmp_path_factory: pytest.TempPathFactory) -> Clip:
    return tiny.clip(tmp_path_factory.mktemp("double") / "clip", **SIZES).double()
