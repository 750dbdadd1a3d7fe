"""Everything that a directory of runs shows, written next to them."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from vlprompt import disk
from vlprompt.errors import UserError, data_error
from vlprompt.records import RESULT, Record
from vlprompt.report import text
from vlprompt.report.bootstrap import MARGIN
from vlprompt.report.contenders import contenders, gather
from vlprompt.report.details import make_details
from vlprompt.report.differences import advice, make_differences
from vlprompt.report.grid import ReportGrid, make_grid
from vlprompt.report.page import render
from vlprompt.report.sections import make_sections

PAGE, MARKDOWN, TABLE, CLASSES = "report.html", "report.md", "report.csv", "report-classes.csv"


@dataclass(frozen=True, slots=True, kw_only=True)
class Written:
    """What came of it."""

    files: tuple[Path, ...]
    """The page first."""
    num_runs: int
    methods: tuple[str, ...]
    datasets: tuple[str, ...]
    notes: tuple[str, ...]
    """What was left out, and what may not be compared."""


def write_report(root: Path, *, margin: float = MARGIN, title: str = "") -> Written:
    """Reads every finished run at or below a directory and writes the page, its tables as Markdown and CSV into it.

    The same records give the same files. UserError where there is no run.
    """
    if not 0 <= margin <= 100:
        raise UserError(f"a margin of {margin} points; it must lie between 0 and 100.")
    if not root.is_dir():
        raise data_error(f"{root} is not a directory. Name the one that holds the runs.")
    runs, problems = gather(root)
    if not runs:
        told = "".join(f"\n{problem}" for problem in problems)
        raise data_error(f"{root} has no finished run ({RESULT}) in it.{told}")
    found, twice = contenders(runs)
    grid = make_grid(found)
    sections = make_sections(grid)
    differences, refused = make_differences(grid, sections, margin)
    classes, details = make_details(grid, sections)
    choices = {section.title: advice(grid, section, margin) for section in sections}
    # Paths from the report's own directory on: a published page names no place of one machine.
    notes = [one.replace(f"{root}/", "") for one in (*problems, *twice, *mixed(grid), *whose(grid), *refused)]
    title = title or root.resolve().name
    page = render(grid, sections, differences, classes, details, choices, title=title, margin=margin, notes=notes)
    contents = {
        PAGE: page,
        MARKDOWN: text.as_markdown(grid, sections, differences, choices, title=title, notes=notes),
        TABLE: text.as_csv(grid),
        CLASSES: text.classes_as_csv(grid, details),
    }
    for name, content in contents.items():
        disk.write_text(root / name, content)
    return Written(
        files=tuple(root / name for name in contents),
        num_runs=sum(len(one.runs) for one in found),
        methods=tuple(one.name for one in found),
        datasets=tuple(dict.fromkeys(place.dataset for place in grid.places)),
        notes=tuple(notes),
    )


def whose(grid: ReportGrid) -> list[str]:
    """Whose the settings are, by recipe, and where a choice was made on held-out training images. Records of earlier versions say
    neither."""
    runs = [run.record for own in grid.runs.values() for run in own]
    groups: dict[str, set[str]] = {}
    for one in runs:
        if one.choices:
            groups.setdefault(one.choices, set()).add(one.recipe or f"{one.method} without a recipe")
    words = {
        "published": "as published",
        "project": "the project's choice",
        "changed": "changed from the recipe by whoever ran it",
    }
    out = [f"Settings {words.get(kind, kind)}: {', '.join(sorted(names))}." for kind, names in sorted(groups.items())]
    held = sorted({f"{one.method} on {one.dataset}" for one in runs if one.val_from})
    return out + (
        [f"Chosen on held-out training images, for want of validation images: {', '.join(held)}."] if held else []
    )


def mixed(grid: ReportGrid) -> list[str]:
    """Warnings where one data set's records disagree on what was tested: their numbers must not be compared."""
    seen: dict[tuple[str, str], list[Record]] = {}
    for (_, place), runs in grid.runs.items():
        where = grid.places[place]
        seen.setdefault((where.dataset, where.subset), []).extend(run.record for run in runs)
    out = []
    for (dataset, subset), found in seen.items():
        for name, words in (("num_test", "test images"), ("num_classes", "classes")):
            counts = sorted({getattr(record, name) for record in found})
            if len(counts) > 1:
                part = "" if subset == "all" else f" ({subset})"
                listed = " and with ".join(map(str, counts))
                out.append(f"{dataset}{part}: there are records with {listed} {words}; they must not be compared.")
    weights: dict[str, set[str]] = {}
    for record in (record for found in seen.values() for record in found):
        weights.setdefault(record.model, set()).add(record.weight_hash)
    out += [
        f"{model}: there are records of {len(hashes)} different weights under this name; they must not be compared."
        for model, hashes in weights.items()
        if len(hashes) > 1
    ]
    return out
