"""Cells and columns of a report: what is averaged, what is missing, and how H is taken."""

from __future__ import annotations

import itertools
import random
import statistics
from pathlib import Path
from typing import Any

import pytest

from tests.report.made import record
from vlprompt.records import Record, harmonic
from vlprompt.report.contenders import contenders
from vlprompt.report.differences import pairs
from vlprompt.report.grid import Column, Missing, ReportGrid, evaluate, make_grid, number
from vlprompt.report.sections import make_sections
from vlprompt.report.sides import Run
from vlprompt.report.tables import Spread


def runs(*found: Record) -> list[Run]:
    return [Run(Path(f"run{i}"), one) for i, one in enumerate(found)]


def grid(*found: Record) -> ReportGrid:
    return make_grid(contenders(runs(*found))[0])


def names(found: ReportGrid) -> list[str]:
    return [one.name for one in found.contenders]


def zero_shot(**changes: Any) -> Record:
    return record(**{"method": "zero-shot", "parameters": 0, "epochs": 0, "top1": 20.0} | changes)


def literal(table: dict[tuple[str, str, int], float], sets: list[str], kind: str) -> tuple[float, float | None]:
    """Mean and deviation of a column, written out: (data set, half, seed) -> accuracy."""
    halves = ("base",) if kind == "mean" else ("base", "novel")
    seeds = [s for s in (1, 2, 3) if all((name, half, s) in table for name in sets for half in halves)]

    def mean(name: str, half: str) -> float:
        got = [value for (n, h, _), value in table.items() if (n, h) == (name, half)]
        return sum(got) / len(got)

    def combined(cell: Any) -> float:
        base = [cell(name, "base") for name in sets]
        if kind == "mean":
            return sum(base) / len(base)
        novel = [cell(name, "novel") for name in sets]
        if kind == "harmonic":
            b, n = sum(base) / len(base), sum(novel) / len(novel)
            return 2 * b * n / (b + n)
        return sum(2 * b * n / (b + n) for b, n in zip(base, novel)) / len(sets)

    by_seed = [combined(lambda name, half, s=seed: table[name, half, s]) for seed in seeds]
    return combined(mean), statistics.stdev(by_seed) if len(by_seed) > 1 else None


@pytest.mark.parametrize("trial", range(20))
def test_columns_are_what_a_literal_loop_gives(trial: int) -> None:
    rng = random.Random(trial)
    sets = ["birds", "food", "cars"][: rng.randint(1, 3)]
    table = {key: round(rng.uniform(10, 90), 3) for key in itertools.product(sets, ("base", "novel"), (1, 2, 3))}
    for key in list(table):
        if rng.random() < 0.15 and sum(k[:2] == key[:2] for k in table) > 1:
            del table[key]
    found = grid(
        *[record(protocol="base-to-novel", dataset=n, subset=h, seed=s, top1=v) for (n, h, s), v in table.items()]
    )
    row = names(found).index("coop")
    (section,) = make_sections(found)
    for column in section.layouts[0].columns:
        if column.label == "Novel":
            continue
        value = evaluate(found, row, column)
        mean, deviation = literal(table, sorted(sets), column.kind)
        assert isinstance(value, Spread)
        assert value.mean == pytest.approx(mean)
        assert value.deviation == (None if deviation is None else pytest.approx(deviation))


def test_both_kinds_of_h_have_their_own_name_and_value() -> None:
    cells = {"a": (80.0, 40.0), "b": (60.0, 60.0)}
    found = grid(
        *[
            record(protocol="base-to-novel", dataset=name, subset=half, top1=value)
            for name, both in cells.items()
            for half, value in zip(("base", "novel"), both)
        ]
    )
    (section,) = make_sections(found)
    columns = {one.label: evaluate(found, names(found).index("coop"), one) for one in section.layouts[0].columns}
    assert [*columns] == ["Base", "Novel", "H of the means", "mean of H"]
    of_means, mean_of = columns["H of the means"], columns["mean of H"]
    assert isinstance(of_means, Spread)
    assert isinstance(mean_of, Spread)
    assert of_means.mean == pytest.approx(harmonic(70, 50))
    assert mean_of.mean == pytest.approx((harmonic(80, 40) + 60) / 2)
    assert harmonic(82.69, 63.22) == pytest.approx(71.66, abs=0.01), "CoOp's published row"
    assert harmonic(0, 0) == 0


def test_what_is_missing_is_never_averaged_over() -> None:
    found = grid(record(dataset="a"), record(dataset="b"), record(dataset="a", method="rpp"))
    (section,) = make_sections(found)
    average, *rest = section.layouts
    assert average.title == "Average of 2 data sets"
    rpp = names(found).index("rpp")
    assert evaluate(found, rpp, average.columns[0]) == Missing(1, 2)
    assert [type(evaluate(found, rpp, one.columns[0])) for one in rest] == [Spread, Missing]


