"""Small sets of coloured squares, and requests for grids of milliseconds."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tests.images import Shade, write_squares
from vlprompt.bench import Desk, Grid, Means, Plan, Request, make

SHADES = {"cat": (200, 40, 40), "dog": (40, 200, 40), "bird": (40, 40, 200), "tree": (160, 160, 40)}
OTHERS = {"house": (90, 20, 90), "truck": (20, 120, 120), "green pet": (60, 180, 60)}
PARTS = {"train": 4, "val": 2, "test": 3}
QUICK = {"epochs": "2", "n_ctx": "3", "init": "normal", "batch": "8", "lr": "0.01"}


def write_set(root: Path, shades: Mapping[str, Shade], parts: Mapping[str, int], seed: int) -> Path:
    """Noisy squares in a folder of class folders."""
    return write_squares(root, shades, parts, seed=seed, noise=60, size=(34, 34))


def write_sets(root: Path) -> Path:
    """`shades` (four classes), `others` (three other classes), `dark` (test images of the first three classes of `shades`)."""
    write_set(root / "shades", SHADES, PARTS, 0)
    write_set(root / "others", OTHERS, PARTS, 1)
    dark = {name: tuple(value // 2 for value in SHADES[name]) for name in ("cat", "dog", "bird")}
    write_set(root / "dark", dark, {"test": 3}, 2)  # type: ignore[arg-type]
    return root


def request(
    clip_dir: Path, sets: Path, *protocols: str, data: tuple[str, ...] = ("shades",), **changes: Any
) -> Request:
    """A grid of a tiny model: one method, one count, one seed."""
    base: dict[str, Any] = {
        "protocols": protocols or ("few-shot",),
        "data": tuple(str(sets / name) for name in data),
        "model": str(clip_dir),
        "methods": ("coop",),
        "shots": (2,),
        "seeds": (1,),
        "overrides": QUICK,
        "views": 1,
    }
    if "source" in changes and changes["source"] is not None:
        changes["source"] = tuple(str(sets / name) for name in changes["source"])
    return Request(**{**base, **changes})


def grid_of(out: Path, sets: Path, **changes: Any) -> Grid:
    """A grid's directory, its feature cache beside the sets."""
    return Grid(out=out, means=Means(device="cpu", cache=sets / "cache"), **changes)


def plan_of(asked: Request, grid: Grid) -> Plan:
    return make(asked, Desk(grid.means))
