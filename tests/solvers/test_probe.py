"""The linear probe: the published search, a fit that can be checked by its gradient, and a run from images to record."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from tests.data import layouts
from tests.engine.conftest import Memory
from tests.engine.made import config, write_images
from vlprompt import PromptClassifier, artifact
from vlprompt.bench import Desk, Grid, Means, Request, carrier, done, make, work_off
from vlprompt.data import open_dataset
from vlprompt.engine.run import train_run
from vlprompt.errors import UserError
from vlprompt.methods.resolve import resolve
from vlprompt.solvers.probe import COARSE, Linear, LinearProbe, LinearSpec, ProbeOptions, search
from vlprompt.types import Features, Given, ModelFacts

FACTS = ModelFacts(
    embed_dim=5, text_width=4, text_layers=1, image_width=4, image_layers=1, embed_words=lambda words: torch.empty(0, 4)
)


def answers(table: dict[int, float]) -> tuple[list[float], Callable[[float], tuple[float, Any]]]:
    """A fit whose accuracy depends on C's power of ten alone, and the list of what was tried."""
    tried: list[float] = []

    def fit(strength: float) -> tuple[float, Any]:
        tried.append(strength)
        return table.get(round(float(np.log10(strength))), 0.0), f"fit {strength:g}"

    return tried, fit


def test_the_search_is_the_published_one_step_by_step() -> None:
    """The best coarse C is 1; then both ends, a tenth and ten; the better end and its half of the interval stay."""
    tried, fit = answers({0: 0.7, 1: 0.9, -1: 0.6})
    strength, accuracy, fitted = search(fit, 3)
    assert tried[:7] == list(COARSE)
    # 0.1 and 10: right. 1 (the middle of the logarithms) and 10: right. 10^0.5 and 10: round(0.5) is 0, so right.
    assert np.log10(tried[7:]) == pytest.approx([-1, 1, 0, 1, 0.5, 1])
    assert (strength, accuracy, fitted) == (pytest.approx(10), 0.9, "fit 10")


def test_ties_go_to_the_first_coarse_value_and_to_the_smaller_end() -> None:
    tried, fit = answers({})
    strength, _, _ = search(fit, 2)
    assert np.log10(tried[7:]) == pytest.approx([5, 7, 5, 6])
    assert strength == pytest.approx(1e5)
    assert search(fit, 0)[0] == 1e6


def given(train: tuple[Tensor, Tensor], val: tuple[Tensor, Tensor]) -> Given:
    """What a fit sees that reads neither views nor class features."""
    nothing = Features(pooled=torch.empty(0, 5))
    return Given(train=train, val=val, view=lambda number: nothing.pooled, text=lambda: nothing, scale=1.0, seed=1)


def fitted(train: tuple[Tensor, Tensor], classes: int, strength: float) -> Linear:
    probe = LinearProbe(options=ProbeOptions(C=strength))
    module = LinearSpec().build(FACTS, torch.Generator(), classes)
    said = probe.solve(module, given(train, (torch.empty(0, 5), torch.empty(0, dtype=torch.int64))))
    assert said == f"linear probe: C = {strength:.3g}."
    return module


@pytest.mark.parametrize("classes", [2, 4])
def test_the_fit_is_the_minimum_of_its_loss(classes: int) -> None:
    """The gradient of |W|^2 / 2 + C times the summed cross-entropy is 0; for two classes of the one row that is free."""
    features = torch.randn(40, 5, generator=torch.Generator().manual_seed(0))
    labels = torch.arange(40) % classes
    module = fitted((features, labels), classes, 0.1)
    weight = module.weight.detach().double().requires_grad_()
    bias = module.bias.detach().double().requires_grad_()
    scores = features.double() @ weight.T + bias
    loss = weight.square().sum() / 2 + 0.1 * torch.nn.functional.cross_entropy(scores, labels, reduction="sum")
    slopes = torch.autograd.grad(loss, [weight, bias])
    slopes = tuple(slope[1:] if classes == 2 else slope for slope in slopes)
    assert max(slope.abs().max().item() for slope in slopes) < 1e-2


def test_a_strong_penalty_is_fitted_to_its_minimum_too() -> None:
    """In float32 L-BFGS stops after half of its steps here, and gets every other training image wrong."""
    rng = torch.Generator().manual_seed(0)
    labels = torch.arange(64) % 8
    centres = torch.randn(64, generator=rng) + 0.1 * torch.randn(8, 64, generator=rng)
    features = centres[labels] + 0.3 * torch.randn(64, 64, generator=rng)
    probe = LinearProbe(options=ProbeOptions(C=1e-4))
    module = LinearSpec().build(dataclasses.replace(FACTS, embed_dim=64), torch.Generator(), 8)
    probe.solve(module, given((features, labels), (features[:0], labels[:0])))
    assert (module.logits(features).argmax(1) == labels).double().mean() > 0.9


