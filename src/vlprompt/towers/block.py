"""The residual attention block of both CLIP towers, and how a `Splice` enters it.

Letters: G groups (1, or images whose prompts differ), L rows, N prompt rows, D width, H heads.
Parameter names are OpenAI's (``attn.in_proj_weight``, ``mlp.c_fc``), so its state dict is ours.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any, Literal, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from vlprompt.towers.config import TowerConfig
from vlprompt.types import LowRank, Prompted, Splice, WeightPart


def full(x: Tensor) -> Tensor:
    """`x` in float32, the precision of norms, softmaxes and features; float64 (in tests) stays as it is."""
    return x if x.dtype == torch.float64 else x.float()


Changes = Mapping[WeightPart, LowRank]
UNCHANGED: Changes = {}
Put = Callable[[Tensor, Tensor], Tensor]
"""Rows (G, L, D) and a splice's tokens -> the rows with the tokens in their places."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Entering:
    """What enters one tower: tokens by layer, and changes of its weights by layer and matrix."""

    splices: Mapping[int, Splice]
    weights: Mapping[int, Changes]

    def map(self, change: Callable[[Tensor], Tensor]) -> Entering:
        """The same with every tensor changed, in a fixed order."""
        splices = {layer: _mapped(splice, ("q", "k", "v", "token"), change) for layer, splice in self.splices.items()}
        weights = {
            layer: {part: _mapped(one, ("down", "up"), change) for part, one in parts.items()}
            for layer, parts in self.weights.items()
        }
        return Entering(splices=splices, weights=weights)

    def tensors(self) -> list[Tensor]:
        """All tensors, in the order of `map`."""
        found: list[Tensor] = []

        def see(x: Tensor) -> Tensor:
            found.append(x)
            return x

        self.map(see)
        return found

    def on(self, layer: int) -> Changes:
        """The changes of a layer's weights."""
        return self.weights.get(layer, UNCHANGED)


def entering_of(prompted: Prompted, tower: Literal["text", "image"]) -> Entering:
    """What a prompt puts into one tower."""
    weights: dict[int, dict[WeightPart, LowRank]] = {}
    for (where, layer, part), one in prompted.weights.items():
        if where == tower:
            weights.setdefault(layer, {})[part] = one
    return Entering(splices=prompted.text if tower == "text" else prompted.image, weights=weights)


def _mapped(value: Any, names: tuple[str, ...], change: Callable[[Tensor], Tensor]) -> Any:
    return replace(value, **{name: change(x) for name in names if (x := getattr(value, name)) is not None})


def changed(out: Tensor, x: Tensor, one: LowRank | None) -> Tensor:
    """``W x`` of some rows, with the change of W added."""
    if one is None:
        return out
    if one.drop:
        # By its own seed, so a part that is run again in the backward pass drops the same numbers.
        rng = torch.Generator(device=x.device).manual_seed(one.seed)
        kept = torch.rand(x.shape, generator=rng, device=x.device) >= one.drop
        x = x * kept / (1 - one.drop)
    return out + one.scale * F.linear(F.linear(x, one.down.to(x.dtype)), one.up.to(x.dtype))


class LayerNorm(nn.Module):
    """LayerNorm computed in float32, whatever the tower's dtype."""

    def __init__(self, width: int, eps: float) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(width))
        self.bias = nn.Parameter(torch.empty(width))
        self.eps = eps

    def forward(self, x: Tensor) -> Tensor:
        # The CPU's kernel reads and writes half precision and computes in float32: the same, without two casts each way.
        rows = x if x.is_cpu else full(x)
        return F.layer_norm(rows, self.weight.shape, self.weight, self.bias, self.eps).to(x.dtype)


class Attention(nn.Module):
    """Holds the attention's weights: in_proj (3D, D) in the order q, k, v, and out_proj (D, D)."""

    def __init__(self, config: TowerConfig) -> None:
        super().__init__()
        width = config.width
        self.ln_inner = LayerNorm(width, config.eps) if config.inner_norm else None
        self.in_proj_weight = nn.Parameter(torch.empty(3 * width, width))
        self.in_proj_bias = nn.Parameter(torch.empty(3 * width))
        self.out_proj = nn.Linear(width, width)

    def project(self, y: Tensor, part: slice) -> Tensor:
        """Rows -> queries, keys or values; `part` counts in thirds of in_proj: slice(0, 3) is all of them."""
        rows = slice(part.start * y.shape[-1], part.stop * y.shape[-1])
        return F.linear(y, self.in_proj_weight[rows], self.in_proj_bias[rows])

    def out(self, attended: Tensor, changes: Changes = UNCHANGED) -> Tensor:
        """The heads' output (..., L, D) -> what is added to the residual stream."""
        attended = attended if self.ln_inner is None else self.ln_inner(attended)
        return changed(self.out_proj(attended), attended, changes.get("o"))


