"""A report as Markdown, and as CSV for other programs."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from vlprompt import plain
from vlprompt.report.bootstrap import LEVEL, Estimate
from vlprompt.report.details import Detail
from vlprompt.report.differences import Pair
from vlprompt.report.grid import ANY, METRICS, PRECISION, Metric, Missing, ReportGrid, evaluate, number
from vlprompt.report.sections import Layout, Section
from vlprompt.report.sides import Run
from vlprompt.report.tables import MISSING, NOT_MEASURED, Spread, spread

REMARK = (
    "Top-1 accuracy in percent: mean over seeds, +- the sample standard deviation over seeds. Bold: the best of a column, computed from "
    "what is shown. A cell without records is *missing*; an average stands only where a method has every data set, else it says "
    "how many of them there are."
)


def shown(value: Spread | Missing, expected: int = 0) -> str:
    """A cell as text: `71.2 +- 0.4`, `missing`, or `missing (3 of 5)`; fewer seeds than expected are counted."""
    if isinstance(value, Missing):
        return MISSING if value.want == 1 else f"{MISSING} ({value.have} of {value.want})"
    text = number(value.mean)
    if value.deviation is not None:
        text += f" +- {number(value.deviation)}"
    short = value.count is not None and value.count < expected
    return text + (f" ({value.count} of {expected} seeds)" if short else "")


def best(values: Sequence[Spread | Missing]) -> set[int]:
    """The rows with the best shown mean; none where fewer than two have a value."""
    means = {row: float(number(one.mean)) for row, one in enumerate(values) if isinstance(one, Spread)}
    if len(means) < 2:
        return set()
    return {row for row, mean in means.items() if mean == max(means.values())}


def rows_of(grid: ReportGrid, section: Section) -> list[int]:
    """The contenders that have anything in a section."""
    places = section.places
    return [c for c in range(len(grid.contenders)) if any((c, place, "top1") in grid.values for place in places)]


def expected_seeds(grid: ReportGrid, section: Section) -> int:
    """How many seeds most cells of a section have, the more where two numbers are as frequent; 0 where no seed is involved."""
    places = section.places
    counts = [
        len(seeds)
        for (_, place, metric), seeds in grid.values.items()
        if metric == "top1" and place in places and ANY not in seeds
    ]
    return max(counts, key=lambda one: (counts.count(one), one), default=0)


def as_markdown(
    grid: ReportGrid,
    sections: Sequence[Section],
    differences: Sequence[Pair],
    choices: Mapping[str, Sequence[str]],
    *,
    title: str,
    notes: Sequence[str],
) -> str:
    """All tables of a report."""
    lines = [f"# {plain.markdown(title)}", "", REMARK, ""]
    for section in sections:
        lines += [f"## {plain.markdown(section.title)}", "", section.words, ""]
        if choices[section.title]:
            lines += ["### Which to take", "", *[f"- {plain.markdown(one)}" for one in choices[section.title]], ""]
        rows, seeds = rows_of(grid, section), expected_seeds(grid, section)
        for layout in section.layouts:
            lines += _table(grid, layout, rows, seeds)
            places = {place for column in layout.columns for place in column.places}
            if any((row, place, PRECISION.name) in grid.values for row in rows for place in places):
                lines += _table(grid, layout, rows, seeds, PRECISION)
        lines += _differences(grid, [one for one in differences if one.section == section.title])
    if notes:
        lines += ["## Notes", "", *[f"- {plain.markdown(note)}" for note in notes], ""]
    return "\n".join(lines)


def _table(grid: ReportGrid, layout: Layout, rows: Sequence[int], seeds: int, metric: Metric = METRICS[0]) -> list[str]:
    """metric: in percent; named where it is not the first, as `REMARK` says."""
    columns: list[list[str]] = []
    for column in layout.columns:
        values = [evaluate(grid, row, column, metric.name) for row in rows]
        top = best(values)
        texts = [shown(value, seeds) for value in values]
        columns.append([f"**{text}**" if row in top else text for row, text in enumerate(texts)])
    head = ["method", *[column.label for column in layout.columns]]
    body = [[grid.contenders[row].name, *[column[i] for column in columns]] for i, row in enumerate(rows)]
    title = layout.title if metric is METRICS[0] else f"{layout.title}: {metric.title.lower()}"
    return [f"### {plain.markdown(title)}", "", *plain.markdown_rows(head, body, numbers=True), ""]


def _differences(grid: ReportGrid, found: Sequence[Pair]) -> list[str]:
    """The average of each pair, or its single data set."""
    head = ["second against first", "", "data sets", "gain", f"{LEVEL:.0%} interval", "verdict", "seeds needed"]
    body = []
    for pair in found:
        if (last := pair.whole) is None:
            continue
        said, names = last.estimate, f"{grid.contenders[pair.second].name} against {grid.contenders[pair.first].name}"
        sets = last.datasets[0] if len(last.datasets) == 1 else str(len(last.datasets))
        interval = f"{signed(said.low)} to {signed(said.high)}"
        body.append([names, pair.title, sets, signed(said.difference), interval, said.verdict, needed(said)])
    return ["### Differences in points", "", *plain.markdown_rows(head, body, numbers=True), ""] if body else []


def needed(said: Estimate) -> str:
    """How many seeds might do, where it cannot be told."""
    if said.verdict != "cannot tell":
        return NOT_MEASURED
    if said.seeds_needed is not None:
        return str(said.seeds_needed)
    return "more images" if said.seeds_known else "3 or more"


def signed(value: float) -> str:
    """With its sign, one decimal."""
    text = number(value)
    return text if text.startswith("-") else f"+{text}"


HEADER = ("protocol", "source", "data set", "classes", "shots", "method", "model", "init", "setting", "seeds")
MORE = ("parameters", "epochs", "seconds", "seconds_features", "peak_mib")


def as_csv(grid: ReportGrid) -> str:
    """One line per method and place: mean, standard deviation and number of seeds of every metric; what is missing has no line."""
    numbers = ("zero_shot_top1", *[metric.name for metric in grid.metrics], *MORE)
    parts = [f"{name}_{part}" for name in numbers for part in ("mean", "sd")]
    lines: list[Iterable[object]] = [[*HEADER, "num_classes", "num_test", *parts]]
    for (contender, place), runs in sorted(grid.runs.items(), key=lambda one: (one[0][1], one[0][0])):
        first = runs[0].record
        seeds = "" if grid.contenders[contender].seedless else " ".join(str(run.record.seed) for run in runs)
        facts = (first.model, first.init, first.setting, seeds, first.num_classes, first.num_test)
        found = [text for name in numbers for text in _two(runs, name)]
        lines.append([*_where(grid, contender, place), *facts, *found])
    return plain.table(lines)


def _where(grid: ReportGrid, contender: int, place: int) -> tuple[object, ...]:
    """The first six columns."""
    one = grid.places[place]
    shots = "all" if one.shots is None else one.shots
    return (one.protocol, one.source, one.dataset, one.subset, shots, grid.contenders[contender].name)


def _two(runs: Iterable[Run], name: str) -> tuple[str, str]:
    value = spread(getattr(run.record, name) for run in runs)
    if value is None:
        return "", ""
    return f"{value.mean:.4f}", "" if value.deviation is None else f"{value.deviation:.4f}"


def classes_as_csv(grid: ReportGrid, details: Iterable[Detail]) -> str:
    """One line per class, method and place with details: mean recall and its standard deviation over seeds."""
    lines: list[Iterable[object]] = [[*HEADER[:6], "class", "recall_mean", "recall_sd"]]
    for one in details:
        for name, recall in one.recall.items():
            sd = f"{one.deviation[name]:.4f}" if name in one.deviation else ""
            lines.append([*_where(grid, one.contender, one.place), name, f"{recall:.4f}", sd])
    return plain.table(lines)
