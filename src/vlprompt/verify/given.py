"""What the published implementations were given, rebuilt: weights, images, class names, learned tensors, and the method here."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import cache
from typing import Any

import torch
from torch import Tensor

from vlprompt.data import Sample
from vlprompt.engine.precision import generator
from vlprompt.engine.train import Lesson, Order
from vlprompt.errors import UserError, data_error
from vlprompt.methods.resolve import resolve
from vlprompt.prompts.start import misfits
from vlprompt.towers import Clip, assemble
from vlprompt.towers.formats.files import Source
from vlprompt.towers.formats.openai import config_of
from vlprompt.towers.tokenizer import clip_tokenizer
from vlprompt.types import Ensemble, Method, Preprocess, Steps
from vlprompt.verify import names
from vlprompt.verify.parity import Folder, drawn_images, drawn_tensors, drawn_weights

HALF = (0.5, 0.5, 0.5)
"""Mean and deviation of an image transform that is never used: the cases bring pixels."""
CTX = "ctx"


@dataclass(frozen=True, slots=True, kw_only=True)
class CaseInputs:
    """One case's inputs, on the device."""

    name: str
    source: str
    """Repository and file that the numbers come from."""
    clip: Clip
    method: Method | None
    """With the published tensors to start from; None: the bare towers."""
    config: Mapping[str, Any]
    lesson: Lesson
    pixels: Tensor
    """(B, 3, H, W), on the CPU."""
    official: Mapping[str, str]
    """A learned tensor's name here -> the published one."""

    @property
    def trains(self) -> bool:
        """Whether it is a whole training run, not one pass."""
        return self.lesson.order is not None and len(self.lesson.order.images) > 0

    @property
    def labels(self) -> Tensor:
        """(B,) int64, on the device."""
        return torch.tensor([sample.label for sample in self.lesson.samples], device=self.clip.device)


@contextmanager
def telling(where: str) -> Iterator[None]:
    """What is wrong with a case, as a UserError that names it."""
    try:
        yield
    except UserError as problem:
        raise data_error(f"{where}: {problem}") from problem
    except KeyError as problem:
        raise data_error(f"{where} has no {problem}.") from problem
    except (TypeError, ValueError, IndexError, AttributeError, OverflowError, MemoryError) as problem:
        raise data_error(f"{where} is not as parity/README.md has it ({problem}).") from problem


def given(folder: Folder, case: Mapping[str, Any], device: str, dtype: str) -> CaseInputs:
    """Rebuild a case's inputs; the towers hold their weights in `dtype` and are shared by all cases. UserError: a malformed case."""
    index, config = folder.index(), case["config"]
    weights, images = index["weights"], index["images"]
    if "manifest" in config:  # a case with its own towers and images
        weights = {"manifest": config["manifest"], "seed": config["weights_seed"]}
        images = {"batch": config["batch"], "size": config["size"], "seed": config["images_seed"]}
        config = {key: config[key] for key in config.keys() & names.INPUTS}
    clip = _towers(folder.manifest(weights["manifest"]), weights["seed"], device, dtype)
    labels, classes = index["labels"][: images["batch"]], tuple(map(str, index["class_names"]))
    require("labels", labels, len(classes))
    if len(labels) != images["batch"] or images["size"] != clip.preprocess.crop:
        raise ValueError(
            f"{len(labels)} labels and images {images}, for towers that take {clip.preprocess.crop} pixels"
        )
    lesson = Lesson(
        samples=[Sample(id=str(number), label=label, source=bytes) for number, label in enumerate(labels)],
        class_names=classes,
        template=case.get("template", config.get("teacher_template", "a photo of a {}.")),
        seed=0,
        views="centre",
        order=_order(case, len(labels), len(classes)),
    )
    found = CaseInputs(
        name=case["name"],
        source=case["source"],
        clip=clip,
        method=None,
        config=config,
        lesson=lesson,
        pixels=torch.from_numpy(drawn_images(images["batch"], images["size"], images["seed"])),
        official={},
    )
    return found if case["method"] == "clip" else _with_method(found, case)


