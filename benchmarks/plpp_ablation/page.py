"""Write the tables of docs/plpp.md from the ablation's records.

    tar -xf docs/records/ablation/plpp.tar.xz -C DIR
    python -m benchmarks.plpp_ablation.page DIR docs/plpp.md

DIR has a directory for each call of `python -m benchmarks.plpp_ablation`: `main`, `seeds`, `shots-N` and `head-NAME`. A table stands
between `<!-- NAME:begin -->` and `<!-- NAME:end -->`, where NAME is `main`, `seeds`, `shots`, `heads` or `speed`.
"""

from __future__ import annotations

import math
import statistics
import sys
import textwrap
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from benchmarks.plpp_ablation.records import AblationCell, read
from benchmarks.plpp_ablation.sweep import CENTRE, HOST, ONE_WAY
from benchmarks.plpp_ablation.table import MEASURES, by_setting, difference, halves, head, speed

HEADS = ("pocket-m-plain", "pocket-m-lm")


def gain(
    cells: Sequence[AblationCell],
    setting: str,
    subset: str,
    value: Callable[[AblationCell], float],
    *,
    against: str = HOST,
) -> str:
    """A setting less another: mean and interval."""
    table = by_setting(cells, subset)
    other = table[against]
    return difference([value(cell) - value(other[pair]) for pair, cell in table[setting].items()])


def table_only(lines: Sequence[str]) -> list[str]:
    """The lines of a table, without title and words."""
    return [line for line in lines if line.startswith("|")]


def shots(root: Path) -> list[str]:
    """Learned on all classes, by images per class."""
    rows = [
        "| images per class | host | PLPP less host | one-way less host |",
        "|---:|---:|---:|---:|",
    ]
    for folder in sorted(root.glob("shots-*"), key=lambda path: int(path.name.split("-")[1])):
        cells = read(folder)
        hosts = statistics.fmean(cell.accuracy["all"] for cell in by_setting(cells, "all")[HOST].values())
        gains = [gain(cells, name, "all", lambda cell: cell.accuracy["all"]) for name in (CENTRE, ONE_WAY)]
        rows.append(f"| {folder.name.split('-')[1]} | {hosts:.1f} | {' | '.join(gains)} |")
    return rows


def heads(root: Path) -> list[str]:
    """The same settings on two text towers."""
    runs = {name: read(root / f"head-{name}") for name in HEADS}
    rows = [f"| | {' | '.join(runs)} |", "|---|" + "---:|" * len(runs)]

    def row(title: str, value: Callable[[Sequence[AblationCell]], str]) -> None:
        rows.append(f"| {title} | {' | '.join(value(cells) for cells in runs.values())} |")

    for name, words in (
        ("natural", "plain captions"),
        ("shuffled", "the same words shuffled"),
        ("random", "random tokens"),
    ):
        row(f"head's perplexity, {words}", lambda cells, name=name: f"{math.exp(cells[0].head[name]):,.0f}")
    row("words likelier than the true next one", lambda cells: f"{100 * cells[0].head['above']:.0f} %")
    row("zero-shot, base / novel", lambda cells: mean_of(cells, lambda cell: cell.zero_shot))
    row("host, base / novel", lambda cells: mean_of(cells, lambda cell: cell.accuracy))
    for setting in [name for name in by_setting(runs[HEADS[0]], "base") if name != HOST]:
        row(f"{setting}: base less host", lambda cells, one=setting: gain(cells, one, "base", MEASURES[0]))
        row(f"{setting}: H less host", lambda cells, one=setting: gain(cells, one, "base", MEASURES[2]))
    wrong = "labels=permuted"
    row(f"{CENTRE}: H less {wrong}", lambda cells: gain(cells, CENTRE, "base", MEASURES[2], against=wrong))
    return rows


def controls(cells: Sequence[AblationCell]) -> list[str]:
    """PLPP less what has the wrong words, or none."""
    rows = ["| PLPP less | base | novel | H |", "|---|---:|---:|---:|"]
    for other in ("labels=permuted", "labels=random"):
        found = [gain(cells, CENTRE, "base", value, against=other) for value in MEASURES]
        rows.append(f"| {other} | {' | '.join(found)} |")
    return rows


def mean_of(cells: Sequence[AblationCell], values: Callable[[AblationCell], Mapping[str, float]]) -> str:
    """Base and novel of the host's cells."""
    found = by_setting(cells, "base")[HOST].values()
    return " / ".join(f"{statistics.fmean(values(cell)[part] for cell in found):.1f}" for part in ("base", "novel"))


def main(root: Path, page: Path) -> None:
    """Put every table between its markers."""
    cells, seeds = read(root / "main"), read(root / "seeds")
    parts = {
        "main": [textwrap.fill(head(cells), 118), "", *table_only(halves(cells))],
        "seeds": [*table_only(halves(seeds)), "", *controls(seeds)],
        "shots": shots(root),
        "heads": heads(root),
        "speed": [line for line in speed(cells) if line.startswith("|") or not line],
    }
    text = page.read_text(encoding="utf-8")
    for name, lines in parts.items():
        begin, end = f"<!-- {name}:begin -->", f"<!-- {name}:end -->"
        before, _, rest = text.partition(begin)
        _, found, after = rest.partition(end)
        if not found:
            sys.exit(f"{page} lacks {begin} or, after it, {end}.")
        table = "\n".join(lines).strip("\n")
        text = f"{before}{begin}\n\n{table}\n\n{end}{after}"
    page.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main(*map(Path, sys.argv[1:]))
