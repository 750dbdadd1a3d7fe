"""Tables say what the records say: means, spreads, gaps."""

from __future__ import annotations

import io
import statistics
from typing import Any

import pytest
from rich.console import Console

from tests.report.made import record
from vlprompt.report import tables


def test_spread_is_the_sample_standard_deviation() -> None:
    value = tables.spread([40.0, 42.0, 47.0])
    assert value is not None
    assert value.mean == pytest.approx(43.0)
    assert value.deviation == pytest.approx(statistics.stdev([40.0, 42.0, 47.0]))
    assert str(value) == "43.0 +- 3.6"


def test_spread_of_one_value_has_no_deviation() -> None:
    assert str(tables.spread([40.0])) == "40.0"


def test_values_that_were_not_measured_are_left_out_not_counted_as_zero() -> None:
    value = tables.spread([None, 40.0, None, 44.0])
    assert value is not None
    assert (value.mean, value.count) == (42.0, 2)
    assert tables.spread([None]) is None


def test_rows_keep_apart_what_differs_and_join_seeds() -> None:
    found = tables.rows(
        [record(seed=1), record(method="plpp+coop"), record(seed=2), record(shots=4), record(subset="base")]
    )
    assert [(row.method, row.shots, row.subset, len(row.records)) for row in found] == [
        ("coop", 16, "all", 2),
        ("plpp+coop", 16, "all", 1),
        ("coop", 4, "all", 1),
        ("coop", 16, "base", 1),
    ]


def test_gain_is_taken_seed_by_seed() -> None:
    (row,) = tables.rows(
        [record(seed=1, top1=50.0, zero_shot_top1=20.0), record(seed=2, top1=60.0, zero_shot_top1=40.0)]
    )
    assert row.gain is not None
    assert row.gain.mean == pytest.approx(25.0)
    assert row.gain.deviation == pytest.approx(statistics.stdev([30.0, 20.0]))


def test_missing_seeds_are_shown_as_missing() -> None:
    (coop,) = tables.accuracy([record(seed=2)], seeds=[1, 2, 3]).cells
    assert coop[:3] == ("coop", "3,072", "2 (1, 3 missing)")


def test_unmeasured_accuracy_is_a_dash() -> None:
    nothing: dict[str, Any] = {"top1": None, "zero_shot_top1": None, "macro_f1": None}
    ((*_, zero_shot, learned, gain, f1, _),) = tables.accuracy([record(**nothing)]).cells
    assert (zero_shot, learned, gain, f1) == ("-", "-", "-", "-")


def test_title_and_remark_name_data_and_template() -> None:
    table = tables.accuracy([record(), record(seed=2)])
    assert table.title == "Test accuracy in percent: birds, 16 shots"
    assert table.remark.startswith(
        "5 classes, 50 test images; zero-shot: hand-written words alone, 'a picture of {}.'."
    )
    assert "standard deviation" in table.remark


def test_markdown_has_one_line_per_method_and_escapes_pipes() -> None:
    text = tables.as_markdown(tables.accuracy([record(method="a|b"), record(method="coop", seed=2)]))
    lines = text.splitlines()
    assert lines[2].startswith("| method | learned numbers | seeds |")
    assert lines[3].count("---") == 8
    assert lines[4].startswith("| a\\|b | 3,072 | 1 |")
    assert lines[5].startswith("| coop |")
    assert len(lines) == 8


def test_terminal_table_shows_brackets_as_they_are() -> None:
    output = io.StringIO()
    Console(file=output, width=140).print(tables.as_rich(tables.accuracy([record(method="[red]coop")])))
    assert "[red]coop" in output.getvalue()


def test_no_records_make_an_empty_table() -> None:
    table = tables.accuracy([])
    assert (table.cells, table.remark) == ((), "")
    assert tables.as_markdown(table).startswith("Test accuracy in percent.")
