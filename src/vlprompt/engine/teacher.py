"""Another model that teaches: its answers on images, and the class features that it leaves in a prompt.

It is a frozen model, or a frozen model with a learned prompt (a run of `vlprompt train`).
"""

from __future__ import annotations

import functools
import hashlib
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import torch
from torch import Tensor

from vlprompt import artifact, records
from vlprompt.data import FeatureStore
from vlprompt.disk import default_root
from vlprompt.engine.forward import TEMPLATE, Forward, ensemble_text
from vlprompt.engine.images import Images
from vlprompt.engine.observer import SILENT, Observer
from vlprompt.errors import UserError
from vlprompt.losses import after
from vlprompt.towers import Clip, load
from vlprompt.types import BARE, Ensemble, Features, Method, Taught, plain_name


class Teacher(Images):
    """Images as the teacher sees them, and its class features."""

    def __init__(
        self, clip: Clip, store: FeatureStore | None, observer: Observer = SILENT, directory: Path | None = None
    ) -> None:
        """directory: of a learned prompt of this model. UserError: a prompt that gives no features of an image and of a class."""
        super().__init__(clip, store, observer)
        self.hash, self.prompted = clip.weight_hash, BARE
        self.learned = artifact.load(directory, clip) if directory is not None else None
        if directory is None or self.learned is None:
            return
        method, reach = self.learned.method, self.learned.method.prompt.reach
        able = not (method.at_test or reach.own_classes or reach.teachers_text or "image" in reach.sees)
        if able:
            self.prompted = self._forward(self.learned.class_names).ask(self.learned.prompt, None)
        if not able or self.prompted.score is not None:
            raise UserError(
                f"the {method.name!r} in {directory} cannot teach: it has no feature of an image and of any "
                "class. Use a prompt such as coop, maple or promptsrc, or a model."
            )
        self.hash = hashlib.sha256(f"{self.hash} {artifact.read_facts(directory)['tensors_hash']}".encode()).hexdigest()
        self.model_key = f"{self.model_key} prompted {self.hash}"

    @torch.no_grad()
    def embed(self, pixels_B3SS: Tensor) -> Tensor:
        """(B, E), un-normalised."""
        return after(self.prompted.after_image, self.clip.encode_images(pixels_B3SS, self.prompted)).pooled

    _encode = embed

    def _forward(self, class_names: Sequence[str]) -> Forward:
        assert self.learned is not None
        answering = replace(self.learned.method, learner=None)
        return Forward(self.clip, answering, class_names, self.learned.template)

    @torch.no_grad()
    def text(self, class_names: Sequence[str], template: str, ensemble: Ensemble | None = None) -> Features:
        """(C, E): of its prompt; without one, of the template or the ensemble."""
        if self.learned is None:
            return ensemble_text(self.clip, class_names, ensemble or TEMPLATE, template)
        forward = self._forward(class_names)
        return Features(pooled=forward.class_features(forward.ask(self.learned.prompt, None)).pooled)


def open_teacher(
    model: str | None, method: Method, clip: Clip, cache: Path | None, observer: Observer = SILENT
) -> Teacher | None:
    """The teacher that was named, in the precision and on the device of `clip`; None: nobody named one.

    UserError: a method that compares no answers with a teacher's, or compares features, which two models do not share.
    """
    if model is None:
        return None
    if "teacher_logits" not in method.needs:
        raise UserError(
            f"{method.name!r} compares no answers with a teacher's, so --teacher changes nothing. Leave it out, or use rpp, "
            "promptkd or prograd."
        )
    return _opened(model, FeatureStore(cache or default_root()), clip, observer)


def _opened(model: str, store: FeatureStore | None, clip: Clip, observer: Observer = SILENT) -> Teacher:
    place, dtype = Path(model).expanduser(), str(clip.dtype).removeprefix("torch.")
    if not (place / artifact.FACTS).is_file() and not any(place.glob(f"seed*/{records.RESULT}")):
        return Teacher(load(model, device=clip.device, dtype=dtype), store, observer)
    directory = artifact.pick(place).directory
    own = load(artifact.read_facts(directory)["model"], device=clip.device, dtype=dtype)
    return Teacher(own, store, observer, directory)


def left(teacher: Teacher, model: str, class_names: tuple[str, ...], template: str, method: Method) -> Taught:
    """What a teacher leaves in a prompt of these classes."""
    features = teacher.text(class_names, template, method.teacher).pooled.float().cpu()
    return Taught(model=model, hash=teacher.hash, names=class_names, features=features)


def taught_text(taught: Taught, clip: Clip, class_names: Sequence[str], template: str) -> Features:
    """(C, F): the features that are kept; for other names the teacher is opened. UserError: it cannot be, or is another one now."""
    known = dict(zip(map(plain_name, taught.names), taught.features, strict=True))
    if all(plain_name(name) in known for name in class_names):
        found = torch.stack([known[plain_name(name)] for name in class_names])
        return Features(pooled=found.to(clip.device))
    new = [name for name in class_names if plain_name(name) not in known]
    asked = f"{', '.join(map(repr, new[:3]))}{', ...' if len(new) > 3 else ''}: new classes, whose features come from the teacher"
    advice = "Put the teacher there, or ask for the learned classes."
    try:
        teacher = _again(taught.model, clip)
    except UserError as problem:
        raise UserError(
            f"{asked} {taught.model}, which cannot be opened: {problem} {advice}", exit_code=problem.exit_code
        ) from problem
    if teacher.hash != taught.hash:
        raise UserError(f"{asked} {taught.model}, which has other weights now than when it taught. {advice}")
    return teacher.text(class_names, template)


@functools.lru_cache(maxsize=1)
def _again(model: str, clip: Clip) -> Teacher:
    return _opened(model, None, clip)
