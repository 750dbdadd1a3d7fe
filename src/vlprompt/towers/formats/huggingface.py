"""The Hugging Face layout of a `CLIPModel`, `SiglipModel` or `MetaClip2Model`: config.json, model.safetensors and two more."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor

from vlprompt import reading
from vlprompt.errors import data_error
from vlprompt.towers.config import Activation, ClipConfig, ImageForm, TextForm, TowerConfig
from vlprompt.towers.formats.archive import read_archive
from vlprompt.towers.formats.files import (
    MEAN,
    STD,
    Source,
    bare_names,
    pad_of,
    read_json,
    read_safetensors,
    read_tokenizer,
    require,
)
from vlprompt.towers.tokenizer import Manner, Tokenizer, clip_tokenizer
from vlprompt.types import Preprocess

FILES = ("config.json", "model.safetensors", "tokenizer.json", "preprocessor_config.json")
INDEX, PICKLED_INDEX = "model.safetensors.index.json", "pytorch_model.bin.index.json"
SMALL = (
    *("config.json", "tokenizer.json", "preprocessor_config.json", "processor_config.json", "vocab.json", "merges.txt"),
    *("tokenizer_config.json", "special_tokens_map.json"),
    *(INDEX, PICKLED_INDEX),
)
"""Everything but weights that may be read."""
WEIGHTS = {"model.safetensors": INDEX, "pytorch_model.bin": PICKLED_INDEX}
"""Weight file -> the list of its parts that may stand in its place, the most wanted first."""
_HOLDS = f"A CLIP directory holds {', '.join(FILES)}"
_TEXT = {"hidden_size": 512, "intermediate_size": 2048, "num_hidden_layers": 12, "num_attention_heads": 8}
_IMAGE = {"hidden_size": 768, "intermediate_size": 3072, "num_hidden_layers": 12, "num_attention_heads": 12}
TYPES = ("clip", "siglip", "metaclip_2")
"""Of `model_type`, those that are read."""
_REASONS = {
    "siglip2": "it reads images of any shape as lists of patches (NaFlex); SigLIP 2 of a fixed size has the type 'siglip'",
    "chinese_clip": "its text tower is a BERT, normalised after each product, whose words are not made as CLIP's are",
    "altclip": "its text tower is an XLM-RoBERTa",
}
_ACTIVATIONS: dict[str, Activation] = {"quick_gelu": "quick_gelu", "gelu": "gelu", "gelu_pytorch_tanh": "gelu_tanh"}
_SIGLIP_FORMS = (
    TextForm(causal=False, pool="last", affine=True),
    ImageForm(class_row=False, pre_norm=False, patch_bias=True, pool="attention", projection="none"),
)


def read(directory: Path) -> Source:
    """Read a directory; UserError names what is missing or not CLIP."""
    raw = read_json(require(directory, "config.json", _HOLDS))
    kind = raw.get("model_type")
    if kind not in TYPES:
        why = f" ({_REASONS[kind]})" if kind in _REASONS else ""
        raise data_error(
            f"{directory}/config.json describes model_type {kind!r}{why}. Allowed: {', '.join(map(repr, TYPES))}. Give such a checkpoint."
        )
    config = _config(raw, directory)
    tokenizer = _tokenizer(directory, _manner(directory, str(kind)), config.vocab_size)
    if not config.text_form.causal:
        config = replace(config, text_form=replace(config.text_form, pad=pad_of(directory, tokenizer)))
    return Source(
        config=config,
        weights=openai_names(_tensors(directory)),
        tokenizer=tokenizer,
        preprocess=(_squash if kind == "siglip" else _preprocess)(directory, raw),
    )


def _manner(directory: Path, kind: str) -> Manner:
    """How texts are cleaned. SigLIP 2 has Gemma's vocabulary, in lower case; SigLIP's drops punctuation too."""
    if kind != "siglip":
        return "clip" if kind == "clip" else "plain"
    path = directory / "tokenizer_config.json"
    name = str(read_json(path).get("tokenizer_class", "")) if path.is_file() else ""
    if not name and (directory / "tokenizer.json").is_file():
        name = "Gemma" if '"<bos>"' in reading.text(directory / "tokenizer.json", most=1 << 26) else ""
    return "lower" if name.startswith(("Gemma", "Siglip2")) else "canonical"


def describes_clip(directory: Path) -> bool:
    """Whether config.json is there and describes a model that is read."""
    path = directory / "config.json"
    return path.is_file() and read_json(path).get("model_type") in TYPES


def has_weights(directory: Path) -> bool:
    return _weight_file(directory) is not None


def _weight_file(directory: Path) -> str | None:
    """The first weight file or index that is there."""
    return next((name for pair in WEIGHTS.items() for name in pair if (directory / name).is_file()), None)


def shard_names(directory: Path, index: str) -> list[str]:
    """The weight files that an index names."""
    path = require(directory, index, _HOLDS)
    names = read_json(path).get("weight_map")
    if not isinstance(names, dict) or not all(
        isinstance(name, str) and Path(name).name == name for name in names.values()
    ):
        raise data_error(f"{path} has no weight_map from tensors to files next to it. Fetch the file again.")
    return sorted(set(names.values()))


_DIRECT = {
    "logit_scale": "logit_scale",
    "logit_bias": "logit_bias",
    "text_model.head.bias": "text_projection_bias",
    "vision_model.embeddings.patch_embedding.bias": "visual.conv1.bias",
    "text_model.embeddings.token_embedding.weight": "token_embedding.weight",
    "text_model.embeddings.position_embedding.weight": "positional_embedding",
    "text_model.final_layer_norm.weight": "ln_final.weight",
    "text_model.final_layer_norm.bias": "ln_final.bias",
    "vision_model.embeddings.class_embedding": "visual.class_embedding",
    "vision_model.embeddings.patch_embedding.weight": "visual.conv1.weight",
    "vision_model.embeddings.position_embedding.weight": "visual.positional_embedding",
    "vision_model.pre_layrnorm.weight": "visual.ln_pre.weight",
    "vision_model.pre_layrnorm.bias": "visual.ln_pre.bias",
    "vision_model.post_layernorm.weight": "visual.ln_post.weight",
    "vision_model.post_layernorm.bias": "visual.ln_post.bias",
}
_TURNED = {
    "text_projection.weight": "text_projection",
    "text_model.head.weight": "text_projection",
    "visual_projection.weight": "visual.proj",
}
_INSIDE = {
    "self_attn.out_proj": "attn.out_proj",
    "attention.out_proj": "attn.out_proj",
    "attention": "attn",
    "layernorm": "ln_2",
    "layer_norm1": "ln_1",
    "layer_norm2": "ln_2",
    "mlp.fc1": "mlp.c_fc",
    "mlp.fc2": "mlp.c_proj",
}
"""Tensors as they are; those that are transposed; parts of a block and of SigLIP's head."""


