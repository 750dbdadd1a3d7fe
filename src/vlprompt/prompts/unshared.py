"""Unshared tokens: queries, keys and values of the prompt rows each have a separate token (RPP's SAPL).

Letters: M text tokens, N image tokens, D width of a tower.

Source: RPP, arXiv 2409.06166, as far as public: the three sequences LN(Rep(X, P_Q)), LN(Rep(X, P_K)), LN(Rep(X, P_V)) of each
layer, in both towers. Numbers of tokens, depth, initial values and what the prompt rows carry on are the project's choice.
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

import torch
from torch import Tensor, nn

from vlprompt.prompts.layers import (
    AUTO,
    WORDS,
    depths,
    fixed_words,
    normal,
    place,
    require_image_prompts,
    require_tokens,
    start_context,
)
from vlprompt.types import ModelFacts, Prompted, Reach, Residual, Splice, TextLayout

PARTS = ("q", "k", "v")


@dataclass(frozen=True, slots=True, kw_only=True)
class UnsharedSpec:
    """RPP's unshared tokens."""

    n_ctx: int = 4
    """M, the number of text tokens."""
    n_image: int = 4
    """N, the number of image tokens."""
    depth: int = field(default=AUTO, metadata={"words": {"auto": AUTO}})
    """How many layers of each tower are prompted; "auto": three quarters of each tower (9 of 12)."""
    residual: Residual = "keep"
    """What the prompt rows carry on: keep the un-replaced rows, replace them by the query's tokens, or by v, the value's."""
    init: str = WORDS
    """`normal`: N(0, 0.02); anything else: words whose first `n_ctx` start the text tokens of layer 0, the rest staying fixed behind."""
    towers: Literal["both", "text", "image"] = "both"
    """Which towers have tokens; a tower without is frozen, and text then is the template."""

    def __post_init__(self) -> None:
        require_tokens("n_ctx", self.n_ctx)
        require_tokens("n_image", self.n_image)

    @property
    def reach(self) -> Reach:
        deep_text = self.towers != "image" and self.depth != 1 and self.residual != "keep"
        return Reach(image_tower=self.towers != "text", deep_text=deep_text)

    @property
    def layout(self) -> TextLayout | None:
        if self.towers == "image":
            return None
        return TextLayout(num_tokens=self.n_ctx, words=fixed_words(self.init, self.n_ctx))

    def build(self, facts: ModelFacts, generator: torch.Generator, num_classes: int) -> UnsharedPrompt:
        """Text layer 0 from the words, the same for all its tensors; all else N(0, 0.02).

        Warns of tokens that this depth and residual leave without effect. UserError: a ResNet, or a depth above a tower's layers.
        """
        if self.reach.image_tower:
            require_image_prompts(facts, "rpp with --set towers=text")
        layers = {"text": facts.text_layers, "image": facts.image_layers}
        layers = {tower: count for tower, count in layers.items() if self.towers in ("both", tower)}
        deep = depths(self.depth, layers)
        shape = {"text": (self.n_ctx, facts.text_width), "image": (self.n_image, facts.image_width)}
        values = {
            tower: [{part: normal(shape[tower], generator) for part in PARTS} for _ in range(deep[tower])]
            for tower in layers
        }
        tokens = {tower: normal(shape[tower], generator) for tower in layers}
        if "text" in layers:
            start_MD = start_context(self.init, self.n_ctx, facts, generator)
            values["text"][0] = {part: start_MD.clone() for part in PARTS}
            tokens["text"] = start_MD.clone()
        for tower in layers:
            dead = dead_tensors(tower, deep[tower], layers[tower], self.residual)
            if dead:
                warnings.warn(_dead_message(dead, deep[tower], layers[tower], self.residual), UserWarning, stacklevel=2)
        return UnsharedPrompt(values, tokens if self.residual == "keep" else {}, self.residual, self.layout)


class UnsharedPrompt(nn.Module):
    """`text.L.q`, `.k`, `.v` (M, D) and `image.L.q`, `.k`, `.v` (N, D) for each prompted layer L; with residual `keep` also the
    layer-0 tokens that are un-replaced, `ctx` (M, D) and `patch` (N, D)."""

    ctx: nn.Parameter | None
    patch: nn.Parameter | None

    def __init__(
        self,
        values: Mapping[str, list[dict[str, Tensor]]],
        tokens: Mapping[str, Tensor],
        residual: Residual,
        layout: TextLayout | None,
    ) -> None:
        super().__init__()
        for name, tower in (("ctx", "text"), ("patch", "image")):
            self.register_parameter(name, nn.Parameter(tokens[tower]) if tower in tokens else None)
        self.text, self.image = (self._layers(values.get(tower, [])) for tower in ("text", "image"))
        self.residual, self.layout = residual, layout

    @staticmethod
    def _layers(values: list[dict[str, Tensor]]) -> nn.ModuleDict:
        found = nn.ModuleDict()
        for layer, parts in enumerate(values):
            named = found[str(layer)] = nn.ParameterDict()
            for part, rows in parts.items():  # one by one: a dictionary would be sorted
                named[part] = nn.Parameter(rows)
        return found

    def forward(self) -> Prompted:
        text, image = self._splices(self.text, self.ctx), self._splices(self.image, self.patch)
        return Prompted(text=text, image=image, layout=self.layout)

    def _splices(self, layers: nn.ModuleDict, token: Tensor | None) -> dict[int, Splice]:
        found = {}
        for name, parts in layers.items():
            assert isinstance(parts, nn.ParameterDict)
            q, k, v = (parts[part] for part in PARTS)
            found[int(name)] = Splice(q=q, k=k, v=v, token=token if name == "0" else None, residual=self.residual)
        return found

    def places(self) -> dict[str, str]:
        use = {"q": "queries", "k": "keys", "v": "values"}
        found = {}
        if self.ctx is not None:
            found["ctx"] = f"{place('text', 0)}, the un-replaced rows"
        if self.patch is not None:
            found["patch"] = f"{place('image', 0)}, the un-replaced rows"
        for first, tower, layers in ((place("text", 0), "text", self.text), (place("image", 0), "image", self.image)):
            for layer in layers:
                where = first.replace("layer 0", f"layer {layer}")
                found |= {f"{tower}.{layer}.{part}": f"{where}, for {use[part]} alone" for part in PARTS}
        return found


def dead_tensors(tower: str, depth: int, layers: int, residual: Residual) -> tuple[str, ...]:
    """The learned tensors that cannot change the answer: prompt rows act through the keys and values of un-prompted layers.

    A query token changes only what its own rows carry on. In a prompted layer above nobody reads that; in an un-prompted one the
    class row does. So with prompts in all layers every query token (and the un-replaced token) is dead, and where the rows are
    overwritten at each layer all but the last layer's are. Checked by gradients in the tests.
    """
    if depth >= layers:
        token = {"text": "ctx", "image": "patch"}[tower]
        queries = tuple(f"{tower}.{layer}.q" for layer in range(depth))
        return (token, *queries) if residual == "keep" else queries
    return () if residual == "keep" else tuple(f"{tower}.{layer}.q" for layer in range(depth - 1))


def _dead_message(dead: tuple[str, ...], depth: int, layers: int, residual: Residual) -> str:
    why = (
        f"{depth} of {layers} layers have prompts" if depth >= layers else f"residual={residual} overwrites their rows"
    )
    return (
        f"cross-entropy cannot reach {', '.join(dead)}: {why}, so nothing reads them. Use residual=keep and a depth below the "
        "tower's layers, or accept that they stay as they are but for weight decay."
    )
