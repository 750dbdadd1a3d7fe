"""One batch through prompt and towers: what a loss may look at."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from vlprompt.engine.classes import in_view
from vlprompt.engine.distributed import ALONE, Alone
from vlprompt.errors import UserError, data_error
from vlprompt.losses import after, answers, logits
from vlprompt.tensors import onto
from vlprompt.towers import Clip
from vlprompt.towers.tokens import subset
from vlprompt.types import Context, Ensemble, Features, Method, Need, Prompted, PromptSpec, TeacherAnswer, View

if TYPE_CHECKING:
    from vlprompt.engine.teacher import Teacher

ROWS = 16_384
"""Text rows that are run at once where no gradient is kept."""
TEMPLATE = Ensemble(templates=(), own=True)
"""The data set's template alone."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SeenBatch:
    """A batch as one prompt sees it."""

    prompted: Prompted
    labels: Tensor
    """(B,), on the CPU, as `drawn` and `others`: the classes in view are found there."""
    frozen_BE: Tensor | None
    """The bare tower's features, where `Forward.reads_frozen`."""
    pixels: Tensor | None
    """(B, 3, S, S): where the prompt enters the image tower."""
    drawn: Tensor | None = None
    """The classes that are in view in addition to the images' own; None: all are."""
    others: Sequence[Tensor] = ()
    """Labels of the step's images in other processes."""
    taught_BE: Tensor | None = None
    """The images' features in the other model that teaches."""


