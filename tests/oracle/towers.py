"""The plain way: every class a full padded sequence, every layer on all rows, prompts written into them row by row.

Slow and literal on purpose; what the fast towers are compared with, in value and gradient.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from vlprompt.towers import Clip
from vlprompt.types import Splice, TextLayout


def attention(block, x_q: Tensor, x_k: Tensor, x_v: Tensor, heads: int, causal: bool) -> Tensor:
    """Multi-head attention of one sequence (L, D), one head at a time."""
    length, width = x_q.shape
    w_q, w_k, w_v = block.attn.in_proj_weight.split(width)
    b_q, b_k, b_v = block.attn.in_proj_bias.split(width)
    q, k, v = x_q @ w_q.T + b_q, x_k @ w_k.T + b_k, x_v @ w_v.T + b_v
    size = width // heads
    outs = []
    for h in range(heads):
        rows = slice(h * size, (h + 1) * size)
        scores = q[:, rows] @ k[:, rows].T / size**0.5
        if causal:
            scores = scores.masked_fill(torch.ones(length, length).triu(1).bool(), float("-inf"))
        outs.append(scores.softmax(-1) @ v[:, rows])
    return torch.cat(outs, -1) @ block.attn.out_proj.weight.T + block.attn.out_proj.bias


def norm(layer, x: Tensor) -> Tensor:
    mean = x.mean(-1, keepdim=True)
    var = ((x - mean) ** 2).mean(-1, keepdim=True)
    return (x - mean) / (var + layer.eps).sqrt() * layer.weight + layer.bias


def mlp(block, x: Tensor) -> Tensor:
    hidden = x @ block.mlp.c_fc.weight.T + block.mlp.c_fc.bias
    hidden = hidden * torch.sigmoid(1.702 * hidden) if block.mlp.activation == "quick_gelu" else F.gelu(hidden)
    return hidden @ block.mlp.c_proj.weight.T + block.mlp.c_proj.bias


def put(x: Tensor, rows: list[int], tokens: Tensor) -> Tensor:
    """x with row rows[i] replaced by tokens[i]."""
    out = list(x)
    for row, token in zip(rows, tokens):
        out[row] = token
    return torch.stack(out)


def block_step(block, x: Tensor, rows: list[int], splice: Splice | None, heads: int, causal: bool) -> Tensor:
    """One block on one sequence, with the prompt rows at `rows`."""
    if splice is None:
        y = norm(block.ln_1, x)
        inputs = (y, y, y)
    elif splice.k is None:
        x = put(x, rows, splice.q)
        y = norm(block.ln_1, x)
        inputs = (y, y, y)
    else:
        inputs = tuple(norm(block.ln_1, put(x, rows, t)) for t in (splice.q, splice.k, splice.v))
        if splice.residual == "replace":
            x = put(x, rows, splice.q)
        elif splice.residual == "v":
            x = put(x, rows, splice.v)
    x = x + attention(block, *inputs, heads, causal)
    return x + mlp(block, norm(block.ln_2, x))


def shift(splice: Splice, add) -> Splice:
    """The splice with `add` applied to each tensor."""
    values = {n: None if getattr(splice, n) is None else add(getattr(splice, n)) for n in ("q", "k", "v", "token")}
    return Splice(**values, residual=splice.residual)


def one(splice: Splice, c: int, b: int) -> Splice:
    """The splice as class c of image b sees it."""
    if splice.axis == "shared":
        return splice
    i = c if splice.axis == "class" else b
    values = {n: None if getattr(splice, n) is None else getattr(splice, n)[i] for n in ("q", "k", "v", "token")}
    return Splice(**values, residual=splice.residual)


def sentence(clip: Clip, name: str, layout: TextLayout) -> tuple[list[int], list[int], int]:
    """Ids of a class's sentence, the rows of its learned tokens, and its [EOT] row, cut as CoOp's code cuts it."""
    m = layout.num_tokens
    text = " ".join(["X"] * m + ([layout.words] if layout.words else []) + [name.replace("_", " ") + "."])
    ids = [clip.tokenizer.start_id, *clip.tokenizer.encode(text), clip.tokenizer.end_id]
    end = len(ids) - 1
    tail = ids[1 + m :]
    n = len(clip.tokenizer.encode(name.replace("_", " ")))
    if layout.position == "end":
        return ids, list(range(1, 1 + m)), end
    half = m // 2 if layout.position == "middle" else 0
    ordered = [ids[0], *[0] * half, *tail[:n], *[0] * (m - half), *tail[n:]]
    rows = [*range(1, 1 + half), *range(1 + half + n, 1 + half + n + m - half)]
    return ordered, rows, end


def text_states(clip: Clip, name: str, layout: TextLayout, splices: dict[int, Splice]) -> tuple[Tensor, int]:
    """All rows of one class after ln_final, padded to the context length (L, D), and the row of its [EOT]."""
    tower = clip.text_tower
    ids, rows, end = sentence(clip, name, layout)
    padded = ids + [0] * (clip.context_length - len(ids))
    x = tower.token_embedding.weight[torch.tensor(padded)]
    first = splices[0]
    x = put(x, rows, first.token if first.residual == "keep" else first.q) + tower.positional_embedding
    for i, block in enumerate(tower.transformer.resblocks):
        splice = splices.get(i)
        if i == 0:
            splice = None if first.k is None else shift(first, lambda t: t + tower.positional_embedding[rows])
        x = block_step(block, x, rows, splice, tower.heads, causal=True)
    return norm(tower.ln_final, x), end


def text_row(clip: Clip, name: str, layout: TextLayout, splices: dict[int, Splice]) -> Tensor:
    """Un-normalised embedding (E,) of one class."""
    states, end = text_states(clip, name, layout, splices)
    return states[end] @ clip.text_tower.text_projection


def text(clip: Clip, names: list[str], layout: TextLayout, splices: dict[int, Splice]) -> Tensor:
    """(C, E), or (B, C, E) where a splice has an image axis."""
    batch = next((len(s.q) for s in splices.values() if s.axis == "image"), None)
    rows = [
        torch.stack(
            [text_row(clip, n, layout, {i: one(s, c, b) for i, s in splices.items()}) for c, n in enumerate(names)]
        )
        for b in range(batch or 1)
    ]
    return rows[0] if batch is None else torch.stack(rows)


def image_row(clip: Clip, pixels: Tensor, splices: dict[int, Splice]) -> Tensor:
    """Un-normalised embedding (E,) of one image (3, H, W), patches cut by hand."""
    tower = clip.visual
    size = clip.config.patch_size
    patches = [
        (tower.conv1.weight * pixels[None, :, i : i + size, j : j + size]).sum((1, 2, 3))
        for i in range(0, pixels.shape[1], size)
        for j in range(0, pixels.shape[2], size)
    ]
    x = torch.stack([tower.class_embedding, *patches]) + tower.positional_embedding
    rows = []
    first = splices.get(0)
    if first is not None:
        rows = list(range(len(x), len(x) + first.q.shape[0]))
        x = torch.cat([x, first.token if first.residual == "keep" else first.q])
        first = shift(first, lambda t: norm(tower.ln_pre, t))
    x = norm(tower.ln_pre, x)
    for i, block in enumerate(tower.transformer.resblocks):
        x = block_step(block, x, rows, first if i == 0 else splices.get(i), tower.heads, causal=False)
    return norm(tower.ln_post, x)[0] @ tower.proj
