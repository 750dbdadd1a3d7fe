"""The page: one self-contained file, drawn in the browser from the numbers inside it."""

from __future__ import annotations

import dataclasses
import functools
import json
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import jinja2

from vlprompt import __version__
from vlprompt.report.bootstrap import LEVEL
from vlprompt.report.comparison import Comparison
from vlprompt.report.contenders import Contender
from vlprompt.report.details import Detail
from vlprompt.report.differences import Pair
from vlprompt.report.grid import ReportGrid
from vlprompt.report.sections import Section
from vlprompt.report.sides import Run
from vlprompt.report.tables import spread
from vlprompt.report.text import expected_seeds, rows_of

SCRIPTS = ("core.js", "plot.js", "tables.js", "curves.js", "shapes.js", "classes.js", "main.js")


@functools.cache
def template(name: str) -> jinja2.Template:
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("vlprompt.report", "assets"),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=jinja2.StrictUndefined,
    )
    return environment.get_template(name)


def render(
    grid: ReportGrid,
    sections: Sequence[Section],
    differences: Sequence[Pair],
    classes: Mapping[int, Sequence[str]],
    details: Sequence[Detail],
    choices: Mapping[str, Sequence[str]],
    *,
    title: str,
    margin: float,
    notes: Sequence[str],
) -> str:
    data = {
        "metrics": [dataclasses.asdict(metric) for metric in grid.metrics],
        "contenders": _contenders(grid.contenders),
        "places": [dataclasses.asdict(place) for place in grid.places],
        "values": _values(grid),
        "sections": [_section(grid, section) for section in sections],
        "differences": [
            dataclasses.asdict(dataclasses.replace(pair, found=()))
            | {"found": [_comparison(one) for one in pair.found]}
            for pair in differences
        ],
        "margin": margin,
        "level": LEVEL,
        "classes": [{"place": place, "names": names} for place, names in classes.items()],
        "details": [_detail(one) for one in details],
        "costs": _costs(grid),
    }
    return template("page.html.j2").render(
        title=title,
        facts=_facts(grid),
        notes=notes,
        sections=sections,
        choices=choices,
        data=_embed(data),
        scripts=SCRIPTS,
        version=__version__,
        margin=f"{margin:g}",
    )


