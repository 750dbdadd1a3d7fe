"""Distil the sentence encoder into pocket-m's text tower; resumable.

    python tools/pocket/medium/train_text.py WORK RUN --steps 2000 [--start FILE] [--language 0.1] [--glosses 0.3]

WORK is from words.py. `--start` goes on from weights of begin.py or from a model's text.safetensors. `--language` adds that share of a
language model's loss (next token, tied embedding).
"""

from __future__ import annotations

import argparse
import json
import random
import time
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from safetensors.torch import load_file
from sayings import COLOURS, KINDS, Target, around, caption
from tokenizers import Tokenizer
from tower import TextTower, groups, rate

BATCH = 512
TAU = 0.05
LONGEST = 24
STYLES = [w for w in around() if w not in KINDS and not w.endswith("background")]
CAPTIONS = 0.4
"""Share of a batch that is a caption, not a phrase alone."""
TIMES = {"drawing": 6.0, "icon": 3.0, "name": 1.0, "kind": 0.5, "gloss": 0.3}
"""How often a phrase of a kind is drawn."""


class Phrases:
    """Random batches of phrases and captions with their vectors; a function of the step alone."""

    def __init__(self, work: Path, vectors_of_words: np.ndarray, glosses: float) -> None:
        facts = json.loads((work / "phrases.json").read_text(encoding="utf-8"))
        self.phrases, self.vectors = facts["phrases"], np.load(work / "vectors.npy")
        times = TIMES | {"gloss": glosses}
        weights = np.array([times[k] for k in facts["kinds"]])
        self.cumulative = np.cumsum(weights / weights.sum())
        self.named = np.array([k in ("drawing", "icon", "name") for k in facts["kinds"]])
        self.tokenizer = Tokenizer.from_file(str(work / "tokenizer.json"))
        self.end = self.tokenizer.token_to_id("<|endoftext|>")
        self.target = Target(vectors_of_words)
        self.drawn: tuple[int, list] | None = None

    def batch(self, step: int) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Tokens (B, L), the place of the end (B,), and vectors (B, 384). Eight steps share a draw, sorted by length."""
        group, part = divmod(step, 8)
        if self.drawn is None or self.drawn[0] != group:
            self.drawn = group, self._draw(group)
        return self.drawn[1][part]

    def _draw(self, group: int) -> list[tuple[torch.Tensor, torch.Tensor, torch.Tensor]]:
        rng, draw = random.Random(f"text {group}"), np.random.default_rng([7, group])
        rows = np.searchsorted(self.cumulative, draw.random(8 * BATCH)).clip(0, len(self.phrases) - 1)
        texts, said = [], []
        for row in rows:
            name, words = self.phrases[row], []
            if self.named[row] and rng.random() < CAPTIONS:
                words = rng.sample(STYLES, rng.choice((0, 0, 1, 1, 2)))
                kind = rng.choice(KINDS)
                ground = f"{rng.choice(list(COLOURS))} background" if rng.random() < 0.15 else ""
                name = caption(name, kind, words, ground, rng)
                words = [*words, *([kind] if kind in name else []), *([ground] if ground and ground in name else [])]
            texts.append(name)
            said.append(words)
        ids = [
            e.ids if len(e.ids) <= LONGEST else [*e.ids[: LONGEST - 1], self.end]
            for e in self.tokenizer.encode_batch(texts)
        ]
        order = sorted(range(len(ids)), key=lambda i: len(ids[i]))
        # Steps of one length after another would learn the last one; so their order is drawn.
        return [self._pack(order[p * BATCH : (p + 1) * BATCH], ids, rows, said) for p in rng.sample(range(8), 8)]

    def _pack(self, chosen, ids, rows, said) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        tokens = torch.full((len(chosen), max(len(ids[i]) for i in chosen)), self.end)
        for line, i in zip(tokens, chosen, strict=True):
            line[: len(ids[i])] = torch.tensor(ids[i])
        vectors = np.stack([self.target.of(self.vectors[rows[i]], said[i]) for i in chosen])
        return tokens, torch.tensor([len(ids[i]) - 1 for i in chosen]), torch.from_numpy(vectors)


def distance(student: torch.Tensor, teacher: torch.Tensor) -> torch.Tensor:
    """One less the cosine, and how the batch's similarities differ (Kullback-Leibler at temperature TAU)."""
    unit = F.normalize(student.float(), dim=-1)
    theirs = (teacher @ teacher.T / TAU).softmax(1)
    ours = (unit @ teacher.T / TAU).log_softmax(1)
    return (1 - (unit * teacher).sum(1)).mean() + 0.5 * F.kl_div(ours, theirs, reduction="batchmean")


def weights(path: Path) -> dict[str, torch.Tensor]:
    """The tower's weights in begin.py's file or in a model's text.safetensors."""
    if path.suffix == ".safetensors":
        return {name: tensor.float() for name, tensor in load_file(path).items() if name != "logit_scale"}
    return torch.load(path, weights_only=True)


def main() -> None:
    """Train to the end of the schedule, from RUN/last.pt where there is one."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("work", type=Path)
    parser.add_argument("run", type=Path)
    parser.add_argument("--steps", type=int, default=2000)
    parser.add_argument("--start", type=Path, help="weights to begin with: begin.py's, or a model's text.safetensors")
    parser.add_argument("--lr", type=float, default=1e-3)
    parser.add_argument("--language", type=float, default=0.0)
    parser.add_argument("--glosses", type=float, default=TIMES["gloss"], help="how often a gloss is drawn")
    parser.add_argument("--float32", action="store_true", help="for a processor without bfloat16")
    options = parser.parse_args()
    options.run.mkdir(parents=True, exist_ok=True)
    torch.manual_seed(1)
    phrases = Phrases(options.work, np.load(options.work / "around.npy"), options.glosses)
    model = TextTower(phrases.tokenizer.get_vocab_size())
    if options.start:
        model.load_state_dict(weights(options.start))
    optim = torch.optim.AdamW(groups(model, 0.05), lr=options.lr, betas=(0.9, 0.98), eps=1e-6)
    step, last, saved, losses = 0, options.run / "last.pt", time.monotonic(), []
    if last.exists():
        state = torch.load(last, weights_only=True)
        model.load_state_dict(state["model"])
        optim.load_state_dict(state["optim"])
        step = state["step"]
    while step < options.steps:
        for group in optim.param_groups:
            group["lr"] = rate(step, options.steps, options.lr, warm=50)
        tokens, ends, vectors = phrases.batch(step)
        with torch.autocast("cpu", torch.bfloat16, enabled=not options.float32):
            states = model.states(tokens)
            student = states[torch.arange(len(tokens)), ends] @ model.text_projection
            loss = distance(student, vectors)
            if options.language:
                loss = loss + options.language * model.next_token(states, tokens, ends)
        optim.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optim.step()
        losses.append((loss.item(), (F.normalize(student.detach().float(), dim=-1) * vectors).sum(1).mean().item()))
        step += 1
        if step % 16 == 0:
            loss_, cosine = (round(float(x), 4) for x in np.mean(losses, axis=0))
            with (options.run / "log.jsonl").open("a", encoding="utf-8") as log:
                log.write(json.dumps({"step": step, "loss": loss_, "cosine": cosine}) + "\n")
            losses.clear()
        if time.monotonic() - saved > 90 or step == options.steps:
            saved = time.monotonic()
            state = {"model": model.state_dict(), "optim": optim.state_dict(), "step": step}
            torch.save(state, last.with_suffix(".new"))
            last.with_suffix(".new").replace(last)


if __name__ == "__main__":
    main()
