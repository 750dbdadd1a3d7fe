"""A module filled with learned tensors: of an artifact, of a published checkpoint, of the prompt that learning begins with."""

from __future__ import annotations

import re
from collections.abc import Mapping

import torch
from torch import Tensor, nn

LEARNER = "prompt_learner."
"""Stands before the names of what the published code learns, but not before those of tokens inside a tower."""
DEEP = re.compile(r"(text|image)_encoder\.(?:VPT|transformer\.resblocks\.(\d+)\.VPT_shallow)")
COMPOUND = re.compile(r"compound_prompt(?:s_(text)|_(proj)ections)\.(\d+)(.*)")


def ours(published: str) -> str:
    """The published code's name of a learned tensor, without `LEARNER`, in ours.

    ``VPT`` is the first layer's tokens; ``VPT_shallow``, whatever its name says, those of a deeper layer.
    ``compound_prompts_text.i`` and ``compound_prompt_projections.i`` are of layer i + 1, ``proj`` of layer 0.
    """
    if deep := DEEP.fullmatch(published):
        return f"{deep[1]}.{deep[2] or 0}"
    if compound := COMPOUND.fullmatch(published):
        return f"{compound[1] or compound[2]}.{int(compound[3]) + 1}{compound[4]}"
    return published.replace("proj.", "proj.0.", 1) if published.startswith("proj.") else published


def misfits(given: Mapping[str, Tensor], module: nn.Module) -> list[str]:
    """What stands in the way of filling a module with the given tensors, one phrase for each name."""
    wanted = dict(module.named_parameters())
    out = [f"missing {name} {tuple(p.shape)}" for name, p in wanted.items() if name not in given]
    out += [f"unexpected {name} {tuple(t.shape)}" for name, t in given.items() if name not in wanted]
    return out + [
        f"{name} is {tuple(given[name].shape)} {given[name].dtype}, expected {tuple(p.shape)} {p.dtype}"
        for name, p in wanted.items()
        if name in given
        and (_shape(given[name], name, module) != _shape(p, name, module) or given[name].dtype != p.dtype)
    ]


def _shape(tensor: Tensor, name: str, module: nn.Module) -> torch.Size:
    """The shape that must fit: without the first axis, where that counts the training images (`per_image` of the module)."""
    return tensor.shape[1:] if name in getattr(module, "per_image", ()) else tensor.shape


@torch.no_grad()
def fill(module: nn.Module, tensors: Mapping[str, Tensor]) -> None:
    """Copy tensors that fit into a module's parameters."""
    for name, parameter in list(module.named_parameters()):
        if parameter.shape == tensors[name].shape:
            parameter.copy_(tensors[name])
        else:
            module.register_parameter(name, nn.Parameter(tensors[name].to(parameter.device)))
