"""The look of every picture that this package draws, and its one way onto the disk."""

from __future__ import annotations

import io
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import matplotlib

from vlprompt import disk

if TYPE_CHECKING:
    from matplotlib.figure import Figure

INK, MUTED, GRID = "#1f2933", "#66727f", "#e4e7eb"


@contextmanager
def png(
    path: Path, size: tuple[float, float], *, dpi: int, font_size: float, layout: Literal["constrained"] | None = None
) -> Iterator[Figure]:
    """A white figure of that many inches to draw on; whole on disk when the block ends, and not at all when it fails."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    with matplotlib.rc_context(
        {"font.family": "DejaVu Sans", "font.size": font_size, "text.color": INK, "axes.labelcolor": INK}
    ):
        figure = Figure(figsize=size, dpi=dpi, facecolor="white", layout=layout)
        FigureCanvasAgg(figure)
        yield figure
        stream = io.BytesIO()
        figure.savefig(stream, format="png")
    disk.write_bytes(path, stream.getvalue())
