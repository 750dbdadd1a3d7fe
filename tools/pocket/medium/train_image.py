"""Learn pocket-m's ViT from the trunk's cells; then both towers together; resumable.

    python tools/pocket/medium/train_image.py LITE0.pth WORK RUN PART... --steps 1500                      # alone
    python tools/pocket/medium/train_image.py LITE0.pth WORK RUN2 PART... --steps 800 --image RUN/last.pt --text TEXT/last.pt

Alone: a picture's embedding is to be its name's vector and to say what is said of how it is shown; a photograph's and a class's cells
the mean of the classes' vectors under the trunk's own probabilities. A second output, dropped afterwards, learns the trunk's logits.
Together: captions in words, contrastively; the vectors stay as a second aim.
"""

from __future__ import annotations

import argparse
import json
import math
import random
import sys
import time
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from begin import begin_image
from sayings import Target, caption
from tokenizers import Tokenizer
from torch import Tensor, nn
from tower import WIDTH, ImageTower, TextTower, groups, rate
from trunk import TOKENS, Lite0

sys.path.insert(0, str(Path(__file__).parents[1]))
from looks import EFFECT_WORDS, STYLE_WORDS

BATCH, TAU, BANK = 320, 0.05, 2048
SHARES = {"drawings": 0.38, "emoji": 0.17, "icons": 0.2, "photographs": 0.13, "classes": 0.12}
KIND = {
    "drawings": ("drawing", "picture", "emoji", "illustration", "cartoon"),
    "emoji": ("emoji", "picture", "drawing"),
}
ICON = ("icon", "symbol", "drawing", "picture")


