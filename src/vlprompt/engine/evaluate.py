"""Answers of a prompt on images, and what they are worth.

Letters: N images, C classes, E joint embedding.
"""

from __future__ import annotations

import copy
import hashlib
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from vlprompt.data import Sample
from vlprompt.engine.forward import ROWS, TEMPLATE, asked, ensemble_text, reads_frozen
from vlprompt.engine.images import Images
from vlprompt.engine.precision import peak_mib, versions
from vlprompt.engine.several import Several, right_of
from vlprompt.engine.teacher import taught_text
from vlprompt.errors import UserError
from vlprompt.losses import after, answers
from vlprompt.methods.resolve import resolve
from vlprompt.prompts import Bare
from vlprompt.records import Predictions, id_hashes
from vlprompt.towers import Clip
from vlprompt.types import AtTest, Features, Method, Prompted, PromptSpec

BINS = 15
BATCH = 64
"""Images that are read at once; `Images.at_once` of them go through the towers together."""


class Classifier:
    """A prompt with a class list: text features once, then logits for any images."""

    def __init__(
        self, clip: Clip, method: Method, prompt: nn.Module, class_names: Sequence[str], template: str
    ) -> None:
        """template: of the frozen tower's class features, where the method has no sentences for them. UserError: class features of a
        teacher are needed that cannot be had."""
        self.clip, self.method, self.prompt = clip, method, prompt
        reach, layout = method.prompt.reach, method.prompt.layout
        self.class_names = tuple(class_names)
        encoded = reach.reads_text and (layout is not None or reach.text_tower)
        self.tokens = clip.class_tokens(class_names, layout, template) if encoded else None
        self.frozen_text: Features | None = None
        if method.taught:
            self.frozen_text = taught_text(method.taught, clip, class_names, template)
        elif "classes" in reach.sees or (reach.reads_text and not encoded):
            self.frozen_text = ensemble_text(clip, class_names, method.teacher or TEMPLATE, template)
        self.text: Features | None = None
        """The class features, where they are the same for all images."""
        if "image" not in reach.sees:
            with torch.no_grad():
                self.prompted = asked(prompt, method.prompt, None, self.frozen_text)
                self.text = self.class_features(self.prompted)

    @torch.no_grad()
    def logits(self, samples: Sequence[Sample], images: Images) -> Tensor:
        """(N, C) float32 on the CPU: the deterministic test view of every image."""
        if not samples:
            return torch.empty(0, len(self.class_names))
        spec, at_test = self.method.prompt, self.method.at_test
        if at_test is not None:
            starts = range(0, len(samples), BATCH)
            return torch.cat([self._adapted(samples[at : at + BATCH], images, at_test) for at in starts])
        frozen_NE = images.features(samples, None) if reads_frozen(spec, frozenset()) else None
        out = []
        for start in range(0, len(samples), BATCH):
            chunk = samples[start : start + BATCH]
            frozen_BE = None if frozen_NE is None else frozen_NE[start : start + BATCH]
            pixels = images.pixels(chunk, None) if spec.reach.image_tower else None
            for at in range(0, len(chunk), images.at_once):
                frozen, seen = (None if x is None else x[at : at + images.at_once] for x in (frozen_BE, pixels))
                out.append(self._chunk(frozen, seen).float().cpu())
        return torch.cat(out)

    def _adapted(self, samples: Sequence[Sample], images: Images, at_test: AtTest) -> Tensor:
        """(N, C): for each image the answer of a copy of the prompt that has learned from its views."""
        frozen_NVE = images.views(samples, at_test.views) if reads_frozen(self.method.prompt, frozenset()) else None
        out = []
        for n, sample in enumerate(samples):
            pixels = None
            if self.method.prompt.reach.image_tower:
                pixels = images.read([sample], self.clip.preprocess, range(at_test.views))[0]
            out.append(self._after_step(at_test, None if frozen_NVE is None else frozen_NVE[n], pixels))
        return torch.cat(out)

    def _after_step(self, at_test: AtTest, frozen_VE: Tensor | None, pixels: Tensor | None) -> Tensor:
        """(1, C): the answer to the first view."""
        module = copy.deepcopy(self.prompt).requires_grad_(True)
        with torch.enable_grad():
            at_test.adapt(module, lambda: self._chunk(frozen_VE, pixels, module))
        frozen, first = (None if x is None else x[:1] for x in (frozen_VE, pixels))
        return self._chunk(frozen, first, module).float().cpu()

    def _chunk(self, frozen_BE: Tensor | None, pixels: Tensor | None, module: nn.Module | None = None) -> Tensor:
        """module: another one than the prompt's, whose text features are not known yet."""
        frozen = None if frozen_BE is None else Features(pooled=frozen_BE.to(self.clip.device))
        text = self.text if module is None else None
        if text is None:
            prompted = asked(module or self.prompt, self.method.prompt, frozen, self.frozen_text)
            text = self.class_features(prompted)
        else:
            prompted = self.prompted
        image = frozen if pixels is None else self.clip.encode_images(pixels, prompted)
        assert image is not None
        return answers(prompted, after(prompted.after_image, image), text, self.clip.logit_scale)

    def class_features(self, prompted: Prompted) -> Features:
        """The class features; without rows, where none are read."""
        if self.tokens is not None:
            return self.clip.encode_text(self.tokens, prompted, max_rows=ROWS)
        return self.frozen_text or Features(pooled=torch.empty(0, self.clip.facts.embed_dim))


