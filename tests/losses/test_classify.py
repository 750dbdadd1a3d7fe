"""Logits and cross-entropy against the loops of the oracle."""

from __future__ import annotations

import pytest
import torch

from tests.oracle import losses as oracle
from vlprompt.losses import CROSS_ENTROPY, logits
from vlprompt.types import BARE, Features, View, Vocabulary

VOCABULARY = Vocabulary(weight_VD=torch.eye(3), word_ids=torch.arange(3), words=str)


def view(scores: torch.Tensor, labels: torch.Tensor, image: Features, text: Features) -> View:
    return View(labels=labels, logits=scores, text=text, image=image, prompted=BARE, vocabulary=VOCABULARY)


@pytest.mark.parametrize("per_image", [False, True])
def test_cross_entropy_is_the_oracles_in_value_and_gradient(per_image: bool) -> None:
    generator = torch.Generator().manual_seed(0)
    image = torch.randn(5, 7, generator=generator, dtype=torch.float64)
    shape = (5, 4, 7) if per_image else (4, 7)
    text = torch.randn(shape, generator=generator, dtype=torch.float64, requires_grad=True)
    labels = torch.tensor([0, 3, 1, 1, 2])
    wanted = oracle.cross_entropy(image, text, labels.tolist(), 20.0)
    (wanted_gradient,) = torch.autograd.grad(wanted, text)
    features = Features(pooled=image), Features(pooled=text)
    loss = CROSS_ENTROPY.score(view(logits(*features, 20.0), labels, *features))
    (gradient,) = torch.autograd.grad(loss, text)
    assert loss.item() == pytest.approx(wanted.item(), rel=1e-12)
    torch.testing.assert_close(gradient, wanted_gradient, rtol=1e-10, atol=1e-12)


def test_logits_are_float32_and_do_not_depend_on_lengths() -> None:
    image, text = torch.randn(2, 4), torch.randn(3, 4)
    plain = logits(Features(pooled=image), Features(pooled=text), 100.0)
    halves = logits(Features(pooled=image.bfloat16()), Features(pooled=text.bfloat16()), 100.0)
    longer = logits(Features(pooled=image * 7), Features(pooled=text * 0.01), 100.0)
    assert plain.dtype == halves.dtype == torch.float32
    torch.testing.assert_close(plain, longer)
    assert plain.abs().max() <= 100.001
