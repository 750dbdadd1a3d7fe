"""The other architectures of open_clip and timm, row by row and in their own names. Written from their published code.

Text: mlfoundations/open_clip, transformer.py. Images: huggingface/pytorch-image-models, models/eva.py, vision_transformer.py,
vision_transformer_hybrid.py, layers/attention_pool.py, layers/pos_embed_sincos.py.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from types import MappingProxyType

import torch
import torch.nn.functional as F
from torch import Tensor

Weights = Mapping[str, Tensor]


def linear(w: Weights, name: str, x: Tensor) -> Tensor:
    return x @ w[f"{name}.weight"].T + w.get(f"{name}.bias", torch.zeros(()))


def norm(w: Weights, name: str, x: Tensor, eps: float) -> Tensor:
    centred = x - x.mean(-1, keepdim=True)
    return centred / (centred.square().mean(-1, keepdim=True) + eps).sqrt() * w[f"{name}.weight"] + w[f"{name}.bias"]


def attend(q: Tensor, k: Tensor, v: Tensor, heads: int, seen: Callable[[int, int], bool]) -> Tensor:
    """Rows (L, D): each query's weighted mean of the values, one head and one query at a time."""
    size, out = q.shape[1] // heads, []
    for i in range(len(q)):
        keys = [j for j in range(len(k)) if seen(i, j)]
        parts = []
        for h in range(heads):
            cut = slice(h * size, (h + 1) * size)
            scores = torch.stack([q[i, cut] @ k[j, cut] for j in keys]) / math.sqrt(size)
            parts.append(scores.softmax(0) @ v[keys, cut])
        out.append(torch.cat(parts))
    return torch.stack(out)


def always(_i: int, _j: int) -> bool:
    return True


def text(
    w: Weights,
    ids: list[int],
    *,
    heads: int,
    layers: int,
    causal: bool,
    row: int,
    eps: float = 1e-5,
    approximate: str = "none",
    learned: Mapping[int, Tensor] = MappingProxyType({}),
    first: int = 1,
) -> Tensor:
    """A sentence's embedding: ids as long as the context, `row` the pooled one. Names without a prefix.

    learned: layer -> the rows that stand there from `first` on; of layer 0 in the place of token embeddings.
    """
    x = w["token_embedding.weight"][torch.tensor(ids)]
    for i in range(layers):
        if i in learned:
            x = torch.cat([x[:first], learned[i], x[first + len(learned[i]) :]])
        x = x + w["positional_embedding"] if i == 0 else x
        at = f"transformer.resblocks.{i}"
        y = norm(w, f"{at}.ln_1", x, eps)
        q, k, v = (y @ w[f"{at}.attn.in_proj_weight"].T + w[f"{at}.attn.in_proj_bias"]).chunk(3, -1)
        attended = attend(q, k, v, heads, (lambda a, b: b <= a) if causal else always)
        x = x + linear(w, f"{at}.attn.out_proj", attended)
        hidden = F.gelu(linear(w, f"{at}.mlp.c_fc", norm(w, f"{at}.ln_2", x, eps)), approximate=approximate)
        x = x + linear(w, f"{at}.mlp.c_proj", hidden)
    pooled = norm(w, "ln_final", x, eps)[row]
    if not any(name.startswith("text_projection") for name in w):
        return pooled
    return pooled @ w["text_projection"] if "text_projection" in w else linear(w, "text_projection", pooled)


def cut(w: Weights, name: str, pixels: Tensor) -> Tensor:
    """A convolution whose stride is its size: (C, H, W) -> (h, w, D), patch by patch."""
    weight = w[f"{name}.weight"]
    size = weight.shape[-1]
    rows = [
        [
            (weight * pixels[None, :, i : i + size, j : j + size]).sum((1, 2, 3))
            for j in range(0, pixels.shape[2] - size + 1, size)
        ]
        for i in range(0, pixels.shape[1] - size + 1, size)
    ]
    return torch.stack([torch.stack(row) for row in rows]) + w.get(f"{name}.bias", torch.zeros(()))


