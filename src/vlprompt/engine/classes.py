"""Which classes a step sees: the drawing of some of them, and their rows out of a tokenised class list.

Letters: B images, C classes in view, N classes of the list.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from vlprompt.engine.precision import generator
from vlprompt.types import ClassSampling, Sampled


@dataclass(frozen=True, slots=True, kw_only=True)
class InView:
    """The classes of one step."""

    classes_C: Tensor
    """(C,) int64, ascending: indices into the whole list."""
    labels_B: Tensor
    """(B,) int64: indices into `classes_C`."""
    sampled: Sampled


def draw(sampling: ClassSampling | None, num_classes: int, *, seed: int, epoch: int, step: int) -> Tensor | None:
    """The classes that are drawn for a step, (K - 1,) int64, uniformly without replacement out of all, the images' own among
    them (as published); None: all are in view. They depend on (seed, epoch, step) alone, as a resumed run needs."""
    number = sampling.drawn(num_classes) if sampling else None
    if number is None:
        return None
    return torch.randperm(num_classes, generator=generator("classes", seed, epoch, step))[:number]


def said_of(sampling: ClassSampling | None, num_classes: int) -> str | None:
    """One sentence where more classes are asked for than there are."""
    if sampling is None or sampling.drawn(num_classes) is not None or sampling.num == num_classes:
        return None
    return f"{sampling.num} sampled classes are asked for and there are {num_classes}: every step sees all of them."


def in_view(labels_B: Tensor, drawn: Tensor, num_classes: int, others: Sequence[Tensor] = ()) -> InView:
    """The classes of the images and the drawn ones; an image is compared with its own and the drawn ones.

    others: labels of images that are in the step but in other processes; their classes are in view too, unseen if not drawn.
    """
    drawn = drawn.to(labels_B.device)
    classes_C = torch.unique(torch.cat([labels_B, drawn, *others]))
    place_B = torch.searchsorted(classes_C, labels_B)
    own_BC = torch.arange(len(classes_C), device=labels_B.device) == place_B[:, None]
    seen_BC = own_BC | torch.isin(classes_C, drawn)
    return InView(classes_C=classes_C, labels_B=place_B, sampled=Sampled(seen=seen_BC, num_classes=num_classes))
