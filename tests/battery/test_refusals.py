"""What a model has no place for is refused when the prompt is built, and before an image is read."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest
import torch

from tests.engine.conftest import Memory
from tests.engine.made import config, write_images
from vlprompt.engine.images import Images
from vlprompt.engine.run import train_run
from vlprompt.errors import UserError
from vlprompt.methods.resolve import HOSTS, resolve
from vlprompt.towers import Clip

PROMPTS_IMAGE = [host.name for host in HOSTS if host.prompt.reach.image_tower]
FACTS = Clip.facts.fget  # type: ignore[attr-defined]


@pytest.mark.parametrize("name", PROMPTS_IMAGE)
def test_image_tokens_for_a_resnet_are_refused_with_what_works_there(clip: Clip, name: str) -> None:
    facts = dataclasses.replace(clip.facts, takes_image_prompts=False)
    spec = resolve(name).prompt
    assert spec is not None
    with pytest.raises(
        UserError, match=r"ResNet, which has no place for them.*prompts the text alone \((coop|rpp |clip-lora )"
    ):
        spec.build(facts, torch.Generator(), 3)


def test_there_are_such_methods_and_others() -> None:
    assert {"vpt", "vpt-deep", "ivlp", "maple", "promptsrc", "rpp", "rpp-shared3x"} <= set(PROMPTS_IMAGE)
    assert not {"coop", "cocoop", "kgcoop", "prograd", "pomp"} & set(PROMPTS_IMAGE)


def test_it_is_refused_before_an_image_is_read(clip_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        Clip, "facts", property(lambda self: dataclasses.replace(FACTS(self), takes_image_prompts=False))
    )
    monkeypatch.setattr(Images, "usable", None)
    with pytest.raises(UserError, match="ResNet"):
        train_run(
            config(
                clip_dir, write_images(tmp_path / "colours"), tmp_path / "run", method="maple", overrides={"n_ctx": 2}
            ),
            Memory(),
        )
    assert not (tmp_path / "run").exists()
