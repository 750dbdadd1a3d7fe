"""Gradients that float16 can hold: scaled by a power of two where they enter a tower, and back where they leave it.

float16 loses what is smaller than 6e-8, and gradients of a cross-entropy become smaller than that as learning goes on. A power of two
changes no digit; it is chosen anew in every backward pass, so the largest gradient at the tower's outputs is between 1 and 2.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from vlprompt.towers.block import Entering


class _Enter(torch.autograd.Function):
    """The learned tokens as they are; their gradient divided by the factor."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, scaling: Scaling) -> Tensor:
        ctx.scaling = scaling
        return x.view_as(x)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None]:
        assert ctx.scaling.factor is not None, "a gradient reached the prompt that came from no output of the tower"
        return grads[0] / ctx.scaling.factor, None


class _Leave(torch.autograd.Function):
    """A tower's float32 outputs as they are; all their gradients multiplied by one factor."""

    @staticmethod
    def forward(ctx: Any, scaling: Scaling, *outputs: Tensor) -> tuple[Tensor, ...]:
        ctx.scaling = scaling
        return tuple(x.view_as(x) for x in outputs)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        largest = torch.stack([grad.abs().max() for grad in grads]).max()
        usable = torch.isfinite(largest) & (largest > 0)
        power = torch.where(usable, -largest.log2().floor(), 0.0)
        ctx.scaling.factor = power.clamp(-100, 100).exp2()
        return None, *(grad * ctx.scaling.factor for grad in grads)


class Scaling:
    """One forward pass through a tower: `enter` for what is learned, `leave` for what the tower answers; nothing but in float16."""

    def __init__(self, dtype: torch.dtype) -> None:
        self.on = dtype == torch.float16
        self.factor: Tensor | None = None
        """What the outputs' backward pass chose and the inputs' takes back."""

    def enter(self, entered: Entering) -> Entering:
        """The same tensors, in float32, whose gradients are scaled back."""
        return entered.map(lambda x: _Enter.apply(x, self)) if self.on else entered  # type: ignore[no-untyped-call]

    def leave(self, *outputs: Tensor) -> tuple[Tensor, ...]:
        """The same outputs, whose gradients are scaled."""
        if not self.on or not any(output.requires_grad for output in outputs):
            return outputs
        return tuple(_Leave.apply(self, *outputs))  # type: ignore[no-untyped-call]
