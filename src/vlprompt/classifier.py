"""Prompt learning in five lines of Python, with the names that scikit-learn users know."""

from __future__ import annotations

import dataclasses
import io
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image

from vlprompt import artifact
from vlprompt.artifact import Learned
from vlprompt.data import (
    DEFAULT_TEMPLATE,
    Dataset,
    Sample,
    open_dataset,
    open_image,
    split_by_rule,
)
from vlprompt.data.folders import refusal
from vlprompt.data.views import in_threads, pixels
from vlprompt.engine.evaluate import Classifier, check_classes, classifier_of, probabilities
from vlprompt.engine.images import Images, open_images, open_teacher
from vlprompt.engine.job import Means, learn, prepare
from vlprompt.engine.precision import resolve_device
from vlprompt.engine.sampling import said_of_skipped
from vlprompt.errors import DATA, UserError
from vlprompt.methods.resolve import recipe_of, resolve
from vlprompt.towers import Clip, load
from vlprompt.types import Views

ImageLike = str | Path | Image.Image | NDArray[Any] | torch.Tensor
"""A path, a PIL image, an array (H, W), (H, W, C) or a tensor (C, H, W); uint8, or float from 0 to 1."""
Data = str | Path | tuple[Sequence[ImageLike], Sequence[Any]] | tuple[Sequence[ImageLike], Sequence[Any], Sequence[str]]
"""A folder, table or pocket set; or (images, labels), or (images, labels, class names) with labels as indices or names."""


