"""Our numbers and the published ones: how far apart they are, and the tolerances of `parity/README.md`."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence, Set
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from vlprompt.errors import data_error

Arrays = Mapping[str, NDArray[Any]]
Kind = Literal["values", "gradients", "steps", "tensors"]

TOLERANCE: Mapping[Kind, float] = {"values": 1e-5, "gradients": 1e-4, "steps": 1e-5, "tensors": 1e-4}
"""In float32. Gradients sum in another order. `steps` and `tensors` are of a whole training run: losses and rates, and what was
learned. Never loosened to pass a case."""
GRAD = "grad:"
COSINE = "cosine"
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
class Compared:
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
    ours64, theirs64 = _both(ours, theirs)
    masks = theirs64 < MASKED
    if not (ours64[masks] < MASKED).all():
        return math.inf
    return float(np.abs(ours64 - theirs64)[~masks].max() / _scale(np.abs(theirs64[~masks]).max()))


def step_error(ours: Tensor, theirs: NDArray[Any], *, relative: bool) -> float:
    """The largest |ours - theirs| of all steps; relative: each divided by its own |theirs|."""
    ours64, theirs64 = _both(ours, theirs)
    off = np.abs(ours64 - theirs64)
    return float((off / _scale(theirs64) if relative else off).max())


def _scale(theirs: NDArray[np.float64]) -> NDArray[np.float64]:
    """What a difference is relative to; 1 where theirs is 0."""
    return np.where(theirs == 0, 1.0, np.abs(theirs))


def _both(ours: Tensor, theirs: NDArray[Any]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """In float64. UserError where the shapes differ."""
    if tuple(ours.shape) != theirs.shape:
        raise data_error(f"shape {theirs.shape} where {tuple(ours.shape)} is computed.")
    return ours.detach().cpu().double().numpy(), theirs.astype(np.float64)


def compare(
    values: Mapping[str, Tensor], gradients: Mapping[str, Tensor], want: Arrays, *, judged: bool
) -> list[Check]:
    """Every published number of one pass next to ours, token ids apart; of ours, some may be unpublished."""
    found = {key: x for key, x in values.items() if key in want}
    checks = [Check(what=key, kind="values", error=error(x, want[key]), judged=judged) for key, x in found.items()]
    for key, gradient in gradients.items():
        checks.append(
            Check(what=key.removeprefix(GRAD), kind="gradients", error=_off(key, gradient, want), judged=judged)
        )
    _none_left(want, {*found, *gradients, "token_ids"})
    return checks


def compare_run(
    steps: Mapping[str, Tensor], tensors: Mapping[str, Tensor], want: Arrays, *, judged: bool
) -> list[Check]:
    """Every published number of a training run next to ours: all steps, and the tensors of the epochs that are published.

    KeyError where a step's number or a tensor of a published epoch is not there.
    """
    checks = []
    for key, x in steps.items():
        off = step_error(x, want[key], relative=key != COSINE)
        checks.append(Check(what=key, kind="tensors" if key == COSINE else "steps", error=off, judged=judged))
    published = {_moment(key) for key in want}
    tensors = {key: x for key, x in tensors.items() if _moment(key) in published}
    checks += [Check(what=key, kind="tensors", error=_off(key, x, want), judged=judged) for key, x in tensors.items()]
    _none_left(want, {*steps, *tensors})
    return checks


def _moment(key: str) -> str:
    """``epoch2:NAME`` and ``epoch2_rows:NAME`` -> ``epoch2``."""
    return key.partition(":")[0].partition("_")[0]


def _off(key: str, ours: Tensor, want: Arrays) -> float:
    """The error of a tensor, or the largest of its summaries, where it is published by those."""
    parts = {key: ours} if key in want else dict(_summaries(key, ours))
    return max(
        (error(x, want[part]) for part, x in parts.items()), key=lambda one: math.inf if math.isnan(one) else one
    )


def _none_left(want: Arrays, compared: Set[str]) -> None:
    """UserError where a published number was not compared."""
    known = compared | {part for key in compared for part in _summary_names(key)}
    if left := sorted(set(want) - known):
        raise data_error(f"numbers that are not computed here: {', '.join(left)}.")


def compare_ids(plans: Sequence[Sequence[int]], want: NDArray[Any]) -> Check:
    """Token ids of sentences, unpadded, next to the published (sentences, 77), padded with 0; always judged."""
    ours = np.zeros_like(want)
    for row, plan in zip(ours, plans, strict=True):
        row[: len(plan)] = plan
    return Check(what="token ids", kind="values", error=float((ours != want).sum()))


def _summary_names(key: str) -> tuple[str, ...]:
    """``grad:NAME`` -> ``grad_rows:NAME`` and the others."""
    moment, _, name = key.partition(":")
    return tuple(f"{moment}_{part}:{name}" for part in ("rows", "proj", "norm", "corner"))


def _summaries(key: str, matrix: Tensor) -> Iterator[tuple[str, Tensor]]:
    """What is published of a large matrix: see `parity/README.md`."""
    signs = torch.from_numpy(np.random.RandomState(99).choice([-1, 1], len(matrix)))
    parts = (matrix.sum(1), signs.to(matrix) @ matrix, matrix.norm(), matrix[:8, :8])
    yield from zip(_summary_names(key), parts, strict=True)