def _embed(data: Mapping[str, object]) -> str:
    """JSON that cannot end the script element it stands in."""
    text = json.dumps(data, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
    return text.replace("&", "\\u0026").replace("<", "\\u003c").replace(">", "\\u003e").replace("\u2028", "\\u2028")


def _contenders(found: Sequence[Contender]) -> list[dict[str, Any]]:
    """With the number of the family: an overlay has its host's, and with it its colour."""
    families = {
        name: number for number, name in enumerate(dict.fromkeys(one.host for one in found if not one.seedless))
    }
    starts = [one.name.partition(",")[2] for one in found]
    variants = {name: number for number, name in enumerate(dict.fromkeys(starts))}
    return [
        {
            "name": one.name,
            "family": -1 if one.seedless else families[one.host],
            "overlay": one.overlay,
            "variant": variants[start],
            "seedless": one.seedless,
        }
        for one, start in zip(found, starts, strict=True)
    ]


def _values(grid: ReportGrid) -> list[list[Any]]:
    """[contender, place, seeds, [values of the first metric], ...] with null for what was not measured."""
    out = []
    for contender, place in sorted({(c, p) for c, p, _ in grid.values}):
        tables = [grid.values.get((contender, place, metric.name), {}) for metric in grid.metrics]
        seeds = sorted({seed for table in tables for seed in table})
        out.append([contender, place, seeds, *[[table.get(seed) for seed in seeds] for table in tables]])
    return out


def _section(grid: ReportGrid, section: Section) -> dict[str, Any]:
    return {
        "protocol": section.protocol,
        "title": section.title,
        "rows": rows_of(grid, section),
        "seeds": expected_seeds(grid, section),
        "layouts": [
            {"title": one.title, "average": one.average, "columns": list(map(dataclasses.asdict, one.columns))}
            for one in section.layouts
        ],
        "radar": [dataclasses.asdict(column) for column in section.radar],
    }


def _comparison(one: Comparison) -> dict[str, Any]:
    said = one.estimate
    return {
        "datasets": one.datasets,
        "seeds": len(one.seeds),
        "images": one.num_images,
        "difference": round(said.difference, 4),
        "low": round(said.low, 4),
        "high": round(said.high, 4),
        "verdict": said.verdict,
        "needed": said.seeds_needed,
        "factor": round(said.images_factor, 2) if said.images_factor < 1000 else None,
        "known": said.seeds_known,
    }


def _detail(one: Detail) -> dict[str, Any]:
    return {
        "contender": one.contender,
        "place": one.place,
        "recall": {name: round(value, 2) for name, value in one.recall.items()},
        "confusion": [number for row in one.confusion for number in row],
        "left": one.left_out,
        "reliability": [
            [count, round(confidence, 2), round(accuracy, 2)] for count, confidence, accuracy in one.reliability
        ],
    }


def _costs(grid: ReportGrid) -> list[dict[str, Any]]:
    """What learning took, by contender and shots: means over data sets and seeds of the records that learned something."""
    groups: dict[tuple[int, int | None], list[Run]] = {}
    seen: set[tuple[object, ...]] = set()
    for (contender, _), runs in sorted(grid.runs.items()):
        for run in runs:
            one = run.record
            # A prompt that is tested at several places was learned once.
            key = (contender, one.source or one.dataset, one.shots, one.seed, one.config_hash, one.epochs, one.seconds)
            if key not in seen and not one.source:
                seen.add(key)
                shots = None if grid.contenders[contender].seedless else one.shots
                groups.setdefault((contender, shots), []).append(run)
    out = []
    for contender, shots in sorted(groups, key=lambda one: (one[0], one[1] is None, one[1] or 0)):
        group = groups[contender, shots]
        row: dict[str, Any] = {"contender": contender, "shots": shots, "runs": len(group)}
        for name in ("parameters", "epochs", "seconds", "seconds_features", "peak_mib"):
            found = spread(getattr(run.record, name) for run in group)
            row[name] = None if found is None else round(found.mean, 3)
        out.append(row)
    return out


def _facts(grid: ReportGrid) -> dict[str, list[str]]:
    """What the numbers were made with: every distinct value, as text."""
    runs = [run.record for own in grid.runs.values() for run in own]
    versions: dict[str, set[str]] = {}
    for one in runs:
        for name, value in one.versions.items():
            versions.setdefault(name, set()).add(str(value))
    count = sum(len(one.runs) for one in grid.contenders)
    held_out = _distinct(f"{one.method} on {one.dataset}: held-out {one.val_from}" for one in runs if one.val_from)
    return {
        "runs": [f"{count:,}"],
        "methods": [f"{len(grid.contenders)}"],
        "data sets": [f"{len({place.dataset for place in grid.places})}"],
        "seeds": _distinct(str(one.seed) for one in runs if one.parameters or one.epochs),
        "model": _distinct(f"{one.model} ({one.weight_hash[:12]})" if one.weight_hash else one.model for one in runs),
        "zero-shot words": _distinct(one.template for one in runs),
        "recipe": _distinct(
            f"{one.recipe} ({one.choices})" if one.choices else one.recipe for one in runs if one.recipe or one.choices
        ),
        **({"chosen on": held_out} if held_out else {}),
        "device": _distinct(one.device for one in runs),
        "weights": _distinct(one.dtype for one in runs),
        **{name: sorted(values) for name, values in sorted(versions.items())},
    }


def _distinct(values: Iterable[str]) -> list[str]:
    return sorted(set(values), key=lambda one: (len(one), one))
