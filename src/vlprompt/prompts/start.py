"""A prompt that begins where another one ended: any spec, whose module is filled with learned tensors."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from vlprompt.errors import UserError
from vlprompt.types import ModelFacts, PromptSpec, TextLayout


@dataclass(frozen=True, slots=True, kw_only=True)
class StartedSpec:
    """A spec and the tensors that its module starts from."""

    spec: PromptSpec
    tensors: Mapping[str, Tensor]
    """By the names of the module's parameters, float32."""
    origin: str
    """Where the tensors come from, for messages."""
    hint: str = ""
    """What to do where they do not fit."""

    @property
    def layout(self) -> TextLayout | None:
        return self.spec.layout

    @property
    def conditioned(self) -> bool:
        return self.spec.conditioned

    @property
    def prompts_image(self) -> bool:
        return self.spec.prompts_image

    @property
    def deep_text(self) -> bool:
        return self.spec.deep_text

    def build(self, facts: ModelFacts, generator: torch.Generator, num_classes: int) -> nn.Module:
        """The spec's module with the tensors in it. UserError where a name or a shape differs, naming each."""
        module = self.spec.build(facts, generator, num_classes)
        wanted = dict(module.named_parameters())
        problems = misfits(self.tensors, wanted)
        if problems:
            raise UserError(
                f"the learned tensors of {self.origin} do not fit this method: {'; '.join(problems)}.{self.hint}"
            )
        with torch.no_grad():
            for name, parameter in wanted.items():
                parameter.copy_(self.tensors[name])
        return module


def misfits(given: Mapping[str, Tensor], wanted: Mapping[str, Tensor]) -> list[str]:
    """What stands in the way of filling the wanted tensors with the given ones, one phrase for each name."""
    out = [f"missing {name} {tuple(p.shape)}" for name, p in wanted.items() if name not in given]
    out += [f"unexpected {name} {tuple(t.shape)}" for name, t in given.items() if name not in wanted]
    return out + [
        f"{name} is {tuple(given[name].shape)} {given[name].dtype}, expected {tuple(p.shape)} {p.dtype}"
        for name, p in wanted.items()
        if name in given and (given[name].shape != p.shape or given[name].dtype != p.dtype)
    ]
