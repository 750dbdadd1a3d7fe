"""Metrics worked out by hand."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.metrics import balanced_accuracy_score, f1_score

from vlprompt.engine.evaluate import calibration_error, check_classes, score
from vlprompt.errors import UserError
from vlprompt.prompts import BareSpec, ContextSpec

NAMES = "abcdefgh"


def table(*rows: list[float]) -> np.ndarray:
    return np.array(rows, dtype=np.float32)


def test_metrics_by_hand() -> None:
    """Four images, classes 0 0 1 2, predicted 0 1 1 0; class 3 has no image."""
    probability = table([0.7, 0.1, 0.1, 0.1], [0.2, 0.6, 0.1, 0.1], [0.1, 0.8, 0.05, 0.05], [0.5, 0.2, 0.2, 0.1])
    got = score(probability, np.array([0, 0, 1, 2]), NAMES)
    assert got["top1"] == 50
    assert got["top5"] is None  # of four classes it would say nothing
    assert got["per_class"] == {"a": 50, "b": 100, "c": 0}
    assert got["balanced_accuracy"] == pytest.approx(50)
    assert got["macro_f1"] == pytest.approx(100 * (2 * 1 / 4 + 2 * 1 / 3 + 0) / 3)


def test_top5_counts_five_and_ties_go_to_the_first_class() -> None:
    even = np.full((1, 8), 1 / 8, dtype=np.float32)
    assert score(even, np.array([4]), NAMES)["top5"] == 100
    assert score(even, np.array([5]), NAMES)["top5"] == 0
    assert score(even, np.array([0]), NAMES)["top1"] == 100


def test_metrics_agree_with_scikit_learn() -> None:
    rng = np.random.default_rng(0)
    probability = rng.dirichlet(np.ones(7), 200).astype(np.float32)
    label = rng.integers(0, 6, 200)
    got, predicted = score(probability, label, NAMES), probability.argmax(1)
    macro = f1_score(label, predicted, average="macro", labels=np.unique(label))
    assert got["macro_f1"] == pytest.approx(100 * macro)
    with pytest.warns(UserWarning, match="not in y_true"):
        wanted = balanced_accuracy_score(label, predicted)
    assert got["balanced_accuracy"] == pytest.approx(100 * wanted)


def test_calibration_error_by_hand() -> None:
    """Two bins: (0.5, 0.5) with one right of two: gap 0; (0.95 twice) with one right of two: |0.5 - 0.95|, half of all."""
    confidence = np.array([0.5, 0.5, 0.95, 0.95], dtype=np.float32)
    correct = np.array([True, False, True, False])
    assert calibration_error(confidence, correct) == pytest.approx(100 * 0.5 * 0.45, abs=1e-4)


def test_calibration_error_keeps_the_edges_apart() -> None:
    """1/15 lies in the first bin (closed to the right), 1 in the last; 0 is allowed."""
    confidence = np.array([0.0, 1.0], dtype=np.float32)
    assert calibration_error(confidence, np.array([True, False])) == pytest.approx(100)
    assert calibration_error(confidence, np.array([False, True])) == 0


def test_class_specific_contexts_know_their_own_classes_only() -> None:
    specific = ContextSpec(n_ctx=4, per_class=True)
    check_classes(specific, ["cat", "dog"], ["cat", "dog"])
    with pytest.raises(UserError, match="learned something for each of its 2 classes"):
        check_classes(specific, ["cat", "dog"], ["dog", "cat"])
    check_classes(ContextSpec(n_ctx=4), ["cat", "dog"], ["tree", "house", "bird"])


def test_class_names_must_differ_and_be_there() -> None:
    with pytest.raises(UserError, match="given twice: 'cat'"):
        check_classes(BareSpec(), ["cat", "dog"], ["cat", "cat"])
    with pytest.raises(UserError, match="empty"):
        check_classes(BareSpec(), ["cat", "dog"], [])
