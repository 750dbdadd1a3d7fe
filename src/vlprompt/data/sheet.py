"""A contact sheet: what a data set looks like, a row of pictures per class."""

from __future__ import annotations

import io
import math
from collections.abc import Sequence

from PIL import Image, ImageDraw, ImageFont

from vlprompt.data.images import picture
from vlprompt.data.samples import PARTS, Dataset, Sample
from vlprompt.errors import UserError

SIDE, GAP, MARGIN = 64, 4, 16
INK, FAINT, PAPER = (30, 30, 30), (120, 120, 120), (255, 255, 255)


def contact_sheet(dataset: Dataset, *, columns: int = 12, rows: int = 60) -> Image.Image:
    """At most `columns` pictures of each of the first `rows` classes, spread evenly over the parts; the class name at the left.

    UserError where nothing can be shown: `columns` or `rows` below 1.
    """
    if columns < 1 or rows < 1:
        raise UserError(f"a sheet of {columns} pictures in {rows} rows shows nothing; both must be at least 1.")
    shown = dataset.class_names[:rows]
    font, small = ImageFont.load_default(15), ImageFont.load_default(12)
    label_width = math.ceil(max(font.getlength(name) for name in shown)) + 2 * GAP
    width = 2 * MARGIN + label_width + columns * (SIDE + GAP)
    top = MARGIN + 46
    sheet = Image.new("RGB", (width, top + len(shown) * (SIDE + GAP) + MARGIN), PAPER)
    pen = ImageDraw.Draw(sheet)
    pen.text((MARGIN, MARGIN), dataset.name, fill=INK, font=ImageFont.load_default(20))
    pen.text((MARGIN, MARGIN + 24), _summary(dataset, len(shown)), fill=FAINT, font=small)
    for row, name in enumerate(shown):
        y = top + row * (SIDE + GAP)
        pen.text((MARGIN, y + SIDE // 2), name, fill=INK, font=font, anchor="lm")
        for column, sample in enumerate(_some(dataset, row, columns)):
            small_one = picture(sample)
            small_one.thumbnail((SIDE, SIDE), Image.Resampling.BICUBIC)
            x = MARGIN + label_width + column * (SIDE + GAP)
            sheet.paste(small_one, (x + (SIDE - small_one.width) // 2, y + (SIDE - small_one.height) // 2))
    return sheet


def _summary(dataset: Dataset, shown: int) -> str:
    counts = ", ".join(f"{len(getattr(dataset, part))} {part}" for part in PARTS if getattr(dataset, part))
    total = len(dataset.class_names)
    classes = f"{total} classes" if shown == total else f"{shown} of {total} classes"
    return f"{classes}; images: {counts}; template: {dataset.template!r}"


def _some(dataset: Dataset, label: int, count: int) -> Sequence[Sample]:
    """At most `count` images of a class, at even steps through its parts."""
    mine = [sample for part in PARTS for sample in getattr(dataset, part) if sample.label == label]
    if len(mine) <= count:
        return mine
    return [mine[n * len(mine) // count] for n in range(count)]


def png(picture: Image.Image) -> bytes:
    """A picture as a PNG file of 256 colours, a third of the size of all colours."""
    out = io.BytesIO()
    picture.quantize(256).save(out, "PNG", optimize=True)
    return out.getvalue()
