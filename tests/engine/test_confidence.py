"""The temperature and the threshold, against plain searches."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from sklearn.metrics import roc_auc_score

from vlprompt.engine.confidence import COLDEST, Confidence, confidence_of, fit_temperature, rejection


def drawn(temperature: float, count: int = 4000) -> tuple[torch.Tensor, np.ndarray]:
    """Logits whose labels are drawn at a temperature."""
    random = np.random.default_rng(0)
    logits = 3 * random.normal(size=(count, 5))
    chance = torch.softmax(torch.tensor(logits) / temperature, -1).numpy()
    return torch.tensor(logits), np.array([random.choice(5, p=row) for row in chance])


@pytest.mark.parametrize("wanted", [0.5, 1.0, 3.0])
def test_the_temperature_that_labels_were_drawn_at_is_found(wanted: float) -> None:
    logits, labels = drawn(wanted)
    found = fit_temperature(logits, labels)
    assert found == pytest.approx(wanted, rel=0.06)

    def loss(temperature: float) -> float:
        return float(torch.nn.functional.cross_entropy(logits / temperature, torch.tensor(labels)))

    assert loss(found) <= min(loss(found * 0.98), loss(found * 1.02)) + 1e-12


def test_a_few_images_that_are_all_right_ask_for_no_end_of_certainty() -> None:
    assert fit_temperature(5 * torch.eye(3).repeat(4, 1), np.tile(np.arange(3), 4)) == pytest.approx(COLDEST, rel=1e-3)
    assert confidence_of(torch.eye(3), np.arange(3)) == Confidence()


def test_a_left_out_class_is_told_by_the_highest_probability_of_the_others() -> None:
    logits, labels = drawn(1.0, 60)
    below, auroc = rejection(logits, labels)
    truth, score = [], []
    for left_out in range(5):
        kept = [label for label in range(5) if label != left_out]
        highest = torch.softmax(logits[:, kept], -1).amax(1).numpy()
        truth += (labels != left_out).tolist()
        score += highest.tolist()
    assert auroc == pytest.approx(100 * roc_auc_score(truth, score))
    truth, score = np.array(truth), np.array(score)

    def youden(at: float) -> float:
        return (score[truth] >= at).mean() - (score[~truth] >= at).mean()

    assert below is not None
    assert youden(below - 1e-9) == pytest.approx(max(youden(at) for at in score))
    assert rejection(logits[:, :2], labels % 2) == (None, None)
