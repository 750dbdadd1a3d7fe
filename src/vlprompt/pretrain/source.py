"""What `--data` of pretraining means: shards, an ImageNet-21K folder, the pocket's pretraining set, or any other data set."""

from __future__ import annotations

from pathlib import Path

from vlprompt import pocket
from vlprompt.data import (
    Corpus,
    Dataset,
    Listed,
    Spool,
    few_shot,
    is_imagenet21k,
    is_shards,
    open_dataset,
    open_imagenet21k,
    open_shards,
    read_class_names,
)
from vlprompt.data.class_names import named
from vlprompt.data.listing import some
from vlprompt.data.papers import catalogue
from vlprompt.errors import UserError, data_error

POCKET = "pocket"
"""The name of the pocket's pretraining set for `--data`."""


def open_corpus(source: str, cache: Path, *, shots: int | None, seed: int, class_names: Path | None = None) -> Corpus:
    """The images and class names that `source` means: a few-shot sample, but of shards all.

    cache: where fetched shards are kept. class_names: their file; None: found near the data. UserError: as the openers of each kind.
    """
    if source == POCKET:
        found = pocket.names("pretraining")
        if not found:
            raise data_error(
                "this version's embedded images have no pretraining set. Give --data a folder, shards, or an embedded set by name "
                f"({some(pocket.names())})."
            )
        source = found[0]
    path = Path(source).expanduser()
    row = None if path.is_dir() else catalogue.find(source)
    if row is not None and row.reader == "21k":
        place = catalogue.place(source)
        if place is None or not place.is_dir():
            raise catalogue.not_there(row, source, place)
        path = place
    if source not in pocket.names() and path.is_dir() and is_imagenet21k(path):
        return open_imagenet21k(path, names_file=class_names, shots=shots, seed=seed)
    if is_shards(source):
        names = read_class_names(class_names) if class_names else None
        return open_shards(source, names=names, spool=Spool(cache / "shards"))
    if class_names is not None:
        raise UserError(
            f"--class-names is for ImageNet-21K folders and shards; the classes of {source} are called after its folders.",
        )
    return of_dataset(open_dataset(source), shots, seed)


def of_dataset(dataset: Dataset, shots: int | None, seed: int) -> Corpus:
    """A listed data set: the few-shot sample of its training images; its validation images held out, else its test images.

    Without parts nothing is held out.
    """
    sample = few_shot(dataset, shots, seed)
    part = "val" if dataset.val or not dataset.test else "test"
    *_, odd = named(dataset.class_names, {name: name.replace(",", " ") for name in dataset.class_names})
    notes = (
        [f"fewer than {shots} training images in {len(sample.short)} classes; all of them are used."]
        if sample.short
        else []
    )
    if count := len(dataset.skipped):
        notes.append(f"{count} {'file was' if count == 1 else 'files were'} skipped; `vlprompt data check` lists them.")
    return Corpus(
        name=dataset.name,
        class_names=dataset.class_names,
        template=dataset.template,
        train=Listed(sample.train),
        held_out=Listed(dataset.val if part == "val" else dataset.test),
        held_out_part=part,
        notes=(*notes, *odd),
    )
