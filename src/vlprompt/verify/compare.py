"""Our numbers beside published ones: max |ours - theirs| / max |theirs|, and the tolerances of `parity/README.md`."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

Arrays = Mapping[str, NDArray[Any]]
Kind = Literal["values", "gradients"]

TOLERANCE: Mapping[Kind, float] = {"values": 1e-5, "gradients": 1e-4}
"""In float32. Gradients sum in another order. Never loosened to pass a case."""
GRAD = "grad:"
MASKED = -1e5
"""Published logits below this are masks, of which ours need only be as low."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Check:
    """One quantity, compared."""

    what: str
    kind: Kind
    error: float
    """Relative; for token ids the number that differ."""
    judged: bool = True
    """False: in a dtype for which no tolerance was set; then the error must be finite, and token ids equal."""

    @property
    def tolerance(self) -> float:
        return TOLERANCE[self.kind]

    @property
    def ok(self) -> bool:
        return self.error <= self.tolerance if self.judged else math.isfinite(self.error)


@dataclass(frozen=True, slots=True, kw_only=True)
class Result:
    """One case, compared."""

    name: str
    source: str
    """Repository and file that the numbers come from."""
    checks: tuple[Check, ...]

    @property
    def ok(self) -> bool:
        return all(check.ok for check in self.checks)


def error(ours: Tensor, theirs: NDArray[Any]) -> float:
    """max |ours - theirs| / max |theirs| in float64; nan where ours is not finite, inf where a mask is missing."""
    assert tuple(ours.shape) == theirs.shape, f"{tuple(ours.shape)} beside {theirs.shape}"
    ours64, theirs64 = ours.detach().cpu().double().numpy(), theirs.astype(np.float64)
    masks = theirs64 < MASKED
    if not (ours64[masks] < MASKED).all():
        return math.inf
    return float(np.abs(ours64 - theirs64)[~masks].max() / np.abs(theirs64[~masks]).max())


def compare(
    values: Mapping[str, Tensor], gradients: Mapping[str, Tensor], want: Arrays, *, judged: bool
) -> list[Check]:
    """Every published number beside ours, token ids apart. None may be left out; of ours, some may be unpublished."""
    values = {key: x for key, x in values.items() if key in want}
    checks = [Check(what=key, kind="values", error=error(x, want[key]), judged=judged) for key, x in values.items()]
    seen = set(values)
    for key, gradient in gradients.items():
        parts = {key: gradient} if key in want else dict(_summaries(key.removeprefix(GRAD), gradient))
        off = max((error(x, want[part]) for part, x in parts.items()), key=_nan_last)
        checks.append(Check(what=key.removeprefix(GRAD), kind="gradients", error=off, judged=judged))
        seen |= set(parts)
    assert seen == set(want) - {"token_ids"}, f"not compared: {sorted(seen ^ (set(want) - {'token_ids'}))}"
    return checks


def compare_ids(plans: Sequence[Sequence[int]], want: NDArray[Any]) -> Check:
    """Token ids of sentences, unpadded, beside the published (sentences, 77), padded with 0; always judged."""
    ours = np.zeros_like(want)
    for row, plan in zip(ours, plans, strict=True):
        row[: len(plan)] = plan
    return Check(what="token ids", kind="values", error=float((ours != want).sum()))


def _summaries(name: str, gradient: Tensor) -> Iterator[tuple[str, Tensor]]:
    """What is published of a gradient with more than 60,000 elements: see `parity/README.md`."""
    signs = torch.from_numpy(np.random.RandomState(99).choice([-1, 1], len(gradient)))
    yield f"grad_rows:{name}", gradient.sum(1)
    yield f"grad_proj:{name}", signs.to(gradient) @ gradient
    yield f"grad_norm:{name}", gradient.norm()
    yield f"grad_corner:{name}", gradient[:8, :8]


def _nan_last(value: float) -> float:
    return math.inf if math.isnan(value) else value
