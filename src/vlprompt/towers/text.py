"""The text tower. Under a causal mask the shared prefix is run once, and each class adds only its own rows.

Everything before the first class-dependent row ([SOS], the learned context, fixed words; at every layer, deep and unshared prompts
included) is the same for all classes under a causal mask. Own rows attend to the prefix's keys and values and to their class's
earlier rows. Nothing is padded to the context length. Letters: G groups (1, or B images whose prompts differ), P prefix rows, T own
rows of all classes (packed by `tokens.pack`), C classes, H heads, D width, E joint embedding.

Without a mask every row depends on the whole sentence, and there is no prefix. `whole` runs all rows of all classes, and in the
last layer the pooled row of each class alone.
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from vlprompt.towers.block import (
    Block,
    Entering,
    LayerNorm,
    Put,
    Transformer,
    entering,
    entry_rows,
    full,
    heads_first,
    heads_last,
    put_from,
)
from vlprompt.towers.config import ClipConfig
from vlprompt.towers.groups import Group, grouped
from vlprompt.towers.tokens import ClassTokens, Rows
from vlprompt.types import Axis, Splice


@dataclass(frozen=True, slots=True, kw_only=True)
class Prefix:
    """What own rows need of the shared prefix: keys and values per layer, (G, H, P, D / H); and its last states."""

    keys: tuple[Tensor, ...]
    values: tuple[Tensor, ...]
    states: Tensor | None
    """(G, P, D) after ln_final, float32, where asked for."""


NO_PREFIX = Prefix(keys=(), values=(), states=None)
"""Of a tower without a causal mask."""


class TextTower(nn.Module):
    """Packed class tokens and text splices -> text embeddings."""

    def __init__(self, config: ClipConfig) -> None:
        super().__init__()
        tower = config.text
        self.heads, self.form = tower.heads, config.text_form
        # From an empty tensor: to draw start values on the meta device, torch would import its compiler (a second or more).
        self.token_embedding = nn.Embedding(
            config.vocab_size, tower.width, _weight=torch.empty(config.vocab_size, tower.width)
        )
        self.positional_embedding = nn.Parameter(torch.empty(config.context_length, tower.width))
        self.transformer = Transformer(tower)
        self.ln_final = LayerNorm(tower.width, tower.eps)
        self.text_projection = nn.Parameter(torch.empty(tower.width, config.embed_dim))
        self.text_projection_bias = nn.Parameter(torch.empty(config.embed_dim)) if self.form.affine else None

    @property
    def blocks(self) -> Sequence[Block]:
        return list(self.transformer.resblocks)  # type: ignore[arg-type]

    def prefix(self, rows: Rows, entered: Entering, *, states: bool = False) -> Prefix:
        """Run the shared rows, of which there may be none. Learned tokens stand together in them, or not in the prefix at all."""
        if not self.form.causal:
            assert not states, "a tower without a causal mask has no states of a prefix"
            return NO_PREFIX
        splices, first = entered.splices, rows.first
        in_prefix = len(rows.learned) > 0
        x_GPD = self._embed(rows, splices.get(0) if in_prefix else None)
        x_GPD = x_GPD + self.positional_embedding[: x_GPD.shape[1]]
        keys, values = [], []
        last = len(self.blocks) - 1
        for i, block in enumerate(self.blocks):
            splice = splices.get(i) if in_prefix else None
            if splice is not None and i == 0:
                splice = self._unshared_entry(splice, self.positional_embedding[first : first + splice.num_tokens])
            x_GPD, q, k, v = block.spliced(x_GPD, put_from(first), splice, entered.on(i))
            q, k, v = (heads_first(t, self.heads) for t in (q, k, v))
            keys.append(k)
            values.append(v)
            if i < last or states:
                attended = heads_last(F.scaled_dot_product_attention(q, k, v, is_causal=True))
                x_GPD = block.finish(x_GPD, attended, entered.on(i))
        out = full(self.ln_final(x_GPD)) if states else None
        return Prefix(keys=tuple(keys), values=tuple(values), states=out)

    def classes(self, tokens: ClassTokens, prefix: Prefix, entered: Entering) -> Tensor:
        """Each class's own rows -> un-normalised embeddings (G, C, E), float32, in the caller's class order.

        Splices are read only where learned tokens stand among the own rows: class-specific contexts, and class names in the middle or
        in front; of deeper layers those of class-specific contexts.
        """
        if not self.form.causal:
            return self.whole(tokens, entered)
        x_GTD = self._embed(tokens.own, entered.splices.get(0)) + self.positional_embedding[tokens.position_T]
        groups = grouped(tokens.buckets, x_GTD.device)
        last = len(self.blocks) - 1
        for i, block in enumerate(self.blocks):
            deeper = entered.splices.get(i) if i else None
            if deeper is not None and deeper.axis == "class":
                x_GTD = _put(x_GTD, tokens.own, deeper.q, "class")
            q, k, v = (heads_first(t, self.heads) for t in block.qkv(x_GTD, entered.on(i)))
            if i == last:  # only the [EOT] rows are read
                x_GTD, q = x_GTD[:, tokens.end_C], q[:, :, tokens.end_C]
            attended = _attend(q, k, v, (prefix.keys[i], prefix.values[i]), groups)
            x_GTD = block.finish(x_GTD, attended, entered.on(i))
        return self._projected(x_GTD)[:, tokens.restore_C]

    def whole(self, tokens: ClassTokens, entered: Entering) -> Tensor:
        """Each class's whole sentence, of equal lengths, every row seeing every other -> embeddings (G, C, E) as `classes` gives them."""
        own, splices = tokens.own, entered.splices
        first = splices.get(0)
        x_GTD = self._embed(own, first) + self.positional_embedding[tokens.position_T]
        if first is not None:
            places = tokens.position_T[own.learned[: first.num_tokens]]
            first = self._unshared_entry(first, self.positional_embedding[places])
        last = len(self.blocks) - 1
        for i, block in enumerate(self.blocks):
            splice = first if i == 0 else splices.get(i)
            x_GTD, q, k, v = block.spliced(x_GTD, _put_into(own, splice), splice, entered.on(i))
            if i == last:
                x_GTD, q = x_GTD[:, tokens.end_C], q[:, tokens.end_C]
            q, k, v = (self._by_class(t, tokens.num_classes) for t in (q, k, v))
            attended = heads_last(F.scaled_dot_product_attention(q, k, v)).flatten(1, 2)
            x_GTD = block.finish(x_GTD, attended, entered.on(i))
        return self._projected(x_GTD)[:, tokens.restore_C]

    def _by_class(self, x_GTD: Tensor, num_classes: int) -> Tensor:
        """(G, C * L, D) -> (G, C, H, L, D / H)."""
        return heads_first(x_GTD.reshape(len(x_GTD), num_classes, -1, x_GTD.shape[-1]), self.heads)

    def _projected(self, x_GCD: Tensor) -> Tensor:
        pooled_GCE = self.ln_final(x_GCD) @ self.text_projection
        return full(pooled_GCE if self.text_projection_bias is None else pooled_GCE + self.text_projection_bias)

    def _embed(self, rows: Rows, first: Splice | None) -> Tensor:
        """Token embeddings (G, n, D) with the learned rows in place, without positions."""
        x_GnD = self.token_embedding(rows.ids)[None]
        if len(rows.learned) == 0:
            return x_GnD  # type: ignore[no-any-return]
        assert first is not None, "these tokens hold learned rows, but the prompt gives none for layer 0"
        return _put(x_GnD, rows, entry_rows(first), first.axis)

    def _unshared_entry(self, first: Splice, positions_ND: Tensor) -> Splice | None:
        """Layer 0 of unshared prompts, with positions; None for ordinary prompts, whose rows `_embed` has placed."""
        if first.k is None:
            return None
        return entering(first, lambda rows: rows.to(positions_ND.dtype) + positions_ND)


