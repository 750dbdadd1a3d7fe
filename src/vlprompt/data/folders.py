"""A folder of class folders, alone or under train, val and test."""

from __future__ import annotations

import difflib
import errno
import functools
import os
import re
import stat
import unicodedata
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path, PurePath

from vlprompt.data.class_names import is_code, published_file, read_class_names
from vlprompt.data.listing import Entry, Listing, read_file, some
from vlprompt.data.samples import PARTS, Part, Skipped, part_of
from vlprompt.disk import LOCK
from vlprompt.errors import UserError, data_error

DEEPEST = 100
"""Folders in each other, below a class, that are looked into."""
LAYOUT = "Expected CLASS/image.jpg, or train/CLASS/image.jpg (and val/..., test/...)."


@dataclass(slots=True)
class _Scan:
    """The state of reading one folder."""

    root: Path
    entries: list[Entry] = field(default_factory=list)
    class_keys: set[str] = field(default_factory=set)
    skipped: list[Skipped] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    empty: list[str] = field(default_factory=list)
    """Folders without a picture, where classes lie."""
    recoded: list[str] = field(default_factory=list)
    """Names whose bytes are not UTF-8, as they are read."""

    def skip(self, path: Path, reason: str) -> None:
        self.skipped.append(Skipped(self.id_of(path), reason))

    def id_of(self, path: Path) -> str:
        return as_text(path.relative_to(self.root).as_posix())


def scan_folder(root: Path) -> Listing:
    """List a folder by names and sizes; no file is opened.

    Links are followed; one that leads back into a folder that is being read is skipped. Files that cannot be images are
    skipped with the reason, system clutter silently. A folder without a picture, and one that vlprompt wrote, are not classes.
    UserError where images and class folders lie otherwise than expected.
    """
    scan = _Scan(root)
    folders, files = _children(scan, root)
    ours = [folder for folder in folders if _ours(folder)]
    folders = [folder for folder in folders if folder not in ours]
    scan.notes += [f"{folder.name}/ holds what vlprompt wrote, and is not read." for folder in ours]
    for path in files:
        if has_image_name(path.name):
            scan.skip(path, "an image outside the class folders")
        elif re.fullmatch(r"split.*\.json", path.name):
            scan.notes.append(
                f"{path.name} is not read, since this is none of the papers' sets: give a table of path, label, split."
            )
    if not folders:
        where = f"{len(scan.skipped)} images lie directly in it" if scan.skipped else "it holds no folders"
        raise _layout_error(root, where)
    # An archive's own folder: one folder alone is not a set of classes.
    while len(folders) == 1 and part_of(folders[0].name) is None and _peek(folders[0]) == "folders":
        folders = _children(scan, folders[0])[0]
    parts = _part_folders(scan, folders)
    if parts is None:
        _refuse_unnamed_parts(scan, folders)
        _scan_classes(scan, folders, None, {_real(root)})
    else:
        for part, folder in parts.items():
            classes, loose = _children(scan, folder)
            for path in loose:
                if has_image_name(path.name):
                    scan.skip(path, "an image outside the class folders")
            _scan_classes(scan, classes, part, {_real(root), _real(folder)})
    if scan.empty and scan.entries:
        empty = list(dict.fromkeys(scan.empty))
        scan.notes.append(
            f"no picture in {some([f'{name}/' for name in empty])}, which {'are' if len(empty) > 1 else 'is'} not used."
        )
    if scan.recoded:
        scan.notes.append(f"names that are not UTF-8 are read as Latin-1: {some(list(dict.fromkeys(scan.recoded)))}.")
    keys = tuple(sorted(scan.class_keys))
    own_names, said = names_beside(root, keys)
    return Listing(
        name=root.resolve().name,
        class_keys=keys,
        own_names=own_names,
        entries=tuple(scan.entries),
        skipped=tuple(sorted(scan.skipped)),
        notes=(*scan.notes, *said),
    )


