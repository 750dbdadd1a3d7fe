"""Zero-shot and 16-shot linear probe of a checkpoint on the ten sets of drawings, and zero-shot on photographs of things.

    python tools/pocket/medium/evaluate.py LITE0.pth WORK RUN/last.pt              # validation images
    python tools/pocket/medium/evaluate.py LITE0.pth WORK RUN/last.pt --test       # once, at the end
    ... --photographs FOLDER       # an unpacked tuxpaint-stamps-default, whose files' names say what they show

The trunk's cells of the sets' images are kept in WORK/measured.pt.
"""

from __future__ import annotations

import argparse
import io
import re
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from cells import plain
from PIL import Image
from sklearn.linear_model import LogisticRegression
from tokenizers import Tokenizer
from torch import Tensor
from tower import ImageTower, TextTower
from train_image import encode
from trunk import SIDE, TOKENS, Lite0

from vlprompt import pocket

SETS = (
    *(
        "clipart-living",
        "clipart-things",
        "emoji-animals",
        "emoji-food",
        "emoji-groups",
        "emoji-objects",
        "emoji-people",
    ),
    *("emoji-subgroups", "emoji-symbols", "emoji-travel"),
)
STRENGTHS, SEEDS, SHOTS = (0.001, 0.003, 0.01, 0.03, 0.1), (1, 2, 3), 16
THINGS = [
    "bear",
    "bee",
    "camel",
    "cow",
    "crow",
    "deer",
    "dog",
    "dolphin",
    "donkey",
    "duck",
    "elephant",
    "fox",
    "frog",
    "giraffe",
    "goat",
    "gorilla",
    "horse",
    "kangaroo",
    "koala",
    "lion",
    "mouse",
    "ostrich",
    "owl",
    "penguin",
    "pig",
    "rabbit",
    "sheep",
    "squirrel",
    "tiger",
    "whale",
    "zebra",
    "apple",
    "banana",
    "broccoli",
    "carrot",
    "corn",
    "lemon",
    "mushroom",
    "orange",
    "pear",
    "pineapple",
    "pumpkin",
    "strawberry",
    "tomato",
    "grapes",
    "guitar",
    "violin",
    "trumpet",
    "camera",
    "scissors",
    "teapot",
    "key",
    "hammer",
    "basketball",
    "toilet",
    "mug",
]


def cells_of(trunk: Lite0, pictures: list[np.ndarray]) -> Tensor:
    """(N, L, C) in float32."""
    return torch.cat([trunk.cells(plain(np.stack(pictures[i : i + 64]))) for i in range(0, len(pictures), 64)])


def measured(trunk: Lite0, kept: Path) -> dict[str, dict]:
    """Cells, splits and labels of the ten sets."""
    if kept.exists():
        return torch.load(kept, weights_only=False)
    out = {}
    for name in SETS:
        rows, facts = pocket.rows(name), pocket.info(name)
        opened = [Image.open(io.BytesIO(pocket.read(row.key)), formats=("WEBP",)).convert("RGB") for row in rows]
        out[name] = {
            "cells": cells_of(trunk, [np.asarray(picture) for picture in opened]),
            "split": [row.split for row in rows],
            "label": torch.tensor([row.label for row in rows]),
            "template": facts.template,
            "classes": facts.class_names,
        }
    torch.save(out, kept)
    return out


def photographs(trunk: Lite0, folder: Path) -> tuple[Tensor, Tensor]:
    """Cells and labels of the stamps whose file name holds one of THINGS, cut out, on white."""
    pictures, labels = [], []
    for path in sorted(folder.rglob("*.png")):
        words = re.split(r"[^a-z]+", re.sub(r"\d", "", path.stem.lower()))
        found = [i for i, thing in enumerate(THINGS) if thing in words or f"{thing}s" in words]
        if len(found) != 1 or "mirror" in path.stem or "cartoon" in path.as_posix():
            continue
        picture = Image.open(path, formats=("PNG",)).convert("RGBA")
        picture = picture.crop(picture.getchannel("A").getbbox())
        side = round(max(picture.size) * 1.05)
        canvas = Image.new("RGBA", (side, side), "white")
        canvas.alpha_composite(picture, ((side - picture.width) // 2, (side - picture.height) // 2))
        pictures.append(np.asarray(canvas.convert("RGB").resize((SIDE, SIDE), Image.Resampling.BICUBIC)))
        labels.append(found[0])
    return cells_of(trunk, pictures), torch.tensor(labels)


def probe(features: np.ndarray, labels: np.ndarray, splits: np.ndarray, split: str) -> float:
    """Mean over seeds; the strength chosen on validation images."""
    train, val, scores = np.flatnonzero(splits == "train"), splits == "val", []
    for seed in SEEDS:
        rng = np.random.default_rng(seed)
        rows = np.concatenate([rng.permutation(train[labels[train] == c])[:SHOTS] for c in np.unique(labels)])
        scaled = (features - features[rows].mean(0)) / features.std()
        fitted = [LogisticRegression(C=c, max_iter=300).fit(scaled[rows], labels[rows]) for c in STRENGTHS]
        best = max(fitted, key=lambda m: (m.predict(scaled[val]) == labels[val]).mean())
        scores.append((best.predict(scaled[splits == split]) == labels[splits == split]).mean() * 100)
    return float(np.mean(scores))


@torch.no_grad()
def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    for name in ("lite0", "work", "checkpoint"):
        parser.add_argument(name, type=Path)
    parser.add_argument("--test", action="store_true")
    parser.add_argument("--photographs", type=Path)
    options = parser.parse_args()
    trunk, state = Lite0.read(options.lite0), torch.load(options.checkpoint, weights_only=True)
    tokenizer = Tokenizer.from_file(str(options.work / "tokenizer.json"))
    image = ImageTower(trunk.head.weight[:, :, 0, 0], trunk.head.bias, TOKENS).eval()
    text = TextTower(tokenizer.get_vocab_size()).eval()
    image.load_state_dict(state["image"])
    text.load_state_dict(state["text"])
    split, both = "test" if options.test else "val", []
    for name, facts in measured(trunk, options.work / "measured.pt").items():
        seen = F.normalize(torch.cat([image(part)[0] for part in facts["cells"].split(256)]), dim=-1)
        said = F.normalize(text(*encode(tokenizer, [facts["template"].format(c) for c in facts["classes"]])), dim=-1)
        splits, labels = np.array(facts["split"]), facts["label"].numpy()
        asked = splits == split
        zero = float(((seen @ said.T).argmax(1).numpy() == labels)[asked].mean() * 100)
        both.append((zero, probe(seen.numpy(), labels, splits, split)))
        print(f"{name}: {asked.sum()} {split} images, zero-shot {zero:.1f}, probe {both[-1][1]:.1f}", flush=True)
    print("mean: zero-shot {:.1f}, probe {:.1f}".format(*np.mean(both, axis=0)))
    if options.photographs:
        cells, labels = photographs(trunk, options.photographs)
        seen = F.normalize(image(cells)[0], dim=-1)
        said = F.normalize(text(*encode(tokenizer, [f"a photo of a {thing}." for thing in THINGS])), dim=-1)
        right = float((seen @ said.T).argmax(1).eq(labels).float().mean() * 100)
        print(f"photographs: {len(labels)} of {len(set(labels.tolist()))} things, zero-shot {right:.1f}")


if __name__ == "__main__":
    main()
