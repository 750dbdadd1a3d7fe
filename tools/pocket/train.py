"""Train the pocket CLIP from scratch; resumable, with a cosine schedule over wall time or steps.

    python tools/pocket/train.py DIR RUN --minutes 90

DIR is from prepare.py, sets.py and tokenizer.py; RUN receives `last.pt`, `log.jsonl` and copies at intervals.
"""

from __future__ import annotations

import argparse
import json
import math
import time
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from batches import Batch, Batches
from tokenizers import Tokenizer
from transformers import CLIPConfig, CLIPModel


@dataclass(frozen=True, kw_only=True)
class Plan:
    """Everything that decides a run."""

    batch: int = 256
    side: int = 64
    patch: int = 8
    width: int = 192
    layers: int = 6
    heads: int = 3
    text_width: int = 160
    text_layers: int = 4
    text_heads: int = 5
    embed: int = 192
    positions: int = 64
    lr: float = 1e-3
    decay: float = 0.1
    warmup: float = 0.03
    keep: float = 0.5  # share of patches that a training step looks at
    full: float = 0.85  # from this share of the schedule on, all patches
    smoothing: float = 0.0
    minutes: float = 90.0
    steps: int = 0  # > 0: a schedule by steps instead of wall time
    seed: int = 1
    precision: str = "bfloat16"  # or float32, on a CPU without bfloat16 products
    start: str = ""  # a model directory to go on from; empty: from scratch


def build(plan: Plan, vocabulary: int = 4096) -> CLIPModel:
    """A CLIP of the plan's size with transformers' initialisation."""
    end = vocabulary - 1
    text = {
        "vocab_size": vocabulary, "hidden_size": plan.text_width, "intermediate_size": 4 * plan.text_width,
        "num_hidden_layers": plan.text_layers, "num_attention_heads": plan.text_heads,
        "max_position_embeddings": plan.positions, "hidden_act": "quick_gelu", "projection_dim": plan.embed,
        "bos_token_id": end - 1, "eos_token_id": end, "pad_token_id": end,
    }  # fmt: skip
    vision = {
        "hidden_size": plan.width, "intermediate_size": 4 * plan.width, "num_hidden_layers": plan.layers,
        "num_attention_heads": plan.heads, "image_size": plan.side, "patch_size": plan.patch,
        "hidden_act": "quick_gelu", "projection_dim": plan.embed,
    }  # fmt: skip
    config = CLIPConfig(text_config=text, vision_config=vision, projection_dim=plan.embed)
    config.bos_token_id, config.eos_token_id, config.pad_token_id = end - 1, end, end
    model = CLIPModel(config)
    # Short sequences: plain products are 1.6 times faster on a CPU in bfloat16 than the fused attention's backward.
    model.set_attn_implementation("eager")
    return model


def image_features(model: CLIPModel, pixels: torch.Tensor, keep: float = 1.0) -> torch.Tensor:
    """Projected image features (B, D); below 1, each image shows a random share of its patches."""
    vision = model.vision_model
    hidden = vision.embeddings(pixels)
    if keep < 1:
        count, length = len(hidden), hidden.shape[1] - 1
        order = torch.rand(count, length, device=hidden.device).argsort(1)[:, : round(keep * length)] + 1
        order = torch.cat([torch.zeros(count, 1, dtype=order.dtype, device=order.device), order], 1)
        hidden = hidden.gather(1, order[..., None].expand(-1, -1, hidden.shape[-1]))
    hidden = vision.encoder(inputs_embeds=vision.pre_layrnorm(hidden)).last_hidden_state
    return model.visual_projection(vision.post_layernorm(hidden[:, 0]))


def text_features(model: CLIPModel, tokens: torch.Tensor, ends: torch.Tensor) -> torch.Tensor:
    """Projected text features (B, D), read at the end token."""
    hidden = model.text_model(input_ids=tokens).last_hidden_state
    return model.text_projection(hidden[torch.arange(len(tokens)), ends])


def contrast(image: torch.Tensor, text: torch.Tensor, scale: torch.Tensor, matches: torch.Tensor) -> torch.Tensor:
    """Cross-entropy both ways against all matching pairs, shared evenly."""
    logits = scale.exp() * F.normalize(image.float(), dim=-1) @ F.normalize(text.float(), dim=-1).T
    target = matches.float()
    rows = -(target / target.sum(1, keepdim=True) * logits.log_softmax(1)).sum(1).mean()
    columns = -(target / target.sum(0, keepdim=True) * logits.log_softmax(0)).sum(0).mean()
    return (rows + columns) / 2


def optimiser(model: CLIPModel, plan: Plan) -> torch.optim.AdamW:
    """AdamW; no decay on vectors, positions and the scale."""
    decayed = [p for n, p in model.named_parameters() if p.ndim > 1 and "position" not in n]
    plain = [p for n, p in model.named_parameters() if p.ndim <= 1 or "position" in n]
    groups = [{"params": decayed, "weight_decay": plan.decay}, {"params": plain, "weight_decay": 0.0}]
    return torch.optim.AdamW(groups, lr=plan.lr, betas=(0.9, 0.98), eps=1e-6)


