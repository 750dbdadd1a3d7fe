"""ImageNet-21K-P and folders like it: train and val folders of class folders, names in a file next to them.

Listed by class, one string per class, so eleven million files take some hundred megabytes and few-shot samples next to none.
"""

from __future__ import annotations

import functools
import os
import random
from collections import OrderedDict
from collections.abc import Sequence
from pathlib import Path

from vlprompt.data.class_names import WORDNET_ID, named, published_file, read_class_names
from vlprompt.data.folders import children, folder_names, has_image_name, hidden
from vlprompt.data.large.corpus import Corpus, Offsets, listed_identity
from vlprompt.data.listing import read_file, some
from vlprompt.data.samples import Sample
from vlprompt.errors import data_error

PARTS = {"train": ("imagenet21k_train", "train"), "val": ("imagenet21k_val", "val", "validation")}
"""Part -> names of its folder, the published one first."""
KEPT = 64
"""Classes whose file names are held as a list at once."""


class ClassFolders:
    """A pool of the files in class folders; an image's number runs over the classes in order, in each over its sorted files."""

    runs = None

    def __init__(
        self, root: Path, folders: Sequence[str], labels: Sequence[int], files: Sequence[Sequence[str]]
    ) -> None:
        """files: per class; root / folder / file is the image."""
        self.root, self.folders, self.labels = root, tuple(folders), tuple(labels)
        self._joined = tuple("/".join(names) for names in files)
        self._offsets = Offsets([len(names) for names in files])
        self._split: OrderedDict[int, list[str]] = OrderedDict()

    def __len__(self) -> int:
        return len(self._offsets)

    def sample(self, index: int) -> Sample:
        place, number = self._offsets.place(index)
        name = self._names(place)[number]
        path = self.root / self.folders[place] / name
        return Sample(
            id=f"{self.root.name}/{self.folders[place]}/{name}",
            label=self.labels[place],
            source=functools.partial(read_file, str(path)),
            decoding="published",
        )

    def _names(self, place: int) -> list[str]:
        if place not in self._split:  # no lru_cache: a pool is sent to other processes
            self._split[place] = self._joined[place].split("/")
            if len(self._split) > KEPT:
                self._split.popitem(last=False)
        return self._split[place]

    @property
    def identity(self) -> str:
        return listed_identity(
            f"{label} {folder} {names}" for label, folder, names in zip(self.labels, self.folders, self._joined)
        )


def is_imagenet21k(root: Path) -> bool:
    """Whether a folder has the layout: a train folder whose folders are called after WordNet ids, or one of the published name."""
    train = part_folder(root, "train")
    if train is None:
        return False
    if train.name == PARTS["train"][0]:
        return True
    with os.scandir(train) as found:
        first = next((child.name for child in found if child.is_dir() and not hidden(child.name)), "")
    return WORDNET_ID.fullmatch(first) is not None


def part_folder(root: Path, part: str) -> Path | None:
    """The folder of a part; None where there is none."""
    return next((root / name for name in PARTS[part] if (root / name).is_dir()), None)


def open_imagenet21k(root: Path, *, names_file: Path | None = None, shots: int | None = None, seed: int = 42) -> Corpus:
    """The training and validation images of a folder in the layout.

    names_file: None: the published file in the folder or above it, else the folders' own names. shots: images per class; drawn as
    published (Python's generator seeded once, classes in order, each from its sorted files); None: all. A class without a name or
    without training images is left out and reported. UserError: another layout, or fewer than two classes.
    """
    train, val = part_folder(root, "train"), part_folder(root, "val")
    if train is None:
        wanted = " or ".join(f"{name}/" for name in PARTS["train"])
        raise data_error(f"{root}: there is no {wanted} in it.")
    keys = folder_names(train)
    file = names_file or published_file(root)
    names = read_class_names(file) if file else {key: key for key in keys}
    kept, chosen, odd = named(keys, names)
    stream = random.Random(seed)
    files, bare = {}, []
    for key in kept:
        found = _images(train / key)
        if found:
            files[key] = stream.sample(found, shots) if shots is not None and len(found) >= shots else found
        else:
            bare.append(key)
    pairs = [(key, name) for key, name in zip(kept, chosen, strict=True) if key in files]
    if len(pairs) < 2:
        raise data_error(f"{root}: {len(pairs)} of {len(keys)} class folders have a name and images; two are needed.")
    label_of = {key: label for label, (key, _) in enumerate(pairs)}
    return Corpus(
        name=root.resolve().name,
        class_names=tuple(name for _, name in pairs),
        train=ClassFolders(train, list(files), [label_of[key] for key in files], list(files.values())),
        held_out=_held_out(val, label_of),
        notes=_notes(file, odd, bare, shots, files),
    )


def _held_out(val: Path | None, label_of: dict[str, int]) -> ClassFolders:
    if val is None:
        return ClassFolders(Path("val"), [], [], [])
    keys = [key for key in folder_names(val) if key in label_of]
    return ClassFolders(val, keys, [label_of[key] for key in keys], [_images(val / key) for key in keys])


def _notes(
    file: Path | None, odd: Sequence[str], bare: Sequence[str], shots: int | None, files: dict[str, list[str]]
) -> tuple[str, ...]:
    out = [f"class names from {file}." if file else "no class-name file was found; folders' names are the class names."]
    out += odd
    if bare:
        out.append(f"{len(bare)} classes have no training image and are left out: {some(bare)}.")
    short = [key for key, names in files.items() if shots is not None and len(names) < shots]
    if short:
        out.append(
            f"{len(short)} classes have fewer than {shots} training images; all of them are used: {some(short)}."
        )
    return tuple(out)


def _images(folder: Path) -> list[str]:
    return [child.name for child in children(folder) if has_image_name(child.name)]
