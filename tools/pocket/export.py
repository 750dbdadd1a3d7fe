"""Write a checkpoint as a float16 directory in the Hugging Face CLIP layout.

python tools/pocket/export.py RUN/final.pt DIR/tokenizer.json src/vlprompt/pocket/pocket-s
"""

from __future__ import annotations

import json
import shutil
import sys
from pathlib import Path

import torch
from batches import MEAN, STD
from tokenizers import Tokenizer
from train import Plan, build
from transformers import CLIPModel


def load(checkpoint: Path, vocabulary: int = 4096) -> CLIPModel:
    """The model of a checkpoint, ready to encode."""
    state = torch.load(checkpoint, weights_only=True)
    model = build(Plan(**state["plan"]), vocabulary)
    model.load_state_dict(state["model"])
    return model.eval()


def export(model: CLIPModel, tokenizer: Path, out: Path) -> None:
    """Write config, weights, tokenizer and preprocessing; a README that is there stays."""
    out.mkdir(parents=True, exist_ok=True)
    side, positions = model.config.vision_config.image_size, model.config.text_config.max_position_embeddings
    model.half().save_pretrained(out, safe_serialization=True)
    shutil.copyfile(tokenizer, out / "tokenizer.json")
    special = {"bos_token": "<|startoftext|>", "eos_token": "<|endoftext|>"}
    special |= {"pad_token": "<|endoftext|>", "unk_token": "<|endoftext|>"}
    files = {
        "tokenizer_config.json": {"tokenizer_class": "CLIPTokenizer", "model_max_length": positions} | special,
        "preprocessor_config.json": {
            "image_processor_type": "CLIPImageProcessor",
            "do_resize": True,
            "size": {"shortest_edge": side},
            "resample": 3,
            "do_center_crop": True,
            "crop_size": {"height": side, "width": side},
            "do_convert_rgb": True,
            "do_rescale": True,
            "rescale_factor": 1 / 255,
            "do_normalize": True,
            "image_mean": list(MEAN),
            "image_std": list(STD),
        },
    }
    for name, content in files.items():
        (out / name).write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")
    vocabulary = Tokenizer.from_file(str(tokenizer)).get_vocab_size()
    assert vocabulary == model.config.text_config.vocab_size


if __name__ == "__main__":
    export(load(Path(sys.argv[1])), Path(sys.argv[2]), Path(sys.argv[3]))
