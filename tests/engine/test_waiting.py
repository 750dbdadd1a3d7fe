"""A step as a GPU would take it, without one: on the meta device no number can be read, so a step that waits for one fails.

Only `step.fetched`, once a step, may wait; here it makes its answer up. A step on meta also shows the shapes and types of all it makes.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from benchmarks.methods_sides import Products
from torch import Tensor

from vlprompt.engine import train
from vlprompt.engine.forward import Forward
from vlprompt.engine.images import Images
from vlprompt.engine.observer import SILENT
from vlprompt.engine.step import Gradients, fetched
from vlprompt.engine.train import Batch, Epochs, Feed, Learner, Task
from vlprompt.losses.words import word_table
from vlprompt.methods.resolve import HOSTS, resolve, takes_steps
from vlprompt.tensors import onto
from vlprompt.towers import Clip
from vlprompt.types import Schedule

NAMES = ("cat", "a red dog", "bird", "the green house tree", "truck x")
APART = ("promptkd", "tip-adapter-f")
"""They need a teacher of another size, and a fit before the first step."""
SETTINGS: dict[str, dict[str, object]] = {
    "clip-lora": {"dropout": 0},  # torch draws nothing on meta
    "pomp": {"classes": 3},
    "promptsrc": {"teacher": "template"},
    "plpp+coop": {"plpp.balance": "off"},  # the first epoch of a balance reads lengths
    "plpp+maple": {"plpp.balance": "off"},
}
METHODS = [one.name for one in HOSTS if takes_steps(one) and one.name not in APART]


@dataclass(frozen=True, slots=True, kw_only=True)
class Noise(Feed):
    """Eight images that are no files, two steps an epoch."""

    @property
    def number(self) -> int:
        return 8

    def per_epoch(self, batch: int) -> int:
        return 2

    def batches(self, forward: Forward, images: Images, schedule: Schedule, start: int) -> Iterator[Batch]:
        clip = forward.clip
        while True:
            yield Batch(
                ids=("a", "b", "c", "d"),
                labels_B=torch.tensor([0, 3, 3, 1]),
                frozen_BE=torch.randn(4, clip.config.embed_dim) if forward.reads_frozen else None,
                pixels=torch.randn(4, 3, 32, 32) if forward.spec.reach.image_tower else None,
            )


@pytest.fixture(scope="module")
def meta(clip: Clip) -> Clip:
    return copy.deepcopy(clip).to("meta")


def learner(clip: Clip, name: str, max_rows: int | None = None, **options: object) -> Learner:
    method = resolve(name, {"epochs": 2, "batch": 4, **options}, facts=clip.facts)
    feed = Noise(class_names=NAMES, template="a photo of a {}.", seed=1)
    book = Epochs(None, 0.0)
    book.measures = False  # type: ignore[misc]
    forward = train.forward_of(clip, method, feed, max_rows=max_rows)
    return Learner(clip, Task(method=method, feed=feed, book=book, forward=forward), Images(clip, None))


CASES = [(name, None) for name in (*METHODS, "plpp+coop", "plpp+maple")] + [("coop", 6), ("pomp", 6)]


@pytest.mark.parametrize(("name", "max_rows"), CASES)
def test_a_step_waits_for_the_device_once(
    clip: Clip, meta: Clip, name: str, max_rows: int | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    waited: list[Gradients] = []

    def made_up(losses: Sequence[Tensor], gradients: Gradients) -> tuple[Tensor, list[bool]]:
        assert all(one.device.type == "meta" and one.dtype == torch.float32 and one.dim() == 0 for one in losses)
        waited.append(gradients)
        return torch.ones(len(losses)), [True] * len(gradients)

    monkeypatch.setattr(train, "fetched", made_up)
    monkeypatch.setattr(
        Clip,
        "embed_words",
        lambda _, words: clip.text_tower.token_embedding.weight[torch.tensor(clip.tokenizer.encode(words))],
    )
    there = learner(meta, name, max_rows, **SETTINGS.get(name, {}))
    train._step(0, [there], SILENT)
    (found,) = waited
    assert any(one is not None for one in found)
    for gradient, parameter in zip(found, there.parameters, strict=True):
        if gradient is not None:
            assert (gradient.shape, gradient.dtype) == (parameter.shape, parameter.dtype)
            assert gradient.device.type == "meta"


@pytest.mark.parametrize("name", ["maple", "promptsrc", "rpp"])
def test_a_step_computes_nothing_that_is_not_needed(clip: Clip, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each tower runs once, the teacher not at all (its features are cached), and no weight has a gradient."""
    asked: list[str] = []
    for which in ("encode_text", "encode_images"):
        real = getattr(Clip, which)

        def noted(*given: Any, _real: Any = real, _which: str = which, **more: Any) -> Any:
            asked.append(_which)
            return _real(*given, **more)

        monkeypatch.setattr(Clip, which, noted)
    one = learner(clip, name, **SETTINGS.get(name, {}))
    asked.clear()
    with Products() as whole:
        train._step(0, [one], SILENT)
    assert sorted(asked) == ["encode_images", "encode_text"]
    with Products() as forward, torch.no_grad():
        one.forward(one.prompt, torch.tensor([0, 3, 3, 1]), torch.randn(4, 32), torch.randn(4, 3, 32, 32))
    # Gradients of rows cost as much as the rows did, and attention's a little more; of weights they would cost as much again.
    assert forward.flops < whole.flops < 2.3 * forward.flops