class Part:
    """One part's cells, names and looks."""

    def __init__(self, work: Path, name: str, vectors: np.ndarray) -> None:
        folder = work / name
        self.name, self.cells = name, np.load(folder / "cells.npy", mmap_mode="r")
        self.named = (folder / "names.json").exists() and name != "classes"
        if self.named:
            self.names = json.loads((folder / "names.json").read_text(encoding="utf-8"))
            self.facts = json.loads((folder / "facts.json").read_text(encoding="utf-8"))
            lines = (folder / "looks.jsonl").read_text(encoding="utf-8").splitlines()
            self.looks = [json.loads(line) for line in lines]
            seen: dict[int, int] = {}
            for names in self.names:
                seen[names[0]] = seen.get(names[0], 0) + 1
            weights = np.array([seen[names[0]] ** -0.6 for names in self.names])
            self.count = min(len(self.names), 64 * len(lines))
            self.cumulative = np.cumsum(weights[: self.count] / weights[: self.count].sum())
        else:
            self.count = len(self.cells)

    def rows(self, number: int, draw: np.random.Generator) -> np.ndarray:
        if self.named:
            return np.searchsorted(self.cumulative, draw.random(number)).clip(0, self.count - 1)
        return draw.integers(self.count, size=number)

    def said(self, row: int, view: int, rng: random.Random) -> tuple[str, list[str], str]:
        """A kind, words and a background that are true of one view."""
        kind = rng.choice(KIND.get(self.name, ICON))
        words: list[str] = []
        hand = self.facts[row]["hand"]
        if hand in STYLE_WORDS and rng.random() < 0.3:
            words.append(rng.choice(STYLE_WORDS[hand]))
        if self.facts[row].get("look") in ("outline", "filled") and rng.random() < 0.4:
            words.append(self.facts[row]["look"])
        if view == 0:
            return kind, words, ""
        look = self.looks[row // 64][view - 1][row % 64]
        if rng.random() < (0.05 if look["effect"] == "as drawn" else 0.7):
            words.append(rng.choice(EFFECT_WORDS[look["effect"]]))
        if look["size"] != "whole" and rng.random() < 0.5:
            words.append(look["size"])
        ground = f"{look['background']} background"
        return kind, list(dict.fromkeys(words)), ground if rng.random() < (0.03 if "white" in ground else 0.5) else ""


class Pictures:
    """Random batches; a function of the step alone."""

    def __init__(self, work: Path, parts: list[str], trunk: Lite0) -> None:
        self.vectors = np.load(work / "names.npy")
        self.words = json.loads((work / "names.json").read_text(encoding="utf-8"))["names"]
        self.parts = [Part(work, name, self.vectors) for name in parts]
        self.trunk = trunk
        self.target = Target(np.load(work / "around.npy"))
        lists = json.loads((work / "classes" / "names.json").read_text(encoding="utf-8"))
        classes = np.stack([self.vectors[names[:2]].astype(np.float32).mean(0) for names in lists])
        self.classes = F.normalize(torch.from_numpy(classes), dim=-1)
        self.class_words = lists

    def batch(self, step: int) -> dict:
        """cells (B, L, C), vectors (B, 384), captions, the trunk's logits (B, 1000), and whether a name is known (B,)."""
        draw, rng = np.random.default_rng([11, step]), random.Random(f"image {step}")
        cells, vectors, captions, known = [], [], [], []
        total = sum(SHARES[p.name] for p in self.parts)
        for part in self.parts:
            number = round(BATCH * SHARES[part.name] / total)
            rows = part.rows(number, draw)
            views = draw.integers(part.cells.shape[1], size=number)
            cells.append(np.array(part.cells[rows, views]))
            if not part.named:
                known += [False] * number
                vectors += [None] * number
                captions += [""] * number
                continue
            for row, view in zip(rows, views, strict=True):
                names = part.names[row]
                name = names[0] if len(names) == 1 or rng.random() < 0.75 else rng.choice(names[1:])
                kind, words, ground = part.said(row, view, rng)
                text = caption(self.words[name], kind, words, ground, rng)
                around = [*words, *([kind] if kind in text else []), *([ground] if ground and ground in text else [])]
                vectors.append(self.target.of(self.vectors[names[0]].astype(np.float32), around))
                captions.append(text if rng.random() < 0.7 else self.words[name])
                known.append(True)
        return self._whole(torch.from_numpy(np.concatenate(cells)).float(), vectors, captions, torch.tensor(known), rng)

    @torch.no_grad()
    def _whole(self, cells: Tensor, vectors: list, captions: list[str], known: Tensor, rng: random.Random) -> dict:
        logits = self.trunk.logits(self.trunk.feature(cells))
        likely = logits.softmax(1)
        for i in (~known).nonzero()[:, 0].tolist():
            mean = F.normalize(likely[i] @ self.classes, dim=0).numpy()
            kind = rng.choice(("photo", "photo", "picture", "photograph"))
            vectors[i] = self.target.of(mean, [kind])
            name = self.words[rng.choice(self.class_words[int(likely[i].argmax())][:2])]
            captions[i] = caption(name, kind, [], "", rng)
        sure = known | (likely.max(1).values > 0.6)
        return {
            "cells": cells, "vectors": torch.from_numpy(np.stack(vectors)).float(), "captions": captions, "logits": logits,
            "known": known, "sure": sure,
        }  # fmt: skip


def near(student: Tensor, vectors: Tensor, bank: Tensor) -> Tensor:
    """One less the cosine, and how near each picture is to its vector among the batch's and a bank of others (at temperature TAU)."""
    unit, keys = F.normalize(student.float(), dim=-1), torch.cat([vectors, bank])
    theirs = (vectors @ keys.T / TAU).softmax(1)
    return (1 - (unit * vectors).sum(1)).mean() + 0.5 * F.kl_div(
        (unit @ keys.T / TAU).log_softmax(1), theirs, reduction="batchmean"
    )


def contrast(image: Tensor, text: Tensor, scale: Tensor, vectors: Tensor) -> Tensor:
    """Cross-entropy both ways; pairs whose vectors are nearly the same count as matches too."""
    logits = scale.exp() * F.normalize(image.float(), dim=-1) @ F.normalize(text.float(), dim=-1).T
    target = ((vectors @ vectors.T - 0.9) / 0.1).clamp(min=0)
    target.fill_diagonal_(1)
    rows = -(target / target.sum(1, keepdim=True) * logits.log_softmax(1)).sum(1).mean()
    return (rows - (target / target.sum(0, keepdim=True) * logits.log_softmax(0)).sum(0).mean()) / 2


class Both(nn.Module):
    """What is trained: the image tower, its second output, and, together, the text tower and the scale."""

    def __init__(self, image: ImageTower, text: TextTower | None) -> None:
        super().__init__()
        self.image, self.text = image, text
        self.second = nn.Linear(WIDTH, 1000)
        self.scale = nn.Parameter(torch.tensor(math.log(20.0)))

    def loss(self, batch: dict, bank: Tensor, tokens: tuple[Tensor, Tensor] | None) -> tuple[Tensor, dict[str, float]]:
        out, row = self.image(batch["cells"])
        teach = F.kl_div(
            (self.second(row).float() / 2).log_softmax(1), (batch["logits"] / 2).softmax(1), reduction="batchmean"
        )
        parts = {"near": near(out, batch["vectors"], bank), "trunk": 0.25 * teach}
        if tokens is not None and self.text is not None:
            words = self.text(*tokens)
            sure = batch["sure"]
            parts["contrast"] = 0.7 * contrast(out[sure], words[sure], self.scale, batch["vectors"][sure])
            parts["near"] = 0.5 * parts["near"]
            unit = F.normalize(words.float(), dim=-1)
            parts["text"] = 1.0 * (1 - (unit * batch["vectors"])[sure].sum(1)).mean()
        return sum(parts.values()), {name: round(float(v.detach()), 4) for name, v in parts.items()}


def encode(tokenizer: Tokenizer, captions: list[str]) -> tuple[Tensor, Tensor]:
    """Tokens (B, L) padded with the end token, and the place of each end."""
    end = tokenizer.token_to_id("<|endoftext|>")
    ids = [e.ids if len(e.ids) <= 24 else [*e.ids[:23], end] for e in tokenizer.encode_batch(captions)]
    tokens = torch.full((len(ids), max(map(len, ids))), end)
    for line, one in zip(tokens, ids, strict=True):
        line[: len(one)] = torch.tensor(one)
    return tokens, torch.tensor([len(one) - 1 for one in ids])


def start(options: argparse.Namespace, pictures: Pictures, trunk: Lite0, tokenizer: Tokenizer) -> Both:
    """New towers, or those of earlier runs."""
    torch.manual_seed(2)
    image = ImageTower(trunk.head.weight[:, :, 0, 0], trunk.head.bias, TOKENS)
    if options.image:
        image.load_state_dict(torch.load(options.image, weights_only=True)["image"])
    else:
        with torch.no_grad():
            drawn = np.random.default_rng(0)
            named = [
                (p, np.sort(drawn.choice(p.count, min(p.count, 5000), replace=False)))
                for p in pictures.parts
                if p.named
            ]
            cells = [torch.from_numpy(np.array(p.cells[rows, 0])).float() for p, rows in named]
            features = torch.cat([trunk.feature(one) for some in cells for one in some.split(512)])
            vectors = torch.from_numpy(
                np.stack([pictures.vectors[p.names[r][0]] for p, rows in named for r in rows])
            ).float()
        begin_image(image, features, vectors)
    text = None
    if options.text:
        text = TextTower(tokenizer.get_vocab_size())
        text.load_state_dict(torch.load(options.text, weights_only=True)["model"])
    return Both(image, text)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    for name in ("lite0", "work", "run"):
        parser.add_argument(name, type=Path)
    parser.add_argument("parts", nargs="+")
    parser.add_argument("--steps", type=int, default=1500)
    parser.add_argument("--lr", type=float, default=1e-3)
    parser.add_argument("--image", type=Path)
    parser.add_argument("--text", type=Path)
    options = parser.parse_args()
    options.run.mkdir(parents=True, exist_ok=True)
    trunk = Lite0.read(options.lite0)
    pictures = Pictures(options.work, options.parts, trunk)
    tokenizer = Tokenizer.from_file(str(options.work / "tokenizer.json"))
    model = start(options, pictures, trunk, tokenizer)
    optim = torch.optim.AdamW(groups(model, 0.05), lr=options.lr, betas=(0.9, 0.98), eps=1e-6)
    step, last, saved, lines = 0, options.run / "last.pt", time.monotonic(), []
    if last.exists():
        state = torch.load(last, weights_only=True)
        model.load_state_dict(state["whole"])
        optim.load_state_dict(state["optim"])
        step = state["step"]
    names = torch.from_numpy(pictures.vectors).float()
    while step < options.steps:
        for group in optim.param_groups:
            group["lr"] = rate(step, options.steps, options.lr, warm=50)
        batch = pictures.batch(step)
        bank = names[torch.from_numpy(np.random.default_rng([13, step]).integers(len(names), size=BANK))]
        tokens = encode(tokenizer, batch["captions"]) if model.text is not None else None
        with torch.autocast("cpu", torch.bfloat16):
            loss, parts = model.loss(batch, bank, tokens)
        optim.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optim.step()
        with torch.no_grad():
            model.scale.clamp_(0, math.log(100))
        lines.append(parts)
        step += 1
        if step % 20 == 0:
            mean = {name: round(float(np.mean([p[name] for p in lines])), 4) for name in parts}
            with (options.run / "log.jsonl").open("a", encoding="utf-8") as log:
                log.write(json.dumps({"step": step, **mean, "scale": round(model.scale.exp().item(), 1)}) + "\n")
            lines.clear()
        if time.monotonic() - saved > 90 or step == options.steps:
            saved = time.monotonic()
            text = {} if model.text is None else model.text.state_dict()
            state = {"image": model.image.state_dict(), "text": text, "scale": model.scale.item()}
            torch.save(
                state | {"whole": model.state_dict(), "optim": optim.state_dict(), "step": step},
                last.with_suffix(".new"),
            )
            last.with_suffix(".new").replace(last)


if __name__ == "__main__":
    main()
