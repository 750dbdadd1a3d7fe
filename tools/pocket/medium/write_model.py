"""Write trained towers as a model directory in half precision, in the layout that `src/vlprompt/towers` reads.

python tools/pocket/medium/write_model.py LITE0.pth WORK/tokenizer.json RUN/last.pt src/vlprompt/pocket/pocket-m
"""

from __future__ import annotations

import json
import shutil
import sys
from collections.abc import Mapping
from pathlib import Path

import torch
from safetensors.torch import save_file
from tokenizers import Tokenizer
from torch import Tensor
from tower import EMBED, HEAD, HEADS, IMAGE_HIDDEN, LAYERS, POSITIONS, TEXT_HIDDEN, WIDTH
from trunk import SIDE, STAGES, Lite0

STEM, STRIDE = 32, 32
NAMES = ("expansion", "channels", "blocks", "stride", "kernel")


def config(vocabulary: int) -> dict[str, object]:
    """What config.json says."""
    tower = {"width": WIDTH, "layers": LAYERS, "heads": HEADS, "activation": "gelu"}
    return {
        "model_type": "vlprompt",
        "format": 1,
        "embed_dim": EMBED,
        "vocab_size": vocabulary,
        "context_length": POSITIONS,
        "image_size": SIDE,
        "patch_size": STRIDE,
        "text": {**tower, "hidden": TEXT_HIDDEN},
        "image": {**tower, "hidden": IMAGE_HIDDEN},
        "trunk": {"stem": STEM, "stages": [dict(zip(NAMES, stage, strict=True)) for stage in STAGES], "head": HEAD},
        "mean": [127 / 255] * 3,
        "std": [128 / 255] * 3,
    }


def trunk_names(trunk: Lite0) -> dict[str, Tensor]:
    """The folded convolutions under the names of `vlprompt.towers.trunk`."""
    out = {}

    def put(name: str, part: object) -> None:
        out[f"{name}.weight"], out[f"{name}.bias"] = part.weight, part.bias

    put("visual.trunk.stem", trunk.stem)
    for number, (parts, _) in enumerate(trunk.blocks):
        names = ("expand", "depthwise", "project")[-len(parts) :]
        for name, part in zip(names, parts, strict=True):
            put(f"visual.trunk.blocks.{number}.{name}", part)
    put("visual.head", trunk.head)
    out["visual.head.weight"] = out["visual.head.weight"][:, :, 0, 0]
    return out


def export(
    trunk: Lite0,
    image: Mapping[str, Tensor],
    text: Mapping[str, Tensor],
    scale: float,
    tokenizer: Path,
    out: Path,
    dtype: torch.dtype = torch.float16,
) -> None:
    """Write all files but the README. `scale`: the logarithm of the logits' scale."""
    out.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(tokenizer, out / "tokenizer.json")
    words = Tokenizer.from_file(str(tokenizer)).get_vocab_size()
    (out / "config.json").write_text(json.dumps(config(words), indent=1) + "\n", encoding="utf-8")
    files = {
        "trunk": trunk_names(trunk),
        "image": {f"visual.{name}": tensor for name, tensor in image.items()},
        "text": {**text, "logit_scale": torch.tensor(scale)},
    }
    for name, tensors in files.items():
        kept = {key: tensor.detach().to(dtype).contiguous().clone() for key, tensor in tensors.items()}
        save_file(kept, out / f"{name}.safetensors")


def main(lite0: Path, tokenizer: Path, checkpoint: Path, out: Path) -> None:
    state = torch.load(checkpoint, weights_only=True)
    export(Lite0.read(lite0), state["image"], state["text"], state["scale"], tokenizer, out)


if __name__ == "__main__":
    main(*map(Path, sys.argv[1:5]))
