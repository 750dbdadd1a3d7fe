"""Prompt learning in five lines of Python, with the names that scikit-learn users know."""

from __future__ import annotations

import dataclasses
import functools
import html
import inspect
import tempfile
import warnings
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from vlprompt import artifact, hub, pocket
from vlprompt.artifact import Learned
from vlprompt.data import Sample
from vlprompt.data.folders import refusal
from vlprompt.data.views import AnyView, ahead, pixels
from vlprompt.engine.choose import AUTO, Choice, choose, usual
from vlprompt.engine.confidence import confidence_of
from vlprompt.engine.config import Means
from vlprompt.engine.evaluate import (
    Classifier,
    accuracy,
    best_words,
    check_classes,
    probabilities,
    zero_shot,
)
from vlprompt.engine.images import Images, open_images
from vlprompt.engine.job import Drawn, Learning, learn, prepare, with_teacher
from vlprompt.engine.observer import SILENT, observing
from vlprompt.engine.precision import resolve_device
from vlprompt.engine.sampling import said_of_skipped
from vlprompt.engine.several import Several, average_precision, of, right_of, targets
from vlprompt.errors import UserError, data_error
from vlprompt.inputs import (
    Data,
    ImageLike,
    as_dataset,
    as_frame,
    asked_names,
    chunks,
    column,
    indices,
    label_sets,
    labelled,
    listed,
    names_of,
    plainly,
    samples,
)
from vlprompt.methods.resolve import recipe_of, resolve
from vlprompt.towers import Clip, load
from vlprompt.types import Preprocess, Views

AT_ONCE = 16
"""Files that are decoded while as many before them are encoded."""


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Result:
    """What `fit` found, without a test image; percent."""

    method: str
    model: str
    classes: int
    images: int
    """That it learned from."""
    parameters: int
    """Learned numbers."""
    seconds: float
    measured_on: str
    """`validation images`, or `training images`, which say little: the prompt has seen them."""
    accuracy: float | None
    zero_shot: float | None
    """Of hand-written words on the same images."""
    words: str
    """Those words: the best of several on the same images."""

    def __str__(self) -> str:
        return ", ".join(f"{name} {value}" for name, value in self.rows())

    def rows(self) -> list[tuple[str, str]]:
        """Names and values for people."""
        found = [
            ("learned from", f"{self.images} images of {self.classes} classes"),
            ("learned numbers", f"{self.parameters:,}"),
            ("seconds", f"{self.seconds:.1f}"),
        ]
        if self.accuracy is not None and self.zero_shot is not None:
            found += [
                (f"accuracy on {self.measured_on}", f"{self.accuracy:.1f} %"),
                (f"hand-written words ({self.words})", f"{self.zero_shot:.1f} %"),
            ]
        return found


@functools.lru_cache(maxsize=1)
def _loaded(model: str, device: str, dtype: str) -> Clip:
    """The last model, kept: a search over settings makes many classifiers on one model."""
    return load(model, device=resolve_device(device), dtype=dtype)


