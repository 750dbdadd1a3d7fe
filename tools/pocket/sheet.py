"""Contact sheets: a grid of pictures per class, to look at."""

from __future__ import annotations

import numpy as np
from PIL import Image, ImageDraw


def contact_sheet(rows: list[tuple[str, list[np.ndarray]]], columns: int = 24) -> Image.Image:
    """One row of (64, 64, 3) pictures per named class, at most `columns` of them, the name on the left."""
    label = 150
    sheet = Image.new("RGB", (label + 66 * columns, 66 * len(rows)), "white")
    draw = ImageDraw.Draw(sheet)
    for y, (name, pictures) in enumerate(rows):
        draw.text((4, 66 * y + 26), name[:26], fill="black")
        for x, picture in enumerate(pictures[:columns]):
            sheet.paste(Image.fromarray(picture), (label + 66 * x, 66 * y))
    return sheet
