"""A part of the text tower whose inside is not kept for the backward pass, but computed again in it.

`torch.utils.checkpoint` keeps the graph's nodes of every part and asks a hook for every tensor in them; here a part leaves nothing
behind but its inputs and its output, so that the memory of one part is free for the next.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any, cast

import torch
from torch import Tensor

from vlprompt.towers.text import Prefix
from vlprompt.towers.tokens import ClassTokens
from vlprompt.types import Splice

Run = Callable[[ClassTokens, Prefix, Splice | None], Tensor]


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


def again(run: Run, part: ClassTokens, prefix: Prefix, first: Splice | None) -> Tensor:
    """`run(part, prefix, first)`, the same value and gradient, computed once more in the backward pass."""
    names = [name for name in ("q", "k", "v", "token") if first is not None and getattr(first, name) is not None]
    layers = len(prefix.keys)

    def of(*tensors: Tensor) -> Tensor:
        keys, values, rest = tensors[:layers], tensors[layers : 2 * layers], tensors[2 * layers :]
        given: dict[str, Any] = dict(zip(names, rest, strict=True))
        splice = None if first is None else replace(first, **given)
        return run(part, replace(prefix, keys=keys, values=values, states=None), splice)

    learned = [getattr(first, name) for name in names]
    return cast(Tensor, _Again.apply(of, *prefix.keys, *prefix.values, *learned))  # type: ignore[no-untyped-call]