def rate(plan: Plan, share: float) -> float:
    """Learning rate at a share of the schedule: warm-up, then half a cosine."""
    if share < plan.warmup:
        return plan.lr * max(share / plan.warmup, 0.02)
    done = min(1.0, (share - plan.warmup) / (1 - plan.warmup))
    return plan.lr * (0.5 * (1 + math.cos(math.pi * done)) * 0.99 + 0.01)


def one_step(model: CLIPModel, optim: torch.optim.Optimizer, batch: Batch, plan: Plan, share: float) -> float:
    """One update; its loss."""
    for group in optim.param_groups:
        group["lr"] = rate(plan, share)
    device = model.logit_scale.device
    with torch.autocast(device.type, dtype=torch.bfloat16, enabled=plan.precision == "bfloat16"):
        image = image_features(model, batch.pixels.to(device), plan.keep if share < plan.full else 1.0)
        text = text_features(model, batch.tokens.to(device), batch.ends.to(device))
    loss = contrast(image, text, model.logit_scale, batch.matches.to(device))
    if not torch.isfinite(loss):
        raise FloatingPointError("the loss is not finite")
    optim.zero_grad(set_to_none=True)
    loss.backward()
    torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
    optim.step()
    with torch.no_grad():
        model.logit_scale.clamp_(0, math.log(100))
    return loss.item()


def save(path: Path, model: CLIPModel, optim: torch.optim.Optimizer, plan: Plan, step: int, spent: float) -> None:
    """Write a checkpoint; a kill never leaves half of one."""
    state = {
        "model": model.state_dict(),
        "optim": optim.state_dict(),
        "plan": asdict(plan),
        "step": step,
        "spent": spent,
    }
    torch.save(state, path.with_suffix(".new"))
    path.with_suffix(".new").replace(path)


def loader(folder: Path, plan: Plan) -> tuple[Batches, int]:
    """The pretraining drawings of `folder` as batches, and the size of the vocabulary."""
    drawings = json.loads((folder / "drawings.json").read_text(encoding="utf-8"))
    chosen = json.loads((folder / "pretrain.json").read_text(encoding="utf-8"))
    pixels = np.load(folder / "pixels.npy", mmap_mode="r")[chosen]
    tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    batches = Batches([drawings[i] for i in chosen], pixels, tokenizer, plan.batch, plan.side, plan.seed)
    return batches, tokenizer.get_vocab_size()


def train(
    folder: Path, run: Path, plan: Plan, *, save_every: float = 180.0, keep_every: float = 600.0, stop: int = 0
) -> CLIPModel:
    """Train until the schedule's end (or to step `stop`), from `run/last.pt` where there is one; seconds."""
    run.mkdir(parents=True, exist_ok=True)
    torch.manual_seed(plan.seed)
    batches, vocabulary = loader(folder, plan)
    model = build(plan, vocabulary)
    if plan.start:
        model.load_state_dict(CLIPModel.from_pretrained(plan.start, dtype=torch.float32).state_dict())
    optim = optimiser(model, plan)
    step, spent = 0, 0.0
    if (run / "last.pt").exists():
        state = torch.load(run / "last.pt", weights_only=True)
        model.load_state_dict(state["model"])
        optim.load_state_dict(state["optim"])
        step, spent = state["step"], state["spent"]
    model.train()
    start = time.monotonic() - spent
    saved = kept = spent
    losses: list[float] = []
    while True:
        spent = time.monotonic() - start
        share = step / plan.steps if plan.steps else spent / (60 * plan.minutes)
        if share >= 1 or (stop and step >= stop):
            break
        # What a step draws depends on seed and step alone: a resumed run goes the same way.
        torch.manual_seed(plan.seed * 1_000_003 + step)
        losses.append(one_step(model, optim, batches.batch(step), plan, share))
        step += 1
        if step % 20 == 0:
            mean = sum(losses) / len(losses)
            losses.clear()
            scale = model.logit_scale.exp().item()
            record = {"step": step, "minutes": round(spent / 60, 2), "loss": round(mean, 4), "scale": round(scale, 1)}
            with (run / "log.jsonl").open("a", encoding="utf-8") as log:
                log.write(json.dumps(record | {"images": step * plan.batch}) + "\n")
        if spent - saved > save_every:
            saved = spent
            save(run / "last.pt", model, optim, plan, step, spent)
        if spent - kept > keep_every:
            kept = spent
            save(run / f"at-{round(spent / 60):03d}.pt", model, optim, plan, step, spent)
    save(run / "last.pt", model, optim, plan, step, spent)
    if share >= 1:
        save(run / "final.pt", model, optim, plan, step, spent)
    return model


def main() -> None:
    """Read the command line: every field of `Plan` is an option."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("run", type=Path)
    for name, value in asdict(Plan()).items():
        parser.add_argument(f"--{name.replace('_', '-')}", type=type(value), default=value)
    options = vars(parser.parse_args())
    train(options.pop("folder"), options.pop("run"), Plan(**options))


if __name__ == "__main__":
    main()