def names_beside(root: Path, keys: tuple[str, ...]) -> tuple[tuple[str, ...], list[str]]:
    """(names, notes): the classes' names of the file in the folder that says what WordNet ids and numbers mean; () where none does.

    Names follow the keys, never the order of the lines.
    """
    path = published_file(root) if keys and all(is_code(key) for key in keys) else None
    if path is None:
        return (), []
    known = read_class_names(path, keys)
    nameless = [key for key in keys if not known.get(key)]
    if nameless:
        return (), [f"{path.name} says nothing of {some(nameless)}, and so is not used."]
    return tuple(known[key].split(",")[0] for key in keys), [f"the classes' names are those of {path.name}."]


def _part_folders(scan: _Scan, folders: list[Path]) -> dict[Part, Path] | None:
    """The folders that are train, val and test; None where all folders are classes (one may be called 'train')."""
    named = [folder for folder in folders if part_of(folder.name) is not None]
    others = [folder for folder in folders if folder not in named]
    inside = {folder: _peek(folder) for folder in folders}
    holders = [folder for folder in named if inside[folder] == "folders"]
    bare = [folder for folder in named if inside[folder] == "images"]
    if bare and not others and {part_of(folder.name) for folder in holders} in (set(), {"train"}, {"val"}, {"test"}):
        raise _layout_error(scan.root, f"images lie directly in {some([f'{folder.name}/' for folder in bare])}")
    if not holders:
        return None
    classlike = [folder.name for folder in others if inside[folder] == "images"]
    if classlike:
        raise _layout_error(
            scan.root, f"{holders[0].name}/ is divided into folders while {some(classlike)} next to it hold images"
        )
    for folder in bare:
        scan.skip(folder, "images without class folders, whose classes nobody knows")
        scan.notes.append(f"{folder.name}/ holds images without class folders, and is not used.")
        named.remove(folder)
    parts: dict[Part, Path] = {}
    for folder in named:
        part = part_of(folder.name)
        assert part is not None
        if part in parts:
            raise data_error(f"{scan.root}: {parts[part].name!r} and {folder.name!r} both mean {part}: keep one.")
        parts[part] = folder
    for folder in others:
        near = difflib.get_close_matches(folder.name.casefold(), [name for name in PARTS if name not in parts], n=1)
        if near:
            raise data_error(
                f"{scan.root}: the folder {folder.name!r} is not a part of a data set. Did you mean {near[0]!r}? "
                "Allowed: train, val, test."
            )
        scan.skip(folder, "a folder that is neither train, val nor test")
        scan.notes.append(f"{folder.name}/ is neither train, val nor test, and is not used.")
    return {part: _innermost(scan, folder) for part, folder in parts.items()}


def _innermost(scan: _Scan, folder: Path) -> Path:
    """The folder that holds the classes: ``seg_train/seg_train``, ``train/images`` are one folder in another."""
    while len(folders := _children(scan, folder)[0]) == 1 and _peek(folders[0]) == "folders":
        folder = folders[0]
    return folder


