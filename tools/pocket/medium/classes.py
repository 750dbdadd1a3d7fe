"""Cells that the trunk takes for each of its thousand classes: WORK/classes/cells.npy, (N, 1, 16, 320) float16, and labels.npy.

    python tools/pocket/medium/classes.py LITE0.pth WORK PART...

The packages hold no photographs of most classes. So cells of real pictures are moved, in the space in which cells have unit variance,
until the trunk's own classifier is sure of a class; half of the cells may move, as a thing fills half of a picture.
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from trunk import Lite0

EACH, STEPS, PULL = 4, 24, 0.02
BATCH = 1000


def whitening(cells: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Mean and both ways between cells (N, 320) and coordinates of unit variance."""
    mean = cells.mean(0)
    values, vectors = torch.linalg.eigh(torch.cov((cells - mean).T))
    deviation = values.clamp(min=values.max() * 1e-6).sqrt()
    return mean, vectors / deviation, (vectors * deviation).T


def main(lite0: Path, work: Path, *parts: str) -> None:
    trunk, rng, torch_rng = Lite0.read(lite0), np.random.default_rng(0), torch.Generator().manual_seed(0)
    stored = [np.load(work / part / "cells.npy", mmap_mode="r") for part in parts]
    base = []
    for cells in stored:
        rows = np.sort(rng.choice(len(cells), min(len(cells), 4000), replace=False))
        base.append(torch.from_numpy(np.array(cells[rows, 0])).float())
    base = torch.cat(base)
    base = base[base.abs().sum((1, 2)) > 0]
    mean, there, back = whitening(base.flatten(0, 1))
    done, labels = [], []
    for number in range(EACH):
        label = torch.arange(1000)
        start = (base[torch.randint(len(base), (BATCH,), generator=torch_rng)] - mean) @ there
        moves = (torch.rand(BATCH, 16, 1, generator=torch_rng) < 0.5).float()
        shift = torch.zeros_like(start, requires_grad=True)
        optim = torch.optim.Adam([shift], lr=0.12)
        for _ in range(STEPS):
            cells = (start + shift * moves) @ back + mean
            loss = (
                F.cross_entropy(trunk.logits(trunk.feature(cells)), label)
                + PULL * shift.square().mean((1, 2)).mean() * 16
            )
            optim.zero_grad()
            loss.backward()
            optim.step()
        with torch.no_grad():
            cells = (start + shift * moves) @ back + mean
            sure = trunk.logits(trunk.feature(cells)).softmax(1)[label, label]
        print(
            number,
            "sure",
            round(sure.mean().item(), 3),
            "moved",
            round(shift.square().mean().sqrt().item(), 3),
            flush=True,
        )
        done.append(cells.detach().half().numpy())
        labels.append(label.numpy())
    (work / "classes").mkdir(exist_ok=True)
    np.save(work / "classes" / "cells.npy", np.concatenate(done)[:, None])
    np.save(work / "classes" / "labels.npy", np.concatenate(labels))


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]), *sys.argv[3:])
