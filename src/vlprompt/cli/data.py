"""`vlprompt data`: which data sets there are, what is on disk, getting the papers' sets, and what is in a folder of your own."""

from __future__ import annotations

import shlex
import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from vlprompt.cli import console, options
from vlprompt.cli.options import argument, option
from vlprompt.cli.progress import SECONDS_BETWEEN_LINES, counting
from vlprompt.errors import DATA, UserError, data_error

if TYPE_CHECKING:
    from vlprompt.data.download import Advance
    from vlprompt.data.papers.catalogue import SetRow


app = typer.Typer(
    help="Images: list the embedded and the papers' sets, see what is on disk, get one, check a folder.",
    no_args_is_help=True,
)
Name = Annotated[str, argument("NAME", "One of the papers' sets (see `vlprompt data list`).")]
DryRun = Annotated[bool, option("--dry-run", "Only say what would be fetched, and from where.")]
PARTS = ("train", "val", "test")
NUMBERS = (">classes", *(f">{part}" for part in PARTS))


@options.command(app, "list")
def list_sets(as_json: options.AsJson = False) -> None:
    """List the embedded data sets, and the papers' sets with their published sizes.

    Example: `vlprompt data list`
    """
    from vlprompt import pocket
    from vlprompt.data.papers import catalogue

    sets = [pocket.info(name) for name in pocket.names()]
    splits = {one.name: [row.split for row in pocket.rows(one.name)] for one in sets}
    counts = {name: {part: found.count(part) for part in PARTS} for name, found in splits.items()}
    if as_json:
        console.dump(
            [
                {
                    "name": one.name,
                    "kind": "embedded",
                    "description": one.description,
                    "template": one.template,
                    "classes": list(one.class_names),
                    "images": counts[one.name],
                }
                for one in sets
            ]
            + [_facts(row) for row in catalogue.ROWS]
        )
        return
    rows = [(one.name, len(one.class_names), *counts[one.name].values(), one.description) for one in sets]
    papers = [
        (row.name, row.classes, *(f"{size:,}" if size else "-" for size in row.sizes), row.licence)
        for row in catalogue.ROWS
    ]
    title = "The papers' data sets (published sizes; they lie in the data root)"
    console.show(
        console.table("Embedded data sets", ("name", *NUMBERS, "what it is"), rows),
        console.table(title, ("name", *NUMBERS, "licence"), papers),
    )
    console.commands(
        "More:", ["vlprompt data status", "vlprompt data get caltech101", "vlprompt data check YOUR_FOLDER"]
    )


@options.command(app, "status")
def status(as_json: options.AsJson = False) -> None:
    """Say which of the papers' data sets are on disk, and what is missing of the others. No image is opened.

    Example: `vlprompt data status --data-root data`
    """
    from vlprompt.data.papers import catalogue
    from vlprompt.data.papers.obtain import state

    root = _root()
    states = [state(row, root) for row in catalogue.ROWS]
    if as_json:
        console.dump(
            {
                "root": str(root),
                "sets": [
                    {"name": one.row.name, "state": one.word, "folder": str(one.folder), "missing": list(one.missing)}
                    for one in states
                ],
            }
        )
        return
    rows = []
    for one in states:
        lost = one.missing if one.folder.is_dir() else ()
        missing = ", ".join(lost) or ("" if one.split or lost or not one.usable else one.row.split)
        rows.append((one.row.name, one.word, f"{one.folder.name}/", missing))
    console.show(console.table(f"The papers' data sets in {root}", ("name", "state", "folder", "missing"), rows))
    absent = [one.row.name for one in states if not one.usable]
    if absent:
        console.commands("More:", [f"vlprompt data get {absent[0]}"])


@options.command(app, "get")
def get(name: Name, dry_run: DryRun = False) -> None:
    """Fetch one of the papers' data sets into the data root: only from addresses that have a public source, with the published
    checksum where there is one. Run it again to continue a stopped transfer. Sets that need a login are explained instead.

    Example: `vlprompt data get caltech101 --data-root data`
    """
    from vlprompt.data.papers import catalogue
    from vlprompt.data.papers.obtain import by_hand, obtain, state, wanted

    row, root = catalogue.get(name), _root()
    folder = catalogue.directory_of(row, root)
    todo = wanted(row, folder)
    console.note(f"{row.title} into {folder}. Licence: {row.licence}.")
    if dry_run:
        _plan(row, folder)
        return
    if todo:
        obtain(row, root, _Teller())
    found = state(row, root)
    if not found.usable:
        raise data_error(f"{row.title}: still missing: {', '.join(found.missing)}. {by_hand(row, folder)}")
    console.show(f"{row.title} is in {folder}: {found.word}.")
    console.commands("Next:", [f"vlprompt data check {row.name}"])


@options.command(app, "check")
def check_images(
    source: Annotated[str, argument("DIR|FILE|NAME", "What you would give to --data.")],
    columns: options.Columns = None,
    class_names: options.ClassNames = None,
    as_json: options.AsJson = False,
) -> None:
    """Decode every image of a folder, table or data set; report what is wrong, what is skipped, and the counts.

    Ends with exit code 3 if it cannot be used for training.

    Example: `vlprompt data check my_photos`
    """
    from vlprompt.data.check import check

    source = options.with_columns(source, columns, class_names)
    with counting("looking at images") as progress:
        report = check(source, progress=progress)
    if as_json:
        console.dump(report.as_dict())
    else:
        console.show(*report.lines())
    if not report.ok:
        raise typer.Exit(DATA)
    learns, place = any(one.train for one in report.classes), shlex.quote(source)
    if not as_json and learns:
        console.commands("It can be used:", [f"vlprompt train {place}"])
    elif not as_json:
        console.commands("There is nothing to learn from. It can be tested on:", [f"vlprompt eval RUN --data {place}"])


