"""A learned prompt on other images: the test images of any data set, with that set's class names."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

from vlprompt import artifact, reading, records
from vlprompt.artifact import Learned
from vlprompt.data import Dataset, Sample, Split, open_dataset, restrict, split_by_rule, split_hash, write_split
from vlprompt.data.listing import some
from vlprompt.data.splits import Subset, fewer_tests
from vlprompt.engine.evaluate import Questions
from vlprompt.engine.images import open_model
from vlprompt.engine.job import SPLIT, Learning
from vlprompt.engine.job import test as examined
from vlprompt.engine.observer import SILENT, Observer
from vlprompt.errors import UserError, data_error
from vlprompt.records import Record
from vlprompt.types import plain_name

Among = Literal["own", "learned"]


def evaluate_run(
    run: Path,
    data: str,
    *,
    model: str | None = None,
    subset: Subset = "all",
    classes: Among = "own",
    template: str | None = None,
    device: str = "auto",
    dtype: str = "float32",
    cache: Path | None = None,
    max_test: int | None = None,
    strict: bool = False,
    out: Path | None = None,
    observer: Observer = SILENT,
) -> list[Record]:
    """Test every finished seed of a run directory, or one artifact, on a data set.

    classes: whether images are asked about among the data set's classes, or among all that the prompt was learned on.
    max_test: at most so many test images (`fewer_tests`).
    model: where the backbone is now, if not where the prompt says. out: where records and predictions are written, a
    directory per seed; None: nowhere (a run's own records are never touched). UserError as `train_run`, and where a
    class-specific context is asked about other classes.
    """
    places = artifact.artifacts(run)
    images = open_model(model or artifact.read_facts(places[0])["model"], dtype, device, cache, observer)
    dataset = open_dataset(data, strict=strict, to_learn=False)
    skipped = {skip.id: skip.reason for skip in dataset.skipped}
    out_records = []
    for place in places:
        learned = artifact.load(place, images.clip)
        chosen = restrict(divided(dataset, data, place, learned, observer), subset)
        chosen = among(chosen, data, learned.class_names, classes, observer)
        chosen = fewer_tests(chosen, max_test)
        test = images.usable(chosen.test, skipped, strict=strict)
        if not test:
            raise data_error(f"{data} has no test images that can be used.")
        _refuse_seen(test, place, data)
        same = learned.facts.get("dataset") == dataset.name
        asked = Questions(
            dataset=dataset.name,
            class_names=chosen.class_names,
            samples=test,
            template=template or dataset.template,
            split_hash=split_hash((), (), test),
            protocol="cross-dataset" if not same else "few-shot" if subset == "all" else "base-to-novel",
            subset=subset,
            skipped=skipped,
            test_of=chosen.test_of,
            words=str(learned.facts.get("hand_written", "")),
        )
        own_hash = records.read(place).config_hash if records.finished(place) else ""
        record, answers = examined(learned, Learning(config_hash=own_hash), asked, images, recipe_hash="")
        if out is not None:
            write_split(out / f"seed{record.seed}" / SPLIT, Split(train=(), val=(), test=test), dataset=dataset.name)
            records.write(out / f"seed{record.seed}", record, answers)
        observer.finished(record)
        out_records.append(record)
    return out_records


def among(dataset: Dataset, data: str, learned: Sequence[str], classes: Among, observer: Observer) -> Dataset:
    """The data set with the classes that its images are asked about; labels follow names, never places.

    Where it has some of the learned classes, or others too, that is said, with the other reading. UserError: one class alone; none of
    the learned ones where those are asked about.
    """
    names = dataset.class_names
    known = {plain_name(name): label for label, name in enumerate(learned)}
    shared = [name for name in names if plain_name(name) in known]
    new = [name for name in names if plain_name(name) not in known]
    absent = [name for name in learned if plain_name(name) not in {plain_name(one) for one in names}]
    if classes == "own":
        if len(names) < 2:
            other = f" --classes learned asks about it among the {len(learned)} learned classes." if shared else ""
            raise data_error(f"{data} has one class only ({names[0]!r}), so every answer would be right.{other}")
        if shared and absent:
            observer.note(
                f"{data} has {len(shared)} of the {len(learned)} learned classes; it lacks {some(absent)}. Accuracy is among its "
                f"{len(names)} classes. --classes learned asks among all {len(learned)}."
            )
        if shared and new:
            observer.note(
                f"{data} has classes that were not learned: {some(new)}. They are asked about by their names."
            )
        return dataset
    if not shared:
        raise data_error(f"{data} has none of the learned classes ({some(list(learned))}). Leave out --classes.")
    if new:
        observer.note(f"{data} has classes that were not learned: {some(new)}. Their images are left out.")
    having = [
        [known[key] for one in sample.labels if (key := plain_name(names[one])) in known] for sample in dataset.test
    ]
    test = tuple(
        dataclasses.replace(sample, label=labels[0], also=tuple(labels[1:]))
        for sample, labels in zip(dataset.test, having, strict=True)
        if labels
    )
    return dataclasses.replace(dataset, class_names=tuple(learned), train=(), val=(), test=test)


def divided(dataset: Dataset, data: str, place: Path, learned: Learned, observer: Observer) -> Dataset:
    """The data set with its test part.

    One without parts is divided by the rule if the prompt was learned from it (or if nothing is known of that): no training
    image is tested. Otherwise all its images are test images.
    """
    if dataset.divided:
        return dataset
    seen = _seen(place)
    if seen is None or any(_is_among(sample, seen) for sample in dataset.train):
        observer.note(
            f"{data} has no test folder and may hold training images: tested on the 30 % that are never trained on."
        )
        return split_by_rule(dataset)
    observer.note(
        f"{data} has no test folder and no image that {learned.method.name} has seen: tested on all its images."
    )
    return dataclasses.replace(dataset, train=(), test=dataset.train, divided=True)


def _seen(place: Path) -> frozenset[str] | None:
    """SHA-256 of the images that a run's seed learned from or chose by; None of a prompt that was saved by itself: it does not say."""
    path = place / SPLIT
    if not path.is_file():
        return None
    seen = reading.json_object(path).get("seen")
    if not reading.fits(seen, list[str]):
        raise data_error(f"{path} is damaged: it lacks the list of images that were seen.")
    return frozenset(seen or ())


def _is_among(sample: Sample, seen: frozenset[str]) -> bool:
    try:
        return sample.content_hash in seen
    except UserError:  # it cannot be read, and the output says so where it is asked for
        return False


def seen_among(test: Sequence[Sample], place: Path) -> list[str]:
    """Ids of the test images that the prompt in `place` learned from or was chosen by, by their bytes."""
    seen = _seen(place) or frozenset()
    return [sample.id for sample in test if _is_among(sample, seen)]


def _refuse_seen(test: Sequence[Sample], place: Path, data: str) -> None:
    if known := seen_among(test, place):
        raise data_error(
            f"{len(known)} of the {len(test)} test images of {data} were learned from, or chosen by: {some(known, 3)}. Accuracy on them "
            "means nothing. Remove them from the test images, or test on other images."
        )
