"""From the losses of one batch to one gradient per learned tensor."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from vlprompt.types import Rule

Gradients = tuple[Tensor | None, ...]
"""One per parameter; None where nothing reaches it (SGD then leaves it as it is, weight decay included)."""


def summed(losses: Mapping[str, Tensor], parameters: Sequence[Tensor]) -> Gradients:
    """The gradient of the sum of all losses, in one backward pass."""
    return _differentiate(torch.stack(list(losses.values())).sum(), parameters, keep=False)


def by_term(losses: Mapping[str, Tensor], parameters: Sequence[Tensor], *, keep: bool = False) -> dict[str, Gradients]:
    """The gradient of each loss by itself; keep: the graph is needed again afterwards."""
    names = list(losses)
    return {name: _differentiate(losses[name], parameters, keep=keep or name != names[-1]) for name in names}


def by_rule(rule: Rule, losses: Mapping[str, Tensor], parameters: Sequence[Tensor]) -> Gradients:
    """What a rule makes of the gradients of its groups; a group that does not reach a parameter counts as zero there."""
    groups = rule.groups(losses)
    each = [_differentiate(group, parameters, keep=group is not groups[-1]) for group in groups]
    out: list[Tensor | None] = []
    for parameter, parts in zip(parameters, zip(*each, strict=True), strict=True):
        reached = any(part is not None for part in parts)
        filled = [torch.zeros_like(parameter) if part is None else part for part in parts]
        out.append(rule.combine(filled) if reached else None)
    return tuple(out)


def added(gradients: Mapping[str, Gradients]) -> Gradients:
    """The sum of the terms' gradients."""
    out: list[Tensor | None] = []
    for parts in zip(*gradients.values(), strict=True):
        present = [part for part in parts if part is not None]
        out.append(torch.stack(present).sum(0) if present else None)
    return tuple(out)


def norm(gradients: Gradients) -> float:
    """The Euclidean length of a gradient over all parameters."""
    return math.sqrt(sum(float(one.double().square().sum()) for one in gradients if one is not None))


def ratios(gradients: Mapping[str, Gradients], reference: str) -> dict[str, float]:
    """The length of every other term's (weighted) gradient over that of `reference`; empty where that is 0 or absent."""
    base = norm(gradients[reference]) if reference in gradients else 0.0
    return {name: norm(one) / base for name, one in gradients.items() if name != reference} if base else {}


def _differentiate(loss: Tensor, parameters: Sequence[Tensor], *, keep: bool) -> Gradients:
    if not loss.requires_grad:  # a term that reaches no learned tensor under the chosen options
        return (None,) * len(parameters)
    return torch.autograd.grad(loss, list(parameters), retain_graph=keep, allow_unused=True)
