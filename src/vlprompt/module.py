"""A frozen CLIP with a method's prompt as one torch module, for your own training loop.

Letters: B images, C classes, S side of the square that the model sees, in pixels, E joint embedding.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import torch
from torch import Tensor, nn

from vlprompt import artifact, pocket
from vlprompt.data import DEFAULT_TEMPLATE
from vlprompt.engine.forward import Forward, reads_frozen
from vlprompt.engine.precision import resolve_device
from vlprompt.errors import UserError
from vlprompt.losses import after, answers
from vlprompt.methods.resolve import recipe_of, resolve
from vlprompt.towers import Clip, load
from vlprompt.types import Features


class PromptedCLIP(nn.Module):
    """Pixels in, logits out. `parameters()` and `state_dict()` are the prompt's alone; the towers are frozen and not in them.

    Gradients are those of the package's own loop. The loss is yours: a method's own terms (PLPP, KgCoOp) are not in it.
    """

    def __init__(
        self,
        model: str | Path | Clip = pocket.MODEL,
        method: str = "coop",
        *,
        class_names: Sequence[str],
        template: str = DEFAULT_TEMPLATE,
        seed: int = 1,
        device: str = "auto",
        **options: object,
    ) -> None:
        """model: as `--model`, or a model that is loaded. options: of the method, as ``--set`` names them.

        It stays on `device`: the towers do not follow `.to()`. UserError: an unknown method or option, fewer than two classes, or a
        method that fits at once and has nothing for a loop.
        """
        super().__init__()
        if len(set(class_names)) < 2 or len(set(class_names)) < len(class_names):
            raise UserError(
                f"a classifier needs at least two classes with different names; these are {list(class_names)}."
            )
        clip = model if isinstance(model, Clip) else load(model, device=resolve_device(device))
        name = clip.name if isinstance(model, Clip) else str(model)
        self.method = resolve(method, options, recipe=recipe_of(method, "few-shot", name, "auto"), facts=clip.facts)
        self._towers = (clip,)  # a tuple: torch must not count the towers as part of this module
        self.class_names, self.template, self.model = tuple(class_names), template, name
        made = torch.Generator().manual_seed(seed)
        self.prompt = self.method.prompt.build(clip.facts, made, len(class_names)).to(clip.device)
        if next(self.prompt.parameters(), None) is None:
            raise UserError(f"{method!r} has no tensors for a training loop. Use PromptClassifier, or another method.")
        self._forward = self._of(self.class_names)

    @property
    def clip(self) -> Clip:
        """The frozen towers, with `preprocess`."""
        return self._towers[0]

    def _of(self, class_names: Sequence[str]) -> Forward:
        return Forward(self.clip, replace(self.method, learner=None), class_names, self.template)

    def ask(self, class_names: Sequence[str]) -> None:
        """Answer for other classes from now on. UserError: a prompt that has learned something for each of its classes."""
        if self.method.prompt.reach.own_classes and tuple(class_names) != self.class_names:
            raise UserError(f"{self.method.name!r} knows its own {len(self.class_names)} classes alone.")
        self._forward = self._of(class_names)

    def forward(self, pixels: Tensor, features: Tensor | None = None) -> Tensor:
        """(B, 3, S, S) as `load_pixels` gives them -> logits (B, C).

        features: (B, E) what `encode` gave for these pixels, to save the frozen image tower's work; pixels may then be empty, if the
        prompt stays out of the image tower.
        """
        spec = self.method.prompt
        if features is None and reads_frozen(spec, frozenset()):
            features = self.encode(pixels)
        frozen = None if features is None else features.to(self.clip.device)
        prompted = self._forward.ask(self.prompt, frozen)
        image = self.clip.encode_images(pixels, prompted) if spec.reach.image_tower else Features(pooled=_given(frozen))
        text = self._forward.class_features(prompted)
        return answers(prompted, after(prompted.after_image, image), text, self.clip.logit_scale)

    @torch.no_grad()
    def encode(self, pixels: Tensor) -> Tensor:
        """(B, 3, S, S) -> (B, E): the frozen image tower's features, without the prompt. Keep them from epoch to epoch."""
        return self.clip.encode_images(pixels.to(self.clip.device)).pooled

    def save(self, directory: str | Path) -> None:
        """Write the prompt as `vlprompt train` does: `predict`, `export` and `PromptClassifier.load` read it."""
        learned = artifact.Learned(
            method=self.method,
            prompt=self.prompt,
            class_names=self.class_names,
            template=self.template,
            model=self.model,
            weight_hash=self.clip.weight_hash,
        )
        artifact.save(Path(directory), learned)


def _given(features: Tensor | None) -> Tensor:
    assert features is not None
    return features
