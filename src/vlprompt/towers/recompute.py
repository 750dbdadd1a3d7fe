"""A part of the text tower whose inside is not kept for the backward pass, but computed again in it.

`torch.utils.checkpoint` keeps the graph's nodes of every part and asks a hook for every tensor in them. Here a part keeps only
its inputs and its output, and its memory is free for the next.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any, cast

import torch
from torch import Tensor

from vlprompt.towers.block import Entering
from vlprompt.towers.text import Prefix
from vlprompt.towers.tokens import ClassTokens

Run = Callable[[ClassTokens, Prefix, Entering], Tensor]


class _Again(torch.autograd.Function):
    """Forward: run without a graph. Backward: run with one, and differentiate it. Tensors that `run` reads otherwise are frozen."""

    @staticmethod
    def forward(ctx: Any, run: Callable[..., Tensor], *inputs: Tensor) -> Tensor:
        ctx.run = run
        ctx.save_for_backward(*inputs)
        return run(*inputs)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        needed = ctx.needs_input_grad[1:]
        inputs = [x.detach().requires_grad_(need) for x, need in zip(ctx.saved_tensors, needed, strict=True)]
        with torch.enable_grad():
            out = ctx.run(*inputs)
        leaves = [x for x, need in zip(inputs, needed, strict=True) if need]
        found = iter(torch.autograd.grad(out, leaves, grads[0], allow_unused=True))
        return None, *(next(found) if need else None for need in needed)


def again(run: Run, part: ClassTokens, prefix: Prefix, entered: Entering) -> Tensor:
    """`run(part, prefix, entered)`, the same value and gradient, computed once more in the backward pass."""
    layers = len(prefix.keys)

    def of(*tensors: Tensor) -> Tensor:
        keys, values, rest = tensors[:layers], tensors[layers : 2 * layers], iter(tensors[2 * layers :])
        now = entered.map(lambda _: next(rest))
        return run(part, replace(prefix, keys=keys, values=values, states=None), now)

    learned = entered.tensors()
    return cast(Tensor, _Again.apply(of, *prefix.keys, *prefix.values, *learned))  # type: ignore[no-untyped-call]