def check_classes(spec: PromptSpec, learned: Sequence[str], asked: Sequence[str], *, labelled: bool = False) -> None:
    """UserError where a prompt that knows its own classes alone is asked about others.

    labelled: the names are a data set's, whose labels tell two classes of one name apart (ImageNet has two "sunglasses").
    """
    if not asked:
        raise UserError("the list of class names is empty.")
    twice = sorted(name for name, number in Counter(asked).items() if number > 1)
    if twice and not labelled:
        raise UserError(f"class names must differ; given twice: {', '.join(map(repr, twice))}.")
    if not spec.reach.own_classes or list(learned) == list(asked):
        return
    if not spec.reach.reads_text:
        raise UserError(
            f"this classifier has no text side: it knows its own {len(learned)} classes ({_few(learned)}) and cannot answer for "
            f"other ones ({_few(asked)}). Ask for its own classes, in its order, or learn a prompt (vlprompt methods)."
        )
    raise UserError(
        f"this prompt has learned something for each of its {len(learned)} classes ({_few(learned)}), so it cannot answer for "
        f"other ones ({_few(asked)}). Ask for its own classes, in its order, or learn a context for all classes (vlprompt methods)."
    )


def _few(names: Sequence[str]) -> str:
    return ", ".join(names[:3]) + (", ..." if len(names) > 3 else "")


def score(
    probability_NC: NDArray[np.float32], label_N: NDArray[np.int64], class_names: Sequence[str]
) -> dict[str, Any]:
    """Fields of a record, percent; a tie goes to the class that comes first.

    `top5` is None of five classes or fewer. `macro_f1` and `balanced_accuracy` are means over the classes that have images, `per_class` is
    their recall.
    """
    assert len(probability_NC) == len(label_N) > 0
    predicted = probability_NC.argmax(1)
    correct = predicted == label_N
    own = np.take_along_axis(probability_NC, label_N[:, None], 1)
    earlier = np.arange(probability_NC.shape[1])[None] < label_N[:, None]
    rank = (probability_NC > own).sum(1) + ((probability_NC == own) & earlier).sum(1)
    recall, f1 = {}, []
    for label in np.unique(label_N).tolist():
        of_class, as_class = label_N == label, predicted == label
        recall[label] = float(100 * correct[of_class].mean())
        f1.append(2 * (of_class & as_class).sum() / (of_class.sum() + as_class.sum()))
    return {
        "top1": float(100 * correct.mean()),
        "top5": float(100 * (rank < 5).mean()) if probability_NC.shape[1] > 5 else None,
        "macro_f1": float(100 * np.mean(f1)),
        "balanced_accuracy": float(np.mean(list(recall.values()))),
        "ece": calibration_error(probability_NC.max(1), correct),
        "per_class": {class_names[label]: value for label, value in recall.items()},
    }


def calibration_error(confidence_N: NDArray[np.float32], correct_N: NDArray[np.bool_]) -> float:
    """Expected calibration error, percent: ``sum_bins share * |accuracy - mean confidence|``, 15 bins of equal width.

    Source: Guo et al., arXiv 1706.04599, eq. 3; bins are open to the left, closed to the right, the first holds 0 too.
    """
    bins = np.clip(np.ceil(confidence_N.astype(np.float64) * BINS).astype(int) - 1, 0, BINS - 1)
    count = np.bincount(bins, minlength=BINS)
    gap = np.bincount(bins, correct_N, BINS) - np.bincount(bins, confidence_N.astype(np.float64), BINS)
    return float(100 * np.abs(gap).sum() / count.sum())


def probabilities(logits_NC: Tensor, temperature: float = 1.0) -> NDArray[np.float32]:
    """Softmax over classes, (N, C)."""
    out: NDArray[np.float32] = torch.softmax(logits_NC.float() / temperature, dim=-1).numpy()
    return out


def predictions(samples: Sequence[Sample], probability_NC: NDArray[np.float32]) -> Predictions:
    """The answers as they are kept next to a record. Of an image with several labels the one that was answered is kept, else the rarest."""
    predicted = probability_NC.argmax(1).astype(np.int64)
    pairs = zip(predicted.tolist(), samples, strict=True)
    label = np.array([first if first in one.labels else one.label for first, one in pairs], dtype=np.int64)
    rows = np.arange(len(samples))
    return Predictions(
        id_hash=id_hashes([sample.id for sample in samples]),
        label=label,
        predicted=predicted,
        label_probability=probability_NC[rows, label],
        predicted_probability=probability_NC[rows, predicted],
    )


