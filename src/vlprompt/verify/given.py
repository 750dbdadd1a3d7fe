"""What the published implementations were given: seeded weights, images, class names and learned tensors."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from typing import Any

import torch
from torch import Tensor, nn

from vlprompt.towers import Clip, assemble
from vlprompt.towers.clip_vocabulary import clip_tokenizer
from vlprompt.towers.config import RESNET_STRIDE, ClipConfig, ResNetConfig, TowerConfig
from vlprompt.types import Preprocess
from vlprompt.verify import parity

HALF = (0.5, 0.5, 0.5)
"""Mean and deviation of an image transform that is never used: the cases bring pixels."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Given:
    """One case's inputs, on the device."""

    clip: Clip
    method: str
    source: str
    """Repository and file that the numbers come from."""
    config: Mapping[str, Any]
    class_names: tuple[str, ...]
    labels: Tensor
    """(B,) int64."""
    pixels: Tensor
    """(B, 3, H, W)."""
    learned: Mapping[str, nn.Parameter]
    """The learned tensors by their official names, float32."""


@cache
def case_names() -> tuple[str, ...]:
    """The cases, in the order of the index."""
    return tuple(case["name"] for case in parity.index()["cases"])


def given(name: str, device: str, dtype: str) -> Given:
    """Rebuild the inputs of a case; the towers hold their weights in `dtype` and are shared by all cases."""
    index = parity.index()
    case = next(case for case in index["cases"] if case["name"] == name)
    config, weights, images, learned = case["config"], index["weights"], index["images"], case["learned"]
    if "manifest" in config:  # a case with towers and images of its own
        weights = {"manifest": config["manifest"], "seed": config["weights_seed"]}
        images = {"batch": config["batch"], "size": config["size"], "seed": config["images_seed"]}
    values = {} if learned["seed"] is None else parity.learned(learned["tensors"], learned["seed"])
    return Given(
        clip=_towers(weights["manifest"], weights["seed"], device, dtype),
        method=case["method"],
        source=case["source"],
        config=config,
        class_names=tuple(index["class_names"]),
        labels=torch.tensor(index["labels"], device=device),
        pixels=torch.from_numpy(parity.images(images["batch"], images["size"], images["seed"])).to(device),
        learned={key: nn.Parameter(torch.from_numpy(value).to(device)) for key, value in values.items()},
    )


def _transformer(width: int, *, layers: int) -> TowerConfig:
    return TowerConfig(width=width, layers=layers, heads=width // 64, hidden=4 * width, activation="quick_gelu")


CONFIGS = {
    "vit.json": ClipConfig(
        embed_dim=512,
        text=_transformer(512, layers=3),
        image=_transformer(768, layers=3),
        vocab_size=49408,
        context_length=77,
        image_size=32,
        patch_size=16,
    ),
    "resnet.json": ClipConfig(
        embed_dim=64,
        text=_transformer(64, layers=1),
        image=ResNetConfig(blocks=(1, 2, 1, 1), stem=16, heads=8),
        vocab_size=49408,
        context_length=77,
        image_size=64,
        patch_size=RESNET_STRIDE,
    ),
}
"""The towers' sizes by the manifest of their tensors; a state dict does not hold the heads, of width 64."""


@cache
def _towers(manifest: str, seed: int, device: str, dtype: str) -> Clip:
    config = CONFIGS[manifest]
    return assemble(
        config,
        _weights(manifest, seed),
        tokenizer=clip_tokenizer(),
        preprocess=Preprocess(resize=config.image_size, crop=config.image_size, mean=HALF, std=HALF),
        name=f"parity {manifest}",
        device=device,
        dtype=dtype,
    )


@cache
def _weights(manifest: str, seed: int) -> dict[str, Tensor]:
    """Drawn once per process; float32 towers on the CPU share their memory."""
    drawn = parity.weights(parity.manifest(manifest), seed)
    return {name: torch.from_numpy(values) for name, values in drawn.items()}