class Forward:
    """The forward pass of one method on one class list; what stays the same from batch to batch is computed once."""

    def __init__(
        self,
        clip: Clip,
        method: Method,
        class_names: Sequence[str],
        template: str,
        *,
        max_rows: int | None = None,
        ranks: Alone = ALONE,
        taught: Teacher | None = None,
    ) -> None:
        """template: of the frozen tower's class features, where the method has no sentences for them. max_rows: text rows that are run at
        once, to bound memory; None: all. ranks: the processes that share the classes of a step. taught: another model, which is the
        teacher. UserError: a term that compares features, which two models do not share."""
        self.clip, self.spec, self.max_rows, self.ranks = clip, method.prompt, max_rows, ranks
        needs, spec, sentences = method.needs, method.prompt, method.teacher or TEMPLATE
        assert not needs >= {"host_states", "context_states"}, (
            "a view has one context: the host's or the separate pass's"
        )
        self.needs = needs
        self.taught = taught
        self.taught_text: Features | None = None
        if taught is not None:
            if needs & {"teacher_text", "teacher_image"}:
                raise UserError(
                    "this method compares features with its teacher's, and those of another model mean something else. Use a method "
                    "that compares answers with another teacher (rpp, prograd), or leave out --teacher."
                )
            self.taught_text = taught.text(class_names, template, method.teacher)
        self.tokens = clip.class_tokens(class_names, spec.layout, template)
        self.frozen_text: Features | None = None
        if self.taught_text is not None and spec.reach.teachers_text:
            self.frozen_text = self.taught_text
        elif method.reads_words:
            self.frozen_text = ensemble_text(clip, class_names, sentences, template)

    @property
    def reads_frozen(self) -> bool:
        """Whether the bare image tower's features are needed (they come from the cache)."""
        return reads_frozen(self.spec, self.needs if self.taught is None else frozenset())

    def __call__(
        self,
        prompt: nn.Module,
        labels: Tensor,
        frozen_BE: Tensor | None,
        pixels: Tensor | None,
        drawn: Tensor | None = None,
        *,
        chance: int | None = None,
        taught_BE: Tensor | None = None,
    ) -> View:
        """The arguments are those of `SeenBatch`; chance: the step's seed, for a prompt that asks for it."""
        prompted = self.ask(prompt, frozen_BE, chance)
        seen = SeenBatch(
            prompted=prompted, labels=labels, frozen_BE=frozen_BE, pixels=pixels, drawn=drawn, taught_BE=taught_BE
        )
        return self.view(seen)

    def ask(self, prompt: nn.Module, frozen_BE: Tensor | None, chance: int | None = None) -> Prompted:
        """What the prompt says, called with what it asked to see."""
        frozen = None if frozen_BE is None else Features(pooled=frozen_BE)
        return asked(prompt, self.spec, frozen, self.frozen_text, chance)

    def view(self, seen: SeenBatch, text: Features | None = None, image: Features | None = None) -> View:
        """text, image: what the towers answered where several prompts went through at once."""
        device, prompted, labels = self.clip.device, seen.prompted, seen.labels
        chosen = None
        if seen.drawn is not None:
            chosen = in_view(labels, seen.drawn, self.tokens.num_classes, seen.others)
        classes_C = None if chosen is None else chosen.classes_C
        frozen = None if seen.frozen_BE is None else Features(pooled=seen.frozen_BE)
        image = after(prompted.after_image, image or self._image(prompted, frozen, seen.pixels))
        host = "host_states" in self.needs
        text = text or self.class_features(prompted, classes_C, states=host)
        context = None
        if host:
            context = host_context(prompted, text)
        elif "context_states" in self.needs:
            context = self.clip.context(prompted)
        return View(
            labels=onto(labels if chosen is None else chosen.labels_B, device),
            logits=answers(prompted, image, text, self.clip.logit_scale),
            text=text,
            image=image,
            prompted=prompted,
            vocabulary=self.clip.vocabulary,
            context=context,
            teacher=self._teacher(frozen, classes_C, seen.taught_BE),
            sampled=None if chosen is None else replace(chosen.sampled, seen=onto(chosen.sampled.seen, device)),
        )

    def _image(self, prompted: Prompted, frozen: Features | None, pixels: Tensor | None) -> Features:
        if not self.spec.reach.image_tower:
            assert frozen is not None
            return frozen
        assert pixels is not None
        return self.clip.encode_images(pixels, prompted) if len(pixels) else self.no_images()

    def no_images(self) -> Features:
        """(0, E): the features of a process that has no image of a step."""
        return Features(pooled=torch.empty(0, self.clip.facts.embed_dim, device=self.clip.device))

    def class_features(
        self, prompted: Prompted, classes_C: Tensor | None = None, *, states: bool = False, max_rows: int | None = None
    ) -> Features:
        """The class features of the classes in view (None: all), in their order; of several processes each encodes its part.

        max_rows: text rows that are run at once; None: as in learning.
        """
        if self.spec.layout is None and not self.spec.reach.text_tower:
            assert self.frozen_text is not None
            return _of(self.frozen_text, classes_C)
        return self._encoded(prompted, classes_C, states, max_rows or self.max_rows)

    def _encoded(self, prompted: Prompted, classes_C: Tensor | None, states: bool, max_rows: int | None) -> Features:
        number = self.tokens.num_classes if classes_C is None else len(classes_C)
        part = self.ranks.part(number)
        if self.ranks.world == 1:
            tokens = self.tokens if classes_C is None else subset(self.tokens, classes_C)
        else:
            own = range(1) if len(part) == 0 else part  # a rank without a class encodes one, and gives none
            index = torch.arange(own.start, own.stop) if classes_C is None else classes_C[own.start : own.stop]
            tokens = subset(self.tokens, index)
        text = self.clip.encode_text(tokens, prompted, states=states, max_rows=max_rows)
        if self.ranks.world == 1:
            return text
        return Features(pooled=self.ranks.gather(text.pooled[: len(part)], number), states=text.states)

    def _teacher(
        self, frozen: Features | None, classes_C: Tensor | None, taught_BE: Tensor | None
    ) -> TeacherAnswer | None:
        if not self.needs & {"teacher_text", "teacher_image", "teacher_logits"}:
            return None
        if self.taught is not None:
            assert self.taught_text is not None
            assert taught_BE is not None
            there = Features(pooled=taught_BE)
            return TeacherAnswer(logits=logits(there, _of(self.taught_text, classes_C), self.taught.clip.logit_scale))
        text = None if self.frozen_text is None else _of(self.frozen_text, classes_C)
        soft = None
        if "teacher_logits" in self.needs:
            assert frozen is not None
            assert text is not None
            soft = logits(frozen, text, self.clip.logit_scale)
        return TeacherAnswer(text=text, image=frozen, logits=soft)


