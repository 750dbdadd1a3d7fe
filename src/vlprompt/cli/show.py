"""`vlprompt data show`: a picture of a data set."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from vlprompt.cli import console, failures


@failures.guarded
def show(
    source: Annotated[str, typer.Argument(metavar="DIR|FILE|NAME", help="What you would give to --data.")],
    out: Annotated[Path, typer.Option("--out", metavar="FILE.png", help="Where the sheet is written.")] = Path(
        "sheet.png"
    ),
    columns: Annotated[int, typer.Option("--columns", help="Pictures per class.")] = 12,
    rows: Annotated[int, typer.Option("--rows", help="Classes at most.")] = 60,
) -> None:
    """Draw a contact sheet: a row of pictures per class.

    Example: `vlprompt data show emoji-food --out food.png`
    """
    from vlprompt import atomic
    from vlprompt.data import open_dataset
    from vlprompt.data.sheet import contact_sheet, png

    atomic.write_bytes(out, png(contact_sheet(open_dataset(source), columns=columns, rows=rows)))
    console.plain(f"{out}\n")
