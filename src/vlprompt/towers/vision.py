"""The ViT image tower, with prompt rows after the patches.

Letters: B images, L rows (1 + patches + N prompts), N prompt rows, D width, E joint embedding.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import lru_cache
from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from vlprompt.towers.block import (
    Attention,
    Block,
    Entering,
    LayerNorm,
    Mlp,
    Transformer,
    entering,
    entry_rows,
    full,
    heads_first,
    heads_last,
    put_from,
)
from vlprompt.towers.config import ClipConfig, TowerConfig
from vlprompt.towers.trunk import Trunk


class MapHead(nn.Module):
    """One learned query over all rows, and an MLP behind it (SigLIP's head, arXiv 2303.15343; big_vision's ``MAPHead``)."""

    def __init__(self, config: TowerConfig) -> None:
        super().__init__()
        self.heads = config.heads
        self.probe = nn.Parameter(torch.empty(config.width))
        self.attn = Attention(config)
        self.ln_2 = LayerNorm(config.width, config.eps)
        self.mlp = Mlp(config)

    def forward(self, rows_BLD: Tensor) -> Tensor:
        """(B, L, D) -> (B, D)."""
        q = self.attn.project(self.probe[None, None], slice(0, 1)).expand(rows_BLD.shape[0], -1, -1)
        k, v = self.attn.project(rows_BLD, slice(1, 3)).chunk(2, dim=-1)
        q, k, v = (heads_first(t, self.heads) for t in (q, k, v))
        return self._behind(heads_last(F.scaled_dot_product_attention(q, k, v)))[:, 0]

    def each(self, rows_BLD: Tensor) -> Tensor:
        """(B, L, D) -> (B, L, D): what the pool would be if the query saw one row alone."""
        return self._behind(self.attn.project(rows_BLD, slice(2, 3)))

    def _behind(self, attended: Tensor) -> Tensor:
        x = self.attn.out(attended)
        return x + cast(Tensor, self.mlp(self.ln_2(x)))


class VisionTower(nn.Module):
    """Pixels -> image embeddings."""

    def __init__(self, config: ClipConfig) -> None:
        super().__init__()
        tower, form = config.image, config.image_form
        assert isinstance(tower, TowerConfig), "a ResNet's configuration"
        self.heads, self.form, self.num_patches = tower.heads, form, config.num_patches
        self.class_embedding = nn.Parameter(torch.empty(tower.width)) if form.class_row else None
        self.positional_embedding = nn.Parameter(torch.empty(config.num_patches + form.class_row, tower.width))
        self.trunk: Trunk | None = None
        self.stem: nn.ModuleList | None = None
        if config.stem:
            sizes = [3, *(channels for _, channels in config.stem)]
            self.stem = nn.ModuleList(nn.Conv2d(sizes[i], n, s, s) for i, (s, n) in enumerate(config.stem))
        elif config.trunk is None:
            self.conv1 = nn.Conv2d(3, tower.width, config.patch_size, config.patch_size, bias=form.patch_bias)
        else:
            self.trunk = Trunk(config.trunk)
            self.head = nn.Linear(config.trunk.channels, config.trunk.head)
            self.patch = nn.Linear(config.trunk.head, tower.width, bias=False)
        self.ln_pre = LayerNorm(tower.width, tower.eps) if form.pre_norm else nn.Identity()
        self.transformer = Transformer(tower)
        self.ln_post = LayerNorm(tower.width, tower.eps)
        self.attn_pool = MapHead(tower) if form.pool == "attention" else None
        projects = form.projection != "none"
        self.proj = nn.Parameter(torch.empty(tower.width, config.embed_dim)) if projects else None
        self.proj_bias = nn.Parameter(torch.empty(config.embed_dim)) if form.projection == "affine" else None

    @property
    def blocks(self) -> Sequence[Block]:
        return list(self.transformer.resblocks)  # type: ignore[arg-type]

    def forward(self, pixels_B3HW: Tensor, entered: Entering) -> Tensor:
        """Normalised pixels (B, 3, H, W), or what `read` made of them, -> un-normalised embeddings (B, E), float32."""
        x_BLD, q, k, v = self._until_last(pixels_B3HW, entered)
        if self.form.pool == "class":  # only the class row is read
            x_BLD, q = x_BLD[:, :1], q[:, :1]
        x_BLD = self.blocks[-1].finish(x_BLD, self._attended(q, k, v), entered.on(len(self.blocks) - 1))
        if self.form.pool == "class":
            return self._projected(self.ln_post(x_BLD[:, 0]))
        rows = x_BLD[:, self._patch_rows]
        if self.attn_pool is None:
            return self._projected(self.ln_post(rows.mean(dim=1)))
        return self._projected(self.attn_pool(self.ln_post(rows)))

    def patches(self, pixels_B3HW: Tensor, entered: Entering) -> Tensor:
        """Each patch's own embedding (B, patches, E), float32: of the last attention the value alone, into which no other row mixes.

        Source: MaskCLIP, arXiv 2112.01071, sec. 3.2 and its code: value and output product, the residual stream, the MLP. With an
        attention pool (project's choice) its value path follows in the same way.
        """
        x_BLD, _, _, v = self._until_last(pixels_B3HW, entered)
        rows = self._patch_rows
        x_BLD = self.blocks[-1].finish(x_BLD[:, rows], v[:, rows], entered.on(len(self.blocks) - 1))
        x_BLD = self.ln_post(x_BLD)
        return self._projected(x_BLD if self.attn_pool is None else self.attn_pool.each(x_BLD))

    @property
    def _patch_rows(self) -> slice:
        first = int(self.form.class_row)
        return slice(first, first + self.num_patches)

    def _until_last(self, pixels_B3HW: Tensor, entered: Entering) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """The residual stream, queries, keys and values of the last block."""
        x_BLD = self._patches(self.read(pixels_B3HW).to(self.positional_embedding.dtype))
        if self.class_embedding is not None:
            x_BLD = torch.cat([self.class_embedding.expand(x_BLD.shape[0], 1, -1), x_BLD], dim=1)
        x_BLD = self.ln_pre(x_BLD + self.positional_embedding)
        start = x_BLD.shape[1]
        splices = entered.splices
        first = splices.get(0)
        if first is not None:
            # No position embedding, but ln_pre: as the prompts of the field's image towers (arXiv 2210.03117, its code).
            first = entering(first, lambda rows: self.ln_pre(rows.to(x_BLD.dtype)))
            rows = entry_rows(first)
            x_BLD = torch.cat([x_BLD, rows.expand(x_BLD.shape[0], *rows.shape[-2:])], dim=1)
        for i, block in enumerate(self.blocks):
            splice = first if i == 0 else splices.get(i)
            x_BLD, q, k, v = block.spliced(x_BLD, put_from(start), splice, entered.on(i))
            if self.form.rotary:
                q, k = self._turned(q), self._turned(k)
            if i < len(self.blocks) - 1:
                x_BLD = block.finish(x_BLD, self._attended(q, k, v), entered.on(i))
        return x_BLD, q, k, v

    def _attended(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        q, k, v = (heads_first(t, self.heads) for t in (q, k, v))
        return heads_last(F.scaled_dot_product_attention(q, k, v))

    def _projected(self, x: Tensor) -> Tensor:
        x = x if self.proj is None else x @ self.proj
        return full(x if self.proj_bias is None else x + self.proj_bias)

    def _turned(self, x_BLD: Tensor) -> Tensor:
        """Queries or keys with the patches' rotary positions; the class row and prompts have none (of prompts project's choice)."""
        rows, size = self._patch_rows, x_BLD.shape[-1] // self.heads
        cos, sin = rotary(self.num_patches, self.form.rotary, size, x_BLD.device)
        even, odd = full(x_BLD[:, rows]).reshape(x_BLD.shape[0], -1, self.heads, size // 2, 2).unbind(-1)
        turned = torch.stack([even * cos - odd * sin, odd * cos + even * sin], dim=-1).flatten(-3).to(x_BLD.dtype)
        return torch.cat([x_BLD[:, : rows.start], turned, x_BLD[:, rows.stop :]], dim=1)

    def read(self, pixels_B3HW: Tensor) -> Tensor:
        """The part of the work that no prompt changes: with a trunk, pixels -> cells (B, patches, C); cells stay as they are."""
        return pixels_B3HW if self.trunk is None or pixels_B3HW.dim() == 3 else cast(Tensor, self.trunk(pixels_B3HW))

    def _patches(self, pixels_B3HW: Tensor) -> Tensor:
        """(B, 3, H, W) -> patch embeddings (B, patches, D): the convolution whose stride is its size, as one matrix product.

        So that it is as exact as the others: on CUDA a convolution rounds its float32 inputs to TF32 by default. With a trunk: from
        its cells.
        """
        if self.trunk is not None:
            return cast(Tensor, self.patch(F.relu6(self.head(pixels_B3HW))))
        if self.stem is None:
            return _rows(self.conv1, pixels_B3HW).flatten(1, 2)
        rows_BhwD = _rows(self.stem[0], pixels_B3HW)
        for conv in self.stem[1:]:
            rows_BhwD = _rows(conv, F.gelu(rows_BhwD).movedim(-1, 1))
        return rows_BhwD.flatten(1, 2)


def _rows(conv: nn.Module, x_BCHW: Tensor) -> Tensor:
    """A convolution whose stride is its size, as one matrix product: (B, C, H, W) -> (B, h, w, D). An edge's rest is not read."""
    assert isinstance(conv, nn.Conv2d)
    size = conv.kernel_size[0]
    batch, channels, height, width = x_BCHW.shape
    h, w = height // size, width // size
    grid = x_BCHW[..., : h * size, : w * size].reshape(batch, channels, h, size, w, size)
    rows = grid.permute(0, 2, 4, 1, 3, 5).reshape(batch, h, w, channels * size**2)
    return F.linear(rows, conv.weight.flatten(1), conv.bias)


@lru_cache(maxsize=8)
def rotary(num_patches: int, reference: int, size: int, device: torch.device) -> tuple[Tensor, Tensor]:
    """Cosines and sines (patches, 1, size / 2) of a square grid: the first half turns with the row, the second with the column.

    Frequencies 10000^(-4j / size); places are counted on the grid that was learned on. Source: EVA-02, arXiv 2303.11331, by its code.
    """
    side = math.isqrt(num_patches)
    frequencies = 10000.0 ** -(torch.arange(size // 4, dtype=torch.float32) / (size // 4))
    place = torch.arange(side, dtype=torch.float32) / side * reference
    angle = place[:, None] * frequencies
    both = torch.cat([angle[:, None].expand(-1, side, -1), angle[None].expand(side, -1, -1)], dim=-1).flatten(0, 1)
    return both.cos()[:, None].to(device), both.sin()[:, None].to(device)
