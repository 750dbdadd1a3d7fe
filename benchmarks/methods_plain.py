"""The published way to run a prompt, fairly done: every class padded to the text tower's whole length, images encoded at every step.

`nn.MultiheadAttention(need_weights=False)` with a causal mask, frozen weights without gradients, teachers' text features computed once
beforehand. It obeys the same `Prompted` and gives the same `View` as the library: losses and learned tensors are the same.
Letters: B images, C classes, L rows, M context tokens, N image tokens, D width of a tower.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterator, Mapping, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from vlprompt.engine.forward import TEMPLATE, ensemble_text, zero_shot_text
from vlprompt.losses import logits
from vlprompt.towers import Clip
from vlprompt.towers.config import TowerConfig
from vlprompt.types import Features, Method, Prompted, Splice, TeacherAnswer, View


class QuickGelu(nn.Module):
    """x * sigmoid(1.702 x)."""

    def forward(self, x: Tensor) -> Tensor:
        return x * torch.sigmoid(1.702 * x)


class PlainBlock(nn.Module):
    """CLIP's residual block on torch's own attention."""

    def __init__(self, config: TowerConfig) -> None:
        super().__init__()
        width = config.width
        self.attn = nn.MultiheadAttention(width, config.heads, batch_first=True)
        self.ln_1, self.ln_2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.mlp = nn.Sequential(
            OrderedDict(c_fc=nn.Linear(width, config.hidden), gelu=QuickGelu(), c_proj=nn.Linear(config.hidden, width))
        )

    def forward(self, x: Tensor, mask: Tensor | None, start: int, splice: Splice | None) -> Tensor:
        """x (B, L, D); the splice's rows begin at `start`."""
        if splice is None or splice.k is None:
            x = x if splice is None else put(x, start, splice.q)
            q = k = v = self.ln_1(x)
        else:
            assert splice.v is not None
            q, k, v = (self.ln_1(put(x, start, one)) for one in (splice.q, splice.k, splice.v))
            if splice.residual != "keep":
                x = put(x, start, splice.q if splice.residual == "replace" else splice.v)
        x = x + self.attn(q, k, v, need_weights=False, attn_mask=mask)[0]
        return x + self.mlp(self.ln_2(x))


def put(x_BLD: Tensor, start: int, rows: Tensor) -> Tensor:
    """x with its rows from `start` on overwritten by rows (N, D)."""
    stop = start + rows.shape[-2]
    return torch.cat([x_BLD[:, :start], rows.expand(len(x_BLD), -1, -1), x_BLD[:, stop:]], dim=1)


def shifted(splice: Splice, add: Tensor) -> Splice:
    """Unshared rows that enter the first layer, with their positions."""
    assert splice.k is not None
    assert splice.v is not None
    return Splice(q=splice.q + add, k=splice.k + add, v=splice.v + add, token=splice.token, residual=splice.residual)


class PlainTowers:
    """Both towers with a CLIP's weights."""

    def __init__(self, clip: Clip, names: Sequence[str], method: Method) -> None:
        self.clip = clip
        self.text_blocks = _blocks(clip.config.text, clip.text_tower.transformer.resblocks)
        assert isinstance(clip.config.image, TowerConfig)
        self.image_blocks = _blocks(clip.config.image, clip.visual.transformer.resblocks)
        layout = method.prompt.layout
        if layout is None:
            return
        tokenizer, length = clip.tokenizer, clip.context_length
        start, end = tokenizer.start_id, tokenizer.end_id
        text = " ".join(["X"] * layout.num_tokens + ([layout.words] if layout.words else []))
        ids = [[start, *tokenizer.encode(f"{text} {name}."), end] for name in names]
        padded = torch.tensor([row + [0] * (length - len(row)) for row in ids])
        self.ends = torch.tensor([len(row) - 1 for row in ids])
        self.words_CLD = clip.text_tower.token_embedding.weight[padded]
        self.mask = torch.full((length, length), float("-inf")).triu(1)

    def text(self, splices: Mapping[int, Splice]) -> Tensor:
        """(C, E)."""
        tower, first = self.clip.text_tower, splices[0]
        token = first.q if first.token is None else first.token
        x = put(self.words_CLD, 1, token) + tower.positional_embedding
        number = token.shape[-2]
        for layer, block in enumerate(self.text_blocks):
            splice = splices.get(layer)
            if layer == 0:  # its rows are there, with their positions
                splice = None if first.k is None else shifted(first, tower.positional_embedding[1 : 1 + number])
            x = block(x, self.mask, 1, splice)
        return tower.ln_final(x)[torch.arange(len(x)), self.ends] @ tower.text_projection

    def images(self, pixels: Tensor, splices: Mapping[int, Splice]) -> Tensor:
        """(B, E)."""
        tower = self.clip.visual
        patches = F.conv2d(pixels, tower.conv1.weight, stride=self.clip.config.patch_size).flatten(2).transpose(1, 2)
        x = torch.cat([tower.class_embedding.expand(len(pixels), 1, -1), patches], dim=1) + tower.positional_embedding
        start, first = x.shape[1], splices.get(0)
        if first is not None:
            token = first.q if first.token is None else first.token
            x = torch.cat([x, token.expand(len(x), -1, -1)], dim=1)
        x = tower.ln_pre(x)
        for layer, block in enumerate(self.image_blocks):
            splice = splices.get(layer)
            if layer == 0:
                splice = None if first is None or first.k is None else _normed(first, tower.ln_pre)
            x = block(x, None, start, splice)
        return tower.ln_post(x[:, 0]) @ tower.proj