def accuracy(classifier: Classifier, samples: Sequence[Sample], images: Images) -> float | None:
    """Top-1 in percent; None without images."""
    if not samples:
        return None
    return float(100 * right_of(classifier.logits(samples, images), samples).mean())


HAND_WRITTEN = ("{}", "a photo of a {}.", "a picture of {}.", "selected")
"""What hand-written words are chosen from, with the data set's template (project's choice); `selected`: CoOp's seven sentences."""


def zero_shot(clip: Clip, class_names: Sequence[str], words: str, template: str) -> Classifier:
    """The classifier of hand-written words: a template, or the name of several that the data set's template is one of."""
    return Classifier(clip, resolve("zero-shot", {"templates": words}), Bare(), class_names, template)


def best_words(clip: Clip, class_names: Sequence[str], template: str, images: Images, samples: Sequence[Sample]) -> str:
    """The hand-written words that answer most of these images rightly; a tie goes to the template. They are never test images."""
    if not samples:
        return template
    candidates = dict.fromkeys((template, *HAND_WRITTEN))
    right = {
        words: accuracy(zero_shot(clip, class_names, words, template), samples, images) or 0.0 for words in candidates
    }
    return max(right, key=right.__getitem__)


@dataclass(frozen=True, slots=True, kw_only=True)
class Questions:
    """What a prompt is tested on: the usable test images of a data set, or of a half of its classes."""

    dataset: str
    class_names: tuple[str, ...]
    samples: Sequence[Sample]
    template: str
    """The words of the zero-shot classifier."""
    split_hash: str
    protocol: str
    subset: str = "all"
    skipped: Mapping[str, str] = field(default_factory=dict)
    test_of: int = 0
    """How many test images there are, where some were drawn; 0: these are all."""
    words: str = ""
    """Hand-written words that the prompt is compared with; empty: the template."""
    told: tuple[Tensor, Tensor] | None = None
    """The logits (N, C) of the learned prompts and of the hand-written words, where folds gave them."""
    folds: int = 0
    val: Sequence[Sample] = ()
    """Validation images of the same classes, which are answered as well."""


def examine(
    classifier: Classifier,
    asked: Questions,
    images: Images,
    *,
    temperature: float = 1.0,
    several: Several | None = None,
) -> tuple[dict[str, Any], Predictions | None]:
    """Test a classifier, and the template's zero-shot one: the fields of a record that it decides, and the answers.

    temperature: of the probabilities; with one, the calibration error without it is told too. several: how a prompt of several labels
    for each image answers.
    """
    clip, test, names, template = classifier.clip, asked.samples, asked.class_names, asked.template
    fields: dict[str, Any] = dict.fromkeys(("top1", "zero_shot_top1", "top5", "macro_f1", "balanced_accuracy", "ece"))
    fields |= {
        "num_classes": len(names),
        "num_test": len(test),
        "weight_hash": clip.weight_hash,
        "template": template,
        "device": str(clip.device),
        "dtype": str(clip.dtype).removeprefix("torch."),
        "versions": versions(),
    }
    answers = None
    if test:
        logits_NC = asked.told[0] if asked.told else classifier.logits(test, images)
        probability_NC = several.probabilities(logits_NC) if several else probabilities(logits_NC, temperature)
        answers = predictions(test, probability_NC)
        label_N = answers.label
        fields |= several.measured(logits_NC, test, names) if several else score(probability_NC, label_N, names)
        if temperature != 1.0:
            fields["ece_before"] = score(probabilities(logits_NC), label_N, names)["ece"]
        by_words_NC = zero_shot(clip, names, template, template).logits(test, images)
        against = right_of(by_words_NC, test)
        fields["zero_shot_top1"] = float(100 * against.mean())
        if words := asked.words:
            by_words_NC = asked.told[1] if asked.told else zero_shot(clip, names, words, template).logits(test, images)
            against = right_of(by_words_NC, test)
            fields |= {"hand_written": words, "hand_written_top1": float(100 * against.mean())}
        if several:
            fields |= several.against(by_words_NC, logits_NC, test, names)
        own = answers.predicted == label_N
        fields["gained"], fields["lost"] = int((own & ~against).sum()), int((against & ~own).sum())
        counts = Counter(label for one in test for label in one.labels)
        fields["majority_top1"] = float(100 * max(counts.values()) / len(test))
    fields["peak_mib"] = peak_mib(clip.device)
    return fields, answers


def training_hash(samples: Sequence[Sample]) -> str:
    """SHA-256 (hex) over the contents and labels of images, in order."""
    return hashlib.sha256(
        "".join(f"{one.content_hash} {' '.join(map(str, one.labels))}\n" for one in samples).encode()
    ).hexdigest()
