"""Both towers of pocket-m as they are trained, in plain torch; parameter names are OpenAI's.

`src/vlprompt/towers` has its own code for them, which also takes prompts; a test compares the two.
Letters: B rows of a batch, L length, D width, H heads, E joint embedding.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

WIDTH, LAYERS, HEADS, EMBED = 256, 6, 4, 384
IMAGE_HIDDEN, TEXT_HIDDEN = 512, 768
POSITIONS = 64
CELLS, HEAD = 320, 1280


class Attention(nn.Module):
    """Multi-head attention as plain products, which a CPU runs faster in bfloat16 than the fused kernel's backward."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.in_proj_weight = nn.Parameter(torch.randn(3 * width, width) * width**-0.5)
        self.in_proj_bias = nn.Parameter(torch.zeros(3 * width))
        self.out_proj = nn.Linear(width, width)

    def forward(self, x: Tensor, unseen: Tensor | None) -> Tensor:
        batch, length, width = x.shape
        qkv = F.linear(x, self.in_proj_weight, self.in_proj_bias).reshape(batch, length, 3, HEADS, width // HEADS)
        q, k, v = qkv.permute(2, 0, 3, 1, 4)
        scores = (q * (width // HEADS) ** -0.5) @ k.transpose(-1, -2)
        if unseen is not None:
            scores = scores.masked_fill(unseen, float("-inf"))
        return self.out_proj((scores.softmax(-1) @ v).transpose(1, 2).reshape(batch, length, width))


class Mlp(nn.Module):
    def __init__(self, width: int, hidden: int) -> None:
        super().__init__()
        self.c_fc = nn.Linear(width, hidden)
        self.c_proj = nn.Linear(hidden, width)

    def forward(self, x: Tensor) -> Tensor:
        return self.c_proj(F.gelu(self.c_fc(x)))


class Block(nn.Module):
    def __init__(self, width: int, hidden: int) -> None:
        super().__init__()
        self.ln_1, self.attn = nn.LayerNorm(width), Attention(width)
        self.ln_2, self.mlp = nn.LayerNorm(width), Mlp(width, hidden)
        nn.init.normal_(self.attn.out_proj.weight, std=width**-0.5 * (2 * LAYERS) ** -0.5)
        nn.init.normal_(self.mlp.c_proj.weight, std=width**-0.5 * (2 * LAYERS) ** -0.5)

    def forward(self, x: Tensor, unseen: Tensor | None = None) -> Tensor:
        x = x + self.attn(self.ln_1(x), unseen)
        return x + self.mlp(self.ln_2(x))


class Blocks(nn.Module):
    def __init__(self, width: int, hidden: int) -> None:
        super().__init__()
        self.resblocks = nn.ModuleList([Block(width, hidden) for _ in range(LAYERS)])

    def forward(self, x: Tensor, unseen: Tensor | None = None) -> Tensor:
        for block in self.resblocks:
            x = block(x, unseen)
        return x


class ImageTower(nn.Module):
    """The trunk's cells -> embeddings: its last convolution, frozen, then a ViT with a class row."""

    def __init__(self, head_weight: Tensor, head_bias: Tensor, cells: int) -> None:
        super().__init__()
        self.register_buffer("head_weight", head_weight, persistent=False)
        self.register_buffer("head_bias", head_bias, persistent=False)
        self.class_embedding = nn.Parameter(torch.randn(WIDTH) * 0.02)
        self.positional_embedding = nn.Parameter(torch.randn(cells + 1, WIDTH) * 0.02)
        self.patch = nn.Linear(HEAD, WIDTH, bias=False)
        self.ln_pre = nn.LayerNorm(WIDTH)
        self.transformer = Blocks(WIDTH, IMAGE_HIDDEN)
        self.ln_post = nn.LayerNorm(WIDTH)
        self.proj = nn.Parameter(torch.randn(WIDTH, EMBED) * WIDTH**-0.5)

    def forward(self, cells: Tensor, prompts: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """(B, L, 320) -> embeddings (B, E) and the class row before its projection (B, D). `prompts` (N, D): rows after the patches."""
        x = self.patch(F.relu6(F.linear(cells, self.head_weight, self.head_bias)))
        first = self.class_embedding.to(x.dtype).expand(len(x), 1, -1)
        x = self.ln_pre(torch.cat([first, x], 1) + self.positional_embedding)
        if prompts is not None:
            x = torch.cat([x, self.ln_pre(prompts).expand(len(x), -1, -1)], 1)
        row = self.ln_post(self.transformer(x)[:, 0])
        return row @ self.proj, row


class TextTower(nn.Module):
    """Tokens -> embeddings, read at the end token."""

    def __init__(self, vocabulary: int) -> None:
        super().__init__()
        self.token_embedding = nn.Embedding(vocabulary, WIDTH)
        nn.init.normal_(self.token_embedding.weight, std=0.02)
        self.positional_embedding = nn.Parameter(torch.randn(POSITIONS, WIDTH) * 0.01)
        self.transformer = Blocks(WIDTH, TEXT_HIDDEN)
        self.ln_final = nn.LayerNorm(WIDTH)
        self.text_projection = nn.Parameter(torch.randn(WIDTH, EMBED) * WIDTH**-0.5)

    def states(self, tokens: Tensor) -> Tensor:
        """(B, L) tokens, or their embeddings (B, L, D), -> states after ln_final (B, L, D)."""
        length = tokens.shape[1]
        embedded = self.token_embedding(tokens) if tokens.dim() == 2 else tokens
        unseen = torch.ones(length, length, dtype=torch.bool).triu(1)
        x = embedded + self.positional_embedding[:length]
        return self.ln_final(self.transformer(x, unseen))

    def forward(self, tokens: Tensor, ends: Tensor) -> Tensor:
        """(B, L) and the place of each end token -> (B, E)."""
        return self.states(tokens)[torch.arange(len(tokens)), ends] @ self.text_projection

    def next_token(self, states: Tensor, tokens: Tensor, ends: Tensor) -> Tensor:
        """The mean cross-entropy of the next token under the tied embedding, over all rows before the end token."""
        told = torch.arange(tokens.shape[1] - 1) < ends[:, None]
        logits = states[:, :-1][told] @ self.token_embedding.weight.T
        return F.cross_entropy(logits.float(), tokens[:, 1:][told])


def groups(model: nn.Module, decay: float) -> list[dict]:
    """AdamW's groups: no decay on vectors, positions and embeddings."""
    plain = [p for n, p in model.named_parameters() if p.ndim <= 1 or "embedding" in n]
    rest = [p for n, p in model.named_parameters() if not (p.ndim <= 1 or "embedding" in n)]
    return [{"params": rest, "weight_decay": decay}, {"params": plain, "weight_decay": 0.0}]


def rate(step: int, steps: int, peak: float, warm: int = 200) -> float:
    """Warm-up, then half a cosine to a hundredth."""
    if step < warm:
        return peak * (step + 1) / warm
    return peak * (0.01 + 0.99 * 0.5 * (1 + math.cos(math.pi * min(1.0, (step - warm) / max(1, steps - warm)))))