def _refuse_unnamed_parts(scan: _Scan, folders: list[Path]) -> None:
    """UserError where folders are parts (or domains), not classes: since all of them hold the same folders, or by their names."""
    every = [{child.name for child in _children(_Scan(scan.root), folder)[0]} for folder in folders]
    named = [bool(_UNNAMED.fullmatch(one.name.casefold()) or part_of(one.name)) for one in folders]
    holders = [place for place, names in enumerate(every) if names]
    shared = set.intersection(*(every[place] for place in holders)) if len(holders) > max(1, len(every) // 2) else set()
    if len(shared) > 1 and (len(holders) == len(folders) or all(named[place] for place in holders)):
        parts = [f"{folders[place].name}/" for place in holders]
        raise data_error(
            f"{scan.root}: {some(parts)} hold the same folders ({some(sorted(shared))}), so these look like the classes. Are they "
            "train/ and test/? Rename them (train, val, test), or give one of them as the data."
        )
    if len(folders) > 1 and all(named):
        raise data_error(
            f"{scan.root}: {some([folder.name + '/' for folder in folders])} look like parts of a data set, not like classes. Rename "
            "them (train, val, test), or give one of them as the data."
        )


_UNNAMED = re.compile(
    r"trn|tst|tr|te|ts|vld|eval|evaluation|hold[ _-]?out|held[ _-]?out|(train|val|valid|test|fold|split|part)[ _-]?\d+"
)
"""Names of parts that are not read as such."""


def _scan_classes(scan: _Scan, folders: list[Path], part: Part | None, above: set[str]) -> None:
    for folder in folders:
        real = _real(folder)
        if real in above:
            scan.skip(folder, "a link in a circle")
            continue
        key = unicodedata.normalize("NFC", as_text(folder.name))  # macOS takes accents apart
        files = list(_walk(scan, folder, above | {real}))
        if not any(has_image_name(path.name) or PurePath(path).suffix.lower() in _ADVICE for path in files):
            scan.skip(folder, "a folder without a picture")
            scan.empty.append(key)
            continue
        scan.class_keys.add(key)
        for path in files:
            reason, size = refusal(path)
            if reason:
                scan.skip(path, reason)
                continue
            read = functools.partial(read_file, str(path))
            scan.entries.append(Entry(id=scan.id_of(path), class_key=key, part=part, source=read, size=size))


def _walk(scan: _Scan, folder: Path, seen: set[str]) -> Iterator[Path]:
    """All files below a folder. Every real folder is entered once, so links in circles end."""
    waiting = [(folder, 0)]
    while waiting:
        here, depth = waiting.pop()
        if depth > DEEPEST:
            scan.skip(here, f"more than {DEEPEST} folders deep")
            continue
        if depth and (real := _real(here)) in seen:
            scan.skip(here, "a link in a circle, or a second link to one folder")
            continue
        seen |= {real} if depth else set()
        folders, files = _children(scan, here)
        yield from files
        waiting += [(child, depth + 1) for child in reversed(folders)]


def _children(scan: _Scan, folder: Path) -> tuple[list[Path], list[Path]]:
    """Folders (links to folders too) and everything else in a folder, sorted, without clutter."""
    try:
        with os.scandir(folder) as found:
            children = sorted(found, key=lambda child: child.name)
    except OSError as error:
        if folder == scan.root:
            raise data_error(f"{folder}: cannot be read ({error.strerror}).") from error
        scan.skip(folder, f"cannot be read ({error.strerror})")
        return [], []
    folders: list[Path] = []
    files: list[Path] = []
    for child in children:
        if hidden(child.name):
            if _is_folder(child) and _peek(folder / child.name) == "images":
                scan.notes.append(
                    f"{child.name}/ holds images, but a name with a dot in front is not read. Rename it if it is a class."
                )
            continue
        if not child.name.isascii() and (name := as_text(child.name)).encode() != os.fsencode(child.name):
            if any(other.name == name for other in children):
                scan.skip(folder / child.name, "a name that is not UTF-8, next to the same name in UTF-8: rename it")
                continue
            scan.recoded.append(name)
        (folders if _is_folder(child) else files).append(folder / child.name)
    return folders, files


def as_text(name: str) -> str:
    """A file's name as its bytes say it in UTF-8, whatever the locale takes them for; bytes that are not UTF-8 are read as Latin-1."""
    if name.isascii():
        return name
    written = os.fsencode(name)
    try:
        return written.decode("utf-8")
    except UnicodeError:
        return written.decode("latin-1")


def _ours(folder: Path) -> bool:
    """Whether vlprompt wrote a folder: a run, or `runs` with some in it."""
    if folder.name == "runs":
        return next(folder.rglob(LOCK), None) is not None
    return (folder / LOCK).is_file() and _peek(folder) != "images"


def _is_folder(child: os.DirEntry[str]) -> bool:
    """Whether it is a folder or a link to one; a link in a circle is not. Plain files are told without asking the disk."""
    return os.path.isdir(child.path) if child.is_symlink() else child.is_dir()


def _peek(folder: Path) -> str:
    """What a folder holds: ``folders`` (and perhaps loose images), ``images``, or nothing of both (``""``)."""
    try:
        with os.scandir(folder) as children:
            images = False
            for child in children:
                if hidden(child.name):
                    continue
                if _is_folder(child):
                    return "folders"
                images = images or has_image_name(child.name)
    except OSError:
        return ""  # the scan itself meets the same error and reports it
    return "images" if images else ""


def _real(path: Path) -> str:
    return os.path.realpath(path)


def _layout_error(root: Path, seen: str) -> UserError:
    tables = [path for path in (root / "metadata.csv", root / "metadata.jsonl") if path.is_file()]
    table = f" Or is its table meant? Then give {tables[0]}." if tables else ""
    return data_error(f"{root}: {seen}. {LAYOUT}{table}")


SUFFIXES = frozenset(
    (
        *(".jpg", ".jpeg", ".jpe", ".jfif", ".jp2", ".png", ".webp", ".gif", ".bmp", ".tif", ".tiff", ".avif", ".tga"),
        *(".ico", ".ppm", ".pgm", ".pbm", ".pnm"),
    )
)
"""What Pillow reads without further packages."""
_CLUTTER = frozenset(("thumbs.db", "desktop.ini", "__macosx"))
_ADVICE = {
    ".svg": "a vector drawing (SVG), not pixels: export it as PNG",
    ".svgz": "a vector drawing (SVG), not pixels: export it as PNG",
    ".heic": "HEIC is not supported: convert it to JPEG or PNG",
    ".heif": "HEIC is not supported: convert it to JPEG or PNG",
}


def hidden(name: str) -> bool:
    """Whether a file or folder is the system's own clutter (``.DS_Store``, ``Thumbs.db``), to be passed over in silence."""
    return name.startswith(".") or name.casefold() in _CLUTTER


def children(folder: Path) -> list[os.DirEntry[str]]:
    """What is in a folder, sorted by name, without clutter. UserError: it cannot be read."""
    try:
        with os.scandir(folder) as found:
            return sorted((child for child in found if not hidden(child.name)), key=lambda child: child.name)
    except OSError as error:
        raise data_error(f"{folder}: cannot be read ({error.strerror}).") from error


def folder_names(folder: Path) -> list[str]:
    """The names of the folders in a folder, sorted."""
    return [child.name for child in children(folder) if child.is_dir()]


def has_image_name(name: str) -> bool:
    """Whether the name ends as an image's does."""
    return os.path.splitext(name)[1].lower() in SUFFIXES  # much faster than a PurePath, for millions of names


def refusal(path: str | Path) -> tuple[str | None, int]:
    """Why the file at `path` cannot be an image (None: it may be one), and its size in bytes."""
    try:
        facts = os.stat(path)
    except OSError as error:
        return _no_file(path, error), 0
    except ValueError:  # a byte of zero in it
        return "no such file", 0
    if not stat.S_ISREG(facts.st_mode):
        return "a folder, not a file" if stat.S_ISDIR(facts.st_mode) else "not a regular file", 0
    suffix = PurePath(path).suffix.lower()
    if suffix not in SUFFIXES:
        return _ADVICE.get(suffix, f"not an image file ({suffix or 'no ending'})"), facts.st_size
    if facts.st_size == 0:
        return "an empty file (0 bytes)", 0
    return None, facts.st_size


def _no_file(path: str | Path, error: OSError) -> str:
    if error.errno == errno.ELOOP:
        return "a link in a circle"
    if error.errno == errno.ENOENT:
        return "a link to nothing" if os.path.islink(path) else "no such file"
    return error.strerror or str(error)
