"""The text tower at ViT-B/16 size: the plain way and ours in turn, one process each, forward and backward to the context.

    python -m benchmarks.text_tower [--json FILE] [--repeats 5]

Plain: every class padded to 77 tokens, `nn.MultiheadAttention(need_weights=False)` with a causal mask, frozen weights without
gradients. Both sides hold the same random weights, the same 16 context tokens, 100 real class names and 32 image features, and
return the gradient of the cross-entropy with respect to the context. The two processes take turns, so that both see the same noise;
the ratio is that of the medians.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import time
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from benchmarks.class_names import CLASS_NAMES
from benchmarks.figures import Figure, publish
from vlprompt.prompts import ContextSpec
from vlprompt.towers import Clip, assemble
from vlprompt.towers.clip_vocabulary import clip_tokenizer
from vlprompt.towers.config import ClipConfig, TowerConfig
from vlprompt.towers.text import TextTower
from vlprompt.towers.vision import VisionTower
from vlprompt.types import Preprocess

WIDTH, LAYERS, HEADS, LENGTH, NUM_CONTEXT, SCALE = 512, 12, 8, 77, 16, 100.0


def random_clip() -> Clip:
    """A CLIP whose text tower has ViT-B/16's size; the image tower is small, since it is not measured."""
    text = TowerConfig(width=WIDTH, layers=LAYERS, heads=HEADS, hidden=4 * WIDTH, activation="quick_gelu")
    image = TowerConfig(width=64, layers=1, heads=1, hidden=64, activation="quick_gelu")
    config = ClipConfig(
        embed_dim=512, text=text, image=image, vocab_size=49408, context_length=LENGTH, image_size=32, patch_size=16
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
    preprocess = Preprocess(resize=32, crop=32, mean=(0.5, 0.5, 0.5), std=(0.5, 0.5, 0.5))
    return assemble(config, weights, tokenizer=clip_tokenizer(), preprocess=preprocess)


class PlainBlock(nn.Module):
    """CLIP's residual block on torch's own attention."""

    def __init__(self) -> None:
        super().__init__()
        self.attn = nn.MultiheadAttention(WIDTH, HEADS, batch_first=True)
        self.ln_1, self.ln_2 = nn.LayerNorm(WIDTH), nn.LayerNorm(WIDTH)
        self.mlp = nn.Sequential(
            OrderedDict(c_fc=nn.Linear(WIDTH, 4 * WIDTH), gelu=QuickGelu(), c_proj=nn.Linear(4 * WIDTH, WIDTH))
        )

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        y = self.ln_1(x)
        x = x + self.attn(y, y, y, need_weights=False, attn_mask=mask)[0]
        return x + self.mlp(self.ln_2(x))


class QuickGelu(nn.Module):
    """x * sigmoid(1.702 x)."""

    def forward(self, x: Tensor) -> Tensor:
        return x * torch.sigmoid(1.702 * x)


def inputs(clip: Clip) -> tuple[Tensor, Tensor, Tensor]:
    """The context (M, D), normalised image features (B, E) and labels (B,) of both sides."""
    generator = torch.Generator().manual_seed(1)
    spec = ContextSpec(n_ctx=NUM_CONTEXT)
    context = spec.build(clip.facts, generator, len(CLASS_NAMES)).ctx.detach().requires_grad_()
    images = F.normalize(torch.randn(32, 512, generator=generator), dim=-1)
    return context, images, torch.randint(0, len(CLASS_NAMES), (32,), generator=generator)


def plain_step() -> Callable[[], Tensor]:
    """The published way: 100 sequences of 77 tokens, every step."""
    clip = random_clip()
    context, images, labels = inputs(clip)
    source = clip.text_tower
    blocks = [PlainBlock() for _ in range(LAYERS)]
    for block, ours in zip(blocks, source.blocks):
        block.load_state_dict(ours.state_dict())
    plain = nn.ModuleList(blocks).requires_grad_(False)
    start, end = clip.tokenizer.start_id, clip.tokenizer.end_id
    ids = [[start, *clip.tokenizer.encode("X " * NUM_CONTEXT + name + "."), end] for name in CLASS_NAMES]
    padded = torch.tensor([row + [0] * (LENGTH - len(row)) for row in ids])
    ends = torch.tensor([len(row) - 1 for row in ids])
    words = source.token_embedding.weight[padded]
    mask = torch.full((LENGTH, LENGTH), float("-inf")).triu(1)

    def step() -> Tensor:
        ctx = context.expand(len(ids), -1, -1)
        x = torch.cat([words[:, :1], ctx, words[:, 1 + NUM_CONTEXT :]], dim=1) + source.positional_embedding
        for block in plain:
            x = block(x, mask)
        text = source.ln_final(x)[torch.arange(len(ids)), ends] @ source.text_projection
        loss = F.cross_entropy(SCALE * images @ F.normalize(text, dim=-1).T, labels)
        return torch.autograd.grad(loss, context)[0]

    return step


def our_step() -> Callable[[], Tensor]:
    """The shared-prefix tower, through the library's own calls."""
    from vlprompt.types import Prompted, Splice

    clip = random_clip()
    context, images, labels = inputs(clip)
    layout = ContextSpec(n_ctx=NUM_CONTEXT).layout
    tokens = clip.class_tokens(CLASS_NAMES, layout)

    def step() -> Tensor:
        text = clip.encode_text(tokens, Prompted(text={0: Splice(q=context)}, layout=layout))
        loss = F.cross_entropy(SCALE * images @ text.unit.T, labels)
        return torch.autograd.grad(loss, context)[0]

    return step


SIDES = {"plain": plain_step, "ours": our_step}


def serve(side: str, gradient_file: Path) -> None:
    """Child process: one warm-up that saves the gradient, then one timed step per line of standard input."""
    step = SIDES[side]()
    np.save(gradient_file, step().numpy())
    print("ready", flush=True)
    for _ in sys.stdin:
        begin = time.perf_counter()
        step()
        print(json.dumps(time.perf_counter() - begin), flush=True)


def measure(repeats: int) -> list[Figure]:
    """Run both sides in turn and compare times and gradients."""
    with tempfile.TemporaryDirectory() as scratch:
        files = {side: Path(scratch) / f"{side}.npy" for side in SIDES}
        children = {side: _spawn(side, path) for side, path in files.items()}
        for child in children.values():
            assert child.stdout is not None
            assert child.stdout.readline() == "ready\n", "a side of the benchmark failed; its error is above"
        seconds: dict[str, list[float]] = {side: [] for side in SIDES}
        for _ in range(repeats):
            for side, child in children.items():
                seconds[side].append(_ask(child))
        for child in children.values():
            child.communicate()
        gradients = {side: np.load(path) for side, path in files.items()}
    median = {side: statistics.median(values) for side, values in seconds.items()}
    error = np.abs(gradients["ours"] - gradients["plain"]).max() / np.abs(gradients["plain"]).max()
    return [
        Figure("plain_s_100", median["plain"], "s"),
        Figure("ours_s_100", median["ours"], "s"),
        Figure("time_ratio_100", median["plain"] / median["ours"], "times"),
        Figure("gradient_error_100", float(error), "max|a-b|/max|b|"),
    ]


def _spawn(side: str, path: Path) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "benchmarks.text_tower", "--side", side, "--gradient-file", str(path)]
    return subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)


def _ask(child: subprocess.Popen[str]) -> float:
    assert child.stdin is not None
    assert child.stdout is not None
    child.stdin.write("step\n")
    child.stdin.flush()
    return float(json.loads(child.stdout.readline()))


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", type=Path, help="write the figures to this file")
    parser.add_argument("--repeats", type=int, default=5, help="timed steps of each side (default 5)")
    parser.add_argument("--side", choices=sorted(SIDES), help=argparse.SUPPRESS)
    parser.add_argument("--gradient-file", type=Path, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.side:
        serve(arguments.side, arguments.gradient_file)
    else:
        publish(measure(arguments.repeats), arguments.json)


if __name__ == "__main__":
    main()
