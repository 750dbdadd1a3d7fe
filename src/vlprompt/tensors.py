"""Tensors in safetensors files, checked before they are used: names, shapes and types from the header, then the numbers.

And how a tensor gets onto a device.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load
from torch import Tensor

from vlprompt import reading
from vlprompt.errors import NUMERICAL, UserError, data_error

MAX_HEADER = 100_000_000
"""Bytes; the limit of the safetensors library."""
LARGEST = 1e9
"""Beyond it, sums of squares and products of a few learned numbers leave float32's range (project's choice)."""


def onto(tensor: Tensor, device: torch.device) -> Tensor:
    """A tensor on a device; for CUDA from pinned memory: the processor does not wait for the copy."""
    if device.type == "cuda" and tensor.device.type == "cpu":
        tensor = tensor.pin_memory()
    return tensor.to(device, non_blocking=True)


def header(content: bytes, where: str) -> dict[str, Any]:
    """The header of a safetensors file as it stands: name -> dtype, shape, data_offsets; ``__metadata__`` -> texts."""
    length = int.from_bytes(content[:8], "little")
    if len(content) < 8 or length > min(len(content) - 8, MAX_HEADER):
        raise data_error(f"{where} is not a safetensors file or is cut short.")
    found = reading.json_value(content[8 : 8 + length], f"{where} (its header)")
    if not isinstance(found, dict) or not all(isinstance(one, dict) for one in found.values()):
        raise data_error(f"{where} is not a safetensors file or is damaged.")
    return found


def unpacked(content: bytes, where: str) -> dict[str, Tensor]:
    """The tensors of a file's bytes. UserError: damaged."""
    try:
        return load(content)
    except (SafetensorError, ValueError, KeyError, TypeError, OverflowError, RuntimeError) as problem:
        raise data_error(f"{where} is not a safetensors file or is damaged: {problem}") from problem


def require_usable(tensors: Mapping[str, Tensor], where: Path | str) -> None:
    """UserError (exit code 4) where a tensor holds NaN, infinity or a number beyond `LARGEST`, naming the first."""
    for name, tensor in tensors.items():
        if tensor.is_floating_point() and not bool((tensor.abs() <= LARGEST).all()):
            bad = int((~(tensor.abs() <= LARGEST)).sum())
            raise UserError(
                f"{where}: {name} holds {bad} of {tensor.numel()} numbers that are not finite or too large to compute with. The file is "
                "damaged, or learning diverged: use another, or learn it again with a smaller --set lr=...",
                exit_code=NUMERICAL,
            )


def digest(tensors: Mapping[str, Tensor], beside: str = "") -> str:
    """SHA-256 (hex) over some text and the name, type, shape and bytes of every tensor, by name."""
    found = hashlib.sha256(beside.encode())
    for name, one in sorted(tensors.items()):
        flat = one.detach().cpu().contiguous().reshape(-1)
        found.update(f"{name} {one.dtype} {tuple(one.shape)}".encode())
        found.update(flat.view(torch.uint8).numpy().tobytes())
    return found.hexdigest()
