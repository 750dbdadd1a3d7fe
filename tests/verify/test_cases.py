"""The published numbers, case by case; and that a fault of the towers, of a prompt or of a gradient would be seen."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch

from vlprompt.verify import Result, case_names, compositions, parity, run_case


@pytest.mark.parametrize("name", case_names())
def test_published(name: str) -> None:
    result = run_case(name)
    assert result.ok, [(check.what, check.error) for check in result.checks if not check.ok]


def test_every_published_case_is_compared() -> None:
    assert list(case_names()) == [case["name"] for case in parity.index()["cases"]]


def failing(result: Result) -> set[str]:
    return {check.what for check in result.checks if not check.ok}


def scaled(function: Callable[..., dict[str, Any]], factor: float) -> Callable[..., dict[str, Any]]:
    """The function with every array or tensor that it answers a little larger."""
    return lambda *args: {name: (value * factor).astype("float32") for name, value in function(*args).items()}


def test_learned_values_that_enter_wrongly_are_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(parity, "learned", scaled(parity.learned, 1.01))
    assert {"logits", "loss"} <= failing(run_case("maple_depth2"))


def test_a_wrong_gradient_alone_is_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    right = compositions._gradients

    def wrong(*args: Any) -> dict[str, torch.Tensor]:
        return {name: gradient * 1.001 for name, gradient in right(*args).items()}

    monkeypatch.setattr(compositions, "_gradients", wrong)
    result = run_case("maple_depth2")
    gradients = {check.what for check in result.checks if check.kind == "gradients"}
    assert len(gradients) == 6
    assert failing(result) == gradients


def test_a_wrong_token_id_is_seen_in_any_dtype(monkeypatch: pytest.MonkeyPatch) -> None:
    right = compositions._sentences
    monkeypatch.setattr(compositions, "_sentences", lambda *args: [text.rstrip(".") for text in right(*args)])
    assert failing(run_case("coop_front")) == {"token ids"}
    assert failing(run_case("coop_front", dtype="bfloat16")) == {"token ids"}


def test_bfloat16_is_shown_but_not_judged() -> None:
    result = run_case("coop_end", dtype="bfloat16")
    assert result.ok
    errors = {check.what: check.error for check in result.checks}
    assert 1e-4 < errors["logits"] < 0.1
    assert [check.what for check in result.checks if check.judged] == ["token ids"]


def test_what_the_device_cannot_do_fails_its_case_only(monkeypatch: pytest.MonkeyPatch) -> None:
    def stop(given: object) -> None:
        raise NotImplementedError("no such kernel\non this device")

    monkeypatch.setattr(compositions, "METHODS", {**compositions.METHODS, "maple": stop})
    assert failing(run_case("maple_depth2")) == {"stopped (no such kernel on this device)"}
    assert run_case("coop_end").ok
