"""Types that are slower than float32 on a machine are said to be, from a measurement."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from tests.engine.conftest import Memory
from tests.engine.made import config
from vlprompt.engine import precision
from vlprompt.engine.run import train_run

CPU = torch.device("cpu")


def test_a_type_is_compared_with_float32_by_the_clock() -> None:
    assert 0.2 < precision.slowdown(torch.float32, CPU) < 5
    assert precision.slowdown(torch.float64, CPU) > precision.slowdown(torch.float32, CPU) / 3


def test_only_a_slow_type_is_noted(monkeypatch: pytest.MonkeyPatch) -> None:
    seconds = {torch.float32: 1.0, torch.bfloat16: 40.0, torch.float16: 0.5}
    monkeypatch.setattr(precision, "_product_seconds", lambda dtype, device: seconds[dtype])
    said = precision.slow_note(torch.bfloat16, CPU)
    assert said is not None
    assert "bfloat16 is slow on this machine" in said
    assert "40.0 times" in said
    assert "--dtype float32" in said
    assert precision.slow_note(torch.float16, CPU) is None
    assert precision.slow_note(torch.float32, CPU) is None


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_a_run_in_half_precision_learns_and_says_where_that_is_slow(
    clip_dir: Path, folder: Path, tmp_path: Path, memory: Memory, monkeypatch: pytest.MonkeyPatch, dtype: str
) -> None:
    seconds = {torch.float32: 1.0, torch.bfloat16: 40.0, torch.float16: 0.5}
    monkeypatch.setattr(precision, "_product_seconds", lambda dtype, device: seconds[dtype])
    (record,) = train_run(config(clip_dir, folder, tmp_path / "run", dtype=dtype, method="plpp+coop"), memory)
    assert record.dtype == dtype
    assert any("is slow on this machine" in note for note in memory.notes) == (dtype == "bfloat16")
    assert len(memory.losses) > 0
    assert all(torch.isfinite(torch.tensor(memory.losses)))
