"""What every benchmark prints and writes: a list of named values."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True)
class Figure:
    """One measured value: its name, value and unit."""

    name: str
    value: float
    unit: str


def publish(figures: list[Figure], path: Path | None) -> None:
    """Print the figures, and write them as JSON where a path is given."""
    for figure in figures:
        print(f"{figure.name:<28} {figure.value:>12.4g} {figure.unit}")
    if path is not None:
        path.write_text(json.dumps([asdict(figure) for figure in figures], indent=1) + "\n", encoding="utf-8")
