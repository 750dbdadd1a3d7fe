"""Only what can be compared is compared; images and seeds are paired whatever order they come in."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.report.made import record
from vlprompt import records
from vlprompt.errors import UserError
from vlprompt.records import Predictions, id_hashes
from vlprompt.report.comparison import compare
from vlprompt.report.sides import Run, read_side

LABELS = [n % 4 for n in range(80)]


def answers(right: Sequence[bool], *, prefix: str = "image") -> Predictions:
    label = np.array(LABELS[: len(right)], dtype=np.int64)
    half = np.full(len(right), 0.5, np.float32)
    return Predictions(
        id_hash=id_hashes([f"{prefix}{n}" for n in range(len(right))]),
        label=label,
        predicted=np.where(right, label, (label + 1) % 4),
        label_probability=half,
        predicted_probability=half,
    )


def wrote(root: Path, found: Predictions | None, **changes: Any) -> Path:
    right = found.predicted == found.label if found is not None else np.zeros(0)
    own: dict[str, Any] = (
        {} if found is None else {"num_test": len(right), "top1": 100 * float(right.mean()) if len(right) else None}
    )
    one = record(**(own | changes))
    place = root / f"{one.dataset}-{one.shots}-{one.subset}" / f"seed{one.seed}"
    records.write(place, one, found)
    return root


def first_n(count: int, total: int = 80) -> list[bool]:
    return [n < count for n in range(total)]


@pytest.fixture
def sides(tmp_path: Path) -> tuple[Path, Path]:
    """coop with 30, 31, 32 of 80 right; plpp+coop with ten more each."""
    for seed in (1, 2, 3):
        wrote(tmp_path / "a", answers(first_n(29 + seed)), seed=seed)
        wrote(tmp_path / "b", answers(first_n(39 + seed)), seed=seed, method="plpp+coop")
    return tmp_path / "a", tmp_path / "b"


def test_the_gain_is_that_of_the_same_images_and_seeds(sides: tuple[Path, Path]) -> None:
    (one,) = compare(read_side(sides[0]), read_side(sides[1]))[0]
    assert (one.first, one.second, one.datasets, one.seeds) == ("coop", "plpp+coop", ("birds",), (1, 2, 3))
    assert (one.first_top1, one.second_top1) == (pytest.approx(100 * 31 / 80), pytest.approx(100 * 41 / 80))
    assert one.estimate.difference == pytest.approx(12.5)
    assert one.estimate.verdict == "better"
    (back,) = compare(read_side(sides[1]), read_side(sides[0]))[0]
    assert back.estimate.verdict == "worse"


def test_the_order_of_images_does_not_matter(sides: tuple[Path, Path], tmp_path: Path) -> None:
    plain = compare(read_side(sides[0]), read_side(sides[1]))
    mixed = tmp_path / "mixed"
    order = np.random.default_rng(0).permutation(80)
    for directory, one in records.find(sides[1]):
        found = records.read_predictions(directory)
        assert found is not None
        shuffled = Predictions(*(getattr(found, field.name)[order] for field in dataclasses.fields(found)))
        records.write(mixed / f"seed{one.seed}", one, shuffled)
    assert compare(read_side(sides[0]), read_side(mixed)) == plain


def test_a_method_against_itself_is_the_same(sides: tuple[Path, Path]) -> None:
    (one,) = compare(read_side(sides[0]), read_side(sides[0]))[0]
    assert (one.estimate.verdict, one.estimate.difference) == ("same", 0.0)


def test_the_margin_is_from_nothing_to_all(sides: tuple[Path, Path]) -> None:
    runs = [read_side(one) for one in sides]
    for margin in (0.0, 100.0):
        assert compare(runs[0], runs[1], margin=margin)[0]
    for margin in (-0.1, 100.1, math.nan):
        with pytest.raises(UserError, match="it must lie between 0 and 100"):
            compare(runs[0], runs[1], margin=margin)


def test_zero_shot_goes_with_every_seed_and_any_shots(sides: tuple[Path, Path], tmp_path: Path) -> None:
    zero = wrote(tmp_path / "z", answers(first_n(20)), method="zero-shot", parameters=0, epochs=0, shots=None, seed=0)
    (one,) = compare(read_side(zero), read_side(sides[1]))[0]
    assert one.estimate.difference == pytest.approx(100 * (41 - 20) / 80)
    assert (one.seeds, one.shots) == ((1, 2, 3), 16)
    (back,) = compare(read_side(sides[1]), read_side(zero))[0]
    assert back.estimate.difference == pytest.approx(-one.estimate.difference)


def test_several_data_sets_have_an_average(sides: tuple[Path, Path], tmp_path: Path) -> None:
    for seed in (1, 2, 3):
        wrote(sides[0], answers(first_n(30), prefix="other"), dataset="food", seed=seed)
        wrote(sides[1], answers(first_n(30), prefix="other"), dataset="food", seed=seed, method="plpp+coop")
    *single, average = compare(read_side(sides[0]), read_side(sides[1]))[0]
    assert [one.datasets for one in single] == [("birds",), ("food",)]
    assert average.datasets == ("birds", "food")
    assert average.estimate.difference == pytest.approx(12.5 / 2)
    assert average.num_images == 160


def moved(root: Path, gains: dict[str, dict[int, int]], source: str = "birds", **changes: Any) -> tuple[Path, Path]:
    """Two methods on several targets: set -> seed -> how many more of 80 the second gets right."""
    for dataset, by_seed in gains.items():
        for seed, gain in by_seed.items():
            for side, right in (("a", 30), ("b", 30 + gain)):
                found = answers(first_n(right), prefix=dataset)
                own = {"method": "coop" if side == "a" else "plpp+coop", **changes}
                wrote(root / side, found, dataset=dataset, source=source, seed=seed, protocol="cross-dataset", **own)
    return root / "a", root / "b"


def test_targets_of_one_prompt_are_averaged_seed_by_seed_first(tmp_path: Path) -> None:
    """Each prompt gains the same on all targets, so that more targets make the interval no narrower; opposite gains cancel."""
    same = {name: {1: 0, 2: 4, 3: 8} for name in ("food", "cars", "pets")}
    first, second = moved(tmp_path / "same", same)
    *singles, average = compare(read_side(first), read_side(second))[0]
    width = average.estimate.high - average.estimate.low
    assert width == pytest.approx(singles[0].estimate.high - singles[0].estimate.low, rel=0.05)
    apart = moved(tmp_path / "apart", same, source="")
    *_, independent = compare(*map(read_side, apart))[0]
    assert width > 2 * (independent.estimate.high - independent.estimate.low)
    cancel = moved(tmp_path / "cancel", {"food": {1: 0, 2: 4, 3: 8}, "cars": {1: 8, 2: 4, 3: 0}})
    *_, average = compare(*map(read_side, cancel))[0]
    assert average.estimate.verdict == "better"
    assert average.estimate.difference == pytest.approx(5.0)


def test_an_average_over_targets_has_the_seeds_that_all_of_them_have(tmp_path: Path) -> None:
    sides = moved(tmp_path / "some", {"food": {1: 2, 2: 4, 3: 40}, "cars": {1: 2, 2: 4}})
    found = compare(*map(read_side, sides))
    assert found[0][-1].seeds == (1, 2)
    assert found[0][-1].estimate.difference == pytest.approx(100 * 3 / 80)
    assert found[0][-1].second_top1 == pytest.approx(100 * 33 / 80)
    assert "average of cars, food: seeds 3 are not on all of them and left out" in found[1]
    sides = moved(tmp_path / "none", {"food": {1: 2}, "cars": {2: 2}})
    found = compare(*map(read_side, sides))
    assert [one.datasets for one in found[0]] == [("cars",), ("food",)]
    assert any("seeds 1, 2 are not on all" in note for note in found[1])


def test_zero_shot_is_set_against_targets_of_one_prompt_in_the_same_way(tmp_path: Path) -> None:
    _, learned = moved(tmp_path / "l", {name: {1: 0, 2: 4, 3: 8} for name in ("food", "cars")})
    for dataset in ("food", "cars"):
        none = {"method": "zero-shot", "parameters": 0, "epochs": 0, "shots": None, "seed": 0}
        wrote(
            tmp_path / "z",
            answers(first_n(30), prefix=dataset),
            dataset=dataset,
            source="birds",
            protocol="cross-dataset",
            **none,
        )
    one, _, average = compare(read_side(tmp_path / "z"), read_side(learned))[0]
    assert average.estimate.high - average.estimate.low == pytest.approx(one.estimate.high - one.estimate.low, rel=0.05)


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"dataset": "food"}, "data set birds against food"),
        ({"shots": 8}, "shots 16 against 8"),
        ({"shots": None}, "shots 16 against all"),
        ({"subset": "novel"}, "classes all against novel"),
        ({"protocol": "domain"}, "protocol few-shot against domain"),
        ({"source": "food"}, "source '' against 'food'"),
        ({"model": "big"}, "model tiny against big"),
        ({"setting": "transductive"}, "setting inductive against transductive"),
        ({"shots": 8, "model": "big"}, "shots 16 against 8; model tiny against big"),
        ({"seed": 9}, "no seed in common"),
    ],
)
def test_what_is_not_comparable_is_refused_with_the_reason(
    sides: tuple[Path, Path], tmp_path: Path, changes: dict[str, Any], reason: str
) -> None:
    other = wrote(tmp_path / "c", answers(first_n(40)), method="rpp", **changes)
    with pytest.raises(UserError) as problem:
        compare(read_side(sides[0]), read_side(other))
    assert "not comparable" in str(problem.value)
    assert reason in str(problem.value)


def test_other_images_and_other_labels_are_refused(sides: tuple[Path, Path], tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"other test images .*80 and 80, 0 in common"):
        compare(read_side(sides[0]), read_side(wrote(tmp_path / "c", answers(first_n(40), prefix="x"))))
    with pytest.raises(UserError, match=r"80 and 60, 60 in common"):
        compare(read_side(sides[0]), read_side(wrote(tmp_path / "d", answers(first_n(40, 60)))))
    found = answers(first_n(40))
    moved = dataclasses.replace(found, label=(found.label + (np.arange(80) < 3)) % 4)
    with pytest.raises(UserError, match="3 images have other labels"):
        compare(read_side(sides[0]), read_side(wrote(tmp_path / "e", moved)))


def test_what_is_meant_to_differ_may(sides: tuple[Path, Path], tmp_path: Path) -> None:
    other = tmp_path / "c"
    for seed in (1, 2, 3):
        wrote(other, answers(first_n(40)), shots=8, seed=seed)
    (one,) = compare(read_side(sides[0]), read_side(other), although=["shots"])[0]
    assert one.estimate.difference == pytest.approx(100 * 9 / 80)
    with pytest.raises(UserError, match="Did you mean 'shots'"):
        compare(read_side(sides[0]), read_side(other), although=["shot"])


def test_seeds_and_cells_of_one_side_only_are_told(sides: tuple[Path, Path], tmp_path: Path) -> None:
    wrote(sides[0], answers(first_n(30)), seed=4)
    wrote(sides[1], answers(first_n(30)), dataset="food", method="plpp+coop")
    outcome = compare(read_side(sides[0]), read_side(sides[1]))
    assert outcome[0][0].seeds == (1, 2, 3)
    assert any("only in the second" in note and "food" in note for note in outcome[1])
    assert any("seeds 4 are on one side only" in note for note in outcome[1])


def test_a_seed_that_is_there_twice_is_refused(sides: tuple[Path, Path]) -> None:
    records.write(sides[0] / "again", record(seed=1), answers(first_n(30)))
    with pytest.raises(UserError, match="both seed 1 of coop"):
        compare(read_side(sides[0]), read_side(sides[1]))


def test_sides_need_runs_of_one_method_with_predictions(sides: tuple[Path, Path], tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no finished run"):
        read_side(tmp_path / "nothing")
    with pytest.raises(UserError, match="2 methods: coop, plpp\\+coop"):
        read_side(tmp_path)
    assert {run.record.method for run in read_side(tmp_path, "plpp+coop")} == {"plpp+coop"}
    with pytest.raises(UserError, match="Did you mean 'coop'"):
        read_side(tmp_path, "cop")
    bare = wrote(tmp_path / "bare", None)
    with pytest.raises(UserError, match=r"has no predictions\.npz"):
        compare(read_side(sides[0]), read_side(bare))
    empty = [Run(path, one) for path, one in records.find(wrote(tmp_path / "empty", answers([])))]
    with pytest.raises(UserError, match="no test images"):
        compare(empty, empty)
