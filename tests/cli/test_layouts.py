"""`vlprompt train` and `vlprompt predict` with a checkpoint in each layout: the same weights learn the same prompt from all of them."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from torch import Tensor

from tests.cli.conftest import COLORS, Vlprompt, train_arguments
from tests.towers import layouts
from vlprompt.towers.config import ResNetConfig

RESNET = layouts.config(ResNetConfig(blocks=(1, 1, 1, 1), stem=16, heads=8), size=64)
RESNETS: dict[str, Callable[[Path, dict[str, Tensor]], Path]] = {
    "resnet_openclip": lambda folder, tensors: layouts.openclip_dir(folder, RESNET, tensors),
    "resnet_state_dict": lambda folder, tensors: layouts.state_dict_file(folder.with_suffix(".pt"), tensors),
    "resnet_torchscript": lambda folder, tensors: layouts.torchscript_file(
        folder.with_suffix(".pt"), layouts.halved(tensors)
    ),
}


@pytest.fixture(scope="module")
def checkpoints(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """One ViT in every layout and one ResNet in its three; the path that a user gives."""
    folder = tmp_path_factory.mktemp("checkpoints")
    vit, resnet = layouts.weights(layouts.config()), layouts.weights(RESNET)
    paths = {name: layouts.write(name, folder / name, vit) for name in layouts.NAMES}
    return paths | {name: write(folder / name, resnet) for name, write in RESNETS.items()}


@pytest.fixture(scope="module")
def learned() -> dict[str, bytes]:
    """Architecture -> the prompt that its first layout learned."""
    return {}


@pytest.mark.parametrize("name", [*layouts.NAMES, *RESNETS])
def test_train_and_predict_with_every_layout(
    vlprompt: Vlprompt, checkpoints: dict[str, Path], photos: Path, learned: dict[str, bytes], name: str
) -> None:
    done = vlprompt(*train_arguments(checkpoints[name], photos), "--out", "run", "--json")
    assert done.code == 0, done.err
    (record,) = json.loads(done.out)
    assert record["model"] == str(checkpoints[name])
    assert record["parameters"] == 3 * 64
    prompt = Path("run/seed1/prompt.safetensors").read_bytes()
    assert prompt == learned.setdefault("resnet" if name in RESNETS else "vit", prompt)

    picture = photos / "red" / "0.png"
    done = vlprompt("predict", "run", picture, "--json")
    assert done.code == 0, done.err
    (answer,) = json.loads(done.out)
    assert {one["class"] for one in answer["top"]} == {color.replace("_", " ") for color in COLORS}
    assert sum(one["probability"] for one in answer["top"]) == pytest.approx(1, abs=1e-5)


def test_a_prompt_of_one_layout_answers_on_another_and_on_no_other_weights(
    vlprompt: Vlprompt, checkpoints: dict[str, Path], photos: Path
) -> None:
    assert vlprompt(*train_arguments(checkpoints["torchscript"], photos), "--out", "run").code == 0
    picture = photos / "green" / "3.png"
    own = vlprompt("predict", "run", picture, "--json")
    moved = vlprompt("predict", "run", picture, "--model", checkpoints["sharded"], "--json")
    assert (own.code, moved.code) == (0, 0), own.err + moved.err
    assert json.loads(own.out) == json.loads(moved.out)
    other = vlprompt("predict", "run", picture, "--model", checkpoints["resnet_openclip"])
    assert other.code in (2, 3)
    assert "weights" in other.err


def test_methods_that_prompt_images_are_refused_on_a_resnet(
    vlprompt: Vlprompt, checkpoints: dict[str, Path], photos: Path
) -> None:
    arguments = ["--data", photos, "--model", checkpoints["resnet_state_dict"], "--shots", "1", "--device", "cpu"]
    done = vlprompt("train", "--method", "maple", *arguments)
    assert done.code == 2
    assert "ResNet" in done.err
