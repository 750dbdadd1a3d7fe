"""Where the images of a list lie on this disk: lists are written on other machines, with other slashes, folders and endings."""

from __future__ import annotations

import os
import unicodedata
from pathlib import Path, PurePosixPath
from typing import final


def _plain(name: str) -> str:
    return unicodedata.normalize("NFC", name).casefold()


@final
class Places:
    """Finds the files of one list below a folder; a folder's names are asked for once.

    `prefix`: a folder below `root` that the paths are relative to.
    """

    def __init__(self, root: Path, prefix: str = "") -> None:
        self.root, self.prefix = root, prefix
        self._names: dict[str, dict[str, str]] = {}
        self._dropped = 0
        """Leading folders of a path that are those of another machine: as many as the last path had."""
        self.said: list[str] = []
        """A note where paths were read otherwise than written, with the first example."""

    def find(self, written: str) -> str | None:
        """The path below `root`, with ``/``, of a file as the list writes it; None where there is none.

        Read as they are meant: backslashes, ``./``, absolute paths, a repeated or another machine's folder, and an ending in
        capitals or not. What is read otherwise than written becomes a note.
        """
        written = PurePosixPath(written).as_posix()
        path = f"{self.prefix}/{written}" if self.prefix else written
        if (found := self._there(path)) == path:
            return found
        parts = [part for part in written.replace("\\", "/").split("/") if part not in ("", ".")]
        absolute = written.replace("\\", "/").startswith("/") or written[1:2] == ":"
        most = len(parts) - 1 if absolute or (self.prefix and parts[0] in self.prefix.split("/")) else 0
        for dropped in sorted(range(most + 1), key=lambda number: (number != self._dropped, number)):
            for prefix in dict.fromkeys((self.prefix, "")):
                found = self._there("/".join([*([prefix] if prefix else []), *parts[dropped:]]))
                if found is not None:
                    self._dropped = dropped
                    if found != written and not self.said:
                        note = f"paths are not written as the files are called: {written} is read as {found}, and others likewise."
                        self.said.append(note)
                    return found
        return self._there(written) if absolute else None

    def _there(self, path: str) -> str | None:
        """The path, or the one that differs in capitals or in the way to write accents alone; None where there is neither."""
        folder, _, name = path.rpartition("/")
        if folder and not os.path.isdir(self.root / folder):
            folder = self._there(folder) or folder
        if folder not in self._names:
            try:
                names = os.listdir(self.root / folder)
            except (OSError, ValueError):
                names = []
            plain: dict[str, str] = {}
            for one in names:
                plain[_plain(one)] = "" if _plain(one) in plain else one  # two that differ so: neither is meant
            self._names[folder] = {**plain, **{one: one for one in names}}
        names_there = self._names[folder]
        found = names_there.get(name) or names_there.get(_plain(name))
        return (f"{folder}/{found}" if folder else found) if found else None