def openai_names(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Hugging Face tensor names -> OpenAI's; q, k and v are joined, projections transposed. Unknown names are kept, to be refused."""
    out: dict[str, Tensor] = {}
    for name, tensor in tensors.items():
        tower, _, rest = name.partition(".encoder.layers.")
        if name in _DIRECT:
            out[_DIRECT[name]] = tensor
        elif name in _TURNED:
            out[_TURNED[name]] = tensor.T
        elif name == "vision_model.head.probe":
            out["visual.attn_pool.probe"] = tensor.flatten()
        elif name.startswith("vision_model.head."):
            part, dot, kind = name.removeprefix("vision_model.head.").rpartition(".")
            out[f"visual.attn_pool.{_INSIDE.get(part, part)}{dot}{kind}"] = tensor
        elif name.endswith("position_ids"):
            continue
        elif tower in ("text_model", "vision_model") and rest:
            number, _, inner = rest.partition(".")
            part, _, kind = inner.rpartition(".")
            to = f"{'' if tower == 'text_model' else 'visual.'}transformer.resblocks.{number}"
            if part == "self_attn.q_proj":
                keys = [name.replace("q_proj", f"{letter}_proj") for letter in "qkv"]
                if all(key in tensors for key in keys):
                    out[f"{to}.attn.in_proj_{kind}"] = torch.cat([tensors[key] for key in keys])
            elif part not in ("self_attn.k_proj", "self_attn.v_proj"):
                out[f"{to}.{_INSIDE.get(part, part)}.{kind}"] = tensor
        else:
            out[name] = tensor
    return out


def _tensors(directory: Path) -> dict[str, Tensor]:
    """All tensors of the weight file that is there, or of those that its index names; of .bin files by the restricted reader."""
    found = _weight_file(directory) or next(iter(WEIGHTS))
    names = shard_names(directory, found) if found in WEIGHTS.values() else [found]
    paths = [require(directory, name, _HOLDS) for name in names]
    read_one = read_safetensors if paths[0].suffix == ".safetensors" else read_archive
    return bare_names(joined(paths, read_one))


def joined(paths: Sequence[Path], read_one: Callable[[Path], Mapping[str, Tensor]]) -> dict[str, Tensor]:
    """The tensors of several files. UserError (exit 3): two of them hold one tensor."""
    out: dict[str, Tensor] = {}
    for path in paths:
        found = read_one(path)
        if twice := sorted(found.keys() & out.keys()):
            raise data_error(
                f"{path} holds {twice[0]}, which another file of the checkpoint holds too. Fetch all of them again."
            )
        out |= found
    return out


def _tokenizer(directory: Path, manner: Manner, size: int) -> Tokenizer:
    """The directory's own; CLIP's, which is in the package, where it has none and its embedding has the size of CLIP's."""
    own = read_tokenizer(directory, manner)
    if own is not None:
        return own
    if manner == "clip" and size == clip_tokenizer().vocab_size:
        warnings.warn(
            f"{directory} has no tokenizer; its token embedding has {size:,} rows, as CLIP's, so CLIP's own vocabulary is used.",
            stacklevel=2,
        )
        return clip_tokenizer()
    raise data_error(
        f"{directory} has no tokenizer.json, nor vocab.json with merges.txt, and its {size:,} tokens are not CLIP's "
        f"{clip_tokenizer().vocab_size:,}. {_HOLDS}; copy the tokenizer from where the model came from."
    )


def _tower(
    raw: Mapping[str, Any], defaults: Mapping[str, int], directory: Path, act: str = "quick_gelu", eps: float = 1e-5
) -> TowerConfig:
    act = raw.get("hidden_act", act)
    if act not in _ACTIVATIONS:
        raise data_error(f"{directory}/config.json: activation {act!r}. Allowed: {', '.join(_ACTIVATIONS)}.")
    sizes = {key: _count(raw, key, value) for key, value in defaults.items()}
    return TowerConfig(
        width=sizes["hidden_size"],
        layers=sizes["num_hidden_layers"],
        heads=sizes["num_attention_heads"],
        hidden=sizes["intermediate_size"],
        activation=_ACTIVATIONS[act],
        eps=float(raw.get("layer_norm_eps", eps)),
    )


def _count(raw: Mapping[str, Any], key: str, default: int) -> int:
    """A whole number of a configuration. ValueError for 2.5, which int() would cut, and for true."""
    value = raw.get(key, default)
    if isinstance(value, bool) or not isinstance(value, int | float) or value != int(value):
        raise ValueError(f"{key} is {reading.shown(value)}, not a whole number")
    return int(value)


def _part(raw: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    """A tower's part. Where there is also ``text_config_dict`` or ``vision_config_dict``, that one counts, as in transformers."""
    own = raw.get(f"{name}_dict")
    return own if isinstance(own, dict) else raw.get(name) or {}


def _config(raw: Mapping[str, Any], directory: Path) -> ClipConfig:
    """CLIPConfig's fields; those that a file leaves out have the values of transformers' CLIPConfig, or SiglipConfig."""
    text, image = _part(raw, "text_config"), _part(raw, "vision_config")
    if raw["model_type"] == "siglip":
        return _siglip_config(text, image, directory)
    return ClipConfig(
        embed_dim=_count(raw, "projection_dim", 512),
        text=_tower(text, _TEXT, directory),
        image=_tower(image, _IMAGE, directory),
        vocab_size=_count(text, "vocab_size", 49408),
        context_length=_count(text, "max_position_embeddings", 77),
        image_size=_count(image, "image_size", 224),
        patch_size=_count(image, "patch_size", 32),
    )


def _siglip_config(text: Mapping[str, Any], image: Mapping[str, Any], directory: Path) -> ClipConfig:
    towers = [_tower(one, _IMAGE, directory, "gelu_pytorch_tanh", 1e-6) for one in (text, image)]
    embed_dim = int(text.get("projection_size") or towers[0].width)
    if embed_dim != towers[1].width or image.get("vision_use_head", True) is False:
        raise data_error(
            f"{directory}/config.json: the text's embedding has {embed_dim} numbers, the image's {towers[1].width}, and vision_use_head is "
            f"{image.get('vision_use_head', True)}. Allowed: equal sizes and an attention pool. Fetch the files again."
        )
    return ClipConfig(
        embed_dim=embed_dim,
        text=towers[0],
        image=towers[1],
        vocab_size=_count(text, "vocab_size", 32000),
        context_length=_count(text, "max_position_embeddings", 64),
        image_size=_count(image, "image_size", 224),
        patch_size=_count(image, "patch_size", 16),
        text_form=_SIGLIP_FORMS[0],
        image_form=_SIGLIP_FORMS[1],
    )


def _squash(directory: Path, raw: Mapping[str, Any]) -> Preprocess:
    """SigLIP's preprocessor_config.json: both edges to the tower's size."""
    values = _processor(directory)
    _refuse_other_steps({**values, "do_center_crop": True}, directory, "Siglip")
    side = _count(_part(raw, "vision_config"), "image_size", 224)
    size = values.get("size", {"height": side, "width": side})
    edges = _edges(size)
    filters: dict[object, Literal["bicubic", "bilinear"]] = {2: "bilinear", 3: "bicubic"}
    if edges != [side, side] or values.get("resample", 3) not in filters:
        raise data_error(
            f"{directory}/preprocessor_config.json: size {size}, resample {values.get('resample')}. Allowed: the tower's height and "
            f"width of {side} pixels, bilinear (2) or bicubic (3), which is what SigLIP was trained with."
        )
    mean, std = _normal(values, (0.5,) * 3, (0.5,) * 3)
    return Preprocess(
        resize=side, crop=side, mean=mean, std=std, squash=True, filter=filters[values.get("resample", 3)]
    )


def _processor(directory: Path) -> Mapping[str, Any]:
    """preprocessor_config.json (or the image_processor part of processor_config.json)."""
    if not (directory / "preprocessor_config.json").is_file() and (directory / "processor_config.json").is_file():
        found: Mapping[str, Any] = read_json(directory / "processor_config.json").get("image_processor", {})
        return found
    return read_json(require(directory, "preprocessor_config.json", _HOLDS))


def _edges(size: object) -> list[object]:
    """Height and width of a size; of one that says anything else, nothing."""
    if isinstance(size, dict):
        return [size["height"], size["width"]] if size.keys() == {"height", "width"} else []
    return [size, size]


def _normal(values: Mapping[str, Any], mean: tuple[float, ...], std: tuple[float, ...]) -> tuple[Any, Any]:
    """Mean and standard deviation: (0, 1) where pixels are not normalised; one number stands for all three colours."""
    if values.get("do_normalize", True) is False:
        return (0.0,) * 3, (1.0,) * 3
    found = (values.get("image_mean", mean), values.get("image_std", std))
    return tuple((one,) * 3 if isinstance(one, int | float) else tuple(one) for one in found)  # type: ignore[return-value]


def _refuse_other_steps(values: Mapping[str, Any], directory: Path, kind: str) -> None:
    """UserError where images are not resized, cropped and brought to 0 .. 1, which is what every CLIP was trained with, or where the
    processor is another one than `kind`, which reads the same values otherwise."""
    steps = ("do_resize", "do_center_crop", "do_rescale", "do_normalize")
    odd = [f"{step} is {reading.shown(values[step])}" for step in steps if type(values.get(step, True)) is not bool]
    odd += [f"{step} is false" for step in steps[:3] if values.get(step, True) is False]
    for key in ("image_processor_type", "feature_extractor_type"):
        if not str(values.get(key, kind)).startswith(kind):
            odd.append(f"{key} is {reading.shown(values[key])}")
    factor = values.get("rescale_factor", 1 / 255)
    scaled = isinstance(factor, int | float) and abs(factor * 255 - 1) < 1e-3
    if odd or not scaled:
        seen = odd[0] if odd else f"rescale_factor is {factor}"
        raise data_error(
            f"{directory}/preprocessor_config.json: {seen}. Allowed: images are resized, cropped, scaled by 1/255. Correct the file "
            "if the model was trained that way; otherwise choose another model."
        )


def _preprocess(directory: Path, raw: Mapping[str, Any]) -> Preprocess:
    """CLIP's: a short edge, and a square of the centre."""
    values = _processor(directory)
    image_size = _count(_part(raw, "vision_config"), "image_size", 224)
    _refuse_other_steps(values, directory, "CLIP")
    size, crop = values.get("size", image_size), values.get("crop_size", image_size)
    stated = {key for key, value in size.items() if value is not None} if isinstance(size, dict) else set()
    resize = size.get("shortest_edge") if stated == {"shortest_edge"} else size
    square = _edges(crop) == [image_size] * 2
    if type(resize) is not int or values.get("resample", 3) != 3 or not square or resize < image_size:
        raise data_error(
            f"{directory}/preprocessor_config.json: size {size}, crop_size {crop}, resample {values.get('resample', 3)}. "
            f"Allowed: a shortest edge, bicubic (3), and a crop of the tower's {image_size} pixels, which is what CLIP was trained with."
        )
    mean, std = _normal(values, MEAN, STD)
    return Preprocess(resize=resize, crop=image_size, mean=mean, std=std)
