"""The published numbers, case by case; and that a fault of an input, a setting or a gradient would be seen."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any

import pytest
import torch

from vlprompt.data.papers import catalogue
from vlprompt.engine.precision import generator
from vlprompt.methods import recipes
from vlprompt.types import Method
from vlprompt.verify import OURS, Case, Compared, cases, cases_in, given, run, run_case

CASES = {case.name: case for case in cases_in()}


@pytest.mark.parametrize("name", CASES)
def test_published(name: str) -> None:
    result = run_case(CASES[name])
    assert result.ok, [(check.what, check.error) for check in result.checks if not check.ok]


def test_there_are_single_passes_and_whole_runs() -> None:
    assert sum(not name.startswith("trajectories/") for name in CASES) == 16
    assert sum(name.startswith("trajectories/") for name in CASES) == 12


def failing(result: Compared) -> set[str]:
    return {check.what for check in result.checks if not check.ok}


def changed(name: str, part: str, **changes: object) -> Case:
    """A case with other values in one part of its entry; `part` empty: in the entry itself."""
    case = CASES[name]
    entry = dict(case.entry)
    if part:
        entry[part] = {**entry[part], **changes}
    return dataclasses.replace(case, entry=entry if part else {**entry, **changes})


@pytest.mark.parametrize(
    ("name", "part", "changes"),
    [
        ("coop_end", "schedule", {"momentum": 0.89}),
        ("coop_end", "schedule", {"warmup_lr": 2e-5}),
        ("coop_end", "schedule", {"warmup_epochs": 2}),
        ("coop_decay", "schedule", {"weight_decay": 0.0}),
        ("maple_decay", "schedule", {"weight_decay": 0.0}),
        ("kgcoop", "config", {"weight": 7.9}),
        ("kgcoop", "", {"template": "a photo of a {}."}),
        ("prograd", "", {"template": "a photo of a {}."}),
        ("prograd", "config", {"strength": 0.9}),
        ("pomp", "config", {"correction": "natural"}),
        ("promptsrc", "config", {"text_weight": 24.9}),
        ("promptsrc", "config", {"average_mean": 2.9}),
        ("maple_words", "config", {"init": "a picture of a"}),
    ],
)
def test_a_wrong_setting_of_a_run_is_seen(name: str, part: str, changes: dict[str, object]) -> None:
    off = {
        check.what: check.error / check.tolerance
        for check in run_case(changed(f"trajectories/{name}", part, **changes)).checks
    }
    assert max(off.values()) > 40, off


def test_other_sampled_classes_are_seen() -> None:
    negatives = CASES["trajectories/pomp"].entry["negatives"]
    result = run_case(changed("trajectories/pomp", "", negatives=negatives[::-1]))
    assert "loss" in failing(result)


def test_a_fault_of_the_average_is_seen_in_it_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    from vlprompt.engine import train

    right = train.accumulate
    monkeypatch.setattr(train, "accumulate", lambda average, share, prompt: right(average, 1.001 * share, prompt))
    off = failing(run_case(CASES["trajectories/promptsrc"]))
    assert len(off) == 6
    assert all(what.startswith("average:") for what in off)


@pytest.mark.parametrize("name", ["kgcoop", "prograd"])
def test_the_teachers_words_are_the_recipes(name: str) -> None:
    case = CASES[f"trajectories/{name}"].entry
    assert case["config"]["dataset"] == "OxfordPets"
    row = catalogue.get("oxford_pets")
    assert (recipes.read(f"{name}-base-to-novel").template(row.name) or row.template) == case["template"]


def started(case: Case) -> Mapping[str, torch.Tensor]:
    found = given.given(case.folder, case.entry, "cpu", "float32")
    assert found.method is not None
    return dict(found.method.prompt.build(found.clip.facts, generator("test"), 7).named_parameters())


def test_a_context_that_is_not_drawn_starts_at_the_words() -> None:
    embed = given.given(OURS, CASES["coop_words"].entry, "cpu", "float32").clip.embed_words
    words = embed("a photo of a")
    assert torch.equal(started(CASES["trajectories/kgcoop"])["ctx"], words)
    assert torch.equal(started(CASES["trajectories/maple_words"])["ctx"], words[:2])
    zeros = changed("trajectories/kgcoop", "config", n_ctx=6, init="zeros + a photo of a")
    assert torch.equal(started(zeros)["ctx"], torch.cat([torch.zeros(2, 512), words]))


def scaled(function: Callable[..., dict[str, Any]], factor: float) -> Callable[..., dict[str, Any]]:
    """The function with every array that it answers a little larger."""
    return lambda *args: {name: (value * factor).astype("float32") for name, value in function(*args).items()}


def test_learned_values_that_enter_wrongly_are_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(given, "drawn_tensors", scaled(given.drawn_tensors, 1.01))
    assert {"logits", "loss"} <= failing(run_case(CASES["maple_depth2"]))


def test_a_wrong_gradient_alone_is_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    right = cases.gradients_of

    def wrong(method: Method, *args: Any) -> Any:
        return tuple(gradient * 1.001 for gradient in right(method, *args) if gradient is not None)

    monkeypatch.setattr(cases, "gradients_of", wrong)
    result = run_case(CASES["maple_depth2"])
    gradients = {check.what for check in result.checks if check.kind == "gradients"}
    assert len(gradients) == 6
    assert failing(result) == gradients


def test_a_wrong_token_id_is_seen_in_any_dtype(monkeypatch: pytest.MonkeyPatch) -> None:
    right = run.sentence_ids
    monkeypatch.setattr(run, "sentence_ids", lambda *args: [[*ids[:-2], ids[-1]] for ids in right(*args)])
    assert failing(run_case(CASES["coop_front"])) == {"token ids"}
    assert failing(run_case(CASES["coop_front"], dtype="bfloat16")) == {"token ids"}


def test_what_the_device_cannot_do_fails_its_case_only(monkeypatch: pytest.MonkeyPatch) -> None:
    def stop(given: object) -> None:
        raise NotImplementedError("no such kernel\non this device")

    monkeypatch.setattr(run, "answer", stop)
    assert failing(run_case(CASES["maple_depth2"])) == {"stopped (no such kernel on this device)"}
    assert run_case(CASES["trajectories/coop_end"]).ok
