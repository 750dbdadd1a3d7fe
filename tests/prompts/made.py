"""A small CLIP whose towers differ in width and depth, and helpers for prompts built on it."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from vlprompt.towers import Clip
from vlprompt.types import Prompted, PromptSpec

SIZES = {"text_width": 48, "image_width": 64, "text_layers": 4, "image_layers": 6}
NAMES = ["cat", "dog house", "red bird"]


def build(clip: Clip, spec: PromptSpec, seed: int = 0) -> nn.Module:
    return spec.build(clip.facts, torch.Generator().manual_seed(seed), len(NAMES))


def pixels(dtype: torch.dtype = torch.float32) -> Tensor:
    return torch.randn(3, 3, 32, 32, generator=torch.Generator().manual_seed(5)).to(dtype)


def stir(module: nn.Module, seed: int = 9) -> nn.Module:
    """Every learned tensor drawn anew and larger, so that nothing hides behind small or equal values."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for tensor in module.parameters():
            tensor.normal_(std=0.3, generator=generator)
    return module


def both(clip: Clip, prompted: Prompted) -> tuple[Tensor, Tensor]:
    """Text and image embeddings."""
    text = clip.encode_text(clip.class_tokens(NAMES, prompted.layout), prompted).pooled
    return text, clip.encode_images(pixels(clip.dtype), prompted).pooled


def loss(clip: Clip, prompted: Prompted) -> Tensor:
    """Cross-entropy of three images of three classes."""
    text, image = (nn.functional.normalize(one, dim=-1) for one in both(clip, prompted))
    return nn.functional.cross_entropy(30 * image @ text.T, torch.arange(3))


def shapes(module: nn.Module) -> dict[str, tuple[int, ...]]:
    return {name: tuple(tensor.shape) for name, tensor in module.named_parameters()}
