"""A frozen CLIP: both towers, the tokenizer, and what callers must know of them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import cached_property
from typing import Any

import torch
from torch import Tensor, nn

from vlprompt.errors import UserError
from vlprompt.tensors import onto
from vlprompt.towers.block import Entering, entering_of
from vlprompt.towers.captions import CAPTIONS
from vlprompt.towers.config import TowerConfig
from vlprompt.towers.formats.files import Source
from vlprompt.towers.resnet import ResNetTower
from vlprompt.towers.scaling import Scaling
from vlprompt.towers.text import Prefix, TextTower, again
from vlprompt.towers.tokens import ClassTokens, check_length, class_plans, pack, ready, sentence_plans
from vlprompt.towers.vision import VisionTower
from vlprompt.types import BARE, Context, Features, ModelFacts, Prompted, Splice, TextLayout, Vocabulary


class Clip(nn.Module):
    """Frozen towers: no parameter has a gradient, and gradients reach only what is in `Prompted`."""

    def __init__(
        self,
        text: TextTower,
        visual: VisionTower | ResNetTower,
        source: Source,
        *,
        logit_scale: float,
        logit_bias: float,
        name: str,
        weight_hash: str,
    ) -> None:
        super().__init__()
        self.text_tower = text
        self.visual = visual
        self.config, self.tokenizer, self.preprocess = source.config, source.tokenizer, source.preprocess
        self.logit_scale = logit_scale
        """Already exponentiated (about 100 for published CLIPs)."""
        self.logit_bias = logit_bias
        """What SigLIP adds to every logit before its sigmoid; the same for all classes, so no softmax over classes sees it."""
        self.name = name
        self.weight_hash = weight_hash
        """SHA-256 of all tensors by name, hex: the same weights in any layout give the same hash."""
        self.published = source.published
        """OpenAI's name of the model (``ViT-B/16``), where its file is one that OpenAI published."""
        self._tokens: dict[object, ClassTokens] = {}
        self.eval().requires_grad_(False)

    @property
    def device(self) -> torch.device:
        return self.text_tower.text_projection.device

    @property
    def dtype(self) -> torch.dtype:
        return self.text_tower.text_projection.dtype

    @property
    def context_length(self) -> int:
        return self.config.context_length

    @property
    def facts(self) -> ModelFacts:
        """What a prompt must know to be built for this model."""
        text, image = self.config.text, self.config.image
        return ModelFacts(
            embed_dim=self.config.embed_dim,
            text_width=text.width,
            text_layers=text.layers,
            image_width=image.width,
            image_layers=image.layers,
            embed_words=self.embed_words,
            takes_image_prompts=isinstance(image, TowerConfig),
            predicts_words=self.config.text_form.causal and bool(self.tokenizer.opening),
        )

    def _apply(self, fn: Callable[..., Any], recurse: bool = True) -> Clip:
        """What was computed of the weights is forgotten when they move or change their type."""
        for name in ("vocabulary", "mean_state"):
            self.__dict__.pop(name, None)
        moved: Clip = super()._apply(fn, recurse)  # type: ignore[no-untyped-call]
        return moved

    @cached_property
    def vocabulary(self) -> Vocabulary:
        """The token embedding in float32, and the ids that are words."""
        weight_VD = self.text_tower.token_embedding.weight.float()
        ids = torch.arange(len(weight_VD))
        keep = (ids != self.tokenizer.start_id) & (ids != self.tokenizer.end_id)
        return Vocabulary(
            weight_VD=weight_VD,
            word_ids=ids[keep],
            words=self.tokenizer.word,
            mean_state=lambda: self.mean_state,
        )

    @cached_property
    def mean_state(self) -> Tensor:
        """(D,) float32: the mean of the bare text tower's states that predict a word of `CAPTIONS` (project's choice)."""
        states = [self.word_states(self.tokenizer.encode(caption)) for caption in CAPTIONS]
        return torch.cat(states).mean(dim=0)

    @torch.no_grad()
    def word_states(self, ids: Sequence[int], prompted: Prompted = BARE) -> Tensor:
        """The states after ln_final that predict each of these L words, (L, D) float32, without a gradient.

        The rows are [SOS], the layout's learned context with its fixed words, then the words, as many as fit. The context stands first
        wherever its class name would stand; of class-specific contexts it is the first class's. The state before a word predicts it.
        """
        self._require_words()
        layout = prompted.layout
        splices = {i: one if one.axis == "shared" else Splice(q=one.q[0]) for i, one in prompted.text.items()}
        head = list(self.tokenizer.opening)
        if layout is not None:
            head += [*(-1 - j for j in range(layout.num_tokens)), *self.tokenizer.encode(layout.words)]
        ids = ids[: self.context_length - len(head) + 1]
        states = self._states([*head, *ids], layout and replace(layout, shared=True), splices, prompted)
        return states[0, len(head) - 1 :]

    def _states(
        self, plan: list[int], layout: TextLayout | None, splices: Mapping[int, Splice], prompted: Prompted
    ) -> Tensor:
        """The states after ln_final, (G, P, D) float32, of all rows of a plan but the last."""
        rows = pack([""], [plan], layout).to(self.device).prefix
        scaling = Scaling(self.dtype)
        entered = Entering(splices=splices, weights=entering_of(prompted, "text").weights)
        prefix = self.text_tower.prefix(rows, scaling.enter(entered), states=True)
        assert prefix.states is not None
        (states,) = scaling.leave(prefix.states)
        return states

    def embed_words(self, words: str) -> Tensor:
        """Words -> their rows of the token embedding, (number of tokens, text width), float32."""
        ids = torch.tensor(self.tokenizer.encode(words), dtype=torch.int64, device=self.device)
        return self.text_tower.token_embedding.weight[ids].float()

    def class_tokens(
        self, names: Sequence[str], layout: TextLayout | None = None, template: str = "a photo of a {}."
    ) -> ClassTokens:
        """Class names in a prompt's layout, or, without one, in a template; remembered per arguments."""
        key = (tuple(names), layout, None if layout else template)
        if key not in self._tokens:
            if layout is not None:
                plans = class_plans(self.tokenizer, names, layout)
            else:
                plans = sentence_plans(self.tokenizer, [fill(template, name) for name in names])
            self._tokens[key] = self._pack(names, plans, layout)
        return self._tokens[key]

    def sentence_tokens(self, sentences: Sequence[str]) -> ClassTokens:
        """Whole sentences, tokenised as they are."""
        return self._pack(sentences, sentence_plans(self.tokenizer, sentences), None)

    def _pack(self, names: Sequence[str], plans: list[list[int]], layout: TextLayout | None) -> ClassTokens:
        check_length(names, plans, self.context_length)
        return pack(names, plans, layout, self.config.text_form, self.context_length)

    def _require_words(self) -> None:
        """UserError where the text tower has no causal mask, or no token before the first word."""
        if not self.facts.predicts_words:
            why = (
                "has no causal mask: every row has seen the next word, so it predicts none"
                if not self.config.text_form.causal
                else "reads sentences without a start token, so nothing predicts their first word"
            )
            raise UserError(
                f"the text tower of {self.name or 'this model'} {why}. Use a model with CLIP's own text tower here "
                f"(`vlprompt methods --model M` says which methods fit a model)."
            )

    def encode_text(
        self, tokens: ClassTokens, prompted: Prompted = BARE, *, states: bool = False, max_rows: int | None = None
    ) -> Features:
        """Text embeddings of a class list: (C, E), or (B, C, E) where the prompt depends on the image.

        `states`: also the states after ln_final of [SOS] and the context, which must stand together before the name. `max_rows`:
        bounds memory by running at most so many own rows (times images) at once, and once more in the backward pass; the gradient
        is exact.
        """
        if states:
            self._require_words()
        layout, splices, entered = tokens.layout, prompted.text, entering_of(prompted, "text")
        assert (layout is None) == (not splices), "learned text tokens need a layout, and a layout needs learned tokens"
        deep_or_unshared = any(
            (layer > 0 and splice.axis != "class" and self.config.text_form.causal) or splice.k is not None
            for layer, splice in splices.items()
        )
        if layout is not None and (layout.position != "end" or not layout.shared) and deep_or_unshared:
            where = "class-specific" if not layout.shared else f"at position {layout.position!r}"
            raise UserError(
                f"the text context is {where}, but the prompt also has deeper or unshared text tokens, which need one context for "
                f"all classes that stands before the name. Use position 'end' and a unified context, or depth 1."
            )
        scaling = Scaling(self.dtype)
        entered = scaling.enter(entered)
        prefix = self.text_tower.prefix(tokens.prefix.to(self.device), entered, states=states)
        outputs = [self._classes(tokens, prefix, entered, max_rows)]
        if states:
            assert layout is not None, "a template has no context to read states of"
            assert layout.shared, "class-specific contexts have no shared states"
            assert layout.position == "end", "the context does not stand before the name"
            assert prefix.states is not None
            outputs.append(prefix.states[:, : 1 + layout.num_tokens])
        if not any(splice.axis == "image" for splice in splices.values()):
            outputs = [output[0] for output in outputs]
        outputs = list(scaling.leave(*outputs))
        return Features(pooled=outputs[0], states=outputs[1] if states else None)

    def _classes(self, tokens: ClassTokens, prefix: Prefix, entered: Entering, max_rows: int | None) -> Tensor:
        images = [len(one.q) for one in entered.splices.values() if one.axis == "image"]
        groups = len(prefix.keys[0]) if prefix.keys else max(images, default=1)
        parts = ready(tokens, None if max_rows is None else max(1, max_rows // groups), self.device)
        if len(parts) == 1:
            return self.text_tower.classes(parts[0], prefix, entered)
        done = [again(self.text_tower.classes, part, prefix, entered) for part in parts]
        return torch.cat(done, dim=1)[:, onto(tokens.restore_C, self.device)]

    def encode_images(self, pixels_B3HW: Tensor, prompted: Prompted = BARE) -> Features:
        """Normalised pixels (B, 3, H, W) or a trunk's cells -> image embeddings (B, E).

        UserError for prompts in a ResNet, which has no place for them.
        """
        entered = entering_of(prompted, "image")
        if entered.tensors() and not self.facts.takes_image_prompts:
            raise UserError(
                f"the image tower of {self.name or 'this model'} is a ResNet, and the prompt changes it. Allowed: text prompts. Use "
                f"a model with a ViT image tower, or a method that prompts the text alone."
            )
        scaling = Scaling(self.dtype)
        (pooled_BE,) = scaling.leave(self.visual(pixels_B3HW.to(self.device), scaling.enter(entered)))
        return Features(pooled=pooled_BE)

    def encode_patches(self, pixels_B3HW: Tensor, prompted: Prompted = BARE) -> Tensor:
        """(B, h, w, E) float32, un-normalised: each patch's own embedding, by the value path of the last attention."""
        with torch.no_grad():
            rows = self.visual.patches(pixels_B3HW.to(self.device), entering_of(prompted, "image"))
        side = self.config.image_size // self.config.patch_size
        return rows.reshape(len(rows), side, side, -1)

    @property
    def reads_cells(self) -> bool:
        """Whether a trunk stands before the ViT, whose cells are worth keeping."""
        return isinstance(self.visual, VisionTower) and self.visual.trunk is not None

    def read_images(self, pixels_B3HW: Tensor) -> Tensor:
        """What no prompt changes: with a trunk its cells (B, L, C), which `encode_images` takes as well; else the pixels."""
        return self.visual.read(pixels_B3HW.to(self.device)) if isinstance(self.visual, VisionTower) else pixels_B3HW

    def context(self, prompted: Prompted, *, deep: bool = False) -> Context:
        """The learned layer-0 context as a language model sees it: a pass of [SOS] and the context alone.

        `deep`: with the deeper and unshared text tokens on. Image-conditioned contexts are averaged over images first (project's
        choice).
        """
        self._require_words()
        first = prompted.text[0]
        vectors = first.q if first.token is None else first.token
        vectors = vectors.mean(0) if first.axis == "image" else vectors
        lead = vectors.reshape(-1, *vectors.shape[-2:])
        num_tokens = vectors.shape[-2]
        plan = [*self.tokenizer.opening, *(-1 - j for j in range(num_tokens)), *self.tokenizer.closing]
        splices: Mapping[int, Splice] = prompted.text if deep else {}
        alone = Splice(q=lead, axis="image")
        within = {**splices, 0: first if deep and first.k is not None else alone}
        states = self._states(plan, TextLayout(num_tokens=num_tokens), within, prompted)
        return Context(vectors=vectors, states=states.reshape(*vectors.shape[:-2], *states.shape[-2:]))


def fill(template: str, name: str) -> str:
    """The template's sentence for a class; `_` in names is read as a space."""
    if template.count("{}") != 1:
        raise UserError(
            f"the template {template!r} must have one {{}} where the class name goes, e.g. 'a photo of a {{}}.'"
        )
    return template.replace("{}", name.replace("_", " "))
