"""The tables of the ablation, worked out by hand on a few made-up cells."""

from __future__ import annotations

from pathlib import Path

import pytest
from benchmarks.plpp_ablation.records import FILE, AblationCell, append, read
from benchmarks.plpp_ablation.table import MEASURES, epochs_until, render

from vlprompt.errors import UserError


def cell(
    setting: str, seed: int, base: float, novel: float, *, dataset: str = "a", subset: str = "base"
) -> AblationCell:
    return AblationCell(
        setting=setting,
        factor="host",
        dataset=dataset,
        seed=seed,
        subset=subset,
        accuracy={"base": base, "novel": novel} if subset == "base" else {"all": base},
        zero_shot={"base": 40.0, "novel": 60.0} if subset == "base" else {"all": 50.0},
        by_epoch=(10.0, base * 0.96, base),
        gradient_ratios={} if setting == "host" else {"plpp": 0.5, "plpp-inverse": 2.0},
        perplexity=100.0,
        num_val={"base": 8, "novel": 8} if subset == "base" else {"all": 16},
        method="coop",
        options={},
        model="tiny",
        shots=16,
        seconds=1.0,
        key=f"{setting} {seed} {dataset} {subset}",
    )


CELLS = [
    cell("host", 1, 50.0, 50.0),
    cell("host", 2, 60.0, 40.0),
    cell("plpp", 1, 50.0, 60.0),
    cell("plpp", 2, 60.0, 60.0),
    cell("mutual=ppl", 1, 50.0, 50.0),
]


def row(text: str, setting: str) -> list[str]:
    (line,) = [line for line in text.splitlines() if line.startswith(f"| {setting} |") and line.count("|") == 11]
    return [column.strip() for column in line.strip("|").split("|")]


def test_harmonic_mean() -> None:
    *_, harmonic = MEASURES
    assert harmonic(cell("host", 1, 60.0, 40.0)) == 48.0
    assert harmonic(cell("host", 1, 0.0, 40.0)) == 0.0


def test_epochs_until() -> None:
    assert epochs_until((10, 50, 49, 60), 50) == 2
    assert epochs_until((10, 20), 50) is None


def test_means_spreads_and_paired_differences() -> None:
    text = render(CELLS)
    assert row(text, "host")[1:6] == ["55.0 +- 7.1", "45.0 +- 7.1", "49.0 +- 1.4", "-", "-"]
    # H of plpp: 54.545 and 60; less the host's 50 and 48: +4.545 and +12. t of one degree of freedom: 12.706.
    assert row(text, "plpp")[3:] == [
        "57.3 +- 3.9",
        "+0.0 (+0.0 to +0.0)",
        "+15.0 (-48.5 to +78.5)",
        "+8.3 (-39.1 to +55.6)",
        "0.5",
        "2",
        "100",
    ]
    assert row(text, "zero-shot")[1:4] == ["40.0", "60.0", "48.0"]


def test_a_difference_that_leaves_nothing_out_is_bold() -> None:
    hosts = [cell("host", seed, 50.0, 50.0) for seed in (1, 2, 3)]
    ours = [cell("plpp", seed, 60.0 + seed, 50.0) for seed in (1, 2, 3)]
    # 12 +- 4.303 * 1 / sqrt(3)
    assert row(render([*hosts, *ours]), "plpp")[4:6] == ["**+12.0 (+9.5 to +14.5)**", "+0.0 (+0.0 to +0.0)"]


def test_a_missing_cell_is_shown_and_not_averaged_over() -> None:
    (line,) = [line for line in render(CELLS).splitlines() if line.startswith("| mutual=ppl | missing")]
    assert "missing: 1 of 2 cells" in line


def test_spread_is_over_seeds_of_the_mean_over_sets() -> None:
    cells = [
        cell("host", s, b, 50.0, dataset=d)
        for s, d, b in ((1, "a", 40.0), (1, "b", 60.0), (2, "a", 60.0), (2, "b", 40.0))
    ]
    assert row(render(cells), "host")[1] == "50.0 +- 0.0"


def test_epochs_until_95_percent_of_ones_own_and_of_the_hosts() -> None:
    cells = [cell("host", 1, 50.0, 50.0), cell("plpp", 1, 40.0, 50.0)]
    lines = [line for line in render(cells).splitlines() if "epoch 3" in line or "never" in line or "38.4" in line]
    assert any(line.startswith("| plpp | 2.0 | never | 10.0 | 38.4 | 40.0 |") for line in lines)


def test_records_survive_a_line_that_was_cut_short(tmp_path: Path) -> None:
    append(tmp_path, CELLS[0])
    with (tmp_path / FILE).open("a", encoding="utf-8") as file:
        file.write('{"schema": 1, "setti')
    assert read(tmp_path) == CELLS[:1]
    append(tmp_path, CELLS[1])
    assert read(tmp_path) == CELLS[:2]
    assert len((tmp_path / FILE).read_text(encoding="utf-8").splitlines()) == 2


def test_cells_of_all_classes_alone_have_their_table() -> None:
    text = render([cell("host", 1, 50.0, 50.0, subset="all")])
    assert "learned on all classes" in text
    assert "one factor at a time" not in text


def test_no_records_no_table() -> None:
    with pytest.raises(UserError, match="vlprompt ablate plpp"):
        render([])
