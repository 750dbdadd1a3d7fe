"""Own rows of neighbouring classes as one batch: few products of attention instead of one per length of name.

Only the attention is padded, and only a little; everything else runs on packed rows. Letters as in `text.py`; S slots of a group
(classes times its longest length), R packed rows of it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, cast

import torch
import torch.nn.functional as F
from torch import Tensor

from vlprompt.tensors import onto
from vlprompt.towers.tokens import Bucket

WASTE = 1.35
"""Slots per row up to which lengths share a batch: at 1.35 a float32 step is as fast as at 1, at 2 it is slower (measured)."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Group:
    """Neighbouring classes, padded to the longest of them."""

    num_classes: int
    length: int
    num_rows: int
    """R: packed rows."""
    row_S: Tensor | None
    """The packed row that stands in each slot; after a class's last row, that one again. None: the rows are the slots."""
    slot_R: Tensor | None
    """The slot of each packed row."""
    owner_S: Tensor | None
    """The packed row of each slot, R where it is padding."""
    later_LL: Tensor
    """Keys that a row does not see: those after it, padding among them. (L, L) bool."""
    padding_C1L: Tensor | None
    """Keys that a class's last row does not see; None: it sees all."""

    def padded(self, x_GHRd: Tensor) -> Tensor:
        """Rows -> slots (G, H, S, d), contiguous."""
        if self.row_S is None:
            return x_GHRd.contiguous()
        return cast(Tensor, _Take.apply(x_GHRd, self.row_S, self.slot_R, False))  # type: ignore[no-untyped-call]

    def packed(self, x_GHSd: Tensor) -> Tensor:
        """Slots -> rows (G, H, R, d)."""
        if self.slot_R is None:
            return x_GHSd
        return cast(Tensor, _Take.apply(x_GHSd, self.slot_R, self.owner_S, True))  # type: ignore[no-untyped-call]


class _Take(torch.autograd.Function):
    """`index_select` of rows whose backward pass is one too, and no sum: of a row's slots only its own has a gradient."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, index: Tensor, back: Tensor, from_nothing: bool) -> Tensor:
        ctx.back, ctx.from_nothing = back, from_nothing
        return x.index_select(2, index)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None, None, None]:
        grad = F.pad(grads[0], (0, 0, 0, 1)) if ctx.from_nothing else grads[0]
        return grad.index_select(2, ctx.back), None, None, None


@lru_cache(maxsize=64)
def grouped(buckets: tuple[Bucket, ...], device: torch.device) -> tuple[Group, ...]:
    """The buckets (of rising length) in as few groups as the padding allows."""
    out: list[Group] = []
    waiting: list[Bucket] = []
    for bucket in buckets:
        together = [*waiting, bucket]
        slots = sum(one.num_classes for one in together) * bucket.length
        if waiting and slots > WASTE * sum(one.num_classes * one.length for one in together):
            out.append(_group(waiting, device))
            together = [bucket]
        waiting = together
    return (*out, _group(waiting, device))


def _group(buckets: Sequence[Bucket], device: torch.device) -> Group:
    length_C = torch.cat([torch.full((bucket.num_classes,), bucket.length) for bucket in buckets])
    length, num_rows = int(length_C.max()), int(length_C.sum())
    place_L = torch.arange(length)
    later_LL = onto(torch.ones(length, length, dtype=torch.bool).triu(1), device)
    sizes = {"num_classes": len(length_C), "length": length, "num_rows": num_rows}
    if num_rows == len(length_C) * length:
        return Group(**sizes, row_S=None, slot_R=None, owner_S=None, later_LL=later_LL, padding_C1L=None)
    first_C = length_C.cumsum(0) - length_C
    row_CL = first_C[:, None] + torch.minimum(place_L, length_C[:, None] - 1)
    real_CL = place_L < length_C[:, None]
    return Group(
        **sizes,
        row_S=onto(row_CL.flatten(), device),
        slot_R=onto(real_CL.flatten().nonzero().flatten(), device),
        owner_S=onto(torch.where(real_CL, row_CL, num_rows).flatten(), device),
        later_LL=later_LL,
        padding_C1L=onto(~real_CL[:, None], device),
    )
