"""Ours beside published numbers: what is averaged, how sure a difference is, and when there is no verdict."""

from __future__ import annotations

import dataclasses
import math
from pathlib import Path

import pytest

from tests.data import layouts
from vlprompt.bench.reproduce import Reproduced, Wanted, averaged, judged, lines, request_of, sets_of
from vlprompt.errors import DATA, UserError
from vlprompt.methods import recipes
from vlprompt.methods.recipes import Published, Recipe
from vlprompt.records import Record

ROW = """
title = "t"
method = "coop"
protocol = "{protocol}"
choices = "published"
source = "a/b: c"
model = "m"
shots = [1, 16]
seeds = [1, 2, 3]
views = "epochs"
train = {train}
{test}
"""


def recipe(
    *published: Published, protocol: str = "few-shot", train: str = '["dtd", "eurosat"]', test: str = ""
) -> Recipe:
    row = recipes.parse("made", ROW.format(protocol=protocol, train=train, test=test))
    return dataclasses.replace(row, published=published)


def number(value: float, dataset: str = "mean of 2", metric: str = "top1", shots: int | None = 16) -> Published:
    return Published(value=value, metric=metric, dataset=dataset, shots=shots, source="a/b: README.md")


def record(
    dataset: str, seed: int, top1: float, *, subset: str = "all", shots: int = 16, parameters: int = 4
) -> Record:
    return Record(
        method="coop",
        dataset=dataset,
        shots=shots,
        seed=seed,
        model="m",
        template="{}",
        top1=top1,
        zero_shot_top1=None,
        top5=None,
        macro_f1=None,
        balanced_accuracy=None,
        ece=None,
        num_classes=4,
        num_test=8,
        split_hash="",
        seconds=1.0,
        seconds_features=0.0,
        epochs=1,
        peak_mib=1.0,
        device="cpu",
        versions={},
        subset=subset,
        parameters=parameters,
    )


def wanted(row: Recipe, **changes: object) -> Wanted:
    return Wanted(recipe=row, model="m", out=Path("out"), **changes)  # type: ignore[arg-type]


def judge(by_seed: list[float], published: float, seeds: int = 3) -> Reproduced:
    return judged(number(published), 16, sum(by_seed) / len(by_seed), by_seed, seeds)


@pytest.mark.parametrize(
    ("by_seed", "published", "verdict"),
    [
        ([80.0, 80.2, 80.4], 80.5, "agrees"),
        ([80.0, 80.2, 80.4], 79.0, "higher"),
        ([80.0, 80.2, 80.4], 82.0, "lower"),
        ([80.0, 81.0, 82.0], 80.5, "cannot tell"),  # +- 3.5 points: agreement would say nothing
        ([80.0, 81.0, 82.0], 60.0, "higher"),
        ([80.0], 80.0, "cannot tell"),
    ],
)
def test_verdicts(by_seed: list[float], published: float, verdict: str) -> None:
    line = judge(by_seed, published)
    assert line.verdict == verdict
    assert line.difference == pytest.approx(sum(by_seed) / len(by_seed) - published)


def test_the_uncertainty_is_students() -> None:
    line = judge([80.0, 80.2, 80.4], 80.0)
    # 4.302653: the 97.5 % point of Student's t with two degrees of freedom, from a printed table.
    assert line.uncertainty == pytest.approx(4.302653 * 0.2 * math.sqrt(1 / 3 + 1 / 3), rel=1e-6)
    assert line.deviation == pytest.approx(0.2)
    four = judge([80.0, 80.2, 80.4, 80.2], 80.0, seeds=1)
    assert four.uncertainty == pytest.approx(3.182446 * math.sqrt(0.08 / 3) * math.sqrt(1 / 4 + 1), rel=1e-6)


def test_the_mean_over_sets_is_taken_seed_by_seed() -> None:
    row = recipe(number(70.0))
    made = [record("dtd", seed, 60.0 + seed) for seed in (1, 2, 3)]
    made += [record("eurosat", seed, 80.0 - seed) for seed in (1, 2, 3)]
    (line,) = lines(wanted(row), made)
    assert (line.ours, line.deviation, line.num_seeds, line.missing) == (70.0, 0.0, 3, ())
    assert line.verdict == "agrees"


