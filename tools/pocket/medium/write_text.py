"""A model directory with another text tower on the same image tower.

python tools/pocket/medium/write_text.py src/vlprompt/pocket/pocket-m TEXT/last.pt OUT
"""

from __future__ import annotations

import shutil
import sys
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file


def main(model: Path, weights: Path, out: Path) -> None:
    """Copy the model to a new directory, its text tower replaced in half precision; the logits' scale stays."""
    shutil.copytree(model, out)
    (out / "README.md").unlink()
    scale = load_file(out / "text.safetensors")["logit_scale"]
    text = torch.load(weights, weights_only=True)["model"]
    tensors = {name: tensor.half().contiguous() for name, tensor in text.items()}
    save_file(tensors | {"logit_scale": scale}, out / "text.safetensors")


if __name__ == "__main__":
    main(*map(Path, sys.argv[1:]))
