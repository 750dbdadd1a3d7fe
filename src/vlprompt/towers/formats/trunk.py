"""The layout of a CLIP whose ViT reads a convolutional trunk's cells: config.json, three weight files, tokenizer.json.

    config.json            {"model_type": "vlprompt", "format": 1, and the fields of `ClipConfig`, with "trunk", "mean" and "std"}
    trunk.safetensors      visual.trunk.*, visual.head.*
    image.safetensors      the rest of visual.*
    text.safetensors       the text tower and logit_scale

Tensors have OpenAI's names where OpenAI has one, and any floating-point dtype.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from vlprompt.errors import data_error
from vlprompt.towers.config import ClipConfig, Stage, TowerConfig, TrunkConfig
from vlprompt.towers.formats.files import Source, read_json, read_safetensors, read_tokenizer, require
from vlprompt.types import Preprocess

MODEL_TYPE, FORMAT = "vlprompt", 1
WEIGHTS = ("trunk.safetensors", "image.safetensors", "text.safetensors")
FILES = ("config.json", *WEIGHTS, "tokenizer.json")
_HOLDS = f"Such a model's directory holds {', '.join(FILES)}"


def describes_trunk(directory: Path) -> bool:
    """Whether config.json is there and describes this layout."""
    path = directory / "config.json"
    return path.is_file() and read_json(path).get("model_type") == MODEL_TYPE


def read(directory: Path) -> Source:
    """Read a directory; UserError names what is missing or does not fit."""
    path = require(directory, "config.json", _HOLDS)
    raw = read_json(path)
    if raw.get("format") != FORMAT:
        raise data_error(
            f"{path} has format {raw.get('format')!r}. Allowed: {FORMAT}. Update vlprompt, or fetch the model that fits this version."
        )
    try:
        config, preprocess = _config(raw), _preprocess(raw)
    except (KeyError, TypeError, ValueError) as error:
        raise data_error(
            f"{path} does not describe a model: {type(error).__name__} {error}. Fetch the file again."
        ) from error
    require(directory, "tokenizer.json", _HOLDS)
    tokenizer = read_tokenizer(directory)
    assert tokenizer is not None, "required above"
    files = [require(directory, name, _HOLDS) for name in WEIGHTS]
    weights = {key: tensor for file in files for key, tensor in read_safetensors(file).items()}
    return Source(config=config, weights=weights, tokenizer=tokenizer, preprocess=preprocess)


def _config(raw: dict[str, Any]) -> ClipConfig:
    trunk = raw["trunk"]
    stages = tuple(Stage(**stage) for stage in trunk["stages"])
    config = ClipConfig(
        text=_tower(raw["text"]),
        image=_tower(raw["image"]),
        trunk=TrunkConfig(stem=int(trunk["stem"]), stages=stages, head=int(trunk["head"])),
        embed_dim=int(raw["embed_dim"]),
        vocab_size=int(raw["vocab_size"]),
        context_length=int(raw["context_length"]),
        image_size=int(raw["image_size"]),
        patch_size=int(raw["patch_size"]),
    )
    assert config.trunk is not None
    if config.patch_size != config.trunk.stride or config.image_size % config.patch_size:
        raise ValueError(f"patch_size {config.patch_size}, but the trunk's stride is {config.trunk.stride}")
    return config


def _tower(raw: dict[str, Any]) -> TowerConfig:
    tower = TowerConfig(**raw)
    if tower.activation not in ("quick_gelu", "gelu"):
        raise ValueError(f"activation {tower.activation!r}; allowed: quick_gelu, gelu")
    return tower


def _preprocess(raw: dict[str, Any]) -> Preprocess:
    side, (mean, std) = int(raw["image_size"]), (tuple(float(x) for x in raw[key]) for key in ("mean", "std"))
    return Preprocess(resize=side, crop=side, mean=_three(mean), std=_three(std))


def _three(values: tuple[float, ...]) -> tuple[float, float, float]:
    red, green, blue = values
    return red, green, blue
