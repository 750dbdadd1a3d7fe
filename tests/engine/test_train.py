"""The loop: it learns, it repeats itself, it goes on where it stopped, and it leaves the towers alone."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from tests.engine.conftest import Memory
from tests.engine.made import images, lesson, method
from vlprompt.engine.checkpoint import Checkpoints
from vlprompt.engine.optim import lr_at
from vlprompt.engine.train import new_prompt, train, view_of
from vlprompt.errors import NUMERICAL, UserError
from vlprompt.towers import Clip
from vlprompt.types import Method, Term, View, Views

NAMES = ("coop", "plpp+coop")


def learn(clip: Clip, folder: Path, chosen: Method, memory: Memory | None = None, **changes: object) -> nn.Module:
    return train(clip, chosen, lesson(folder), images(clip), observer=memory or Memory(), **changes)  # type: ignore[arg-type]


def bits(prompt: nn.Module) -> dict[str, bytes]:
    return {name: p.detach().numpy().tobytes() for name, p in prompt.named_parameters()}


@pytest.mark.parametrize("name", NAMES)
def test_the_loss_falls(clip: Clip, folder: Path, name: str) -> None:
    memory = Memory()
    learn(clip, folder, method(name, epochs=20), memory)
    first, last = sum(memory.losses[:4]), sum(memory.losses[-4:])
    assert last < 0.8 * first


@pytest.mark.parametrize("name", NAMES)
def test_two_runs_are_equal_and_two_seeds_are_not(clip: Clip, folder: Path, name: str) -> None:
    once, again = learn(clip, folder, method(name)), learn(clip, folder, method(name))
    assert bits(once) == bits(again)
    other = train(clip, method(name), lesson(folder, seed=2), images(clip))
    assert bits(other) != bits(once)


@pytest.mark.parametrize("name", NAMES)
def test_towers_stay_as_they_are(clip: Clip, folder: Path, name: str) -> None:
    before = {key: value.clone() for key, value in clip.state_dict().items()}
    learn(clip, folder, method(name))
    assert all(torch.equal(value, before[key]) for key, value in clip.state_dict().items())
    assert not any(p.requires_grad or p.grad is not None for p in clip.parameters())


def test_the_number_of_learned_numbers_is_context_times_width(clip: Clip, folder: Path) -> None:
    prompt = learn(clip, folder, method("plpp+coop", epochs=1))
    assert sum(p.numel() for p in prompt.parameters()) == 4 * clip.facts.text_width
    assert all(p.dtype == torch.float32 and not p.requires_grad for p in prompt.parameters())


def test_weight_zero_is_the_host(clip: Clip, folder: Path) -> None:
    host, overlay = learn(clip, folder, method("coop")), learn(clip, folder, method("plpp+coop", **{"plpp.weight": 0}))
    assert bits(host) == bits(overlay)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("stop", [1, 3])
def test_a_stopped_run_goes_on_to_the_same_bits(clip: Clip, folder: Path, tmp_path: Path, name: str, stop: int) -> None:
    """Ctrl-C in the middle of an epoch; the rest of that epoch is done again from its start."""
    whole = Checkpoints(directory=tmp_path / "whole", config_hash="c")
    whole.directory.mkdir()
    prompt = learn(clip, folder, method(name), checkpoints=whole)
    parts = Checkpoints(directory=tmp_path / "parts", config_hash="c")
    parts.directory.mkdir()
    with pytest.raises(KeyboardInterrupt):
        learn(clip, folder, method(name), Memory(stop_after=2 * stop + 1), checkpoints=parts)
    state = parts.load()
    assert state is not None
    assert state.epoch == stop
    resumed = learn(clip, folder, method(name), start=state, checkpoints=parts)
    assert bits(resumed) == bits(prompt)
    before, after = whole.load(), parts.load()
    assert before is not None
    assert after is not None
    assert before.momentum.keys() == after.momentum.keys() != set()
    assert all(torch.equal(before.momentum[key], after.momentum[key]) for key in before.momentum)
    logs = [
        [json.loads(line) for line in (c.directory / "metrics.jsonl").read_text(encoding="utf-8").splitlines()]
        for c in (whole, parts)
    ]
    for log in logs:
        for line in log:
            del line["seconds"]
    assert logs[0] == logs[1]


@pytest.mark.parametrize("views", [2, "epochs"])
def test_every_seed_has_its_own_crops(clip: Clip, folder: Path, views: Views) -> None:
    """So that the spread over seeds has their part: the features that two seeds learn from differ, one seed's do not."""
    of = {seed: [view_of(views, epoch, seed) for epoch in range(4)] for seed in (0, 1, 2, 3)}
    assert of[1] == ([0, 1, 0, 1] if views == 2 else [0, 1, 2, 3])
    numbers = [number for found in of.values() for number in set(found)]
    assert len(set(numbers)) == len(numbers)
    store, samples = images(clip), lesson(folder).samples
    first, again, second = (store.features(samples, view_of(views, 0, seed)) for seed in (1, 1, 2))
    assert torch.equal(first, again)
    assert (first != second).any(1).all()
    assert view_of("centre", 3, 2) is None


def test_metrics_say_what_happened(clip: Clip, folder: Path, tmp_path: Path) -> None:
    chosen = method("plpp+coop", epochs=3)
    learn(clip, folder, chosen, checkpoints=Checkpoints(directory=tmp_path, config_hash="c"))
    lines = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text(encoding="utf-8").splitlines()]
    assert chosen.schedule is not None
    assert [line["lr"] for line in lines] == [lr_at(epoch, chosen.schedule) for epoch in range(3)]
    assert [line["view"] for line in lines] == [0, 1, 0]
    for line in lines:
        assert line["losses"].keys() == {"cross-entropy", "plpp", "plpp-inverse"}
        assert line["loss"] == pytest.approx(sum(line["losses"].values()))
        assert line["gradient_ratios"].keys() == {"plpp", "plpp-inverse"}
        assert all(ratio > 0 for ratio in line["gradient_ratios"].values())