class PromptClassifier:
    """A frozen CLIP with a prompt that `fit` learns; before `fit` there is none and nothing can be predicted."""

    def __init__(
        self,
        model: str | Path = "pocket-s",
        method: str = "coop",
        *,
        recipe: str = "auto",
        init_from: str | Path | None = None,
        seed: int = 1,
        template: str | None = None,
        views: Views | None = None,
        device: str = "auto",
        dtype: str = "float32",
        cache: str | Path | None = None,
        teacher: str | Path | None = None,
        **options: object,
    ) -> None:
        """model: a pocket model's name, a directory or a Hub id. cache: the feature cache's directory; None: the user's.

        recipe: whose settings: a name of `vlprompt recipes`, `published` (the method's few-shot one), `pocket`, or auto. init_from: a
        saved prompt or a run whose learned tensors `fit` begins with (`--init`); None: the method's own start, which its option `init`
        chooses. teacher: another model that teaches, for methods with a teacher (`rpp`, `prograd`); None: the frozen model itself.

        options: of the method and its schedule, as ``--set`` names them (``epochs=5``; dots as ``**{"plpp.k": 5}``).
        Nothing is loaded before it is needed; a misspelt method or option is a UserError at once.
        """
        self.model, self.method, self.recipe, self.seed = str(model), method, recipe, seed
        self.template, self.views, self.device, self.dtype = template, views, device, dtype
        self.cache = Path(cache) if cache is not None else None
        self.init_from = Path(init_from) if init_from is not None else None
        self.teacher = None if teacher is None else str(teacher)
        self.options = dict(options)
        resolve(method, self.options, recipe=recipe_of(method, "few-shot", self.model, recipe))
        self._clip: Clip | None = None
        self._cached: Images | None = None
        self._learned: Learned | None = None
        self._answers: tuple[tuple[str, ...], Classifier] | None = None

    @property
    def classes_(self) -> NDArray[np.str_]:
        """The class names that the prompt was learned on, in the order of `predict_proba`'s columns."""
        return np.array(self._fitted.class_names)

    @property
    def clip(self) -> Clip:
        """The frozen model, loaded at first use."""
        if self._clip is None:
            self._clip = load(self.model, device=resolve_device(self.device), dtype=self.dtype)
        return self._clip

    @property
    def learned(self) -> Learned:
        """The prompt and what is known of it."""
        return self._fitted

    def fit(self, data: Data, shots: int | None = 16) -> PromptClassifier:
        """Learn a prompt from `shots` images per class (None: all); of a data set, from its training part alone."""
        dataset = dataclasses.replace(_as_dataset(data), test=())
        job = prepare(
            self._images_of_sets,
            dataset,
            self.method,
            model=self.model,
            shots=shots,
            seed=self.seed,
            overrides=self.options,
            recipe=self.recipe,
            template=self.template,
            views=self.views,
            init=self.init_from,
        )
        taught = open_teacher(self.teacher, job.method, self.clip, self.cache)
        job = dataclasses.replace(
            job, teacher=taught, asked={**job.asked, **({"teacher": self.teacher} if taught else {})}
        )
        drawn = job.draw()
        for said in job.said_of(drawn):
            warnings.warn(said, UserWarning, stacklevel=2)
        learned, _ = learn(job, drawn, Means(device=self.device, cache=self.cache))
        self._learned = dataclasses.replace(learned, facts={**learned.facts, "metrics": {}})
        self._answers = None
        return self

    def predict_proba(
        self, images: ImageLike | Sequence[ImageLike], class_names: Sequence[str] | None = None
    ) -> NDArray[np.float32]:
        """(N, C) float32: probabilities over the learned classes, or over `class_names`; one image counts as a list of one."""
        samples = _samples(images, [0] * _count(images))
        classifier = self._classifier(class_names)
        return probabilities(classifier.logits(samples, self._loose_images))

    def predict(
        self, images: ImageLike | Sequence[ImageLike], class_names: Sequence[str] | None = None
    ) -> NDArray[np.str_]:
        """(N,) the most probable class name of every image."""
        names = np.array(self._fitted.class_names if class_names is None else list(class_names))
        answers: NDArray[np.str_] = names[self.predict_proba(images, class_names).argmax(1)]
        return answers

    def predict_files(
        self, paths: Sequence[str | Path], class_names: Sequence[str] | None = None
    ) -> tuple[NDArray[np.float32], dict[int, str]]:
        """((N, C) float32 probabilities of the files that can be read, in order; place -> why another cannot).

        Each file is decoded once, and what is kept of it is what the tower sees, so memory does not grow with the pictures' size.
        """
        samples = [Sample(id=str(path), label=0, source=Path(path).expanduser().read_bytes) for path in paths]

        def look(sample: Sample) -> torch.Tensor | str:
            reason, _ = refusal(Path(sample.id).expanduser())
            if reason and not reason.startswith("not an image file"):  # any ending will do for a file that was named
                return f"{sample.id}: {reason}."
            try:
                return pixels(sample, self.clip.preprocess, None)
            except UserError as problem:
                return str(problem)

        looks = in_threads(look, samples)
        reasons = {number: one for number, one in enumerate(looks) if isinstance(one, str)}
        views = {sample.id: one for sample, one in zip(samples, looks, strict=True) if isinstance(one, torch.Tensor)}
        good = [sample for number, sample in enumerate(samples) if number not in reasons]
        classifier = self._classifier(class_names)
        if not good:
            return np.zeros((0, len(classifier.class_names)), dtype=np.float32), reasons
        images = Images(self.clip, None, read=lambda chosen, *_: torch.stack([views[one.id] for one in chosen]))
        return probabilities(classifier.logits(good, images)), reasons

    def score(self, data: Data | Sequence[ImageLike], labels: Sequence[Any] | None = None) -> float:
        """Accuracy from 0 to 1, as scikit-learn's: on a data set's test part, or on images with their labels.

        A data set's own class names are used; for images they are `classes_`, unless given as the third of (images, labels,
        class names). Labels are names or indices.
        """
        value: Any = data
        if labels is None and isinstance(value, str | Path):
            dataset, skipped = _as_dataset(value), dict[str, str]()
            test = self._images_of_sets.usable(dataset.test, skipped, strict=False)
            if skipped:
                warnings.warn(said_of_skipped(skipped), UserWarning, stacklevel=2)
            return self._accuracy(test, dataset.class_names, self._images_of_sets)
        images, labels, *rest = value if labels is None else (value, labels)
        names = tuple(rest[0]) if rest else self._fitted.class_names
        return self._accuracy(_samples(images, _indices(labels, names)), names, self._loose_images)

    def _accuracy(self, samples: Sequence[Sample], class_names: Sequence[str], images: Images) -> float:
        if not samples:
            raise UserError("there are no test images to score.", exit_code=DATA)
        truth = np.array([sample.label for sample in samples])
        found = self._classifier(class_names).logits(samples, images).argmax(1).numpy()
        return float((found == truth).mean())

    def save(self, directory: str | Path) -> None:
        """Write the prompt as an artifact: kilobytes, without the model."""
        artifact.save(Path(directory), self._fitted)

    @classmethod
    def load(
        cls,
        directory: str | Path,
        *,
        model: str | Path | None = None,
        device: str = "auto",
        dtype: str = "float32",
        cache: str | Path | None = None,
    ) -> PromptClassifier:
        """A saved prompt, or the best seed of a run directory (chosen on validation images).

        model: where the backbone is now, if not where the prompt says.
        """
        place = artifact.pick(Path(directory)).directory
        clip = None if model is None else load(model, device=resolve_device(device), dtype=dtype)
        learned, clip = artifact.loaded(place, clip, device=resolve_device(device), dtype=dtype)
        options: dict[str, Any] = dict(learned.method.options)
        out = cls(
            model=clip.name,
            method=learned.method.name,
            seed=int(learned.facts.get("seed") or 0),
            template=learned.template,
            device=device,
            dtype=dtype,
            cache=cache,
            **options,
        )
        out._clip, out._learned = clip, learned
        return out

    @property
    def _images_of_sets(self) -> Images:
        """Images of data sets, whose features are remembered in the cache directory."""
        if self._cached is None:
            self._cached = open_images(self.clip, self.cache)
        return self._cached

    @property
    def _loose_images(self) -> Images:
        """Pictures that are seen once, whose features are not kept."""
        return Images(self.clip, None)

    @property
    def _fitted(self) -> Learned:
        if self._learned is None:
            raise UserError("this classifier has learned nothing yet: call fit first, or PromptClassifier.load.")
        return self._learned

    def _classifier(self, class_names: Sequence[str] | None) -> Classifier:
        """The classifier of a class list; the last one is remembered."""
        learned = self._fitted
        names = learned.class_names if class_names is None else tuple(class_names)
        if self._answers is None or self._answers[0] != names:
            check_classes(learned.method.prompt, learned.class_names, names, labelled=class_names is None)
            made = classifier_of(self.clip, learned.method, learned.prompt, names, learned.template)
            self._answers = (names, made)
        return self._answers[1]


