"""The sets of this part's tests."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.bench.made import write_sets


@pytest.fixture(scope="session")
def sets(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """`shades`, `others` and `dark`; read them, never write into them."""
    return write_sets(tmp_path_factory.mktemp("sets"))
