"""Weights that are found in the first epoch: what they are, that they hold, that a run goes on with them, and where they stand."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from tests.engine.conftest import Memory
from tests.engine.made import config, images, lesson, method
from vlprompt.engine.checkpoint import Checkpoints
from vlprompt.engine.run import train_run
from vlprompt.engine.step import Balance, by_term, labelled, measure_all, norm, ratios
from vlprompt.engine.train import forward_of, new_prompt, train
from vlprompt.errors import UserError
from vlprompt.losses import CROSS_ENTROPY
from vlprompt.methods.resolve import resolve
from vlprompt.pretrain.config import _refuse
from vlprompt.towers import Clip
from vlprompt.types import View

R = 0.5
TERMS = ("plpp", "plpp-inverse")


def views(clip: Clip, folder: Path, name: str) -> tuple[torch.nn.Module, list[View]]:
    chosen, asked = method(name), lesson(folder)
    assert chosen.prompt is not None
    prompt = new_prompt(clip, chosen.prompt, 3, 1)
    forward = forward_of(clip, chosen, asked, max_rows=None)
    generator = torch.Generator().manual_seed(1)
    found = []
    for _ in range(3):
        frozen = torch.randn(6, clip.facts.embed_dim, generator=generator) if forward.reads_frozen else None
        pixels = torch.randn(6, 3, 32, 32, generator=generator) if forward.spec.reach.image_tower else None
        found.append(forward(prompt, torch.arange(6) % 3, frozen, pixels))
    return prompt, found


@pytest.mark.parametrize(
    ("name", "tensors"),
    [
        ("plpp+coop", {"ctx"}),
        ("plpp+cocoop", {"ctx"}),
        ("plpp+maple", {"ctx"}),
        ("plpp+rpp", {"ctx", "text.0.q", "text.0.k", "text.0.v"}),
    ],
)
def test_weights_make_the_gradients_r_times_cross_entropys_on_what_is_labelled(
    clip: Clip, folder: Path, name: str, tensors: set[str]
) -> None:
    prompt, seen = views(clip, folder, name)
    terms = method(name, **{"plpp.balance": R}).terms
    balance = Balance(terms, {})
    lengths: dict[str, list[float]] = {term.name: [] for term in terms}
    parameters = dict(prompt.named_parameters())
    for view in seen:
        measure_all([(balance, view, prompt)])
        each = by_term({term.name: term.score(view) for term in terms}, list(parameters.values()), keep=True)
        for term, gradients in each.items():
            on = [one for key, one in zip(parameters, gradients, strict=True) if key in tensors and one is not None]
            lengths[term].append(sum(float(one.double().square().sum()) for one in on) ** 0.5)
    reference = sum(lengths[CROSS_ENTROPY.name])
    assert balance.weights.keys() == set(TERMS)
    for term in TERMS:
        assert balance.weights[term] * sum(lengths[term]) == pytest.approx(R * reference, rel=1e-6)
    assert [term.weight for term in balance.terms if term.name in TERMS] == list(balance.weights.values())


def test_a_ratio_is_that_of_the_labelled_tensor(clip: Clip, folder: Path) -> None:
    """On RPP the labelled tensors are four of many: the ratio on them is not the ratio on all."""
    prompt, (view, *_) = views(clip, folder, "plpp+rpp")
    terms = method("plpp+rpp").terms
    each = by_term({term.name: term.weight * term.score(view) for term in terms}, list(prompt.parameters()))
    places = labelled(terms, prompt, view.prompted)
    found, everywhere = (ratios(each, CROSS_ENTROPY.name, on) for on in (places, {}))
    for term in TERMS:
        own, other = (norm([each[name][i] for i in places[term]]) for name in (term, CROSS_ENTROPY.name))
        assert found[term] == pytest.approx(own / other)
        assert found[term] != pytest.approx(everywhere[term], rel=0.1)
    assert found["distillation"] == everywhere["distillation"]


def test_weights_are_fixed_after_the_first_epoch_and_a_stopped_run_goes_on_to_the_same_bits(
    clip: Clip, folder: Path, tmp_path: Path
) -> None:
    chosen = method("plpp+coop", **{"plpp.balance": R})
    logs, prompts = [], []
    for name, stop in (("whole", None), ("parts", 5)):
        checkpoints = Checkpoints(directory=tmp_path / name, config_hash="c")
        checkpoints.directory.mkdir()
        start = None
        if stop is not None:
            with pytest.raises(KeyboardInterrupt):
                train(
                    clip,
                    chosen,
                    lesson(folder),
                    images(clip),
                    checkpoints=checkpoints,
                    observer=Memory(stop_after=stop),
                )
            start = checkpoints.load()
            assert start is not None
            assert start.weights.keys() == set(TERMS)
        prompt = train(clip, chosen, lesson(folder), images(clip), start=start, checkpoints=checkpoints)
        prompts.append(prompt.get_parameter("ctx"))
        lines = (checkpoints.directory / "metrics.jsonl").read_text(encoding="utf-8").splitlines()
        logs.append([json.loads(line)["weights"] for line in lines])
    assert torch.equal(*prompts)
    assert logs[0] == logs[1]
    assert len(logs[0]) == 5
    assert all(weights == logs[0][0] for weights in logs[0])


def test_the_record_has_the_weights(clip_dir: Path, folder: Path, tmp_path: Path) -> None:
    changed = {"method": "plpp+coop", "overrides": {"plpp.balance": R}}
    (record,) = train_run(config(clip_dir, folder, tmp_path / "run", **changed))
    lines = (tmp_path / "run" / "seed1" / "metrics.jsonl").read_text(encoding="utf-8").splitlines()
    assert record.weights == json.loads(lines[-1])["weights"]
    assert record.weights.keys() == set(TERMS)
    changed["overrides"] = {"plpp.lambda": 0.1}
    (plain,) = train_run(config(clip_dir, folder, tmp_path / "plain", **changed))
    assert plain.weights == {}


@pytest.mark.parametrize(
    ("given", "weight", "balance"),
    [
        ({}, "auto", 0.1),
        ({"plpp.balance": 0.3}, "auto", 0.3),
        ({"plpp.balance": "off"}, 0.1, "off"),
        ({"plpp.lambda": 0.5}, 0.5, "off"),
        ({"plpp.lambda_inverse": 0.5}, 0.1, "off"),
        ({"plpp.lambda": 0.5, "plpp.balance": 0.3}, 0.5, 0.3),
    ],
)
def test_a_lambda_that_is_given_turns_the_balance_off(
    given: dict[str, object], weight: object, balance: object
) -> None:
    options = resolve("plpp+coop", given).options
    assert (options["plpp.weight"], options["plpp.balance"]) == (weight, balance)
    assert resolve("plpp+coop", options).options == options  # as a record has them


def test_pretraining_refuses_it() -> None:
    with pytest.raises(UserError, match=r"Set plpp\.lambda"):
        _refuse(resolve("plpp+rpp", {"plpp.balance": R}))