class QuickGelu(torch.autograd.Function):
    """x * sigmoid(1.702 x) as silu(1.702 x) / 1.702: one fused kernel each way and one tensor kept, instead of four and three."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        scaled = x * 1.702
        ctx.save_for_backward(scaled)
        return F.silu(scaled).mul_(1 / 1.702)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> Tensor:
        (scaled,) = ctx.saved_tensors
        return cast(Tensor, torch.ops.aten.silu_backward(grads[0], scaled))


class Mlp(nn.Module):
    def __init__(self, config: TowerConfig) -> None:
        super().__init__()
        self.activation = config.activation
        self.c_fc = nn.Linear(config.width, config.hidden * (2 if config.activation == "swiglu" else 1))
        self.ln_inner = LayerNorm(config.hidden, config.eps) if config.inner_norm else None
        self.c_proj = nn.Linear(config.hidden, config.width)

    def forward(self, x: Tensor, changes: Changes = UNCHANGED) -> Tensor:
        hidden = changed(self.c_fc(x), x, changes.get("fc"))
        if self.activation == "swiglu":
            gate, hidden = hidden.chunk(2, dim=-1)
            hidden = F.silu(gate) * hidden
        elif self.activation == "quick_gelu":
            hidden = QuickGelu.apply(hidden)  # type: ignore[no-untyped-call]
        else:
            hidden = F.gelu(hidden, approximate="tanh" if self.activation == "gelu_tanh" else "none")
        hidden = hidden if self.ln_inner is None else self.ln_inner(hidden)
        return changed(self.c_proj(hidden), hidden, changes.get("proj"))


class Block(nn.Module):
    """x + attention(ln_1(x)), then + mlp(ln_2). The attention itself belongs to the tower, which knows its rows."""

    def __init__(self, config: TowerConfig) -> None:
        super().__init__()
        self.ln_1 = LayerNorm(config.width, config.eps)
        self.attn = Attention(config)
        self.ln_2 = LayerNorm(config.width, config.eps)
        self.mlp = Mlp(config)

    def qkv(self, x: Tensor, changes: Changes = UNCHANGED) -> tuple[Tensor, Tensor, Tensor]:
        """(..., L, D) -> queries, keys, values, each (..., L, D)."""
        y = self.ln_1(x)
        q, k, v = self.attn.project(y, slice(0, 3)).chunk(3, dim=-1)
        return changed(q, y, changes.get("q")), changed(k, y, changes.get("k")), changed(v, y, changes.get("v"))

    def finish(self, x: Tensor, attended: Tensor, changes: Changes = UNCHANGED) -> Tensor:
        """The residual stream and the heads' output, both (..., L, D) -> the block's output."""
        x = x + self.attn.out(attended, changes)
        return x + cast(Tensor, self.mlp(self.ln_2(x), changes))

    def spliced(
        self, x_GLD: Tensor, put: Put, splice: Splice | None, changes: Changes = UNCHANGED
    ) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Residual stream, queries, keys and values of a block whose prompt rows, where `put` puts them, obey `splice`.

        Unshared tokens replace the rows before ln_1, in each of three sequences (arXiv 2409.06166, SAPL as a public review
        states it). The splice's residual policy says what the rows carry on (project's choice, an option).
        """
        if splice is None:
            return x_GLD, *self.qkv(x_GLD, changes)
        if splice.k is None or splice.v is None:
            x_GLD = put(x_GLD, splice.q)
            return x_GLD, *self.qkv(x_GLD, changes)
        assert not changes, "unshared tokens and changed weights in one layer"
        y_GLD = self.ln_1(x_GLD)
        sources = (splice.q, splice.k, splice.v)
        q, k, v = (
            self.attn.project(put(y_GLD, self.ln_1(rows.to(y_GLD.dtype))), slice(i, i + 1))
            for i, rows in enumerate(sources)
        )
        if splice.residual != "keep":
            x_GLD = put(x_GLD, splice.q if splice.residual == "replace" else splice.v)
        return x_GLD, q, k, v


class Transformer(nn.Module):
    """A tower's blocks under OpenAI's name."""

    def __init__(self, config: TowerConfig) -> None:
        super().__init__()
        self.resblocks = nn.ModuleList(Block(config) for _ in range(config.layers))


def put_from(start: int) -> Put:
    """Replaces the rows from `start` by tokens, (N, D) or (G, N, D); G of the rows or of the tokens may be 1."""

    def put(x_GLD: Tensor, tokens: Tensor) -> Tensor:
        rows_GND = tokens.to(x_GLD.dtype).reshape(-1, *tokens.shape[-2:])
        groups = x_GLD.shape[0] if rows_GND.shape[0] == 1 else rows_GND.shape[0]
        x_GLD, rows_GND = x_GLD.expand(groups, -1, -1), rows_GND.expand(groups, -1, -1)
        return torch.cat([x_GLD[:, :start], rows_GND, x_GLD[:, start + rows_GND.shape[1] :]], dim=1)

    return put


def entering(splice: Splice, embed: Callable[[Tensor], Tensor]) -> Splice:
    """The layer-0 splice with every tensor passed through `embed` (text: plus positions; image: ln_pre)."""
    q, k, v, token = (None if t is None else embed(t) for t in (splice.q, splice.k, splice.v, splice.token))
    assert q is not None
    return replace(splice, q=q, k=k, v=v, token=token)


def entry_rows(splice: Splice) -> Tensor:
    """The rows that layer 0 finds in the residual stream before it replaces anything."""
    if splice.residual != "keep":
        return splice.q
    assert splice.token is not None, "residual 'keep' needs a separate layer-0 token"
    return splice.token


def heads_first(x: Tensor, heads: int) -> Tensor:
    """(..., L, D) -> (..., H, L, D / H)."""
    return x.reshape(*x.shape[:-1], heads, x.shape[-1] // heads).transpose(-2, -3)


def heads_last(x: Tensor) -> Tensor:
    """(..., H, L, D / H) -> (..., L, D)."""
    x = x.transpose(-2, -3)
    return x.reshape(*x.shape[:-2], x.shape[-2] * x.shape[-1])