class PromptClassifier:
    """A frozen CLIP with a prompt that `fit` learns: a scikit-learn classifier of pictures.

    It works in `clone`, `cross_val_score`, `GridSearchCV` and pipelines. Before `fit` nothing can be predicted.
    """

    _learned: Learned | None = None
    _answers: tuple[tuple[str, ...], Classifier] | None = None
    _labels: NDArray[Any] | None = None
    result_: Result | None = None
    """What `fit` found; None after `load`."""
    choice_: Choice | None = None
    """What `fit` chose against what, where the method is `auto`."""

    @plainly
    def __init__(
        self,
        model: str | Path = pocket.MODEL,
        method: str | None = None,
        *,
        shots: int | None = 16,
        class_names: Sequence[str] | Mapping[Any, str] | None = None,
        recipe: str = "auto",
        init_from: str | Path | None = None,
        seed: int = 1,
        template: str | None = None,
        views: Views | None = None,
        device: str = "auto",
        dtype: str = "float32",
        cache: str | Path | None = None,
        teacher: str | Path | None = None,
        progress: bool | None = None,
        **options: object,
    ) -> None:
        """model: a pocket model's name, a directory or a Hub id. cache: the feature cache's directory; None: the user's.

        method: a name of `vlprompt methods`, overlays included; `auto`: `fit` tries a few on its images and takes one, as `choice_` says
        (docs/choosing.md). None: `auto`, a named recipe's, or `coop` where options, `init_from` or `teacher` are given.

        shots: images per class that `fit` learns from; None: all. class_names: the words of the labels of `fit(X, y)`, in sorted order of
        the labels or by label. Numbers need them, for a prompt is made of words.

        recipe: whose settings: a name of `vlprompt recipes`, `published` (the method's few-shot one), `pocket`, or auto. init_from: a
        saved prompt or a run whose learned tensors `fit` begins with (`--init`); None: the method's own start, which its option `init`
        chooses. teacher: another model that teaches, for methods with a teacher (`rpp`, `prograd`); None: the frozen model itself.

        progress: whether `fit` shows bars; None: on a terminal and in a notebook.

        options: of the method and its schedule, as ``--set`` names them (``epochs=5``; dots as ``**{"plpp.k": 5}``).
        Nothing is loaded before it is needed; a misspelt method or option is a UserError at once.
        """
        self.model, self.method, self.recipe, self.seed = model, method, recipe, seed
        self.template, self.views, self.device, self.dtype = template, views, device, dtype
        self.shots, self.class_names, self.cache, self.init_from = shots, class_names, cache, init_from
        self.teacher, self.progress, self.options = teacher, progress, options
        for name, value in (("method", "" if method is None else method), ("recipe", recipe)):
            if not isinstance(value, str):
                raise UserError(f"{name} is {value!r}. Give a name: vlprompt {name}s lists them.")
        if (asked := self._method) != AUTO:
            resolve(asked, options, recipe=recipe_of(asked, "few-shot", str(model), recipe))
        elif self._of_one:
            raise UserError(
                "options, init_from and teacher belong to one method, and method='auto' chooses one. Name the method."
            )

    @property
    def _of_one(self) -> bool:
        return bool(self.options) or self.init_from is not None or self.teacher is not None

    @property
    def _method(self) -> str:
        return self.method or usual(self.recipe, of_one=self._of_one)

    def get_params(self, deep: bool = True) -> dict[str, Any]:
        """All settings by name, options included, as scikit-learn asks for them."""
        return {name: getattr(self, name) for name in _USUAL} | self.options

    @plainly
    def set_params(self, **settings: Any) -> PromptClassifier:
        """Change settings or options; what was learned is forgotten. UserError as when it was made."""
        self.__dict__ = type(self)(**self.get_params() | settings).__dict__
        return self

    def __sklearn_tags__(self) -> Any:
        from sklearn.utils import ClassifierTags, InputTags, Tags, TargetTags

        return Tags(
            estimator_type="classifier",
            target_tags=TargetTags(required=False),
            classifier_tags=ClassifierTags(),
            input_tags=InputTags(two_d_array=False, string=True),
        )

    def __sklearn_is_fitted__(self) -> bool:
        return self._learned is not None

    def __getstate__(self) -> dict[str, Any]:
        """Settings, and the prompt as the files that `save` writes; the model stays where it is."""
        kept = {
            name: value
            for name, value in self.__dict__.items()
            if name not in ("clip", "_images_of_sets", "_answers", "_learned")
        }
        if self._learned is None:
            return kept
        with tempfile.TemporaryDirectory() as place:
            self.save(place)
            return kept | {"files": {path.name: path.read_bytes() for path in Path(place).iterdir()}}

    def __setstate__(self, state: dict[str, Any]) -> None:
        files = state.pop("files", None)
        self.__dict__ = state
        if files is not None:
            with tempfile.TemporaryDirectory() as place:
                for name, data in files.items():
                    (Path(place) / name).write_bytes(data)
                self._learned = artifact.load(Path(place), self.clip)

    def __repr__(self) -> str:
        changed = {
            name: value
            for name, value in self.get_params().items()
            if value != _USUAL.get(name, inspect.Parameter.empty)
        }
        shown = {"model": str(self.model), "method": self._method} | changed
        made = ", ".join(f"{name}={value!r}" for name, value in shown.items())
        return f"PromptClassifier({made})" + (f"  # {self.result_}" if self.result_ else "")

    def _repr_html_(self) -> str:
        """The settings and the result, for notebooks."""
        rows = (
            self.result_.rows() if self.result_ else [("learned", "yes" if self._learned else "nothing yet: call fit")]
        )
        cells = "".join(f"<tr><th>{html.escape(name)}</th><td>{html.escape(value)}</td></tr>" for name, value in rows)
        head = html.escape(f"{self.result_.method if self.result_ else self._method} on {self.model}")
        return f"<table><caption><b>PromptClassifier</b>: {head}</caption>{cells}</table>"

    @property
    def classes_(self) -> NDArray[Any]:
        """The labels, in the order of `predict_proba`'s columns: class names, or what `y` had where `fit(X, y)` was called."""
        return np.array(self._fitted.class_names) if self._labels is None else self._labels

    @functools.cached_property
    def clip(self) -> Clip:
        """The frozen model, loaded at first use."""
        return _loaded(str(self.model), self.device, self.dtype)

    @property
    def learned(self) -> Learned:
        """The prompt and what is known of it."""
        return self._fitted

    @plainly
    def fit(
        self, X: Data | Iterable[ImageLike], y: Iterable[Any] | None = None, *, shots: int | str | None = "own"
    ) -> PromptClassifier:
        """Learn a prompt; of a data set, from its training part alone.

        X: images, with their labels in y: one each, or several each (lists of names, or rows of 0 and 1). Or a folder, a table, a data
        set's name, a frame with the columns `image` and `label`, or (images, labels) as one value. shots: instead of the classifier's own.
        """
        data, labels = labelled(X, y, self.class_names)
        dataset = dataclasses.replace(as_dataset(data), test=())
        with observing(self.progress) as observer:
            self._images_of_sets.observer = observer
            method, options = self._method, self.options
            given: dict[str, Any] = {name: getattr(self, name) for name in ("seed", "recipe", "template", "views")}
            given |= {"model": str(self.model), "shots": self.shots if isinstance(shots, str) else shots}
            if method == AUTO:
                self.choice_ = choose(self._images_of_sets, dataset, observer=observer, **given)
                method, options = self.choice_.candidate.method, dict(self.choice_.candidate.overrides)
            job = prepare(
                self._images_of_sets,
                dataset,
                method,
                overrides=options,
                **given,
                init=Path(self.init_from) if self.init_from is not None else None,
            )
            job = with_teacher(job, None if self.teacher is None else str(self.teacher), self._cache)
            drawn = job.draw()
            for said in job.said_of(drawn):
                warnings.warn(said, UserWarning, stacklevel=3)
            learned, learning = learn(job, drawn, Means(device=self.device, cache=self._cache), observer=observer)
            self._learned = dataclasses.replace(learned, facts={**learned.facts, "metrics": {}})
            self._answers, self._labels = None, labels
            if (val := drawn.sample.val) and not dataset.several:
                logits = self._classifier(None).logits(val, self._images_of_sets)
                sure = confidence_of(logits, np.array([one.label for one in val]))
                self._learned = dataclasses.replace(self._learned, facts={**self._learned.facts, **sure.facts})
            self.result_ = self._found(drawn, learning)
        self._images_of_sets.observer = SILENT
        return self

    def _found(self, drawn: Drawn, learning: Learning) -> Result:
        sample, learned, images = drawn.sample, self._fitted, self._images_of_sets
        measured = sample.val or sample.train
        words = best_words(self.clip, sample.class_names, learned.template, images, measured)
        by_hand = zero_shot(self.clip, sample.class_names, words, learned.template)
        return Result(
            method=learned.method.name,
            model=learned.model,
            classes=len(sample.class_names),
            images=learning.num_train,
            parameters=learned.num_parameters,
            seconds=learning.seconds,
            measured_on="validation images" if sample.val else "training images",
            accuracy=accuracy(self._classifier(None), measured, images),
            zero_shot=accuracy(by_hand, measured, images),
            words=words,
        )

    @plainly
    def predict_proba(
        self, X: ImageLike | Iterable[ImageLike], class_names: Sequence[str] | None = None
    ) -> NDArray[np.float32]:
        """(N, C) float32: probabilities over the learned classes, or over `class_names`; one image counts as a list of one.

        X may be a generator, which is read in chunks, a frame with the column `image`, or a folder: all pictures below it, sorted by path.
        """
        classifier = self._classifier(asked_names(class_names))
        found = [
            self._probabilities(classifier.logits(samples(chunk, [0] * len(chunk)), self._loose_images))
            for chunk in chunks(X)
        ]
        return np.concatenate(found) if found else np.zeros((0, len(classifier.class_names)), dtype=np.float32)

    def _probabilities(self, logits_NC: torch.Tensor) -> NDArray[np.float32]:
        several = self.several
        return several.probabilities(logits_NC) if several else probabilities(logits_NC, self._fitted.temperature)

    @property
    def several(self) -> Several | None:
        """How classes are chosen where an image may have several; None: the prompt was learned from one label for each image."""
        return of(self._fitted)

    def predict(self, X: ImageLike | Iterable[ImageLike], class_names: Sequence[str] | None = None) -> NDArray[Any]:
        """(N,) the most probable class of every image, as `classes_` has it, or as `class_names`. Of a prompt learned from several labels
        for each image: (N,) objects, the tuple of all classes above their thresholds."""
        found = self.predict_proba(X, class_names)
        return self._said(found, self.classes_ if class_names is None else np.array(names_of(class_names)))

    def _said(self, found: NDArray[np.float32], names: NDArray[Any]) -> NDArray[Any]:
        if not self.several:
            answers: NDArray[Any] = names[found.argmax(1)]
            return answers
        sets = np.empty(len(found), dtype=object)
        for place, row in enumerate(self.several.chosen(found, names.tolist())):
            sets[place] = tuple(names[row].tolist())
        return sets

    @plainly
    def frame(self, X: ImageLike | Iterable[ImageLike], y: Iterable[Any] | None = None) -> Any:
        """A pandas DataFrame with a row for each image: `image`, `answer`, `probability`, and with `y` also `label` and `right`.

        Of a prompt that was learned from several labels for each image, answers and labels are tuples of names; `probability` is the
        highest one of a class, and `right` says that both have the same classes.
        """
        items = list(listed(X))
        found = self.predict_proba(items)
        sets = None if y is None or not self.several else label_sets(y := list(y), self._fitted.class_names)
        return as_frame(items, self._said(found, self.classes_), found.max(1), sets or y)

    @plainly
    def predict_files(
        self,
        paths: Sequence[str | Path | Sample],
        class_names: Sequence[str] | None = None,
        advance: Callable[[int], None] = lambda number: None,
    ) -> tuple[NDArray[np.float32], dict[int, str]]:
        """((N, C) float32 probabilities of the files (or samples) that can be read, in order; place -> why another cannot).

        Some files at a time are decoded, once and no larger than needed (`data.views.pixels` with `enough`), while the tower encodes
        those before; so memory does not grow with their number or size. `predict_proba` decodes all pixels: its answers for pictures
        of a camera differ a little. advance: is told how many files are done, some at a time.
        """
        samples = [
            path
            if isinstance(path, Sample)
            else Sample(id=str(path), label=0, source=Path(path).expanduser().read_bytes)
            for path in paths
        ]
        files = {str(path) for path in paths if not isinstance(path, Sample)}

        def look(sample: Sample) -> torch.Tensor | str:
            reason = refusal(Path(sample.id).expanduser())[0] if sample.id in files else None
            if reason and not reason.startswith("not an image file"):  # any ending will do for a file that was named
                return f"{sample.id}: {reason}."
            try:
                return pixels(sample, self.clip.preprocess, None, enough=True)
            except UserError as problem:
                return str(problem)

        classifier, reasons = self._classifier(asked_names(class_names)), dict[int, str]()
        found = [np.zeros((0, len(classifier.class_names)), dtype=np.float32)]
        parts = [samples[start : start + AT_ONCE] for start in range(0, len(samples), AT_ONCE)]
        with closing(ahead(look, parts)) as looks:
            for first, part, looked in zip(range(0, len(samples), AT_ONCE), parts, looks, strict=True):
                reasons |= {first + n: one for n, one in enumerate(looked) if isinstance(one, str)}
                views = {sample.id: one for sample, one in zip(part, looked, strict=True) if not isinstance(one, str)}
                images = self.seen(views)
                good = [sample for sample in part if sample.id in views]
                found += [self._probabilities(classifier.logits(good, images))] if good else []
                advance(len(part))
        return np.concatenate(found), reasons

    @plainly
    def score(self, X: Data | Iterable[ImageLike], y: Iterable[Any] | None = None) -> float:
        """Accuracy from 0 to 1, as scikit-learn's: on a data set's test part, on images with their labels, or on a frame. Of several labels
        for each image: mean average precision (mAP), from 0 to 1.

        A data set's own class names are used; for images they are `classes_`, unless given as the third of (images, labels,
        class names). Labels are names or indices, or what `fit(X, y)` had in y. A frame has the columns `image` and `label`.
        """
        value: Any = X
        if y is None and isinstance(value, str | Path):
            dataset, skipped = as_dataset(value), dict[str, str]()
            test = self._images_of_sets.usable(dataset.test, skipped, strict=False)
            if skipped:
                warnings.warn(said_of_skipped(skipped), UserWarning, stacklevel=3)
            return self._accuracy(test, dataset.class_names, self._images_of_sets)
        if y is None and hasattr(value, "columns"):
            value = column(value, "image"), column(value, "label")
        images, labels, *rest = value if y is None else (value, y)
        labels = list(labels)
        names = tuple(names_of(rest[0])) if rest else self._fitted.class_names
        if self.several:
            sets = label_sets(labels, names) or [(one,) for one in labels]
            found = as_dataset((list(listed(images)), sets, names)).train
        elif self._labels is not None and not rest:
            places = {label: place for place, label in enumerate(self._labels.tolist())}
            labels = [places.get(one, -1) for one in np.asarray(labels).tolist()]
            found = samples(images, labels)  # a label that was not learned is answered wrongly
        else:
            found = samples(images, indices(labels, names))
        return self._accuracy(found, names, self._loose_images)

    def _accuracy(self, samples: Sequence[Sample], class_names: Sequence[str], images: Images) -> float:
        if not samples:
            raise data_error("there are no test images to score.")
        logits = self._classifier(class_names).logits(samples, images)
        if self.several:
            truth = targets(samples, len(class_names), several=True).numpy().astype(bool)
            return float(np.mean(list(average_precision(logits, truth).values())) / 100)
        return float(right_of(logits, samples).mean())

    @plainly
    def save(self, directory: str | Path) -> None:
        """Write the prompt as an artifact: kilobytes, without the model."""
        artifact.save(Path(directory), self._fitted)

    @plainly
    def push_to_hub(self, repo_id: str, *, private: bool = False, licence: str = "") -> str:
        """Put the prompt on the Hub, with a card; the address of the page. UserError as `hub.push`."""
        with tempfile.TemporaryDirectory() as place:
            self.save(place)
            return hub.push(Path(place), repo_id, private=private, licence=licence)

    @classmethod
    def from_pretrained(cls, source: str | Path, **settings: Any) -> PromptClassifier:
        """A prompt from a directory or the Hub (`owner/name`); settings as `load` takes them."""
        return cls.load(source, **settings)

    @classmethod
    @plainly
    def load(
        cls,
        directory: str | Path,
        *,
        model: str | Path | None = None,
        device: str = "auto",
        dtype: str = "float32",
        cache: str | Path | None = None,
    ) -> PromptClassifier:
        """A saved prompt, the best seed of a run directory (chosen on validation images), or a prompt on the Hub (`owner/name`).

        model: where the backbone is now, if not where the prompt says.
        """
        place = artifact.pick(hub.located(directory)).directory
        given = None if model is None else str(model)
        learned, clip = artifact.loaded(place, given, device=resolve_device(device), dtype=dtype)
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
        out.clip, out._learned = clip, learned
        return out

    @functools.cached_property
    def _images_of_sets(self) -> Images:
        """Images of data sets, whose features are remembered in the cache directory."""
        return open_images(self.clip, self._cache)

    @property
    def _cache(self) -> Path | None:
        return Path(self.cache) if self.cache is not None else None

    @property
    def _loose_images(self) -> Images:
        """Pictures that are seen once, whose features are not kept."""
        return Images(self.clip, None)

    def seen(self, views: Mapping[str, torch.Tensor]) -> Images:
        """Pictures whose test views (3, S, S) are made already, by id; a method that learns from each picture makes others of it."""

        def read(samples: Sequence[Sample], preprocess: Preprocess, view: AnyView) -> torch.Tensor:
            given = (views[one.id] if view is None else pixels(one, preprocess, view, enough=True) for one in samples)
            return torch.stack(list(given))

        return Images(self.clip, None, read=read)

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
            self._answers = (names, self.asked(names))
        return self._answers[1]

    def asked(self, class_names: tuple[str, ...]) -> Classifier:
        """The prompt with a class list. UserError: one that it cannot answer for."""
        learned = self._fitted
        own = class_names == learned.class_names
        check_classes(learned.method.prompt, learned.class_names, class_names, labelled=own)
        return Classifier(self.clip, learned.method, learned.prompt, class_names, learned.template)


_USUAL = {
    name: one.default
    for name, one in inspect.signature(PromptClassifier.__init__).parameters.items()
    if name != "self" and one.kind != inspect.Parameter.VAR_KEYWORD
}
"""Settings that are no option of a method, and their defaults."""
