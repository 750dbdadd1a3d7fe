"""What one of the papers' data sets is: a frozen row, with the addresses that its files can be fetched from."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

from vlprompt.data.samples import Decoding

UNKNOWN = "unknown"
Reader = Literal[
    "folders", "pets", "cars", "flowers", "aircraft", "sun", "ucf", "imagenet", "numbered", "wordnet", "21k", "idx"
]


@dataclass(frozen=True, slots=True, kw_only=True)
class Address:
    """One place that a file can be fetched from, and who says so."""

    url: str
    source: str
    """Where the address stands in public."""
    checksum: str = UNKNOWN
    """``md5:...`` or ``sha256:...`` of the file."""
    checksum_source: str = UNKNOWN
    size: int | None = None
    """Bytes, where published."""
    name: str = ""
    """Of the file, where the address does not end with it."""

    @property
    def file(self) -> str:
        """The name that the file is kept under while it is fetched."""
        return self.name or self.url.partition("?")[0].rstrip("/").rsplit("/", 1)[-1]


@dataclass(frozen=True, slots=True, kw_only=True)
class Download:
    """One file of a data set, and its mirrors in the order in which they are tried."""

    gives: tuple[str, ...]
    """What stands in the data set's folder afterwards; it is not fetched again while all of it is there."""
    mirrors: tuple[Address, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class SetRow:
    """One data set of the papers."""

    name: str
    """What ``--data`` takes."""
    title: str
    """As the papers write it."""
    directory: str
    """Below the data root."""
    reader: Reader
    """How it is read where there is no split file."""
    images: tuple[str, ...]
    """Folders of images, relative to `directory`."""
    prefix: str = ""
    """What the paths in the split file are relative to."""
    split: str = ""
    """The published split file; empty: the data set has official parts."""
    needs: tuple[str, ...] = ()
    """Files that are read where there is no split file."""
    decoding: Decoding = "published"
    """How its files become RGB: as the published code reads them, or ``upright`` as everybody else's."""
    template: str
    aliases: tuple[str, ...] = ()
    ignored: tuple[str, ...] = ()
    """Folders that are not classes."""
    renamed: Mapping[str, str] = field(default_factory=dict)
    """Folder -> class name, where the published code changes it."""
    classes: int
    sizes: tuple[int | None, int | None, int | None]
    """Published numbers of training, validation and test images; None: no such part."""
    sizes_source: str
    licence: str
    """What is said of it, and by whom; unknown where nothing was found."""
    downloads: tuple[Download, ...] = ()
    manual: tuple[str, ...] = ()
    """Steps for people, where a login or a browser is needed."""

    @property
    def wanted(self) -> tuple[str, ...]:
        """All that belongs in the folder, relative to it."""
        return (*self.images, *((self.split,) if self.split else self.needs))


CLASS_NAMES = "classnames.txt"