def _with_method(found: CaseInputs, case: Mapping[str, Any]) -> CaseInputs:
    """With the package's own method, its settings and its start as the case has them."""
    asked = names.options(case["method"], found.config) | case.get("schedule", {})
    if "average_mean" in asked:
        asked["average_epochs"] = asked["epochs"]
    method, learned, clip = resolve(case["method"], asked), case["learned"], found.clip
    if "templates" in found.config:
        method = replace(method, teacher=Ensemble(templates=tuple(found.config["templates"])))
    spec, order = method.prompt, found.lesson.order
    if not isinstance(method.learner, Steps):
        raise UserError(f"the method {method.name!r} has no prompt to compare.")
    if order is not None and order.images and len(order.images) != method.schedule.epochs:
        raise ValueError(f"batches for {len(order.images)} epochs of {method.schedule.epochs}")
    drawn = {} if learned["seed"] is None else drawn_tensors(learned["tensors"], learned["seed"])
    official = {CTX: f"prompt_learner.{CTX}"} | {names.tensor(name): name for name in drawn}
    values = {names.tensor(name): torch.from_numpy(value) for name, value in drawn.items()}
    module = spec.build(clip.facts, generator("verify"), len(found.lesson.class_names))
    if CTX not in values:  # it starts at the words of the configuration
        values |= {name: one.detach() for name, one in module.named_parameters() if name == CTX}
    if problems := misfits(values, module):
        raise UserError(f"the start values of the case do not fit the method: {'; '.join(problems)}.")
    return replace(found, method=replace(method, start=values), official=official)


def _order(case: Mapping[str, Any], images: int, classes: int) -> Order | None:
    """The batches and sampled classes of a training run; of a single pass the sampled classes, as its one step."""
    if "schedule" not in case:
        negatives = case["config"].get("negatives")
        return None if negatives is None else Order(images=(), classes=_steps("negatives", [[negatives]], classes))
    batches = _steps("batches", case["batches"], images)
    sampled = _steps("negatives", case["negatives"], classes) if "negatives" in case else None
    lengths = {len(epoch) for epoch in batches}
    if (
        len(lengths) != 1
        or 0 in lengths
        or (sampled and [len(one) for one in sampled] != [len(one) for one in batches])
    ):
        raise ValueError("every epoch must have the same number of steps, one batch and one list of negatives each")
    return Order(images=batches, classes=sampled)


def _steps(what: str, epochs: Sequence[Sequence[Sequence[int]]], below: int) -> list[list[Tensor]]:
    for steps in epochs:
        for step in steps:
            require(what, step, below)
    return [[torch.tensor(step, dtype=torch.int64) for step in steps] for steps in epochs]


def require(what: str, numbers: Sequence[int], below: int) -> None:
    """ValueError where one is not a whole number from 0 to below `below`."""
    if not numbers or not all(isinstance(one, int) and 0 <= one < below for one in numbers):
        raise ValueError(f"{what} {numbers}: each must be a whole number from 0 to {below - 1}")


Manifest = tuple[tuple[str, tuple[int, ...]], ...]


@cache
def _towers(rows: Manifest, seed: int, device: str, dtype: str) -> Clip:
    where, weights = "the manifest", _weights(rows, seed)
    config = config_of(weights, where)
    preprocess = Preprocess(resize=config.image_size, crop=config.image_size, mean=HALF, std=HALF)
    source = Source(config=config, weights=weights, tokenizer=clip_tokenizer(), preprocess=preprocess)
    return assemble(source, name="parity", device=device, dtype=dtype, where=where)


@cache
def _weights(rows: Manifest, seed: int) -> dict[str, Tensor]:
    """Drawn once per process; float32 towers on the CPU share their memory."""
    return {name: torch.from_numpy(values) for name, values in drawn_weights(rows, seed).items()}
