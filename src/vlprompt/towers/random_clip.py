"""A CLIP of random weights in ViT-B/16's shape: it knows nothing, and takes the time and the memory that the real one takes."""

from __future__ import annotations

import torch

from vlprompt.towers.clip import Clip
from vlprompt.towers.config import ClipConfig, TowerConfig
from vlprompt.towers.formats.files import Source
from vlprompt.towers.load import assemble
from vlprompt.towers.text import TextTower
from vlprompt.towers.tokenizer import clip_tokenizer
from vlprompt.towers.vision import VisionTower
from vlprompt.types import Preprocess


def tower(width: int, layers: int) -> TowerConfig:
    """A transformer as CLIP's are: heads of 64, a four-fold hidden layer."""
    return TowerConfig(width=width, layers=layers, heads=width // 64, hidden=4 * width, activation="quick_gelu")


VIT_B16 = ClipConfig(
    embed_dim=512,
    text=tower(512, 12),
    image=tower(768, 12),
    vocab_size=49408,
    context_length=77,
    image_size=224,
    patch_size=16,
)
SCALE = 100.0
"""Of the logits, as published."""


def draw_clip(
    shape: ClipConfig = VIT_B16, *, device: str | torch.device = "cpu", dtype: str = "float32", seed: int = 0
) -> Clip:
    """Random weights of this shape with CLIP's own vocabulary, the same in every process."""
    with torch.device("meta"):
        visual = {f"visual.{name}": one for name, one in VisionTower(shape).state_dict().items()}
        shapes = {**TextTower(shape).state_dict(), **visual}
    generator = torch.Generator().manual_seed(seed)
    weights = {"logit_scale": torch.tensor(SCALE).log()}
    for name, value in shapes.items():
        fan = value[0].numel() if value.dim() > 1 else value.shape[-1]
        scale = 0.02 if "embedding" in name or name.endswith("bias") else fan**-0.5
        weights[name] = torch.empty(value.shape).normal_(std=scale, generator=generator)
        if "ln_" in name and name.endswith("weight"):
            weights[name] = 1 + 0.05 * weights[name]
    side = shape.image_size
    preprocess = Preprocess(resize=side, crop=side, mean=(0.5, 0.5, 0.5), std=(0.5, 0.5, 0.5))
    source = Source(config=shape, weights=weights, tokenizer=clip_tokenizer(), preprocess=preprocess)
    return assemble(source, name="random weights", device=device, dtype=dtype)
