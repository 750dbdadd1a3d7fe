"""Types that are slower than float32 on a machine are said to be, from a measurement."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from tests.engine.conftest import Memory
from tests.engine.made import config
from vlprompt.engine import precision
from vlprompt.engine.run import train_run
from vlprompt.errors import UserError

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


@pytest.mark.parametrize(
    ("cuda", "mps", "asked", "wanted"),
    [
        (2, True, "auto", "cuda"),
        (0, True, "auto", "mps"),
        (0, False, "auto", "cpu"),
        (2, True, "cpu", "cpu"),
        (2, False, "cuda:1", "cuda:1"),
        (0, True, "mps", "mps"),
        (0, True, "cuda", "torch sees no CUDA device. Use --device auto"),
        (2, False, "cuda:2", "'cuda:2' was asked for, but there are 2 CUDA devices"),
        (2, False, "mps", "'mps' was asked for, but torch sees none"),
        (2, True, "gpu", "unknown device 'gpu'. Allowed: auto, cpu, cuda"),
        (2, True, "cuda:-1", "unknown device 'cuda:-1'"),
        (2, True, "cuda:x", "unknown device 'cuda:x'"),
    ],
)
def test_the_device_that_was_asked_for_or_a_word_why_not(
    cuda: int, mps: bool, asked: str, wanted: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: cuda > 0)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: cuda)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: mps)
    if " " in wanted:
        with pytest.raises(UserError) as problem:
            precision.resolve_device(asked)
        assert wanted in str(problem.value)
    else:
        assert precision.resolve_device(asked) == torch.device(wanted)


def test_a_time_has_the_name_of_what_it_was_measured_on(monkeypatch: pytest.MonkeyPatch) -> None:
    assert precision.device_name(CPU).endswith(f", {torch.get_num_threads()} thread")
    monkeypatch.setattr(Path, "read_text", lambda *_, **__: "processor : 0\nmodel name\t: Fast 9000\n")
    assert precision.device_name(CPU) == "Fast 9000, 1 thread"
    monkeypatch.setattr(torch, "get_num_threads", lambda: 4)
    monkeypatch.setattr(Path, "read_text", lambda *_, **__: "vendor_id : x\n")
    named = precision.device_name(CPU)
    assert named.endswith(", 4 threads")
    assert not named.startswith(","), "the machine's kind stands where no name is known"
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda device: f"Card {device.index}")
    assert precision.device_name(torch.device("cuda:1")) == "Card 1"
    assert precision.device_name(torch.device("mps")).startswith("mps (")
