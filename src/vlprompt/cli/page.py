"""The page that `train` and `eval --out` write for a person: the report's part of it, with small pictures of the images."""

from __future__ import annotations

import base64
import functools
import io
from collections.abc import Sequence
from pathlib import Path

from vlprompt.errors import UserError

SIDE, QUALITY = 144, 78
"""Of a small picture: pixels of its longer side, and JPEG quality (project's choice)."""


def write_page(root: Path, seeds: Sequence[int], data: str, *, all_answers: bool = False) -> tuple[Path, ...]:
    """Writes the page of a run with these seeds, and its tables. Returns its files, the page first; none without test images."""
    from vlprompt.report.own import write_own

    places = [root / f"seed{seed}" for seed in seeds]
    return write_own(root, places, functools.partial(small, data), all_answers=all_answers)


def small(data: str, ids: Sequence[str]) -> dict[str, str]:
    """Image -> a small JPEG as a data address. An image that is not there any more is left out."""
    if not ids:
        return {}
    from vlprompt.data import open_dataset
    from vlprompt.data.images import picture
    from vlprompt.data.samples import PARTS

    dataset, asked, out = open_dataset(data), set(ids), {}
    for sample in (one for part in PARTS for one in getattr(dataset, part) if one.id in asked):
        try:
            image = picture(sample)
        except UserError:
            continue
        image.thumbnail((SIDE, SIDE))
        file = io.BytesIO()
        image.save(file, format="JPEG", quality=QUALITY)
        out[sample.id] = f"data:image/jpeg;base64,{base64.b64encode(file.getvalue()).decode()}"
    return out
