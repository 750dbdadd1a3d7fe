"""The ViT image tower, with prompt rows after the patches.

Letters: B images, L rows (1 + patches + N prompts), N prompt rows, D width, E joint embedding.
"""

from __future__ import annotations

from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from vlprompt.towers.block import Block, Entering, LayerNorm, entering, entry_rows, full, heads_first, heads_last
from vlprompt.towers.config import ClipConfig, TowerConfig
from vlprompt.towers.trunk import Trunk


class _Transformer(nn.Module):
    """A list of blocks under OpenAI's name."""

    def __init__(self, blocks: list[Block]) -> None:
        super().__init__()
        self.resblocks = nn.ModuleList(blocks)


class VisionTower(nn.Module):
    """Pixels -> image embeddings; the class row is the only one whose output is read."""

    def __init__(self, config: ClipConfig) -> None:
        super().__init__()
        tower = config.image
        assert isinstance(tower, TowerConfig), "a ResNet's configuration"
        self.heads = tower.heads
        self.class_embedding = nn.Parameter(torch.empty(tower.width))
        self.positional_embedding = nn.Parameter(torch.empty(config.num_patches + 1, tower.width))
        self.trunk: Trunk | None = None
        if config.trunk is None:
            self.conv1 = nn.Conv2d(3, tower.width, config.patch_size, config.patch_size, bias=False)
        else:
            self.trunk = Trunk(config.trunk)
            self.head = nn.Linear(config.trunk.channels, config.trunk.head)
            self.patch = nn.Linear(config.trunk.head, tower.width, bias=False)
        self.ln_pre = LayerNorm(tower.width, tower.eps)
        self.transformer = _Transformer([Block(tower) for _ in range(tower.layers)])
        self.ln_post = LayerNorm(tower.width, tower.eps)
        self.proj = nn.Parameter(torch.empty(tower.width, config.embed_dim))

    def forward(self, pixels_B3HW: Tensor, entered: Entering) -> Tensor:
        """Normalised pixels (B, 3, H, W), or what `read` made of them, -> un-normalised embeddings (B, E), float32."""
        patches_BLD = self._patches(self.read(pixels_B3HW).to(self.proj.dtype))
        class_B1D = self.class_embedding.expand(patches_BLD.shape[0], 1, -1)
        x_BLD = self.ln_pre(torch.cat([class_B1D, patches_BLD], dim=1) + self.positional_embedding)
        start = x_BLD.shape[1]
        splices = entered.splices
        first = splices.get(0)
        if first is not None:
            # No position embedding, but ln_pre: as the prompts of the field's image towers (arXiv 2210.03117, its code).
            first = entering(first, lambda rows: self.ln_pre(rows.to(x_BLD.dtype)))
            rows = entry_rows(first)
            x_BLD = torch.cat([x_BLD, rows.expand(x_BLD.shape[0], *rows.shape[-2:])], dim=1)
        last = len(self.transformer.resblocks) - 1
        for i, block in enumerate(self.transformer.resblocks):
            assert isinstance(block, Block)
            splice = first if i == 0 else splices.get(i)
            x_BLD, q, k, v = block.spliced(x_BLD, start, splice, entered.on(i))
            if i == last:  # only the class row is read
                x_BLD, q = x_BLD[:, :1], q[:, :1]
            q, k, v = (heads_first(t, self.heads) for t in (q, k, v))
            x_BLD = block.finish(x_BLD, heads_last(F.scaled_dot_product_attention(q, k, v)), entered.on(i))
        return full(self.ln_post(x_BLD[:, 0]) @ self.proj)

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
        size = self.conv1.kernel_size[0]
        batch, channels, height, width = pixels_B3HW.shape
        grid = pixels_B3HW.reshape(batch, channels, height // size, size, width // size, size)
        rows = grid.permute(0, 2, 4, 1, 3, 5).reshape(batch, -1, channels * size**2)
        return F.linear(rows, self.conv1.weight.flatten(1))
