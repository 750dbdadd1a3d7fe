"""Which files can be images, told from name, kind and size alone: nothing is opened."""

from __future__ import annotations

import errno
import os
import stat
from pathlib import Path, PurePath

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


def has_image_name(name: str) -> bool:
    """Whether the name ends as an image's does."""
    return os.path.splitext(name)[1].lower() in SUFFIXES  # much faster than a PurePath, for millions of names


def refusal(path: str | Path) -> tuple[str | None, int]:
    """Why the file at `path` cannot be an image (None: it may be one), and its size in bytes."""
    try:
        facts = os.stat(path)
    except OSError as error:
        return _no_file(path, error), 0
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
