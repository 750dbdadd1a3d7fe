"""Which classes a step sees: the drawing of some of them, and their rows out of a tokenised class list.

Letters: B images, C classes in view, N classes of the list.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import groupby

import torch
from torch import Tensor

from vlprompt.engine.precision import generator
from vlprompt.towers import ClassTokens
from vlprompt.towers.tokens import Bucket, Rows
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


def subset(tokens: ClassTokens, classes_C: Tensor) -> ClassTokens:
    """The rows of some classes (indices into the list, in any order, each once); the shared prefix stays as it is.

    Class-specific contexts still belong to the whole list.
    """
    lengths = [bucket.length for bucket in tokens.buckets for _ in range(bucket.num_classes)]
    places = tokens.restore_C[classes_C.to(tokens.restore_C.device)].sort()
    kept = [lengths[place] for place in places.values.tolist()]
    ends = tokens.end_C[places.values].tolist()
    row = torch.cat([torch.arange(end + 1 - length, end + 1) for end, length in zip(ends, kept, strict=True)])
    row = row.to(tokens.position_T.device)
    new = torch.full_like(tokens.position_T, -1)
    new[row] = torch.arange(len(row), device=row.device)
    own = tokens.own
    inside = new[own.learned] >= 0
    rows = Rows(ids=own.ids[row], learned=new[own.learned[inside]], token=own.token[inside], owner=own.owner[inside])
    return replace(
        tokens,
        names=tuple(tokens.names[c] for c in classes_C.tolist()),
        own=rows,
        position_T=tokens.position_T[row],
        buckets=_buckets(kept),
        end_C=torch.tensor(kept, device=row.device).cumsum(0) - 1,
        restore_C=places.indices.argsort(),
    )


def longest(tokens: ClassTokens, number: int) -> ClassTokens:
    """The `number` longest classes: what a step with so many classes takes at most."""
    return subset(tokens, tokens.restore_C.argsort()[-number:]) if number < tokens.num_classes else tokens


def _buckets(lengths: list[int]) -> tuple[Bucket, ...]:
    """Neighbouring classes of one length."""
    out, start = [], 0
    for length, group in groupby(lengths):
        number = len(list(group))
        out.append(Bucket(start=start, num_classes=number, length=length))
        start = out[-1].stop
    return tuple(out)