def test_views_are_cycled_or_fresh(clip: Clip, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[int | None] = []
    source = images(clip)
    inner = source.features

    def features(samples: Sequence[object], view: int | None, *, quiet: bool = False) -> Tensor:
        seen.append(view)
        return inner(samples, view, quiet=quiet)  # type: ignore[arg-type]

    monkeypatch.setattr(source, "features", features)
    train(clip, method(epochs=5), lesson(folder, views=3), source)
    train(clip, method(epochs=4), lesson(folder, views="epochs"), source)
    assert seen == [0, 1, 2, 0, 1, 0, 1, 2, 3]


class HalfAndHalf:
    """An average over the last two epochs."""

    def weights(self, epochs: int) -> Sequence[float]:
        return [0.0] * (epochs - 2) + [0.5, 0.5]


def test_an_average_is_the_mean_of_the_epochs_prompts(clip: Clip, folder: Path, tmp_path: Path) -> None:
    states = {}
    for done in (3, 4):
        checkpoints = Checkpoints(directory=tmp_path / str(done), config_hash="c")
        checkpoints.directory.mkdir()
        with pytest.raises(KeyboardInterrupt):
            learn(clip, folder, method(epochs=5), Memory(stop_after=2 * done + 1), checkpoints=checkpoints)
        state = checkpoints.load()
        assert state is not None
        states[done] = state.parameters["ctx"]
    last = learn(clip, folder, method(epochs=5)).get_parameter("ctx")
    averaged = changed(method(epochs=5), average=HalfAndHalf())
    got = learn(clip, folder, averaged).get_parameter("ctx")
    torch.testing.assert_close(got, (states[4] + last) / 2, rtol=0, atol=1e-7)


def test_an_average_survives_a_stop(clip: Clip, folder: Path, tmp_path: Path) -> None:
    averaged = changed(method(epochs=5), average=HalfAndHalf())
    checkpoints = Checkpoints(directory=tmp_path, config_hash="c")
    with pytest.raises(KeyboardInterrupt):
        learn(clip, folder, averaged, Memory(stop_after=9), checkpoints=checkpoints)
    resumed = learn(clip, folder, averaged, start=checkpoints.load(), checkpoints=checkpoints)
    assert bits(resumed) == bits(learn(clip, folder, averaged))


def changed(method: Method, **changes: Any) -> Method:
    return dataclasses.replace(method, learner=dataclasses.replace(method.steps, **changes))


def with_terms(method: Method, *more: Term) -> Method:
    return changed(method, terms=(*method.terms, *more))


def broken(after: int, value: float) -> Term:
    """A term that is 0 for some steps and then not finite."""
    steps = iter(range(1000))

    def score(view: View) -> Tensor:
        return 0 * view.logits.sum() + (value if next(steps) >= after else 0.0)

    return Term(name="broken", score=score)


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_a_loss_that_is_not_finite_stops_with_names(clip: Clip, folder: Path, tmp_path: Path, value: float) -> None:
    chosen = method()
    chosen = with_terms(chosen, broken(5, value))
    checkpoints = Checkpoints(directory=tmp_path, config_hash="c")
    with pytest.raises(
        UserError, match=r"'broken' is not finite at epoch 3, step 2, on these images: train/"
    ) as stopped:
        learn(clip, folder, chosen, checkpoints=checkpoints)
    assert stopped.value.exit_code == NUMERICAL
    assert str(stopped.value).count("train/") == 8
    state = checkpoints.load()
    assert state is not None
    assert state.epoch == 2
    assert torch.isfinite(state.parameters["ctx"]).all()


def test_a_gradient_that_is_not_finite_stops_too(clip: Clip, folder: Path) -> None:
    """sqrt at 0: the value is fine, its slope is not."""
    steep = Term(name="steep", score=lambda view: (view.prompted.text[0].q - view.prompted.text[0].q).sum().sqrt())
    chosen = method()
    with pytest.raises(UserError, match=r"the gradient of 'ctx' is not finite at epoch 1, step 1"):
        learn(clip, folder, with_terms(chosen, steep))


def test_the_first_prompt_depends_on_the_seed_alone(clip: Clip) -> None:
    spec = method().prompt
    assert spec is not None
    torch.manual_seed(5)
    one = new_prompt(clip, spec, 3, seed=1)
    torch.manual_seed(6)
    assert bits(one) == bits(new_prompt(clip, spec, 3, seed=1))
    assert bits(one) != bits(new_prompt(clip, spec, 3, seed=2))


@pytest.mark.parametrize("name", NAMES)
def test_golden_losses(clip: Clip, folder: Path, regen: bool, name: str) -> None:
    """Ten steps: the loss of each, and where the prompt ends. `pytest tests/engine --regen` writes them anew."""
    memory = Memory()
    fixed = {"plpp.balance": "off"} if name.startswith("plpp") else {}
    prompt = learn(clip, folder, method(name, epochs=5, **fixed), memory)
    (context,) = [p.double() for p in prompt.parameters()]
    got = {"losses": memory.losses, "squares": float(context.square().sum())}
    path = Path(__file__).parents[1] / "golden" / f"{name}.json"
    if regen:
        path.write_text(json.dumps(got, indent=2) + "\n", encoding="utf-8")
    wanted = json.loads(path.read_text(encoding="utf-8"))
    assert len(got["losses"]) == 10
    assert got["losses"] == pytest.approx(wanted["losses"], rel=1e-5)
    assert got["squares"] == pytest.approx(wanted["squares"], rel=1e-5)