def turn(x: Tensor, row: float, column: float, heads: int) -> Tensor:
    """EVA-02's rotary positions of one patch: pairs of neighbours, the first half of a head by its row, the second by its column."""
    size = len(x) // heads
    bands = [10000 ** -(j / (size // 4)) for j in range(size // 4)]
    angles = [place * band for place in (row, column) for band in bands]
    out = x.clone()
    for h in range(heads):
        for j, angle in enumerate(angles):
            a, b = x[h * size + 2 * j], x[h * size + 2 * j + 1]
            out[h * size + 2 * j] = a * math.cos(angle) - b * math.sin(angle)
            out[h * size + 2 * j + 1] = b * math.cos(angle) + a * math.sin(angle)
    return out


def eva(w: Weights, pixels: Tensor, *, heads: int, layers: int, rotary: bool) -> Tensor:
    """timm's Eva, names behind ``visual.trunk.``: EVA-02 with rotary positions, SwiGLU and inner norms, or EVA-01."""
    grid = cut(w, "patch_embed.proj", pixels)
    side = len(grid)
    x = torch.cat([w["cls_token"][0], grid.flatten(0, 1)]) + w["pos_embed"][0]
    for i in range(layers):
        at = f"blocks.{i}"
        y = norm(w, f"{at}.norm1", x, 1e-6)
        if rotary:
            q, k, v = (linear(w, f"{at}.attn.{one}_proj", y) for one in "qkv")
            places = [(n // side / side * 16, n % side / side * 16) for n in range(side * side)]
            q, k = (
                torch.stack([z[0], *(turn(z[1 + n], *place, heads) for n, place in enumerate(places))]) for z in (q, k)
            )
        else:
            q, k, v = (y @ w[f"{at}.attn.qkv.weight"].T).chunk(3, -1)
            q, v = q + w[f"{at}.attn.q_bias"], v + w[f"{at}.attn.v_bias"]
        attended = attend(q, k, v, heads, always)
        attended = norm(w, f"{at}.attn.norm", attended, 1e-6) if rotary else attended
        x = x + linear(w, f"{at}.attn.proj", attended)
        y = norm(w, f"{at}.norm2", x, 1e-6)
        if rotary:
            hidden = norm(
                w, f"{at}.mlp.norm", F.silu(linear(w, f"{at}.mlp.fc1_g", y)) * linear(w, f"{at}.mlp.fc1_x", y), 1e-6
            )
        else:
            hidden = F.gelu(linear(w, f"{at}.mlp.fc1", y))
        x = x + linear(w, f"{at}.mlp.fc2", hidden)
    return linear(w, "head", norm(w, "norm", x, 1e-6)[0])


def timm_vit(w: Weights, x: Tensor, *, heads: int, layers: int, approximate: str = "none", eps: float = 1e-6) -> Tensor:
    """timm's blocks and last norm on rows (L, D)."""
    for i in range(layers):
        at = f"blocks.{i}"
        q, k, v = linear(w, f"{at}.attn.qkv", norm(w, f"{at}.norm1", x, eps)).chunk(3, -1)
        x = x + linear(w, f"{at}.attn.proj", attend(q, k, v, heads, always))
        hidden = F.gelu(linear(w, f"{at}.mlp.fc1", norm(w, f"{at}.norm2", x, eps)), approximate=approximate)
        x = x + linear(w, f"{at}.mlp.fc2", hidden)
    return norm(w, "norm", x, eps)


def siglip_image(w: Weights, pixels: Tensor, *, heads: int, layers: int, approximate: str) -> Tensor:
    """timm's ViT with ``global_pool="map"``."""
    x = cut(w, "patch_embed.proj", pixels).flatten(0, 1) + w["pos_embed"][0]
    x = timm_vit(w, x, heads=heads, layers=layers, approximate=approximate)
    q = linear(w, "attn_pool.q", w["attn_pool.latent"][0])
    k, v = linear(w, "attn_pool.kv", x).chunk(2, -1)
    x = linear(w, "attn_pool.proj", attend(q, k, v, heads, always))
    hidden = F.gelu(linear(w, "attn_pool.mlp.fc1", norm(w, "attn_pool.norm", x, 1e-6)), approximate=approximate)
    return (x + linear(w, "attn_pool.mlp.fc2", hidden))[0]


def mobile_image(w: Weights, pixels: Tensor, *, heads: int, layers: int) -> Tensor:
    """timm's vit_base_mci_224: three convolutions, batch norms between, positions for patches alone."""
    stem, x = "patch_embed.backbone", pixels
    for i in range(3):
        rows = cut(w, f"{stem}.{i}.conv", x)
        if i < 2:
            bn = {part: w[f"{stem}.{i}.bn.{part}"] for part in ("running_mean", "running_var", "weight", "bias")}
            rows = (rows - bn["running_mean"]) / (bn["running_var"] + 1e-5).sqrt() * bn["weight"] + bn["bias"]
            rows = F.gelu(rows)
        x = rows.permute(2, 0, 1)
    x = torch.cat([w["cls_token"][0], x.permute(1, 2, 0).flatten(0, 1) + w["pos_embed"][0]])
    return linear(w, "head", timm_vit(w, x, heads=heads, layers=layers)[0])


def clip_image(w: Weights, pixels: Tensor, *, heads: int, layers: int) -> Tensor:
    """timm's vit_*_clip_*: CLIP's ViT, with an affine head."""
    x = torch.cat([w["cls_token"][0], cut(w, "patch_embed.proj", pixels).flatten(0, 1)]) + w["pos_embed"][0]
    x = timm_vit(w, norm(w, "norm_pre", x, 1e-5), heads=heads, layers=layers, eps=1e-5)
    return linear(w, "head", x[0])


def clipa_image(w: Weights, pixels: Tensor, *, heads: int, layers: int) -> Tensor:
    """open_clip's ViT without ln_pre: the mean of the patches, normalised, projected. Names behind ``visual.``."""
    x = torch.cat([w["class_embedding"][None], cut(w, "conv1", pixels).flatten(0, 1)]) + w["positional_embedding"]
    for i in range(layers):
        at = f"transformer.resblocks.{i}"
        y = norm(w, f"{at}.ln_1", x, 1e-5)
        q, k, v = (y @ w[f"{at}.attn.in_proj_weight"].T + w[f"{at}.attn.in_proj_bias"]).chunk(3, -1)
        x = x + linear(w, f"{at}.attn.out_proj", attend(q, k, v, heads, always))
        x = x + linear(w, f"{at}.mlp.c_proj", F.gelu(linear(w, f"{at}.mlp.c_fc", norm(w, f"{at}.ln_2", x, 1e-5))))
    return norm(w, "ln_post", x[1:].mean(0), 1e-5) @ w["proj"]
