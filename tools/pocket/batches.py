"""Batches of pictures and captions: sampling, augmentation on tensors, and which pairs match.

Shapes: B batch, S side in pixels.
"""

from __future__ import annotations

import math
import random
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from captions import Caption, Words, caption, words_of
from looks import Look, draw_look
from tokenizers import Tokenizer

MEAN = (0.78, 0.73, 0.68)
STD = (0.31, 0.32, 0.35)
TWICE = 0.2  # share of a batch whose drawings stand in it once more, with another look


@dataclass(frozen=True)
class Batch:
    """Normalised pictures, padded captions with their lengths, and the matrix of matching pairs."""

    pixels: torch.Tensor
    tokens: torch.Tensor
    ends: torch.Tensor
    matches: torch.Tensor


class Batches:
    """Endless random batches of the pretraining drawings; `state` makes them resumable."""

    def __init__(self, drawings: list[dict], pixels: np.ndarray, tokenizer: Tokenizer, size: int, side: int, seed: int):
        self.words: list[Words] = [words_of(d) for d in drawings]
        self.hands = [d["hand"] for d in drawings]
        concepts = {c: n for n, c in enumerate(sorted({d["concept"] for d in drawings}))}
        self.concepts = torch.tensor([concepts[d["concept"]] for d in drawings])
        self.pixels = torch.from_numpy(pixels)
        self.weights = torch.tensor(sampling_weights(drawings))
        self.tokenizer, self.size, self.side = tokenizer, size, side
        self.seed = seed

    def batch(self, step: int) -> Batch:
        """The batch of one step: a function of the seed and the step alone."""
        generator = torch.Generator().manual_seed(self.seed * 1_000_003 + step)
        rng = random.Random(f"{self.seed} {step}")
        twice = int(TWICE * self.size)
        chosen = torch.multinomial(self.weights, self.size - twice, replacement=False, generator=generator).tolist()
        chosen += chosen[:twice]
        looks = [draw_look(self.hands[i], rng) for i in chosen]
        long = step % 8 == 7
        texts = [caption(self.words[i], rng, long=long, look=look) for i, look in zip(chosen, looks, strict=True)]
        limit = 48 if long else 20
        ids = [e.ids if len(e.ids) <= limit else [*e.ids[: limit - 1], e.ids[-1]] for e in self._encode(texts)]
        tokens = torch.full((len(ids), max(map(len, ids))), self.tokenizer.token_to_id("<|endoftext|>"))
        for row, line in zip(tokens, ids, strict=True):
            row[: len(line)] = torch.tensor(line)
        matches = self._matches(chosen, texts) & _look_alike(texts, looks)
        pixels = augment(self.pixels[chosen], looks, self.side, generator)
        return Batch(pixels, tokens, torch.tensor([len(line) - 1 for line in ids]), matches)

    def _encode(self, texts: list[Caption]) -> list:
        return self.tokenizer.encode_batch([t.text for t in texts])

    def _matches(self, chosen: list[int], texts: list[Caption]) -> torch.Tensor:
        """(B, B) bool: picture i fits caption j, by concept, or by category where j names one; looks apart."""
        concept = self.concepts[chosen]
        matches = concept[:, None] == concept[None, :]
        first = {t.text: n for n, t in reversed(list(enumerate(texts)))}
        same = torch.tensor([first[t.text] for t in texts])
        matches |= same[:, None] == same[None, :]
        for j, text in enumerate(texts):
            if text.category is not None:
                matches[:, j] = torch.tensor([text.category in self.words[i].categories for i in chosen])
        return matches


def _look_alike(texts: list[Caption], looks: list[Look]) -> torch.Tensor:
    """(B, B) bool: what caption j says of the look is true of picture i."""
    fits = torch.ones(len(looks), len(texts), dtype=torch.bool)
    for j, text in enumerate(texts):
        fits[:, j] = torch.tensor([text.claims.fit(look) for look in looks])
    return fits


def sampling_weights(drawings: list[dict]) -> list[float]:
    """Variants of one concept by one hand share a weight; flags count a third, clip art twice."""
    count: dict[tuple[str, str], int] = {}
    for d in drawings:
        key = (d["hand"], d["concept"])
        count[key] = count.get(key, 0) + 1
    weights = []
    for d in drawings:
        n = count[(d["hand"], d["concept"])]
        weight = math.sqrt(n) / n
        weight *= 1 / 3 if d["groups"][0] == "flags" else 2.0 if d["hand"] == "openclipart" else 1.0
        weights.append(weight)
    return weights


def augment(rgba: torch.Tensor, looks: list[Look], side: int, generator: torch.Generator) -> torch.Tensor:
    """(B, 64, 64, 4) uint8 to (B, 3, S, S) normalised: its look, then crop, turn, flip and colour at random."""
    count = len(rgba)

    def uniform(low: float, high: float, *shape: int) -> torch.Tensor:
        return torch.rand((count, *shape), generator=generator) * (high - low) + low

    def chance(p: float, *shape: int) -> torch.Tensor:
        return torch.rand((count, *shape), generator=generator) < p

    def has(effect: str) -> torch.Tensor:
        return torch.tensor([look.effect == effect for look in looks])[:, None, None, None]

    x = rgba.permute(0, 3, 1, 2).float() / 255
    x[:, :3] *= x[:, 3:]
    # Zoom below 1 shows a part of the picture, above 1 all of it with a margin.
    angle = torch.where(chance(0.5), uniform(-0.35, 0.35), torch.zeros(count))
    zoom = torch.tensor([look.zoom for look in looks])
    stretch = uniform(-0.15, 0.15).exp()
    flip = torch.where(chance(0.4), -1.0, 1.0)
    free = (1.12 - zoom).abs().clamp(min=0.06)
    theta = torch.stack(
        [
            torch.stack([zoom * stretch * angle.cos() * flip, -zoom * angle.sin(), free * uniform(-1, 1) * 0.8], 1),
            torch.stack([zoom * angle.sin() * flip, zoom / stretch * angle.cos(), free * uniform(-1, 1) * 0.8], 1),
        ],
        1,
    )
    grid = F.affine_grid(theta, [count, 4, side, side], align_corners=False)
    x = F.grid_sample(x, grid, mode="bilinear", padding_mode="zeros", align_corners=False)
    colour, alpha = x[:, :3], x[:, 3:]
    background = torch.tensor([look.colour for look in looks])[:, :, None, None]
    x = colour + background * (1 - alpha)
    grey = (x * torch.tensor([0.299, 0.587, 0.114])[:, None, None]).sum(1, keepdim=True)
    x = torch.where(has("grey"), grey.expand_as(x), x)
    edges = torch.zeros_like(grey)
    edges[..., :-1] += grey.diff(dim=3).abs()
    edges[:, :, :-1] += grey.diff(dim=2).abs()
    x = torch.where(has("outline"), (1 - (3 * edges).clamp(0, 1)).expand_as(x), x)
    x = torch.where(has("silhouette"), (1 - alpha).expand_as(x), x)
    saturation = torch.where(chance(0.5, 1, 1, 1), uniform(0.4, 1.6, 1, 1, 1), torch.ones(count, 1, 1, 1))
    mean = x.mean(1, keepdim=True)
    x = mean + (x - mean) * saturation
    x = x * uniform(0.75, 1.25, 1, 1, 1) * uniform(0.9, 1.1, 3, 1, 1) + uniform(-0.1, 0.1, 1, 1, 1)
    x = x.clamp(0, 1)
    return (x - torch.tensor(MEAN)[:, None, None]) / torch.tensor(STD)[:, None, None]
