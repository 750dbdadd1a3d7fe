"""Golden losses of methods that prompt both towers. `pytest tests/engine --regen` writes them anew."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.engine.conftest import Memory
from tests.engine.made import images, lesson
from vlprompt.engine.train import train
from vlprompt.methods.resolve import resolve
from vlprompt.towers import Clip

GOLDEN = Path(__file__).parents[1] / "golden"


@pytest.mark.parametrize("name", ["maple", "promptsrc", "rpp"])
def test_golden_losses(clip: Clip, folder: Path, regen: bool, name: str) -> None:
    """Ten steps: the loss of each, and where the prompt ends."""
    memory = Memory()
    method = resolve(name, {"epochs": 5, "batch": 8, "lr": 0.005})
    prompt = train(clip, method, lesson(folder), images(clip), observer=memory)
    got = {"losses": memory.losses, "squares": sum(float(p.double().square().sum()) for p in prompt.parameters())}
    path = GOLDEN / f"{name}.json"
    if regen:
        path.write_text(json.dumps(got, indent=2) + "\n", encoding="utf-8")
    wanted = json.loads(path.read_text(encoding="utf-8"))
    assert len(got["losses"]) == 10
    assert got["losses"] == pytest.approx(wanted["losses"], rel=3e-5)
    assert got["squares"] == pytest.approx(wanted["squares"], rel=3e-5)