def asked(
    prompt: nn.Module, spec: PromptSpec, image: Features | None, classes: Features | None, chance: int | None = None
) -> Prompted:
    """Call a prompt with what it asked to see."""
    seen = {"image": image and image.unit, "classes": classes and classes.unit, "chance": chance}
    prompted: Prompted = prompt(**{sight: seen[sight] for sight in spec.reach.sees})
    return prompted


def reads_frozen(spec: PromptSpec, needs: frozenset[Need]) -> bool:
    """Whether learning such a prompt needs the bare image tower's features."""
    return bool(needs & {"teacher_image", "teacher_logits"}) or "image" in spec.reach.sees or not spec.reach.image_tower


def _of(text: Features, classes_C: Tensor | None) -> Features:
    """The class features of the classes in view."""
    return text if classes_C is None else Features(pooled=text.pooled[onto(classes_C, text.pooled.device)])


def zero_shot_text(clip: Clip, class_names: Sequence[str], template: str) -> Features:
    """The bare tower's class features (C, E) for a template: the zero-shot classifier, and the teacher."""
    with torch.no_grad():
        return clip.encode_text(clip.class_tokens(class_names, None, template), max_rows=ROWS)


def ensemble_text(clip: Clip, class_names: Sequence[str], ensemble: Ensemble, template: str) -> Features:
    """The mean over templates of the bare tower's class features (C, E), one template at a time; template: the data set's own.

    If classes have their own sentences: the mean of those, each of length 1. UserError: a class without one.
    """
    if ensemble.by_class is not None:
        return _described(clip, class_names, ensemble)
    templates = (*ensemble.templates, template) if ensemble.own else ensemble.templates
    features = [zero_shot_text(clip, class_names, one) for one in templates]
    each = [one.unit if ensemble.unit else one.pooled for one in features]
    return Features(pooled=torch.stack(each).mean(dim=0))


def require_sentences(ensemble: Ensemble | None, class_names: Sequence[str]) -> None:
    """UserError where classes have their own sentences, and one of these has none."""
    if ensemble is None or ensemble.by_class is None:
        return
    if missing := [name for name in class_names if not ensemble.sentences(name)]:
        raise data_error(
            f"{len(missing)} of {len(class_names)} classes have no sentence: {', '.join(map(repr, missing[:5]))}. Write some "
            "for every class into a file, and learn with train --sentences FILE (bench: --set sentences=FILE, or described.sentences=FILE)."
        )


@torch.no_grad()
def _described(clip: Clip, class_names: Sequence[str], ensemble: Ensemble) -> Features:
    require_sentences(ensemble, class_names)
    each = [ensemble.sentences(name) for name in class_names]
    flat = [
        sentence.replace("{}", name.replace("_", " "))
        for name, own in zip(class_names, each, strict=True)
        for sentence in own
    ]
    unit = clip.encode_text(clip.sentence_tokens(flat), max_rows=ROWS).unit
    return Features(pooled=torch.stack([part.mean(dim=0) for part in torch.split(unit, [len(own) for own in each])]))


def host_context(prompted: Prompted, text: Features) -> Context:
    """The layer-0 context with the states of the host's own pass.

    Image-conditioned ones as their mean over images (project's choice).
    """
    first = prompted.text[0]
    assert text.states is not None
    vectors, states = first.q if first.token is None else first.token, text.states
    return Context(
        vectors=vectors.mean(0) if first.axis == "image" else vectors,
        states=states.mean(0) if states.dim() == 3 else states,
    )
