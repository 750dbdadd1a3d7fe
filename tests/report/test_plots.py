"""The figure is drawn for every state that a quickstart can be in."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.report.made import record
from vlprompt.report import plots, tables


def picture(color: int, *, before: str = "cat", after: str = "dog") -> plots.Picture:
    pixels = np.full((12, 12, 3), (color, 20, 200), np.uint8)
    return plots.Picture(pixels=pixels, truth="dog", before=before, after=after)


def drawn(path: Path) -> np.ndarray:
    with Image.open(io.BytesIO(path.read_bytes())) as image:
        return np.asarray(image.convert("RGB")).astype(int)


def has(image: np.ndarray, color: str) -> bool:
    """Whether a colour is in the image, up to the smoothing of letters."""
    wanted = np.array([int(color[i : i + 2], 16) for i in (1, 3, 5)])
    return bool((np.abs(image - wanted).max(axis=-1) <= 3).any())


def test_figure_has_bars_pictures_and_both_verdicts(tmp_path: Path) -> None:
    rows = tables.rows([record(method="zero-shot", top1=20.0), record(), record(seed=2, top1=44.0)])
    path = plots.quickstart(tmp_path / "new" / "figure.png", rows, [picture(250), picture(10)], learned="coop")
    image = drawn(path)
    assert image.shape == (round(plots.SIZE[1] * plots.DPI), round(plots.SIZE[0] * plots.DPI), 3)
    assert has(image, plots.BARS[0])
    assert has(image, plots.BARS[1])
    assert has(image, plots.RIGHT)
    assert has(image, plots.WRONG)
    for red in (250, 10):
        assert (np.abs(image - (red, 20, 200)).max(axis=-1) <= 2).sum() > 1000


def test_the_higher_bar_belongs_to_the_better_method(tmp_path: Path) -> None:
    rows = tables.rows([record(method="zero-shot", top1=20.0), record(method="coop", top1=40.0)])
    image = drawn(plots.quickstart(tmp_path / "figure.png", rows, [], learned="coop"))
    heights = [
        np.ptp(
            np.nonzero((np.abs(image - [int(bar[i : i + 2], 16) for i in (1, 3, 5)]).max(axis=-1) <= 1).any(axis=1))[0]
        )
        for bar in plots.BARS[:2]
    ]
    assert heights[1] == pytest.approx(2 * heights[0], rel=0.05)


def test_halves_stand_in_groups_of_the_same_colours(tmp_path: Path) -> None:
    made = [record(method=name, subset=part, top1=30.0) for part in ("base", "novel") for name in ("zero-shot", "coop")]
    image = drawn(plots.quickstart(tmp_path / "figure.png", tables.rows(made), [], learned="coop"))
    for bar in plots.BARS[:2]:
        hit = (np.abs(image - [int(bar[i : i + 2], 16) for i in (1, 3, 5)]).max(axis=-1) <= 1).any(axis=0)
        wide = np.diff(np.nonzero(np.diff(np.r_[0, hit.astype(int), 0]))[0])[::2]
        assert (wide > 40).sum() == 2


def test_a_table_of_halves_has_the_harmonic_mean_of_each_seed() -> None:
    made = [
        record(method="coop", subset=part, seed=seed, top1=top1)
        for part, seed, top1 in (("base", 1, 60.0), ("novel", 1, 30.0), ("base", 2, 40.0), ("novel", 2, 40.0))
    ]
    (row,) = tables.halves(made).cells
    assert row[3:6] == ("50.0 +- 14.1", "35.0 +- 7.1", "40.0 +- 0.0")


def test_no_picture_and_no_accuracy_still_make_a_figure(tmp_path: Path) -> None:
    rows = tables.rows([record(top1=None), record(method="plpp+coop", top1=10.0)])
    assert drawn(plots.quickstart(tmp_path / "figure.png", rows, [], learned="coop")).std() > 1
    assert drawn(plots.quickstart(tmp_path / "empty.png", [], [], learned="coop")).std() > 1


def test_long_names_are_folded(tmp_path: Path) -> None:
    one = picture(0, before="a name that goes on and on and on until nobody reads it any more", after="dog")
    assert drawn(plots.quickstart(tmp_path / "figure.png", [], [one] * 30, learned="coop")).std() > 1
