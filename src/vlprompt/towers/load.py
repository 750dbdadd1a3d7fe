"""A model's name, directory or Hub id -> `Clip`."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor

from vlprompt.errors import DATA, UserError
from vlprompt.pocket import model_dir, model_names
from vlprompt.towers import huggingface
from vlprompt.towers.clip import Clip
from vlprompt.towers.config import ClipConfig
from vlprompt.towers.text import TextTower
from vlprompt.towers.tokenizer import Tokenizer
from vlprompt.towers.vision import VisionTower
from vlprompt.types import Preprocess

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}


def load(model: str | Path, *, device: str | torch.device = "cpu", dtype: str = "float32") -> Clip:
    """Load a frozen CLIP from a pocket model's name, a Hugging Face `CLIPModel` directory or a Hub id.

    The weights are held in `dtype` (float32, bfloat16 or float16), LayerNorms in float32. Raises UserError for a path that is not
    there, files that are missing, tensors that are missing, unexpected or misshapen, and architectures other than CLIP's ViT.
    """
    if dtype not in DTYPES:
        raise UserError(f"unknown dtype {dtype!r}. Allowed: {', '.join(DTYPES)}.")
    directory = locate(str(model))
    source = huggingface.read(directory)
    return assemble(
        source.config,
        source.weights,
        name=str(model),
        tokenizer=source.tokenizer,
        preprocess=source.preprocess,
        device=device,
        dtype=dtype,
        where=str(directory),
    )


def locate(model: str) -> Path:
    """The directory that holds a model: the package's own, one on disk, or the Hub's cached copy."""
    if model in model_names():
        return model_dir(model)
    path = Path(model).expanduser()
    if path.is_dir():
        return path
    if path.exists():
        raise UserError(
            f"the model {model!r} is a file. Allowed: a directory with config.json and model.safetensors, a Hub id, or one of the "
            f"package's own models ({', '.join(model_names())}).",
            exit_code=DATA,
        )
    if model.count("/") != 1 or model.startswith((".", "/", "~")):
        raise UserError(
            f"there is no model {model!r}: no directory of that name, and no Hub id (owner/name). The package's own models: "
            f"{', '.join(model_names())}.",
            exit_code=DATA,
        )
    return huggingface.download(model)


def assemble(
    config: ClipConfig,
    weights: Mapping[str, Tensor],
    *,
    tokenizer: Tokenizer,
    preprocess: Preprocess,
    name: str = "",
    device: str | torch.device = "cpu",
    dtype: str = "float32",
    where: str = "the checkpoint",
) -> Clip:
    """Towers from a state dict in OpenAI's names, every tensor checked against the configuration."""
    with torch.device("meta"):
        text, visual = TextTower(config), VisionTower(config)
    expected = {**text.state_dict(), **{f"visual.{key}": value for key, value in visual.state_dict().items()}}
    _check(expected, {key: value for key, value in weights.items() if key != "logit_scale"}, where)
    if tokenizer.vocab_size > config.vocab_size:
        raise UserError(
            f"{where}: the tokenizer has {tokenizer.vocab_size} tokens, but the token embedding {config.vocab_size} rows. The tokenizer "
            f"belongs to other weights; use the one that came with them.",
            exit_code=DATA,
        )
    placed = {key: _place(key, weights[key], DTYPES[dtype]).to(device) for key in expected}
    text.load_state_dict({k: v for k, v in placed.items() if not k.startswith("visual.")}, assign=True)
    visual.load_state_dict({k[len("visual.") :]: v for k, v in placed.items() if k.startswith("visual.")}, assign=True)
    if "logit_scale" not in weights:
        raise UserError(f"{where}: the tensor logit_scale is missing. Fetch the checkpoint again.", exit_code=DATA)
    return Clip(
        text,
        visual,
        config=config,
        tokenizer=tokenizer,
        preprocess=preprocess,
        logit_scale=math.exp(float(weights["logit_scale"])),
        name=name,
        weight_hash=weight_hash(weights),
    )


def weight_hash(weights: Mapping[str, Tensor]) -> str:
    """SHA-256 over all tensors in the order of their (OpenAI) names, as float32 bytes."""
    digest = hashlib.sha256()
    for key in sorted(weights):
        digest.update(f"{key} {tuple(weights[key].shape)}".encode())
        digest.update(weights[key].detach().float().contiguous().numpy().tobytes())
    return digest.hexdigest()


def _place(key: str, tensor: Tensor, dtype: torch.dtype) -> Tensor:
    """LayerNorm parameters stay float32; everything else takes the tower's dtype."""
    norm = any(part.startswith("ln_") for part in key.split("."))
    return tensor.to(torch.float32 if norm else dtype).contiguous()


def _check(expected: Mapping[str, Tensor], found: Mapping[str, Tensor], where: str) -> None:
    """Refuse missing, unexpected and misshapen tensors, each named."""
    problems = [f"missing {key}" for key in expected if key not in found]
    problems += [f"unexpected {key}" for key in found if key not in expected]
    problems += [
        f"{key} has shape {tuple(found[key].shape)}, config.json says {tuple(value.shape)}"
        for key, value in expected.items()
        if key in found and found[key].shape != value.shape
    ]
    if problems:
        shown = "; ".join(problems[:6]) + (f"; and {len(problems) - 6} more" if len(problems) > 6 else "")
        raise UserError(
            f"{where}: {len(problems)} tensor(s) do not fit the configuration (in CLIP's own names): {shown}. The weights and config.json "
            f"must come from the same CLIP model; fetch both again.",
            exit_code=DATA,
        )