def _put(x_GnD: Tensor, rows: Rows, table: Tensor, axis: Axis) -> Tensor:
    """`x` with its learned rows from a splice's tokens; G of either may be 1."""
    learned = table[rows.owner, rows.token][None] if axis == "class" else table[..., rows.token, :]
    learned_GmD = learned.to(x_GnD.dtype).reshape(-1, *learned.shape[-2:])
    groups = max(len(x_GnD), len(learned_GmD))
    return x_GnD.expand(groups, -1, -1).index_copy(1, rows.learned, learned_GmD.expand(groups, -1, -1))


def _put_into(rows: Rows, splice: Splice | None) -> Put:
    axis: Axis = "shared" if splice is None else splice.axis
    return lambda x_GnD, table: _put(x_GnD, rows, table, axis)


def _attend(q: Tensor, k: Tensor, v: Tensor, prefix: tuple[Tensor, Tensor], groups: Sequence[Group]) -> Tensor:
    """Attention of packed own rows to the shared prefix and to their class's own rows.

    q, k, v: (G, H, T, d), or q (G, H, C, d) with the last row of each class only; prefix keys and values: (G, H, P, d). One matrix
    product per head scores a group's rows against the prefix, one per class and head scores its own rows. Returns (G, T or C, D).
    """
    prefix_k, prefix_v = prefix
    num_p, last_only = prefix_v.shape[-2], q.shape[2] < k.shape[2]
    q = q * q.shape[-1] ** -0.5
    own = [group.num_rows for group in groups]
    asking = [group.num_classes for group in groups] if last_only else own
    outs = []
    # `split`, not slices: its backward is one concatenation, a slice's a zero-filled tensor each.
    parts = zip(*(torch.split(t, n, 2) for t, n in ((q, asking), (k, own), (v, own))))
    for group, (q_b, k_b, v_b) in zip(groups, parts):
        rows, unseen = (1, group.padding_C1L) if last_only else (group.length, group.later_LL)
        q_b = q_b if last_only else group.padded(q_b)
        k_b, v_b = (_by_class(group.padded(t), group.length) for t in (k_b, v_b))
        scores_p = _by_class(q_b @ prefix_k.transpose(-1, -2), rows)
        scores_o = _by_class(q_b, rows) @ k_b.transpose(-1, -2)
        if unseen is not None:
            scores_o = scores_o.masked_fill(unseen, float("-inf"))
        scores = torch.cat([scores_p, scores_o.expand(*scores_p.shape[:-1], -1)], dim=-1)
        weights = full(scores).softmax(-1).to(v.dtype)
        weights_p, weights_o = torch.split(weights, [num_p, group.length], -1)
        attended = weights_p.flatten(2, 3) @ prefix_v + (weights_o @ v_b).flatten(2, 3)
        outs.append(attended if last_only else group.packed(attended))
    return heads_last(torch.cat(outs, dim=2))


