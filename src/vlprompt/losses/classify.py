"""Classification: logits from the two towers' features, and their cross-entropy."""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

from vlprompt.types import Features, Prompted, Term, View


def logits(image: Features, text: Features, scale: float | Tensor) -> Tensor:
    """Class scores: ``scale * cos(image, text)``, in float32 (float64 where the features are).

    image: pooled (B, E). text: pooled (C, E), or (B, C, E) where the text depends on the image. scale: CLIP's logit
    scale, already exponentiated. Gives (B, C). Source: CLIP, arXiv 2103.00020, figure 3; CoOp, arXiv 2109.01134, eq. 1.
    """
    image_BE, text_E = image.unit, text.unit
    dtype = torch.promote_types(torch.promote_types(image_BE.dtype, text_E.dtype), torch.float32)
    image_BE, text_E = image_BE.to(dtype), text_E.to(dtype)
    if text_E.dim() == 2:
        return scale * (image_BE @ text_E.T)
    return scale * torch.einsum("be,bce->bc", image_BE, text_E)


def after(change: Callable[[Tensor], Tensor] | None, features: Features) -> Features:
    """A tower's features, changed as a prompt says."""
    return features if change is None else Features(pooled=change(features.pooled), states=features.states)


def answers(prompted: Prompted, image: Features, text: Features, scale: float) -> Tensor:
    """Logits (B, C) of finished features, by the prompt's score."""
    return (prompted.score or logits)(image, text, scale)


def cross_entropy(view: View) -> Tensor:
    """The mean over images of ``-log softmax(logits)[label]``; of images with several labels `binary`."""
    if view.labels.dim() == 2:
        return binary(view.logits, view.labels)
    return F.cross_entropy(view.logits, view.labels)


def binary(logits_BC: Tensor, truth_BC: Tensor) -> Tensor:
    """Binary cross-entropy per class, the mean over images and classes of the logits less the bias that makes it least.

    truth: (B, C), 1 for each class of the image. Cosines of CLIP are all positive, so without a bias every class would be probable. The
    bias is found in each step; at the least loss its own gradient is zero, so the gradient of the logits is whole (project's choice).
    """
    return F.binary_cross_entropy_with_logits(logits_BC - bias_of(logits_BC.detach(), truth_BC), truth_BC)


def bias_of(logits_BC: Tensor, truth_BC: Tensor) -> Tensor:
    """The bias (a scalar) of the least binary cross-entropy: probabilities then add up to the number of labels. Bisected."""
    low, high = logits_BC.min() - 30, logits_BC.max() + 30
    for _ in range(50):
        middle = (low + high) / 2
        above = torch.sigmoid(logits_BC - middle).sum() > truth_BC.sum()
        low, high = torch.where(above, middle, low), torch.where(above, high, middle)
    return (low + high) / 2


CROSS_ENTROPY = Term(
    name="cross-entropy",
    score=cross_entropy,
    formula="L_CE = -(1/B) sum_b log softmax_c(s cos(image_b, text_c))[label_b]",
)
