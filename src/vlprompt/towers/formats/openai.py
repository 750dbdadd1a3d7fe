"""OpenAI's `.pt` files: the architecture is read off the tensors' shapes, as `build_model` of the published code does."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Mapping
from pathlib import Path

from torch import Tensor

from vlprompt.errors import data_error
from vlprompt.towers.config import RESNET_STRIDE, ClipConfig, ResNetConfig, TowerConfig
from vlprompt.towers.formats.archive import read_archive
from vlprompt.towers.formats.files import MEAN, STD, Source
from vlprompt.towers.tokenizer import clip_tokenizer
from vlprompt.types import Preprocess

PUBLISHED = {
    "RN50": "afeb0e10f9e5a86da6080e35cf09123aca3b358a0c3e3b6c78a7b63bc04b6762",
    "RN101": "8fa8567bab74a42d41c5915025a8e4538c3bdbe8804a470a72f30b0d94fab599",
    "RN50x4": "7e526bd135e493cef0776de27d5f42653e6b4c8bf9e0f653bb11773263205fdd",
    "RN50x16": "52378b407f34354e150460fe41077663dd5b39c54cd0bfd2b27167a4a06ec9aa",
    "RN50x64": "be1cfb55d75a9666199fb2206c106743da0f6468c9d327f3e0d0a543a9919d9c",
    "ViT-B/32": "40d365715913c9da98579312b702a82c18be219cc2a73407c4526f58eba950af",
    "ViT-B/16": "5806e77cd80f8b59890b7e101eabd078d9fb84e6937f9e85e4ecb61988df416f",
    "ViT-L/14": "b8cca3fd41ae0c99ba7e8951adf17d267cdb84cd88be6f7c2e0eca1737a03836",
    "ViT-L/14@336px": "3035c92b350959924f9f00213499208652fc7ea050643e8b385c2dac08641f02",
}
"""SHA-256 of the files that OpenAI published, which stand in their addresses in github.com/openai/CLIP, clip/clip.py."""

_HEAD = 64
_NOT_WEIGHTS = ("input_resolution", "context_length", "vocab_size")


def read(path: Path) -> Source:
    """Read a `.pt`: OpenAI's TorchScript archive or a state dict in its names. QuickGELU, as OpenAI's models were trained with."""
    weights = {name: tensor for name, tensor in read_archive(path).items() if name not in _NOT_WEIGHTS}
    config = config_of(weights, str(path))
    if config.vocab_size != clip_tokenizer().vocab_size:
        raise data_error(
            f"{path} has a token embedding of {config.vocab_size} rows, but CLIP's own vocabulary has {clip_tokenizer().vocab_size}. "
            f"Give the model as a Hugging Face directory, which brings its tokenizer."
        )
    return Source(
        config=config,
        weights=weights,
        tokenizer=clip_tokenizer(),
        preprocess=Preprocess(resize=config.image_size, crop=config.image_size, mean=MEAN, std=STD),
        published=published_name(path),
    )


def published_name(path: Path) -> str | None:
    """OpenAI's name of a file that it published, known by the SHA-256 of its bytes; None for any other."""
    with path.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    return next((name for name, published in PUBLISHED.items() if published == digest), None)


def config_of(weights: Mapping[str, Tensor], where: str) -> ClipConfig:
    """Widths and depths from shapes; heads have width 64. where: what the weights come from, for messages."""
    needed = (
        *("text_projection", "positional_embedding", "token_embedding.weight", "ln_final.weight"),
        "visual.conv1.weight",
        "visual.positional_embedding" if "visual.proj" in weights else "visual.attnpool.positional_embedding",
        *(() if "visual.proj" in weights else ("visual.layer1.0.conv1.weight",)),
    )
    missing = [name for name in needed if name not in weights]
    if missing:
        raise data_error(
            f"{where} is not a CLIP of OpenAI's: it has no {', '.join(missing)}. Allowed: a ViT or ResNet CLIP in OpenAI's tensor names. "
            f"Models of other libraries come with a configuration: give their directory."
        )
    embed_dim = weights["text_projection"].shape[-1]
    image, size, patch = _image(weights, where)
    return ClipConfig(
        embed_dim=embed_dim,
        text=_transformer(weights, "transformer", weights["ln_final.weight"].shape[0], where),
        image=image,
        vocab_size=weights["token_embedding.weight"].shape[0],
        context_length=weights["positional_embedding"].shape[0],
        image_size=size,
        patch_size=patch,
    )


def _image(weights: Mapping[str, Tensor], where: str) -> tuple[TowerConfig | ResNetConfig, int, int]:
    """The image tower, the side of its images and of its patches."""
    if "visual.proj" in weights:
        width, patch = weights["visual.conv1.weight"].shape[0], weights["visual.conv1.weight"].shape[-1]
        grid = _grid(weights["visual.positional_embedding"], where)
        return _transformer(weights, "visual.transformer", width, where), grid * patch, patch
    stem = weights["visual.layer1.0.conv1.weight"].shape[0]
    one, two, three, four = (_count(weights, f"visual.layer{i}") for i in (1, 2, 3, 4))
    image = ResNetConfig(blocks=(one, two, three, four), stem=stem, heads=32 * stem // _HEAD)
    return image, RESNET_STRIDE * _grid(weights["visual.attnpool.positional_embedding"], where), RESNET_STRIDE


def _transformer(weights: Mapping[str, Tensor], prefix: str, width: int, where: str) -> TowerConfig:
    layers, hidden = _count(weights, f"{prefix}.resblocks"), weights.get(f"{prefix}.resblocks.0.mlp.c_fc.weight")
    if width % _HEAD or hidden is None:
        raise data_error(
            f"{where} has a transformer {prefix!r} of width {width} and {layers} blocks. Allowed: a multiple of {_HEAD} (the width of "
            f"OpenAI's heads, which the file does not state) and at least one block."
        )
    return TowerConfig(
        width=width,
        layers=layers,
        heads=width // _HEAD,
        hidden=hidden.shape[0],
        activation="quick_gelu",
    )


def _count(weights: Mapping[str, Tensor], prefix: str) -> int:
    """How many numbered parts stand under a prefix."""
    return len({name[len(prefix) + 1 :].split(".")[0] for name in weights if name.startswith(f"{prefix}.")})


def _grid(positions: Tensor, where: str) -> int:
    """Side of the square of patches whose position embedding this is."""
    side = math.isqrt(max(positions.shape[0] - 1, 0))
    if side**2 + 1 != positions.shape[0]:
        raise data_error(
            f"{where} has {positions.shape[0]} image positions. Allowed: one for the class row and a square number of patches."
        )
    return side
