"""Testing a learned prompt on one set's test images: a record, the answers behind it, and a line per class."""

from __future__ import annotations

import csv
import io
import time
from pathlib import Path

import numpy as np

from vlprompt import artifact, atomic, records
from vlprompt.artifact import Learned
from vlprompt.data import Sample, read_split, restrict, split_hash
from vlprompt.engine.evaluate import check_classes, classifier_of, examine
from vlprompt.engine.run import SPLIT, recipe_template
from vlprompt.errors import DATA, UserError
from vlprompt.protocols.cells import Cell
from vlprompt.protocols.desk import Desk
from vlprompt.records import Predictions, Record

PER_CLASS = "per_class.csv"


def examine_cell(cell: Cell, learned_at: Path, directory: Path, desk: Desk) -> Record:
    """Test the prompt in `learned_at` and write the cell's record into `directory`, `result.json` last.

    UserError: no usable test images; a classifier for its own classes alone that is asked about others.
    """
    course = cell.course
    images = desk.images(course.model, course.dtype)
    learned = artifact.load(learned_at, images.clip)
    asked = restrict(desk.questions(cell.data), cell.subset)
    began, features_began = time.perf_counter(), images.seconds
    skipped = {skip.id: skip.reason for skip in asked.skipped}
    test = images.usable(asked.test, skipped, strict=False)
    if not test:
        raise UserError(f"{cell.dataset} has no test images that can be used.", exit_code=DATA)
    desk.encode(images, test, [None])
    names, words = asked.class_names, recipe_template(course.recipe, asked) or asked.template
    check_classes(learned.method.prompt, learned.class_names, names, solver=learned.method.solver, labelled=True)
    classifier = classifier_of(images.clip, learned.method, learned.prompt, names, words)
    examined = examine(classifier, test, images, template=words, class_names=names, model=course.model)
    learning = learned.facts["learning"]
    own = course.shots != 0 and (course.dataset, course.subset) == (cell.dataset, cell.subset)
    record = Record(
        method=learned.method.name,
        dataset=cell.dataset,
        protocol=cell.protocol,
        shots=course.shots,
        seed=course.seed,
        subset=cell.subset,
        source=_source(cell, learned),
        init=course.init_hash,
        recipe=course.recipe,
        options=dict(learned.method.options),
        epochs=learned.method.schedule.epochs if learned.method.schedule and course.shots != 0 else 0,
        split_hash=_split_hash(cell, learned_at, test, desk) if own else split_hash((), (), test),
        config_hash=learning.get("config_hash", ""),
        seconds=learning["seconds"] + time.perf_counter() - began,
        seconds_features=learning["seconds_features"] + images.seconds - features_began,
        num_train=learning["num_train"],
        num_val=learning["num_val"],
        skipped={**learning.get("skipped", {}), **skipped} if own else skipped,
        short_classes=learning.get("short_classes", {}),
        parameters=learned.num_parameters,
        **{**examined.fields, "val_top1": learning["val_top1"] if own else None},
    )
    assert examined.predictions is not None, "there are test images"
    atomic.write_text(directory / PER_CLASS, per_class(examined.predictions, names))
    records.write(directory, record, examined.predictions)
    return record


def _source(cell: Cell, learned: Learned) -> str:
    """The set that the prompt was learned from, where that is another than the cell's."""
    origin = str(learned.facts["dataset"])
    return origin if origin != cell.dataset else ""


def _split_hash(cell: Cell, learned_at: Path, test: tuple[Sample, ...], desk: Desk) -> str:
    """Of the sample that was learned from and chosen by, and of the test images."""
    material = restrict(desk.material(cell.data), cell.subset)
    split = read_split(learned_at / SPLIT, material)
    return split_hash(split.train, split.val, test)


def per_class(answers: Predictions, class_names: tuple[str, ...]) -> str:
    """A CSV with a line per class: test images, how often it was answered, recall, precision and F1 in percent.

    What cannot be measured (recall without images, precision without answers) is empty.
    """
    file = io.StringIO()
    writer = csv.writer(file, lineterminator="\n")
    writer.writerow(("class", "images", "answered", "right", "recall", "precision", "f1"))
    for label, name in enumerate(class_names):
        of, answered = answers.label == label, answers.predicted == label
        images, times, right = (int(np.count_nonzero(one)) for one in (of, answered, of & answered))
        shares = [(right, images), (right, times), (2 * right, images + times)]
        writer.writerow((name, images, times, right, *(f"{100 * a / b:.4f}" if b else "" for a, b in shares)))
    return file.getvalue()