@pytest.mark.parametrize("name", ["coop", "maple", "rpp"])
def test_half_precision_keeps_losses_and_gradients_in_float32(
    clip: Clip, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    half = copy.deepcopy(clip).to("meta", torch.bfloat16)
    test_a_step_waits_for_the_device_once(clip, half, name, None, monkeypatch)


def test_what_is_fetched() -> None:
    losses = [torch.tensor(2.5), torch.tensor(float("nan"))]
    values, fine = fetched(losses, (torch.ones(3), None, torch.tensor([1.0, float("inf")])))
    assert values[0] == 2.5
    assert values[1].isnan()
    assert fine == [True, True, False]
    assert fetched(losses[:1], ()) == (torch.tensor([2.5]), [])


def test_a_gpu_gets_pinned_memory_and_nobody_waits_for_the_copy() -> None:
    said: list[tuple[str, object]] = []

    class Told(SimpleNamespace):
        def pin_memory(self) -> Told:
            said.append(("pinned", None))
            return self

        def to(self, device: torch.device, *, non_blocking: bool) -> Told:
            said.append((device.type, non_blocking))
            return self

    onto(Told(device=torch.device("cpu")), torch.device("cuda"))  # type: ignore[arg-type]
    onto(Told(device=torch.device("cuda")), torch.device("cuda"))  # type: ignore[arg-type]
    onto(Told(device=torch.device("cpu")), torch.device("cpu"))  # type: ignore[arg-type]
    assert said == [("pinned", None), ("cuda", True), ("cuda", True), ("cpu", True)]


def test_what_is_known_of_the_words_moves_with_the_model(clip: Clip) -> None:
    """A model that has computed its word tables and is then moved, or changes its type, has new ones."""
    moved = copy.deepcopy(clip)
    before, _ = moved.vocabulary, moved.mean_state
    table = word_table(before)
    moved.to("meta")
    assert moved.vocabulary.weight_VD.device.type == "meta"
    assert word_table(moved.vocabulary).rows_AD.device.type == "meta"
    assert table.rows_AD.device.type == "cpu"
    other = copy.deepcopy(clip)
    assert other.vocabulary.weight_VD.dtype == torch.float32
    half = other.to(torch.bfloat16).vocabulary.weight_VD
    torch.testing.assert_close(half, clip.text_tower.token_embedding.weight.bfloat16().float())