def test_seeds_that_are_not_everywhere_make_the_mean_but_not_the_spread() -> None:
    found = grid(
        *[record(dataset="a", seed=s, top1=v) for s, v in ((1, 10.0), (2, 20.0), (3, 60.0))],
        *[record(dataset="b", seed=s, top1=v) for s, v in ((1, 30.0), (2, 50.0))],
    )
    value = evaluate(found, names(found).index("coop"), make_sections(found)[0].layouts[0].columns[0])
    assert isinstance(value, Spread)
    assert value.mean == pytest.approx((30 + 40) / 2)
    assert (value.count, value.deviation) == (2, pytest.approx(statistics.stdev([20, 35])))


def test_zero_shot_stands_in_every_column_and_with_every_seed() -> None:
    found = grid(zero_shot(shots=16), *[record(shots=n, seed=s) for n in (1, 4, 16) for s in (1, 2)])
    (section,) = make_sections(found)
    values = [evaluate(found, 0, column) for column in section.layouts[0].columns]
    assert names(found)[0] == "zero-shot"
    assert values == [Spread(20.0, None, None)] * 3


def test_without_a_zero_shot_run_its_row_is_the_one_that_the_records_hold() -> None:
    found = grid(record(zero_shot_top1=23.5), record(seed=2, zero_shot_top1=23.5))
    assert names(found) == ["zero-shot", "coop"]
    column = make_sections(found)[0].layouts[0].columns[0]
    assert evaluate(found, 0, column) == Spread(23.5, None, None)
    assert evaluate(found, 0, column, "top5") == Missing(0, 1)
    disagree = grid(record(zero_shot_top1=23.5), record(seed=2, zero_shot_top1=30.0))
    assert evaluate(disagree, 0, column) == Missing(0, 1)


def test_zero_shot_alone_on_a_data_set_leaves_the_others_missing() -> None:
    found = grid(zero_shot(dataset="b", shots=None), record(dataset="a", shots=4))
    (section,) = make_sections(found)
    assert [one.title for one in section.layouts] == ["Average of 2 data sets", "a", "b"]
    assert [column.label for column in section.layouts[2].columns] == ["4 shots"]
    assert evaluate(found, 1, section.layouts[2].columns[0]) == Missing(0, 1)


def test_shots_are_in_order_and_all_images_come_last() -> None:
    found = grid(*[record(shots=n) for n in (None, 16, 1, 2)])
    (layout,) = make_sections(found)[0].layouts
    assert [column.label for column in layout.columns] == ["1 shot", "2 shots", "16 shots", "all images"]


@pytest.mark.parametrize(("protocol", "average"), [("cross-dataset", "Average of targets"), ("domain", "OOD average")])
def test_the_source_is_not_part_of_the_average_of_targets(protocol: str, average: str) -> None:
    found = grid(
        zero_shot(dataset="b", protocol=protocol),
        record(dataset="photos", protocol=protocol, source="photos", top1=90.0),
        *[record(dataset=n, protocol=protocol, source="photos", top1=v) for n, v in (("a", 30.0), ("b", 50.0))],
    )
    (section,) = make_sections(found)
    columns = section.layouts[0].columns
    assert [one.label for one in columns] == ["photos", "a", "b", average]
    value = evaluate(found, names(found).index("coop"), columns[-1])
    assert isinstance(value, Spread)
    assert value.mean == pytest.approx(40)
    assert evaluate(found, 0, columns[-1]) == Missing(1, 2)


def test_transfer_has_a_row_for_every_start() -> None:
    found = grid(
        record(protocol="transfer", dataset="a", source="big", init="ab" * 32),
        record(protocol="transfer", dataset="b", source="big", init="ab" * 32),
        record(protocol="transfer", dataset="a", source="big"),
    )
    (section,) = make_sections(found)
    assert names(found) == ["zero-shot", "coop", "coop, from abababab"]
    assert [one.label for one in section.layouts[0].columns] == ["a", "b", "Average"]


def test_beside_a_pretrained_start_stands_the_own_start_of_the_same_method() -> None:
    found = grid(
        *[record(protocol="transfer", dataset=name, init="ab" * 32, top1=60.0) for name in ("a", "b")],
        *[record(dataset=name, top1=50.0) for name in ("a", "b")],
        record(dataset="a", shots=1, top1=10.0),
        record(dataset="a", method="maple"),
    )
    section = next(one for one in make_sections(found) if one.protocol == "transfer")
    average = section.layouts[0].columns[-1]
    values = {name: evaluate(found, row, average) for row, name in enumerate(names(found))}
    own, pretrained = values["coop"], values["coop, from abababab"]
    assert isinstance(own, Spread)
    assert isinstance(pretrained, Spread)
    assert (own.mean, pretrained.mean) == (50, 60)
    assert values["maple"] == Missing(0, 2)
    assert (names(found).index("coop"), names(found).index("coop, from abababab")) in pairs(found)


