"""Getting one of the papers' data sets: what is missing is fetched, unpacked next to it and moved into its place.

ROOT/.downloads/NAME/         archives, until they are unpacked; a stopped transfer goes on from here
"""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from vlprompt.data import archive
from vlprompt.data.download import AddressRefused, Advance, Fetcher
from vlprompt.data.papers import catalogue
from vlprompt.data.papers.catalogue import Download, SetRow
from vlprompt.errors import data_error

KEPT = ".downloads"
DEPTH = 4
"""How deep in an archive the data set's own folder may lie."""


class Teller(Protocol):
    """What shows the work."""

    def say(self, text: str) -> None:
        """A line: what is fetched from where, and what came of it."""
        ...

    def progress(self, name: str) -> Advance:
        """A counter for one file."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class SetState:
    """What of a data set is on disk."""

    row: SetRow
    folder: Path
    missing: tuple[str, ...]
    """Without which it cannot be read."""
    split: bool
    """Whether its published split file is there, or it needs none."""

    @property
    def usable(self) -> bool:
        return not self.missing

    @property
    def word(self) -> str:
        if not self.folder.is_dir():
            return "not there"
        if not self.usable:
            return "incomplete"
        return "complete" if self.split else "no split file"


def state(row: SetRow, root: Path) -> SetState:
    """Look at a data set's folder; no image is opened."""
    folder = catalogue.directory_of(row, root)
    missing = catalogue.absent(row, folder)
    return SetState(row=row, folder=folder, missing=missing, split=not row.split or (folder / row.split).is_file())


def wanted(row: SetRow, folder: Path) -> list[Download]:
    """The files that have something to bring."""
    return [one for one in row.downloads if not all(catalogue.present(folder, gift) for gift in one.gives)]


def obtain(row: SetRow, root: Path, teller: Teller, fetcher: Fetcher | None = None) -> SetState:
    """Fetch what is missing of a data set into `root`. What is there is left as it is.

    UserError (exit 3): no address gave a file; the message names each with the reason, and the steps for people.
    """
    folder = catalogue.directory_of(row, root)
    kept = root / KEPT / row.name
    for download in list(row.downloads):
        if download in wanted(row, folder):
            _one(row, download, folder, kept, teller, fetcher or Fetcher())
    shutil.rmtree(kept, ignore_errors=True)
    if kept.parent.is_dir() and not any(kept.parent.iterdir()):
        kept.parent.rmdir()
    return state(row, root)


def _one(row: SetRow, download: Download, folder: Path, kept: Path, teller: Teller, fetcher: Fetcher) -> None:
    """A file from the first of its mirrors that gives it."""
    failures = []
    for address in download.mirrors:
        teller.say(f"{address.url} (named by {address.source})")
        try:
            path, checked = fetcher.fetch(address, kept, teller.progress(address.file))
            teller.say(f"checksum: {checked}" if checked else "checksum: none is published")
            place(row, download, path, folder)
            return
        except AddressRefused as problem:
            failures.append(f"{address.url}: {problem}")
            teller.say(f"no: {problem}")
    raise data_error(
        f"{row.title}: {', '.join(download.gives)} could not be fetched. {'; '.join(failures)}. {by_hand(row, folder)}"
    )


def by_hand(row: SetRow, folder: Path) -> str:
    """What people can do: the steps, and what has to stand where in the end."""
    steps = (f"\n  {number}. {step}" for number, step in enumerate(row.manual, 1))
    return f"By hand: put {', '.join(row.wanted)} into {folder}.{''.join(steps)}"


def place(row: SetRow, download: Download, file: Path, folder: Path) -> None:
    """Move what a fetched file brings into the data set's folder. AddressRefused: it does not bring what it should."""
    folder.mkdir(parents=True, exist_ok=True)
    if not file.name.endswith((*archive.TAR, *archive.ZIP)):
        if file.name.endswith(".json") and not file.read_bytes().lstrip().startswith(b"{"):
            file.unlink()
            raise AddressRefused("the answer is not JSON")
        shutil.move(file, folder / download.gives[0])
        return
    unpacked = file.with_name(f"{file.name}.unpacked")
    shutil.rmtree(unpacked, ignore_errors=True)
    try:
        archive.unpack(file, unpacked)
        source = _folder_of(unpacked, download.gives)
        if source is None:
            raise AddressRefused(f"there is no {', '.join(download.gives)} in {file.name}")
        gifts = {gift for one in row.downloads for gift in one.gives}
        for gift in sorted({*download.gives, *gifts, *row.needs}):
            if (source / gift).exists() and not (folder / gift).exists():
                (folder / gift).parent.mkdir(parents=True, exist_ok=True)
                shutil.move(source / gift, folder / gift)
    except archive.Unsafe as problem:
        file.unlink()
        raise AddressRefused(f"{file.name} {problem}") from problem
    finally:
        shutil.rmtree(unpacked, ignore_errors=True)
    file.unlink()


def _folder_of(unpacked: Path, gives: Sequence[str]) -> Path | None:
    """The uppermost folder of an archive that holds all that it should."""
    level = [unpacked]
    for _ in range(DEPTH):
        if found := [folder for folder in level if all((folder / gift).exists() for gift in gives)]:
            return found[0]
        level = [child for folder in level for child in sorted(folder.iterdir()) if child.is_dir()][:1000]
    return None
