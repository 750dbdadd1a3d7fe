"""The pocket recipes fit the model inside the package: its vocabulary, widths and depths."""

from __future__ import annotations

import pytest
import torch

from vlprompt.methods.resolve import HOSTS, resolve, takes_steps
from vlprompt.towers import Clip, load


@pytest.fixture(scope="module")
def pocket() -> Clip:
    return load("pocket-s")


@pytest.mark.parametrize("name", [host.name for host in HOSTS if takes_steps(host)])
def test_a_pocket_recipes_prompt_can_be_built(pocket: Clip, name: str) -> None:
    method = resolve(name, recipe=f"{name}-pocket")
    module = method.prompt.build(pocket.facts, torch.Generator().manual_seed(0), 3)
    places = module.places()  # type: ignore[operator]
    assert set(places) == {parameter for parameter, _ in module.named_parameters()}