def test_c_is_chosen_on_validation_images_and_refused_without() -> None:
    rng = torch.Generator().manual_seed(0)
    features, labels = torch.randn(30, 5, generator=rng), torch.arange(30) % 3
    features[torch.arange(30), labels] += 2
    probe = LinearProbe(options=ProbeOptions())
    module = LinearSpec().build(FACTS, torch.Generator(), 3)
    said = probe.solve(module, given((features, labels), (features[:12], labels[:12])))
    accuracy = (module.logits(features[:12]).argmax(1) == labels[:12]).double().mean().item()
    assert said.endswith(f"by accuracy on 12 validation images ({100 * accuracy:.1f} %).")
    assert accuracy > 0.6
    with pytest.raises(UserError, match="--set C=1"):
        probe.solve(module, given((features, labels), (features[:0], labels[:0])))


@pytest.mark.parametrize("settings", [{"C": -1}, {"steps": -1}])
def test_options_that_cannot_be_are_refused(settings: dict[str, object]) -> None:
    with pytest.raises(UserError):
        resolve("linear-probe", settings)


def test_a_run_writes_records_an_artifact_and_answers(clip_dir: Path, folder: Path, tmp_path: Path) -> None:
    chosen = dataclasses.replace(
        config(clip_dir, folder, tmp_path / "run", method="linear-probe"), overrides={"steps": 2}
    )
    (record,) = train_run(chosen)
    assert (record.method, record.parameters, record.num_train) == ("linear-probe", 3 * 32 + 3, 12)
    assert record.epochs == 0
    assert record.top1 is not None
    assert record.top1 > 60
    classifier = PromptClassifier.load(tmp_path / "run", cache=tmp_path / "cache")
    test = open_dataset(folder).test
    assert classifier.score(str(folder)) == pytest.approx(record.top1 / 100)
    assert classifier.learned.num_parameters == record.parameters
    picture = next((folder / "test" / "cat").iterdir())
    assert classifier.predict(picture).shape == (1,)
    assert len(test) == record.num_test
    with pytest.raises(UserError, match="no text side"):
        classifier.predict(picture, class_names=["tree", "house"])
    learned = artifact.loaded(tmp_path / "run" / "seed1")[0]
    assert "class_names=" not in artifact.card(learned)
    assert {name: tuple(p.shape) for name, p in learned.prompt.named_parameters()} == {"weight": (3, 32), "bias": (3,)}
    again = train_run(dataclasses.replace(chosen, out=tmp_path / "again"))[0]
    assert again.top1 == record.top1
    one, two = ((tmp_path / run / "seed1" / "prompt.safetensors").read_bytes() for run in ("run", "again"))
    assert one == two


@pytest.fixture
def imagenet(tmp_path: Path) -> Path:
    """ImageNet's layout: four training images a class, none to validate, two to test."""
    layouts.MAKERS["imagenet"](tmp_path / "imagenet")
    return tmp_path / "imagenet"


def test_on_imagenet_c_is_chosen_on_unused_training_images(clip_dir: Path, imagenet: Path, tmp_path: Path) -> None:
    chosen = config(clip_dir, imagenet, tmp_path / "run", method="linear-probe", shots=2)
    memory = Memory()
    (record,) = train_run(dataclasses.replace(chosen, overrides={"steps": 2}), memory)
    assert (record.num_train, record.num_val, record.val_from) == (10, 10, "training images")
    assert any("10 unused training images are held out" in note for note in memory.notes)
    split = json.loads((tmp_path / "run" / "seed1" / "split.json").read_text(encoding="utf-8"))
    used, held, asked = ({one for one, _ in split[part]} for part in ("train", "val", "test"))
    assert not used & held
    assert not held & asked
    assert all("images/train/" in one for one in held)
    other = train_run(dataclasses.replace(chosen, overrides={"steps": 2}, seeds=(2,), out=tmp_path / "other"))[0]
    assert other.split_hash != record.split_hash
    (plain,) = train_run(config(clip_dir, imagenet, tmp_path / "coop", shots=2))
    assert (plain.num_val, plain.val_from, plain.val_top1) == (0, "", None), (
        "nothing is held out for those that do not choose"
    )


def test_a_grid_holds_training_images_out_too(clip_dir: Path, imagenet: Path, tmp_path: Path) -> None:
    asked = Request(
        protocols=("few-shot",),
        data=(str(imagenet),),
        model=str(clip_dir),
        methods=("linear-probe",),
        shots=(2,),
        seeds=(1,),
    )
    grid = Grid(out=tmp_path / "grid", means=Means(device="cpu", cache=tmp_path / "cache"))
    desk = Desk(grid.means)
    plan = make(asked, desk)
    work_off(plan.cells, grid, carrier(1, desk=desk))
    (record,) = done(plan, grid)
    assert (record.num_val, record.val_from, record.recipe) == (10, "training images", "linear-probe-few-shot")


def test_images_in_memory_have_no_validation_part_so_that_c_is_given(
    clip_dir: Path, folder: Path, tmp_path: Path
) -> None:
    files = sorted((folder / "train").rglob("*.png"))
    labels = [file.parent.name for file in files]
    with pytest.raises(UserError, match="--set C=1"):
        PromptClassifier(clip_dir, "linear-probe", cache=tmp_path).fit((files, labels), shots=None)
    fitted = PromptClassifier(clip_dir, "linear-probe", cache=tmp_path, C=1).fit((files, labels), shots=None)
    assert fitted.score((files, labels)) > 0.8


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_images(tmp_path_factory.mktemp("probe") / "colours")
