"""Errors, masks, and the summaries that stand for large gradients."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from vlprompt.errors import UserError
from vlprompt.verify.compare import Check, compare, compare_ids, error

IDS = {"token_ids": np.zeros((1, 4), np.int32)}


def test_error_is_the_largest_difference_over_the_largest_number() -> None:
    assert error(torch.tensor([1.0, -4.0]), np.array([1.5, -5.0], np.float32)) == pytest.approx(0.2)


def test_what_is_not_finite_is_never_ok() -> None:
    for judged in (True, False):
        for bad in (math.nan, math.inf):
            off = error(torch.tensor([1.0, bad]), np.array([1.0, 2.0], np.float32))
            assert not Check(what="x", kind="values", error=off, judged=judged).ok


def test_shapes_must_agree() -> None:
    with pytest.raises(UserError, match=r"shape \(2, 1\) where \(2,\) is computed"):
        error(torch.ones(2), np.ones((2, 1), np.float32))


def test_masked_logits_need_only_be_low_and_hide_no_other() -> None:
    theirs = np.array([2.0, -1e6, 1.0], np.float32)
    assert error(torch.tensor([2.0, -9e5, 1.0]), theirs) == 0
    assert error(torch.tensor([2.0, -1e6, 1.1]), theirs) == pytest.approx(0.05)
    assert error(torch.tensor([2.0, -5.0, 1.0]), theirs) == math.inf


def test_gradients_may_be_ten_times_further_off() -> None:
    assert not Check(what="x", kind="values", error=2e-5).ok
    assert Check(what="x", kind="gradients", error=2e-5).ok
    assert not Check(what="x", kind="gradients", error=2e-4).ok


def summaries(gradient: torch.Tensor) -> dict[str, np.ndarray]:
    """What `parity/README.md` says is kept of a large gradient, written out."""
    signs = np.random.RandomState(99).choice([-1, 1], len(gradient))
    g = gradient.numpy()
    return {
        "grad_rows:w": g.sum(axis=1),
        "grad_proj:w": (signs[:, None] * g).sum(axis=0),
        "grad_norm:w": np.sqrt((g**2).sum()),
        "grad_corner:w": g[:8, :8],
    }


@pytest.mark.parametrize("spoil", [(0, 0), (9, 3)])
def test_a_large_gradient_is_compared_by_its_summaries(spoil: tuple[int, int]) -> None:
    gradient = torch.randn(12, 10, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    want = IDS | summaries(gradient)
    (check,) = compare({"gradients": {"grad:w": gradient}}, want, judged=True)
    assert check.what == "w"
    assert check.error < 1e-12
    wrong = gradient.clone()
    wrong[spoil] += 1
    (check,) = compare({"gradients": {"grad:w": wrong}}, want, judged=True)
    assert check.error > 0.1
    (check,) = compare({"gradients": {"grad:w": wrong.fill_(math.nan)}}, want, judged=True)
    assert not check.ok


def test_a_published_number_left_out_is_a_fault() -> None:
    want = IDS | {"logits": np.ones(2, np.float32), "loss": np.ones((), np.float32)}
    with pytest.raises(UserError, match="not computed here: loss"):
        compare({"values": {"logits": torch.ones(2)}}, want, judged=True)


def test_token_ids_are_counted() -> None:
    want = np.array([[7, 5, 8, 0], [7, 8, 0, 0]], np.int32)
    assert compare_ids([[7, 5, 8], [7, 8]], want).error == 0
    check = compare_ids([[7, 5, 8, 9], [8, 8]], want)
    assert check.error == 2
    assert not check.ok


RUN = {"loss": np.array([[2.0, 4.0]]), "cosine": np.array([[0.5, -0.001]]), "epoch2:w": np.ones((2, 2), np.float32)}


def off(steps: dict[str, list[list[float]]], tensors: dict[str, torch.Tensor]) -> dict[str, float]:
    """Errors by name, of a run beside `RUN`."""
    given = {name: torch.tensor(values, dtype=torch.float64) for name, values in steps.items()}
    return {check.what: check.error for check in compare({"steps": given, "tensors": tensors}, RUN, judged=True)}


def test_a_step_is_compared_with_itself_and_a_cosine_as_it_is() -> None:
    steps = {"loss": [[2.0 + 2e-5, 4.0]], "cosine": [[0.5, -0.0011]]}
    found = off(steps, {"epoch1:w": torch.zeros(2, 2), "epoch2:w": torch.ones(2, 2)})
    assert found == pytest.approx({"loss": 1e-5, "cosine": 1e-4, "epoch2:w": 0}, abs=1e-9)


def test_a_tensor_of_a_published_epoch_must_be_there() -> None:
    steps = {"loss": [[2.0, 4.0]], "cosine": [[0.5, 0.0]]}
    with pytest.raises(KeyError, match="epoch2_rows:other"):
        off(steps, {"epoch2:w": torch.ones(2, 2), "epoch2:other": torch.ones(2, 2)})
    with pytest.raises(UserError, match="not computed here: epoch2:w"):
        off(steps, {})
    with pytest.raises(KeyError, match="lr"):
        off({**steps, "lr": [[1.0, 1.0]]}, {"epoch2:w": torch.ones(2, 2)})
