"""One batch through prompt and towers: what a loss may look at."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from vlprompt.losses import logits
from vlprompt.towers import Clip
from vlprompt.types import Context, Features, Need, Prompted, PromptSpec, Teacher, View

ROWS = 16_384
"""Text rows that are run at once where no gradient is kept."""


class Forward:
    """The forward pass of one method on one class list; what stays the same from batch to batch is computed once."""

    def __init__(
        self,
        clip: Clip,
        spec: PromptSpec,
        needs: frozenset[Need],
        class_names: Sequence[str],
        template: str,
        *,
        max_rows: int | None = None,
    ) -> None:
        """max_rows: text rows that are run at once, to bound memory; None: all."""
        self.clip, self.spec, self.needs, self.max_rows = clip, spec, needs, max_rows
        assert not needs >= {"host_states", "context_states"}, (
            "a view has one context: the host's or the separate pass's"
        )
        self.tokens = clip.class_tokens(class_names, spec.layout, template)
        teaches = bool(needs & {"teacher_text", "teacher_logits"})
        self.zero_shot = zero_shot_text(clip, class_names, template) if teaches or spec.layout is None else None

    @property
    def reads_frozen(self) -> bool:
        """Whether the bare image tower's features are needed (they come from the cache)."""
        teaches = bool(self.needs & {"teacher_image", "teacher_logits"})
        return teaches or self.spec.conditioned or not self.spec.prompts_image

    def __call__(self, prompt: nn.Module, labels: Tensor, frozen_BE: Tensor | None, pixels: Tensor | None) -> View:
        """labels (B,). frozen_BE: the bare tower's features, where `reads_frozen`. pixels (B, 3, S, S): where the prompt enters
        the image tower."""
        frozen = None if frozen_BE is None else Features(pooled=frozen_BE)
        conditioned = self.spec.conditioned
        assert frozen is not None or not conditioned
        prompted: Prompted = prompt(frozen.unit if frozen is not None and conditioned else None)
        if self.spec.prompts_image:
            assert pixels is not None
            image = self.clip.encode_images(pixels, prompted)
        else:
            assert frozen is not None
            image = frozen
        host = "host_states" in self.needs
        if self.spec.layout is None:
            assert self.zero_shot is not None
            text = self.zero_shot
        else:
            text = self.clip.encode_text(self.tokens, prompted, states=host, max_rows=self.max_rows)
        context = None
        if host:
            context = host_context(prompted, text)
        elif "context_states" in self.needs:
            context = self.clip.context(prompted)
        return View(
            labels=labels,
            logits=logits(image, text, self.clip.logit_scale),
            text=text,
            image=image,
            prompted=prompted,
            vocabulary=self.clip.vocabulary,
            context=context,
            teacher=self._teacher(frozen),
        )

    def _teacher(self, frozen: Features | None) -> Teacher | None:
        if not self.needs & {"teacher_text", "teacher_image", "teacher_logits"}:
            return None
        answers = None
        if "teacher_logits" in self.needs:
            assert frozen is not None
            assert self.zero_shot is not None
            answers = logits(frozen, self.zero_shot, self.clip.logit_scale)
        return Teacher(text=self.zero_shot, image=frozen, logits=answers)


def zero_shot_text(clip: Clip, class_names: Sequence[str], template: str) -> Features:
    """The bare tower's class features (C, E) for a template: the zero-shot classifier, and the teacher."""
    with torch.no_grad():
        return clip.encode_text(clip.class_tokens(class_names, None, template), max_rows=ROWS)


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
