"""Methods that are fitted at once: features of the frozen image tower in, a module out."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from vlprompt.data import Sample
from vlprompt.engine.images import Images
from vlprompt.engine.observer import SILENT, Observer
from vlprompt.towers import Clip
from vlprompt.types import Method


def solve(
    clip: Clip,
    method: Method,
    train: Sequence[Sample],
    val: Sequence[Sample],
    num_classes: int,
    images: Images,
    *,
    seed: int,
    observer: Observer = SILENT,
) -> nn.Module:
    """Fit the method's solver to the training images, in their test view (as published); it may choose on `val`."""
    assert method.solver is not None, f"{method.name} is learned in steps or not at all"
    module = method.solver.build(clip.facts, num_classes)
    observer.note(method.solver.solve(module, _features(train, images, clip), _features(val, images, clip), seed))
    return module.to(clip.device).requires_grad_(False)


def _features(samples: Sequence[Sample], images: Images, clip: Clip) -> tuple[Tensor, Tensor]:
    """(N, E) un-normalised, and (N,) labels."""
    label_N = torch.tensor([sample.label for sample in samples], dtype=torch.int64)
    return (images.features(samples, None) if samples else torch.empty(0, clip.facts.embed_dim)), label_N