def _by_class(x: Tensor, rows: int) -> Tensor:
    """(G, H, classes * rows, n) -> (G, H, classes, rows, n)."""
    return x.reshape(*x.shape[:2], x.shape[2] // rows, rows, x.shape[-1])


TextRun = Callable[[ClassTokens, Prefix, Entering], Tensor]


def _trim() -> Callable[[int], int] | None:
    try:
        return cast(Callable[[int], int], ctypes.CDLL(None).malloc_trim)
    except (AttributeError, OSError, TypeError):  # only glibc has it
        return None


TRIM = _trim()


def _give_back(tensors: tuple[Tensor, ...]) -> None:
    """Give the system what earlier parts have freed: glibc keeps it, and a part cannot use all of it. 17 ms at ViT-B/16's text size."""
    if TRIM is not None and tensors[0].device.type == "cpu":
        TRIM(0)


class _Again(torch.autograd.Function):
    """Forward: run without a graph. Backward: run with one, and differentiate it. Tensors that `run` reads otherwise are frozen.

    `torch.utils.checkpoint` keeps the graph's nodes of every part and asks a hook for every tensor in them. Here a part keeps
    only its inputs and its output, and its memory is free for the next.
    """

    @staticmethod
    def forward(ctx: Any, run: Callable[..., Tensor], *inputs: Tensor) -> Tensor:
        _give_back(inputs)
        ctx.run = run
        ctx.save_for_backward(*inputs)
        return run(*inputs)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        _give_back(grads)
        needed = ctx.needs_input_grad[1:]
        inputs = [x.detach().requires_grad_(need) for x, need in zip(ctx.saved_tensors, needed, strict=True)]
        with torch.enable_grad():
            out = ctx.run(*inputs)
        leaves = [x for x, need in zip(inputs, needed, strict=True) if need]
        found = iter(torch.autograd.grad(out, leaves, grads[0], allow_unused=True))
        return None, *(next(found) if need else None for need in needed)


def again(run: TextRun, part: ClassTokens, prefix: Prefix, entered: Entering) -> Tensor:
    """`run(part, prefix, entered)`, the same value and gradient, computed once more in the backward pass."""
    layers = len(prefix.keys)

    def of(*tensors: Tensor) -> Tensor:
        keys, values, rest = tensors[:layers], tensors[layers : 2 * layers], iter(tensors[2 * layers :])
        now = entered.map(lambda _: next(rest))
        return run(part, replace(prefix, keys=keys, values=values, states=None), now)

    learned = entered.tensors()
    return cast(Tensor, _Again.apply(of, *prefix.keys, *prefix.values, *learned))  # type: ignore[no-untyped-call]
