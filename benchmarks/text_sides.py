"""The two sides of the text-tower benchmark: the plain way and ours, on the same random weights, names and images."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from benchmarks.class_names import CLASS_NAMES
from vlprompt.prompts import ContextSpec
from vlprompt.towers import Clip, assemble
from vlprompt.towers.config import ClipConfig, TextForm, TowerConfig
from vlprompt.towers.formats.files import Source
from vlprompt.towers.text import TextTower
from vlprompt.towers.tokenizer import clip_tokenizer
from vlprompt.towers.vision import VisionTower
from vlprompt.types import Preprocess, Prompted, Splice

Step = Callable[[], Tensor]

WIDTH, LAYERS, HEADS, LENGTH, NUM_CONTEXT, SCALE = 512, 12, 8, 77, 16, 100.0


SMALL = TowerConfig(width=64, layers=1, heads=1, hidden=64, activation="quick_gelu")


SIGLIP_LENGTH = 64


def random_clip(
    dtype: str = "float32", *, image: TowerConfig = SMALL, image_size: int = 32, masked: bool = True
) -> Clip:
    """A CLIP whose text tower has ViT-B/16's size; the image tower is small where it is not measured.

    Not masked: read as SigLIP reads, 64 rows without a causal mask, of which the last one is the answer.
    """
    text = TowerConfig(width=WIDTH, layers=LAYERS, heads=HEADS, hidden=4 * WIDTH, activation="quick_gelu")
    form = TextForm() if masked else TextForm(causal=False, pool="last", pad=0)
    config = ClipConfig(
        embed_dim=512,
        text=text,
        image=image,
        vocab_size=49408,
        context_length=LENGTH if masked else SIGLIP_LENGTH,
        text_form=form,
        image_size=image_size,
        patch_size=16,
    )
    with torch.device("meta"):
        shapes = {
            **TextTower(config).state_dict(),
            **{f"visual.{k}": v for k, v in VisionTower(config).state_dict().items()},
        }
    generator = torch.Generator().manual_seed(0)
    weights = {"logit_scale": torch.tensor(SCALE).log()}
    for name, value in shapes.items():
        scale = 0.02 if "embedding" in name or name.endswith("bias") else value.shape[-1] ** -0.5
        weights[name] = torch.empty(value.shape).normal_(std=scale, generator=generator)
        if "ln_" in name and name.endswith("weight"):
            weights[name] = 1 + 0.05 * weights[name]
    preprocess = Preprocess(resize=image_size, crop=image_size, mean=(0.5, 0.5, 0.5), std=(0.5, 0.5, 0.5))
    source = Source(config=config, weights=weights, tokenizer=clip_tokenizer(), preprocess=preprocess)
    return assemble(source, dtype=dtype)


class PlainBlock(nn.Module):
    """CLIP's residual block on torch's own attention."""

    def __init__(self) -> None:
        super().__init__()
        self.attn = nn.MultiheadAttention(WIDTH, HEADS, batch_first=True)
        self.ln_1, self.ln_2 = nn.LayerNorm(WIDTH), nn.LayerNorm(WIDTH)
        self.mlp = nn.Sequential(
            OrderedDict(c_fc=nn.Linear(WIDTH, 4 * WIDTH), gelu=QuickGelu(), c_proj=nn.Linear(4 * WIDTH, WIDTH))
        )

    def forward(self, x: Tensor, mask: Tensor | None) -> Tensor:
        y = self.ln_1(x)
        x = x + self.attn(y, y, y, need_weights=False, attn_mask=mask)[0]
        return x + self.mlp(self.ln_2(x))


class QuickGelu(nn.Module):
    """x * sigmoid(1.702 x)."""

    def forward(self, x: Tensor) -> Tensor:
        return x * torch.sigmoid(1.702 * x)


def class_names(num_classes: int) -> list[str]:
    """The fixed list of 100, repeated with a number behind each name where more are asked for."""
    rounds = range((num_classes + 99) // 100)
    return [name if i == 0 else f"{name} {i}" for i in rounds for name in CLASS_NAMES][:num_classes]


def inputs(clip: Clip, num_classes: int) -> tuple[Tensor, Tensor, Tensor]:
    """The context (M, D), normalised image features (B, E) and labels (B,) of both sides."""
    generator = torch.Generator().manual_seed(1)
    spec = ContextSpec(n_ctx=NUM_CONTEXT)
    context = spec.build(clip.facts, generator, num_classes).ctx.detach().requires_grad_()
    images = F.normalize(torch.randn(32, 512, generator=generator), dim=-1)
    return context, images, torch.randint(0, num_classes, (32,), generator=generator)


def plain_step(num_classes: int, dtype: str, *, masked: bool = True) -> Step:
    """The published way: every class 77 tokens (SigLIP: 64), every step."""
    assert dtype == "float32"
    clip = random_clip(masked=masked)
    length = clip.context_length
    context, images, labels = inputs(clip, num_classes)
    source = clip.text_tower
    blocks = [PlainBlock() for _ in range(LAYERS)]
    for block, ours in zip(blocks, source.blocks):
        block.load_state_dict(ours.state_dict())
    plain = nn.ModuleList(blocks).requires_grad_(False)
    start, end = clip.tokenizer.start_id, clip.tokenizer.end_id
    ids = [[start, *clip.tokenizer.encode("X " * NUM_CONTEXT + name + "."), end] for name in class_names(num_classes)]
    padded = torch.tensor([row + [0] * (length - len(row)) for row in ids])
    ends = torch.tensor([len(row) - 1 if masked else length - 1 for row in ids])
    words = source.token_embedding.weight[padded]
    mask = torch.full((length, length), float("-inf")).triu(1) if masked else None

    def step() -> Tensor:
        ctx = context.expand(len(ids), -1, -1)
        x = torch.cat([words[:, :1], ctx, words[:, 1 + NUM_CONTEXT :]], dim=1) + source.positional_embedding
        for block in plain:
            x = block(x, mask)
        text = source.ln_final(x)[torch.arange(len(ids)), ends] @ source.text_projection
        loss = F.cross_entropy(SCALE * images @ F.normalize(text, dim=-1).T, labels)
        return torch.autograd.grad(loss, context)[0]

    return step


def our_step(num_classes: int, dtype: str, *, masked: bool = True) -> Step:
    """Our tower, through the library's own calls."""
    clip = random_clip(dtype, masked=masked)
    context, images, labels = inputs(clip, num_classes)
    layout = ContextSpec(n_ctx=NUM_CONTEXT).layout
    tokens = clip.class_tokens(class_names(num_classes), layout)

    def step() -> Tensor:
        text = clip.encode_text(tokens, Prompted(text={0: Splice(q=context)}, layout=layout))
        loss = F.cross_entropy(SCALE * images @ text.unit.T, labels)
        return torch.autograd.grad(loss, context)[0]

    return step


SIDES: dict[str, Callable[[int, str], Step]] = {
    "plain": plain_step,
    "ours": our_step,
    "plain-unmasked": partial(plain_step, masked=False),
    "ours-unmasked": partial(our_step, masked=False),
}
