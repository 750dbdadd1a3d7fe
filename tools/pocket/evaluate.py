"""Zero-shot and 16-shot linear probe of a model directory on the pocket's sets.

python tools/pocket/evaluate.py src/vlprompt/pocket/pocket-s            # validation images
python tools/pocket/evaluate.py src/vlprompt/pocket/pocket-s --test     # once, at the end
"""

from __future__ import annotations

import argparse
import io
import json
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from sklearn.linear_model import LogisticRegression
from tokenizers import Tokenizer
from transformers import CLIPModel

from vlprompt import pocket

SHOTS, SEEDS = 16, (1, 2, 3)
STRENGTHS = (0.01, 0.03, 0.1, 0.3, 1.0, 3.0, 10.0)


@torch.no_grad()
def encode_images(model: CLIPModel, folder: Path, keys: list[str]) -> torch.Tensor:
    """Projected, un-normalised features of the archive's images (N, D) float32."""
    facts = json.loads((folder / "preprocessor_config.json").read_text(encoding="utf-8"))
    side = facts["crop_size"]["height"]
    mean, std = (torch.tensor(facts[k])[:, None, None] for k in ("image_mean", "image_std"))
    pictures = []
    for key in keys:
        image = Image.open(io.BytesIO(pocket.read(key)), formats=("WEBP",)).convert("RGB")
        if image.size != (side, side):
            image = image.resize((side, side), Image.Resampling.BICUBIC)
        pictures.append(torch.from_numpy(np.asarray(image).copy()).permute(2, 0, 1))
    features = []
    for chunk in torch.stack(pictures).split(256):
        pixels = (chunk.float() / 255 - mean) / std
        features.append(model.visual_projection(model.vision_model(pixel_values=pixels).pooler_output))
    return torch.cat(features)


@torch.no_grad()
def encode_texts(model: CLIPModel, folder: Path, texts: list[str]) -> torch.Tensor:
    """Projected text features (N, D) float32, each text unpadded."""
    tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    features = []
    for text in texts:
        ids = torch.tensor([tokenizer.encode(text).ids])
        features.append(model.text_projection(model.text_model(input_ids=ids).last_hidden_state[:, -1]))
    return torch.cat(features)


def score(predicted: np.ndarray, labels: np.ndarray) -> float:
    """Top-1 in percent."""
    return float((predicted == labels).mean() * 100)


def probe(features: dict[str, np.ndarray], labels: dict[str, np.ndarray], split: str) -> tuple[float, float, float]:
    """Mean and spread over seeds of the 16-shot linear probe on `split`, and the strength chosen on val."""
    scores, chosen = [], []
    for seed in SEEDS:
        rng = np.random.default_rng(seed)
        rows = np.concatenate(
            [rng.permutation(np.flatnonzero(labels["train"] == c))[:SHOTS] for c in np.unique(labels["train"])]
        )
        fitted = {}
        for strength in STRENGTHS:
            model = LogisticRegression(C=strength, max_iter=1000)
            model.fit(features["train"][rows], labels["train"][rows])
            fitted[strength] = (score(model.predict(features["val"]), labels["val"]), model)
        best = max(fitted, key=lambda s: fitted[s][0])
        chosen.append(best)
        scores.append(score(fitted[best][1].predict(features[split]), labels[split]))
    return float(np.mean(scores)), float(np.std(scores)), float(np.median(chosen))


def evaluate(folder: Path, split: str) -> dict[str, dict[str, float]]:
    """Chance, zero-shot and linear probe on one split of every set."""
    model = CLIPModel.from_pretrained(folder, dtype=torch.float32).eval()
    report = {}
    for name in pocket.names("benchmark"):
        facts, rows = pocket.info(name), pocket.rows(name)
        images = encode_images(model, folder, [r.key for r in rows])
        texts = encode_texts(model, folder, [facts.template.format(c) for c in facts.class_names])
        splits, labels = np.array([r.split for r in rows]), np.array([r.label for r in rows])
        by_features = {s: images.numpy()[splits == s] for s in ("train", "val", "test")}
        by_labels = {s: labels[splits == s] for s in ("train", "val", "test")}
        logits = F.normalize(images, dim=-1) @ F.normalize(texts, dim=-1).T
        zero_shot = score(logits.argmax(1).numpy()[splits == split], by_labels[split])
        mean, spread, strength = probe(by_features, by_labels, split)
        report[name] = {
            "classes": len(facts.class_names),
            "images": int((splits == split).sum()),
            "chance": round(100 / len(facts.class_names), 1),
            "zero_shot": round(zero_shot, 1),
            "linear_probe_16": round(mean, 1),
            "spread": round(spread, 1),
            "C": strength,
        }
    return report


def main() -> None:
    """Print the report as one line of JSON per set."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--test", action="store_true", help="the test images instead of the validation images")
    options = parser.parse_args()
    for name, line in evaluate(options.folder, "test" if options.test else "val").items():
        print(name, json.dumps(line))


if __name__ == "__main__":
    main()