def test_the_harmonic_mean_is_of_the_means() -> None:
    row = recipe(
        number(1.0, metric="base", shots=None),
        number(1.0, metric="novel", shots=None),
        number(1.0, metric="harmonic_mean", shots=None),
        protocol="base-to-novel",
    )
    made = []
    for seed in (1, 2, 3):
        for name, base, novel in (("dtd", 80.0, 60.0), ("eurosat", 90.0, 40.0)):
            made += [record(name, seed, base, subset="base"), record(name, seed, novel, subset="novel")]
    values = [line.ours for line in lines(wanted(row), made)]
    assert values == [85.0, 50.0, pytest.approx(2 * 85 * 50 / 135)]


def test_nothing_is_averaged_over_what_is_missing() -> None:
    row = recipe(number(70.0), number(60.0, dataset="dtd"))
    made = [record("dtd", seed, 60.0 + seed / 10) for seed in (1, 2, 3)] + [record("eurosat", 1, 80.0)]
    mean, alone = lines(wanted(row), made)
    assert (mean.verdict, mean.ours, mean.difference, mean.missing) == ("incomplete", None, None, ("eurosat",))
    assert alone.ours == pytest.approx(60.2)


def test_only_the_shots_asked_for() -> None:
    row = recipe(number(50.0, shots=1), number(70.0, shots=16))
    made = [record(name, seed, 50.0, shots=1) for name in ("dtd", "eurosat") for seed in (1, 2, 3)]
    (line,) = lines(wanted(row, shots=(1,)), made)
    assert (line.shots, line.ours) == (1, 50.0)
    assert (
        lines(wanted(recipe(number(70.0, shots=None)), shots=(1,)), made) == []
    )  # published for the recipe's last count


def test_what_learns_nothing_has_no_seeds() -> None:
    row = recipe(number(65.05))
    made = [record(name, 1, 65.0, shots=0, parameters=0) for name in ("dtd", "eurosat")]
    (line,) = lines(wanted(row), made)
    assert (line.verdict, line.deviation, line.num_seeds) == ("agrees", None, 1)
    (off,) = lines(wanted(recipe(number(64.0))), made)
    assert off.verdict == "higher"


def test_what_is_changed_is_named() -> None:
    row = recipe()
    assert wanted(row).changed == ()
    assert wanted(row, overrides={"epochs": "1"}, views=2, seeds=(1,)).changed == ("epochs=1", "views=2", "seeds=1")


def test_every_published_number_names_data_sets_that_its_recipe_has() -> None:
    for name in recipes.names():
        row = recipes.read(name)
        for one in row.published if row.protocol != "pretraining" else ():
            assert averaged(row, one)
    with pytest.raises(UserError, match="mean of 11"):
        averaged(recipe(), number(1.0, dataset="mean of 11"))


def test_the_sets_that_are_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("VLPROMPT_DATA", str(tmp_path))
    row = recipe()
    with pytest.raises(UserError, match="vlprompt data get dtd") as caught:
        sets_of(wanted(row))
    assert caught.value.exit_code == DATA
    layouts.eurosat(tmp_path / "eurosat")
    found = sets_of(wanted(row))
    assert (found.used, found.missing) == (("eurosat",), ("dtd",))
    request = request_of(wanted(row), found)
    assert (request.protocols, request.data, request.methods) == (("few-shot",), ("eurosat",), ("coop",))
    assert (request.shots, request.seeds, request.recipe) == ((1, 16), (1, 2, 3), "made")


def test_the_source_of_all_must_be_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("VLPROMPT_DATA", str(tmp_path))
    layouts.eurosat(tmp_path / "eurosat")
    row = recipe(protocol="cross-dataset", train='["imagenet"]', test='test = ["dtd", "eurosat"]')
    with pytest.raises(UserError, match="needs imagenet, not"):
        sets_of(wanted(row))
    layouts.imagenet(tmp_path / "imagenet")
    request = request_of(wanted(row), sets_of(wanted(row)))
    assert (request.source, request.data) == (("imagenet",), ("eurosat",))


def test_pretraining_is_another_command() -> None:
    with pytest.raises(UserError, match="vlprompt pretrain"):
        sets_of(wanted(recipe(protocol="pretraining")))


def test_domains_belong_together(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("VLPROMPT_DATA", str(tmp_path))
    for name in ("imagenet", "imagenetv2", "imagenet_a"):
        layouts.MAKERS[name](tmp_path / layouts.DIRECTORIES[name])
    with pytest.raises(UserError, match="needs imagenet_sketch, imagenet_r, not"):
        sets_of(wanted(recipes.read("coop-domain")))
