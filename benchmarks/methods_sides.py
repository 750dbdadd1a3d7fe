"""The two sides of the methods' benchmark, on the same random weights, prompts, images and class names; one step of each."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import flop_registry

from benchmarks.methods_plain import PlainForward
from benchmarks.text_sides import class_names
from vlprompt.engine.forward import Forward
from vlprompt.engine.step import gradients_of, weighted
from vlprompt.methods.resolve import recipe_of, resolve
from vlprompt.towers import Clip
from vlprompt.towers.config import ClipConfig, TowerConfig
from vlprompt.towers.random_clip import draw_clip, tower
from vlprompt.types import Method

Gradients = dict[str, Tensor]
Step = Callable[[], Gradients]

TEMPLATE = "a photo of a {}."
TEXT_BATCH, IMAGE_BATCH = 32, 4
"""Images of a step: methods that prompt the text alone, and the others. CoCoOp takes the smaller one: each image is a class list of its
own: both sides' cost grows with it, and their ratio does not."""
SETTINGS: dict[str, dict[str, object]] = {"promptsrc": {"teacher": "template"}}
"""PromptSRC's 60 sentences are encoded once, before the first step, on both sides: one stands for them here."""


def config(*, text: TowerConfig, image: TowerConfig, image_size: int) -> ClipConfig:
    return ClipConfig(
        embed_dim=text.width,
        text=text,
        image=image,
        vocab_size=49408,
        context_length=77,
        image_size=image_size,
        patch_size=16,
    )


SMALL = config(text=tower(64, 3), image=tower(128, 3), image_size=32)
"""For the test that both sides compute the same."""


def random_clip(shape: ClipConfig, dtype: str = "float32") -> Clip:
    """Random weights of this shape, the same in every process."""
    return draw_clip(shape, dtype=dtype)


@dataclass(frozen=True, slots=True)
class Task:
    """One method with its prompt and one batch."""

    method: Method
    prompt: nn.Module
    names: list[str]
    labels: Tensor
    pixels: Tensor

    @property
    def parameters(self) -> dict[str, Tensor]:
        return dict(self.prompt.named_parameters())


def batch_of(method: Method) -> int:
    spec = method.prompt
    return IMAGE_BATCH if spec.reach.image_tower or spec.reach.sees else TEXT_BATCH


def made(name: str, clip: Clip, classes: int) -> Task:
    """The published method with random images."""
    method = resolve(
        name, SETTINGS.get(name.split("+")[-1], {}), recipe=recipe_of(name, "few-shot", ""), shots=16, facts=clip.facts
    )
    generator = torch.Generator().manual_seed(1)
    batch, side = batch_of(method), clip.preprocess.crop
    return Task(
        method=method,
        prompt=method.prompt.build(clip.facts, generator, classes),
        names=class_names(classes),
        labels=torch.randint(0, classes, (batch,), generator=generator),
        pixels=torch.randn(batch, 3, side, side, generator=generator),
    )


def plain_step(task: Task, clip: Clip) -> Step:
    """Images through the image tower at every step; a backward pass per image where the text depends on it."""
    forward = PlainForward(clip, task.method, task.names, TEMPLATE)
    parameters = list(task.parameters.values())

    def step() -> Gradients:
        total: list[Tensor | None] = [None] * len(parameters)
        for view in forward.views(task.prompt, task.labels, task.pixels):
            share = len(view.labels) / len(task.labels)
            losses = {name: share * loss for name, loss in weighted(task.method.terms, view).items()}
            found = gradients_of(task.method, losses, parameters)
            total = [_plus(one, other) for one, other in zip(total, found, strict=True)]
        return _named(task, total)

    return step


def our_step(task: Task, clip: Clip) -> Step:
    """The library's own step; frozen features come from a cache, as in training."""
    spec = task.method.prompt
    forward = Forward(clip, task.method, task.names, TEMPLATE)
    frozen = None
    if forward.reads_frozen:
        with torch.no_grad():
            frozen = clip.encode_images(task.pixels).pooled
    pixels = task.pixels if spec.reach.image_tower else None
    parameters = list(task.parameters.values())

    def step() -> Gradients:
        view = forward(task.prompt, task.labels, frozen, pixels)
        found = gradients_of(task.method, weighted(task.method.terms, view), parameters)
        return _named(task, found)

    return step


def image_step(task: Task, clip: Clip) -> Step:
    """The image tower alone with the same prompt, forward and backward: what no way of running the text can save."""
    parameters = list(task.parameters.values())

    def step() -> Gradients:
        features = clip.encode_images(task.pixels, task.prompt()).pooled
        found = torch.autograd.grad(features.sum(), parameters, allow_unused=True)
        return _named(task, found)

    return step


AS = {
    torch.ops.aten._scaled_dot_product_flash_attention_for_cpu: torch.ops.aten._scaled_dot_product_flash_attention,
    torch.ops.aten._scaled_dot_product_flash_attention_for_cpu_backward: torch.ops.aten._scaled_dot_product_flash_attention_backward,
}
"""Kernels that torch does not know how to count, and those that they are counted as."""


class Products(TorchDispatchMode):
    """Counts the operations of matrix products while it is on; the time of other work says nothing about them."""

    flops = 0

    def __torch_dispatch__(self, call: Any, types: Any, given: Any = (), more: Any = None) -> Any:
        out = call(*given, **(more or {}))
        count = flop_registry.get(AS.get(call._overloadpacket, call._overloadpacket))
        self.flops += count(*given, **(more or {}), out_val=out) if count else 0
        return out


def products(step: Step) -> int:
    """Operations of the matrix products of a step, those of attention among them."""
    with Products() as counted:
        step()
    return counted.flops


def _plus(one: Tensor | None, other: Tensor | None) -> Tensor | None:
    return other if one is None else one if other is None else one + other


def _named(task: Task, found: tuple[Tensor | None, ...] | list[Tensor | None]) -> Gradients:
    """A tensor that nothing reaches has a gradient of zeros."""
    pairs = zip(task.parameters.items(), found, strict=True)
    return {name: torch.zeros_like(one) if gradient is None else gradient for (name, one), gradient in pairs}


SIDES: dict[str, Callable[[Task, Clip], Step]] = {"plain": plain_step, "ours": our_step}