def test_data_sets_stand_in_natural_order() -> None:
    found = grid(*[record(dataset=name) for name in ("set 10", "Set 2", "b", "A")])
    assert [one.dataset for one in found.places] == ["A", "b", "Set 2", "set 10"]


def test_sections_are_kept_apart_by_source_shots_and_subset() -> None:
    found = grid(
        record(),
        record(subset="base"),
        *[record(protocol="base-to-novel", subset=half, shots=n) for n in (4, 16) for half in ("base", "novel")],
        *[record(protocol="cross-dataset", source=name) for name in ("x", "y")],
    )
    titles = [one.title for one in make_sections(found)]
    assert len(set(titles)) == len(titles) == 6
    assert titles[:2] == ["Few-shot classification", "Few-shot classification: base classes"]


def test_rows_stand_in_the_papers_order_with_overlays_after_their_host() -> None:
    mixed = ["plpp+maple", "mine", "plpp+coop", "rpp", "maple", "coop", "linear-probe"]
    found = grid(*[record(method=name) for name in mixed])
    assert names(found) == ["zero-shot", "linear-probe", "coop", "plpp+coop", "maple", "plpp+maple", "rpp", "mine"]


def test_several_models_stand_in_the_names() -> None:
    found = grid(record(), record(model="big"))
    assert names(found) == ["coop, on big", "coop, on tiny"]


def test_options_that_differ_in_a_cell_stand_in_the_names() -> None:
    found = grid(record(options={"n_ctx": 4, "lr": 0.1}), record(options={"n_ctx": 16, "lr": 0.1}))
    assert names(found) == ["zero-shot", "coop, n_ctx=16", "coop, n_ctx=4"]
    by_shots = grid(record(shots=1, options={"epochs": 50}), record(shots=16, options={"epochs": 200}))
    assert names(by_shots) == ["zero-shot", "coop"], "a recipe may depend on the shots"


def test_the_same_run_twice_counts_once_and_is_named() -> None:
    found, notes = contenders(runs(record(top1=10.0), record(top1=30.0)))
    (note,) = notes
    assert "run1 is the same run of coop as run0" in note
    column = Column(label="", datasets=("birds",), places=(0,))
    value = evaluate(make_grid(found), 1, column)
    assert isinstance(value, Spread)
    assert value.mean == 10


@pytest.mark.parametrize(
    ("value", "text"),
    [(56.25, "56.3"), (56.349, "56.3"), (0.0, "0.0"), (-0.25, "-0.2"), (-1.26, "-1.3"), (100.0, "100.0")],
)
def test_numbers_have_one_decimal_halves_up(value: float, text: str) -> None:
    assert number(value) == text


def test_top5_of_five_classes_is_what_it_is_by_definition() -> None:
    found = grid(record(top5=None, num_classes=5), record(dataset="many", top5=60.0, num_classes=50))
    average = make_sections(found)[0].layouts[0].columns[-1]
    assert len(average.places) == 2
    value = evaluate(found, names(found).index("coop"), average, "top5")
    assert isinstance(value, Spread)
    assert value.mean == pytest.approx(80)


def test_what_reads_no_label_counts_at_every_number_of_images() -> None:
    found = grid(
        *(record(shots=shots, seed=seed) for shots in (1, 4) for seed in (1, 2)),
        record(method="tpt", shots=0, seed=1, epochs=0, setting="test-time", top1=33.0),
        *(
            record(method="promptkd", shots=None, seed=seed, setting="transductive", top1=40.0 + seed)
            for seed in (1, 2)
        ),
        record(method="promptkd", shots=None, seed=1, dataset="elsewhere", setting="transductive", top1=90.0),
    )
    assert [place.shots for place in found.places if place.dataset != "elsewhere"] == [1, 4]
    rows = {name: c for c, name in enumerate(names(found))}
    assert set(rows) == {"zero-shot", "coop", "promptkd, transductive", "tpt, test-time"}
    for p, place in enumerate(found.places):
        if place.dataset != "elsewhere":
            assert found.values[rows["promptkd, transductive"], p, "top1"] == {1: 41.0, 2: 42.0}
            assert len(found.runs[rows["tpt, test-time"], p]) == 1


def test_what_reads_no_label_has_no_row_of_gaps_in_a_protocol_that_it_never_ran() -> None:
    learned = record(protocol="domain")
    found = grid(record(), zero_shot(), record(method="tpt", shots=0, epochs=0, setting="test-time"), learned)
    rows = {name: c for c, name in enumerate(names(found))}
    (in_domain,) = (p for p, place in enumerate(found.places) if place.protocol == "domain")
    assert (rows["zero-shot"], in_domain, "top1") in found.values
    assert (rows["tpt, test-time"], in_domain, "top1") not in found.values