def _as_dataset(data: Data) -> Dataset:
    """A data set by name, or one of images in memory, all of which are training images."""
    if isinstance(data, str | Path):
        return split_by_rule(open_dataset(data))
    images, labels, *rest = data
    given = [str(name) for name in rest[0]] if rest else None
    if given is None and all(isinstance(label, str) for label in labels):
        given = sorted(set(labels))
    if given is None:
        raise UserError(
            "labels that are numbers need class names, since a prompt is made of them: give (images, labels, class names), or "
            "names as labels."
        )
    if len(given) < 2 or len(set(given)) < len(given):
        raise UserError(f"a classifier needs at least two classes with different names; these are {given}.")
    return Dataset(
        name="images in memory",
        class_names=tuple(given),
        template=DEFAULT_TEMPLATE,
        train=_samples(images, _indices(labels, given)),
    )


def _indices(labels: Sequence[Any], class_names: Sequence[str]) -> list[int]:
    """Labels as indices into the class names. UserError for a label that is neither a name nor an index."""
    places = {name: place for place, name in enumerate(class_names)}
    out = []
    for label in labels:
        place = places.get(label, -1) if isinstance(label, str) else int(label)
        if not 0 <= place < len(class_names):
            raise UserError(
                f"label {label!r} is not a class. Allowed: {', '.join(class_names)}, or 0 to {len(class_names) - 1}."
            )
        out.append(place)
    return out


def _count(images: ImageLike | Sequence[ImageLike]) -> int:
    return 1 if _is_one(images) else len(images)  # type: ignore[arg-type]


def _is_one(images: object) -> bool:
    """One image; an array or tensor of four axes is a batch."""
    return isinstance(images, str | Path | Image.Image) or (
        isinstance(images, np.ndarray | torch.Tensor) and images.ndim < 4
    )


def _samples(images: ImageLike | Sequence[ImageLike], labels: Sequence[int]) -> tuple[Sample, ...]:
    """Images of any kind with their labels."""
    items: Sequence[Any] = [images] if _is_one(images) else list(images)  # type: ignore[arg-type]
    if len(items) != len(labels):
        raise UserError(f"there are {len(items)} images and {len(labels)} labels; every image needs one.")
    return tuple(_sample(number, image, label) for number, (image, label) in enumerate(zip(items, labels, strict=True)))


def _sample(number: int, image: Any, label: int) -> Sample:
    """A file is read when it is needed; what is in memory is kept as PNG, which loses nothing."""
    if isinstance(image, str | Path):
        return Sample(id=str(image), label=label, source=Path(image).expanduser().read_bytes)
    name = f"image {number}"
    buffer = io.BytesIO()
    open_image(image, name=name).save(buffer, format="PNG", compress_level=1)
    return Sample(id=name, label=label, source=buffer.getvalue)
