"""The fuzzer's targets without the fuzzer: each reads its good file, and refuses torn ones as a user's error."""

from __future__ import annotations

import contextlib
import random
from pathlib import Path

import pytest

from tests.hostile import values
from tests.soak.guided import TARGETS
from vlprompt.data.archive import Unsafe
from vlprompt.errors import UserError


@pytest.mark.parametrize("name", TARGETS)
def test_a_target_reads_what_is_whole_and_torn(name: str, tmp_path: Path) -> None:
    good, read = TARGETS[name](tmp_path)
    for data in good:
        read(data)
    stream = random.Random(name)
    for _ in range(10):
        with contextlib.suppress(UserError, Unsafe):
            read(values.torn(stream.choice(good), stream))
