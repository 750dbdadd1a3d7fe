"""`vlprompt data`: the embedded sets, and what is in a folder of your own."""

from __future__ import annotations

import shlex
from typing import Annotated

import typer
from rich import box
from rich.table import Table
from rich.text import Text

from vlprompt.cli import console, failures, options
from vlprompt.cli.progress import counting
from vlprompt.errors import DATA

app = typer.Typer(help="Images: list the embedded sets, check a folder of your own.", no_args_is_help=True)


@app.command("list")
@failures.guarded
def list_sets(as_json: options.AsJson = False) -> None:
    """List the embedded data sets.

    Example: `vlprompt data list`
    """
    from vlprompt import pocket

    sets = [pocket.info(name) for name in pocket.names()]
    counts = {one.name: _counts(one.name) for one in sets}
    if as_json:
        console.dump(
            [
                {
                    "name": one.name,
                    "description": one.description,
                    "template": one.template,
                    "classes": list(one.class_names),
                    "images": counts[one.name],
                }
                for one in sets
            ]
        )
        return
    table = Table(box=box.SIMPLE_HEAD, title="Embedded data sets", title_justify="left")
    for column in ("name", "classes", "train", "val", "test", "what it is"):
        table.add_column(column, justify="left" if column in ("name", "what it is") else "right")
    for one in sets:
        count = counts[one.name]
        table.add_row(
            Text(one.name), str(len(one.class_names)), *(str(count[part]) for part in count), Text(one.description)
        )
    console.show(table)
    console.commands("More:", [f"vlprompt data check {sets[0].name}", "vlprompt data check YOUR_FOLDER"])


@app.command("check")
@failures.guarded
def check_images(
    source: Annotated[str, typer.Argument(metavar="DIR|FILE|NAME", help="What you would give to --data.")],
    as_json: options.AsJson = False,
) -> None:
    """Decode every image of a folder, table or embedded set; report what is wrong, what is skipped, and the counts.

    Ends with exit code 3 where it cannot be used for training.

    Example: `vlprompt data check my_photos`
    """
    from vlprompt.data import check

    with counting("looking at images") as progress:
        report = check(source, progress=progress)
    if as_json:
        console.dump(report.as_dict())
    else:
        console.show(*report.lines())
    if not report.ok:
        raise typer.Exit(DATA)
    if not as_json:
        console.commands("It can be used:", [f"vlprompt train --data {shlex.quote(source)} --method plpp+coop"])


def _counts(name: str) -> dict[str, int]:
    from vlprompt import pocket

    parts = [row.split for row in pocket.rows(name)]
    return {part: parts.count(part) for part in ("train", "val", "test")}