def _normed(splice: Splice, norm: nn.Module) -> Splice:
    assert splice.k is not None
    assert splice.v is not None
    return Splice(q=norm(splice.q), k=norm(splice.k), v=norm(splice.v), token=splice.token, residual=splice.residual)


def _blocks(config: TowerConfig, ours: nn.Module) -> nn.ModuleList:
    blocks = [PlainBlock(config) for _ in range(config.layers)]
    for block, source in zip(blocks, ours.children(), strict=True):
        block.load_state_dict(source.state_dict())
    return nn.ModuleList(blocks).requires_grad_(False)


class PlainForward:
    """One batch through prompt and towers, the plain way."""

    def __init__(self, clip: Clip, method: Method, names: Sequence[str], template: str) -> None:
        self.clip, self.method, self.towers = clip, method, PlainTowers(clip, names, method)
        self.fixed = zero_shot_text(clip, names, template) if method.prompt.layout is None else None
        asks = method.needs & {"teacher_text", "teacher_logits"}
        self.teacher_text = ensemble_text(clip, names, method.teacher or TEMPLATE, template) if asks else None

    def frozen(self, pixels: Tensor) -> Tensor:
        """The bare image tower's features (B, E)."""
        with torch.no_grad():
            return self.towers.images(pixels, {})

    def views(self, prompt: nn.Module, labels: Tensor, pixels: Tensor) -> Iterator[View]:
        """One view of the batch; where the text depends on the image one for each: a backward pass can follow each."""
        spec, needs = self.method.prompt, self.method.needs
        teaches = bool(needs & {"teacher_image", "teacher_logits"})
        frozen = Features(pooled=self.frozen(pixels)) if teaches or not spec.reach.image_tower else None
        if spec.reach.sees:
            assert frozen is not None
            for label, pooled in zip(labels.split(1), frozen.pooled.split(1), strict=True):
                one = Features(pooled=pooled)
                yield self._view(prompt(image=one.unit), label, one)
            return
        prompted = prompt()
        image = Features(pooled=self.towers.images(pixels, prompted.image)) if spec.reach.image_tower else frozen
        assert image is not None
        yield self._view(prompted, labels, image, frozen)

    def _view(self, prompted: Prompted, labels: Tensor, image: Features, frozen: Features | None = None) -> View:
        splices = {
            layer: splice if splice.axis == "shared" else Splice(q=splice.q[0])
            for layer, splice in prompted.text.items()
        }
        text = self.fixed or Features(pooled=self.towers.text(splices))
        teacher = None
        if self.teacher_text is not None or frozen is not None:
            known = frozen is not None and self.teacher_text is not None
            answers = logits(frozen, self.teacher_text, self.clip.logit_scale) if known else None
            teacher = TeacherAnswer(text=self.teacher_text, image=frozen, logits=answers)
        return View(
            labels=labels,
            logits=logits(image, text, self.clip.logit_scale),
            text=text,
            image=image,
            prompted=prompted,
            vocabulary=self.clip.vocabulary,
            teacher=teacher,
        )