class _Teller:
    """Says on stderr what is fetched, and how far it is."""

    def say(self, text: str) -> None:
        console.note(text)

    def progress(self, name: str) -> Advance:
        spoken = time.monotonic()

        def show(done: int, size: int | None) -> None:
            nonlocal spoken
            if time.monotonic() - spoken >= SECONDS_BETWEEN_LINES or done == size:
                spoken = time.monotonic()
                console.note(f"{name}: {_megabytes(done)} of {_megabytes(size)}")

        return show


def _plan(row: SetRow, folder: Path) -> None:
    """What would be fetched, and what only people can fetch."""
    from vlprompt.data.papers.obtain import by_hand, wanted

    lines = []
    for download in wanted(row, folder):
        lines.append(f"{', '.join(download.gives)}, from the first that gives it:")
        for one in download.mirrors:
            size = f", {_megabytes(one.size)}" if one.size else ""
            checksum = f"{one.checksum} ({one.checksum_source})" if one.checksum != "unknown" else "unknown"
            lines += [f"  {one.url}{size}", f"    address: {one.source}; checksum: {checksum}"]
    if not row.downloads:
        lines.append("address: unknown to this program.")
    if row.manual:
        lines.append(by_hand(row, folder))
    console.plain("\n".join(lines or ["Nothing: all of it is there."]) + "\n")


def _root() -> Path:
    from vlprompt.data.papers import catalogue

    root = catalogue.data_root()
    if root is None:
        raise UserError(
            f"no folder for the papers' data sets is known. Give --data-root DIR, or set {catalogue.ROOT_VARIABLE}."
        )
    return root


def _facts(row: SetRow) -> dict[str, Any]:
    return {
        "name": row.name,
        "kind": "papers",
        "description": row.title,
        "template": row.template,
        "directory": row.directory,
        "num_classes": row.classes,
        "images": dict(zip(PARTS, row.sizes, strict=True)),
        "sizes_source": row.sizes_source,
        "licence": row.licence,
        "addresses": [
            {
                "gives": list(download.gives),
                "url": one.url,
                "source": one.source,
                "checksum": one.checksum,
                "checksum_source": one.checksum_source,
            }
            for download in row.downloads
            for one in download.mirrors
        ],
    }


def _megabytes(size: int | None) -> str:
    return "unknown" if size is None else f"{size / 1e6:,.1f} MB"


@options.command(app, "shards")
def shards(
    source: Annotated[str, argument("DIR|FILE|NAME", "What you would give to `pretrain --data`.")],
    out: Annotated[Path, option("--out DIR", "Directory for the shards.")],
    class_names: Annotated[Path | None, option("--class-names FILE", "As in pretrain.", "found near the data")] = None,
    shots: Annotated[int, option("--shots", "Training images per class; 0 takes all.", min=0)] = 0,
    seed: Annotated[int, option("--seed", "Of the sample and of the order in the shards.", min=0)] = 42,
    per_shard: Annotated[int, option("--per-shard", "Images in a shard.", min=1)] = 1000,
    no_check: Annotated[bool, option("--no-check", "Do not decode every image first.")] = False,
) -> None:
    """Write a data set as tar shards in the WebDataset layout, shuffled, with their list `shards.json`.

    Run it again to continue an interrupted run.

    Example: `vlprompt data shards imagenet21k_resized --out shards21k`
    """
    from vlprompt.data import write_shards
    from vlprompt.disk import default_root
    from vlprompt.pretrain.source import open_corpus

    corpus = open_corpus(source, default_root(), shots=shots or None, seed=seed, class_names=class_names)
    for note in corpus.notes:
        console.warn(note)
    with counting("writing images") as progress:
        skipped = write_shards(corpus, out, per_shard=per_shard, seed=seed, verify=not no_check, progress=progress)
    for one in skipped[:5]:
        console.warn(f"left out: {one.id} ({one.reason})")
    if len(skipped) > 5:
        console.warn(f"left out: {len(skipped) - 5} more")
    console.show(f"{out}: {len(corpus.class_names)} classes in {len(list(out.glob('*.tar')))} shards")
    console.commands("Learn from them:", [f"vlprompt pretrain --data {shlex.quote(str(out))}"])


@options.command(app, "show")
def show(
    source: Annotated[str, argument("DIR|FILE|NAME", "What you would give to --data.")],
    out: Annotated[Path, option("--out FILE.png", "The picture to write.")] = Path("sheet.png"),
    columns: Annotated[int, option("--columns", "Pictures per class.")] = 12,
    rows: Annotated[int, option("--rows", "Most classes to show.")] = 60,
) -> None:
    """Draw a contact sheet: a row of pictures per class.

    Example: `vlprompt data show emoji-food --out food.png`
    """
    from vlprompt import disk
    from vlprompt.data import open_dataset
    from vlprompt.data.sheet import contact_sheet, png

    disk.write_bytes(out, png(contact_sheet(open_dataset(source), columns=columns, rows=rows)))
    console.plain(f"{out}\n")
