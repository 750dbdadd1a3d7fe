"""A module filled with learned tensors: of an artifact, of a published checkpoint, of the prompt that learning begins with."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn


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
