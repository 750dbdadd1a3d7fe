"""open_clip's layout: open_clip_config.json and a weight file whose tensor names are OpenAI's.

Read are its native text transformer, with or without a causal mask, and its ViT, its ModifiedResNet or one of timm's ViTs
(`timm.py`). Anything else in a configuration is refused by name.
Keys and defaults: open_clip 3.3, model.py (CLIPTextCfg, CLIPVisionCfg) and transform.py (PreprocessCfg).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, NoReturn

import torch
from torch import Tensor

from vlprompt.errors import data_error
from vlprompt.towers.config import RESNET_STRIDE, Activation, ClipConfig, ImageForm, ResNetConfig, TextForm, TowerConfig
from vlprompt.towers.formats import timm
from vlprompt.towers.formats.archive import read_archive
from vlprompt.towers.formats.files import (
    MEAN,
    STD,
    Source,
    pad_of,
    read_json,
    read_safetensors,
    read_tokenizer,
    require,
)
from vlprompt.towers.tokenizer import Manner, Tokenizer, clip_tokenizer
from vlprompt.types import Preprocess

CONFIG = "open_clip_config.json"
WEIGHTS = ("open_clip_model.safetensors", "open_clip_pytorch_model.safetensors", "open_clip_pytorch_model.bin")
_HOLDS = f"An open_clip directory holds {CONFIG} and {WEIGHTS[0]} (or {WEIGHTS[2]})"
_NATIVE = (
    "Read are open_clip's own text transformer, with a ViT, a ResNet or one of the image towers of SigLIP, EVA-CLIP and MobileCLIP-B; "
    "use a model of one of them."
)

_ANY = object()
_MODEL: dict[str, object] = {
    **dict.fromkeys(("embed_dim", "vision_cfg", "text_cfg", "quick_gelu"), _ANY),
    **dict.fromkeys(("init_logit_scale", "nonscalar_logit_scale", "output_dict", "cast_dtype"), _ANY),
    **{"init_logit_bias": _ANY, "custom_text": _ANY, "multimodal_cfg": None},
}
_BLOCK: dict[str, object] = {
    **dict.fromkeys(("width", "layers", "mlp_ratio", "norm_kwargs", "output_tokens"), _ANY),
    **{"ls_init_value": None, "act_kwargs": {"approximate": "tanh"}, "block_type": None},
    **dict.fromkeys(("qk_norm", "scaled_cosine_attn", "scale_heads"), False),
    **dict.fromkeys(("scale_attn_inner", "scale_attn", "scale_fc"), False),
}
_TEXT: dict[str, object] = {
    **_BLOCK,
    **dict.fromkeys(("context_length", "vocab_size", "heads", "hf_tokenizer_name", "pad_id", "eos_id"), _ANY),
    **dict.fromkeys(("pool_type", "no_causal_mask", "proj_bias", "tokenizer_kwargs"), _ANY),
    **{"tokenizer_mode": None, "hf_model_name": None, "embed_cls": False, "proj_type": _ANY, "use_pad_mask": False},
    **dict.fromkeys(("hf_model_pretrained", "hf_proj_type", "hf_pooler_type"), _ANY),
}
_VISION: dict[str, object] = {
    **_BLOCK,
    # Patch dropout is for training alone; sine positions are stored like learned ones; the rest belongs to what is refused.
    **dict.fromkeys(("head_width", "patch_size", "image_size", "patch_dropout", "pos_embed_type"), _ANY),
    **dict.fromkeys(("attn_pooler_queries", "attn_pooler_heads"), _ANY),
    **dict.fromkeys(("no_ln_pre", "pool_type", "final_ln_after_pool", "timm_model_name"), _ANY),
    **{"attentional_pool": False},
    **{f"timm_{key}": _ANY for key in ("model_pretrained", "pool", "proj", "proj_bias", "drop", "drop_path")},
}
"""Key -> the one value that CLIP's own architecture has, or _ANY."""


def read(directory: Path) -> Source:
    """Read a directory; UserError names what is missing, damaged or not CLIP's own architecture."""
    path = require(directory, CONFIG, _HOLDS)
    raw = read_json(path)
    model = _object(raw.get("model_cfg", raw), "model_cfg", path)
    try:
        config, tensors = _config(model, path, _weights(directory))
    except (TypeError, ZeroDivisionError) as error:
        raise data_error(
            f"{path}: model_cfg has something else where a number belongs: {error}. Fetch the file again."
        ) from error
    tokenizer = _tokenizer(directory, config, _object(model["text_cfg"], "text_cfg", path))
    if not config.text_form.causal:
        # Its own tokenizer fills up with zeros, others with their pad token.
        pad = pad_of(directory, tokenizer) if tokenizer.manner != "clip" else 0
        config = replace(config, text_form=replace(config.text_form, pad=pad))
    return Source(
        config=config,
        weights=tensors,
        tokenizer=tokenizer,
        preprocess=_preprocess(_object(raw.get("preprocess_cfg") or {}, "preprocess_cfg", path), config, path),
    )


def _config(
    model: Mapping[str, Any], path: Path, tensors: Mapping[str, Tensor]
) -> tuple[ClipConfig, dict[str, Tensor]]:
    """The configuration, and the tensors in OpenAI's names."""
    text, vision = (_object(model.get(key), key, path) for key in ("text_cfg", "vision_cfg"))
    _check_architecture(model, text, vision, path)
    activation: Activation = "quick_gelu" if model.get("quick_gelu", False) else "gelu"
    size = _side(vision.get("image_size", 224), "vision_cfg.image_size", path)
    layers = vision.get("layers", 12)
    image: TowerConfig | ResNetConfig
    weights, form = _plain_names(tensors), ImageForm()
    convolutions: tuple[tuple[int, int], ...] = ()
    name = vision.get("timm_model_name")
    if name:
        found = _timm(str(name), vision, weights, path)
        image, form, patch, convolutions = found.config, found.form, found.patch_size, found.stem
        weights = {key: one for key, one in weights.items() if not key.startswith("visual.")} | found.weights
    elif isinstance(layers, list):
        if len(layers) != 4:
            _refuse(path, "vision_cfg.layers", layers, "a number, or four for a ResNet")
        one, two, three, four = map(int, layers)
        stem = int(vision.get("width", 768))
        heads = 32 * stem // int(vision.get("head_width", 64))
        image, patch = ResNetConfig(blocks=(one, two, three, four), stem=stem, heads=heads), RESNET_STRIDE
    else:
        heads = int(vision.get("width", 768)) // int(vision.get("head_width", 64))
        image = _transformer(vision, 768, heads, activation, "vision_cfg.", path)
        patch = _side(vision.get("patch_size", 16), "vision_cfg.patch_size", path)
        form = _image_form(vision, path)
    if "embed_dim" not in model:
        _refuse(path, "embed_dim", None, "a number")
    weights |= _projection(text, model["embed_dim"], path)
    config = ClipConfig(
        embed_dim=model["embed_dim"],
        text=_transformer(text, 512, text.get("heads", 8), activation, "text_cfg.", path),
        image=image,
        vocab_size=text.get("vocab_size", 49408),
        context_length=text.get("context_length", 77),
        image_size=size,
        patch_size=patch,
        stem=convolutions,
        text_form=_text_form(text, path),
        image_form=form,
    )
    return config, weights


def _plain_names(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Without the prefix of a text tower in a separate module, and its projection as a matrix."""
    out = {key.removeprefix("text."): one for key, one in tensors.items()}
    if "text_projection.weight" in out:
        out["text_projection"] = out.pop("text_projection.weight").T
        if "text_projection.bias" in out:
            out["text_projection_bias"] = out.pop("text_projection.bias")
    return out


def _projection(text: Mapping[str, Any], embed_dim: int, path: Path) -> dict[str, Tensor]:
    """Of a text tower that has none, the one that changes nothing."""
    kind, width = text.get("proj_type") or "linear", text.get("width", 512)
    if kind not in ("linear", "none"):
        _refuse(path, "text_cfg.proj_type", kind, "'linear' or 'none'")
    if kind == "linear":
        return {}
    if width != embed_dim:
        _refuse(path, "text_cfg.width", width, f"without a projection the embed_dim, {embed_dim}")
    return {"text_projection": torch.eye(width)}


def _timm(name: str, vision: Mapping[str, Any], weights: Mapping[str, Tensor], path: Path) -> timm.TimmTower:
    if not timm.reads(name):
        _refuse(path, "vision_cfg.timm_model_name", name, f"{timm.ALLOWED}; {timm.reason(name)}")
    if vision.get("timm_proj") not in (None, "", "none"):
        _refuse(path, "vision_cfg.timm_proj", vision["timm_proj"], "none")
    try:
        return timm.tower(name, weights)
    except (KeyError, StopIteration, ValueError) as error:
        raise data_error(
            f"{path}: the weights have no tensor {error} of the image tower {name}. Fetch both files again."
        ) from error


def _image_form(vision: Mapping[str, Any], path: Path) -> ImageForm:
    pool, after = vision.get("pool_type", "tok"), bool(vision.get("final_ln_after_pool", False))
    if pool not in ("tok", "avg") or (pool == "avg") != after:
        _refuse(path, "vision_cfg.pool_type", pool, "'tok', or 'avg' with final_ln_after_pool")
    return ImageForm(pre_norm=not vision.get("no_ln_pre", False), pool="mean" if pool == "avg" else "class")


def _text_form(text: Mapping[str, Any], path: Path) -> TextForm:
    pool, causal = text.get("pool_type", "argmax"), not text.get("no_causal_mask", False)
    if pool not in (("argmax", "eos") if causal else ("argmax", "eos", "last")):
        _refuse(path, "text_cfg.pool_type", pool, "'argmax' or 'eos', and 'last' with no_causal_mask")
    return TextForm(causal=causal, pool="last" if pool == "last" else "end", affine=bool(text.get("proj_bias", False)))


def _check_architecture(
    model: Mapping[str, Any], text: Mapping[str, Any], vision: Mapping[str, Any], path: Path
) -> None:
    """Refuse every value that is not CLIP's own, all of them in one message."""
    others = []
    for part, values, allowed in (("", model, _MODEL), ("text_cfg.", text, _TEXT), ("vision_cfg.", vision, _VISION)):
        for key, value in values.items():
            if key not in allowed:
                others.append(f"{part}{key} is {value!r} (allowed: no such key)")
            elif allowed[key] is not _ANY and value != allowed[key] and (value or allowed[key]):
                others.append(f"{part}{key} is {value!r} (allowed: {allowed[key]!r})")
    if others:
        raise data_error(f"{path}: {'; '.join(others)}. {_NATIVE}")


def _transformer(
    values: Mapping[str, Any], width: int, heads: int, activation: Activation, part: str, path: Path
) -> TowerConfig:
    """One transformer; `width` is open_clip's default."""
    width = int(values.get("width", width))
    if activation == "gelu" and values.get("act_kwargs"):
        activation = "gelu_tanh"
    norm = values.get("norm_kwargs") or {}
    if set(norm) - {"eps"}:
        _refuse(path, f"{part}norm_kwargs", norm, "eps alone")
    if heads < 1 or width % heads:
        _refuse(path, f"{part}width", width, f"a multiple of the number of heads ({heads})")
    return TowerConfig(
        width=width,
        layers=int(values.get("layers", 12)),
        heads=heads,
        hidden=int(width * values.get("mlp_ratio", 4.0)),
        activation=activation,
        eps=float(norm.get("eps", 1e-5)),
    )


def _weights(directory: Path) -> dict[str, Tensor]:
    """The first weight file that is there, safetensors before the restricted reader."""
    name = next((name for name in WEIGHTS if (directory / name).is_file()), WEIGHTS[0])
    path = require(directory, name, _HOLDS)
    return read_safetensors(path) if path.suffix == ".safetensors" else read_archive(path, nested=True)


def _tokenizer(directory: Path, config: ClipConfig, text: Mapping[str, Any]) -> Tokenizer:
    """The directory's own tokenizer, else CLIP's, which open_clip's native models use."""
    asked = text.get("tokenizer_kwargs") or {}
    manners: dict[object, Manner] = {"canonicalize": "canonical", "lower": "lower", "whitespace": "plain"}
    if set(asked) - {"clean", "strip_sep_token"} or asked.get("clean", "whitespace") not in manners:
        _refuse(directory / CONFIG, "text_cfg.tokenizer_kwargs", asked, "clean, one of " + ", ".join(map(str, manners)))
    named = text.get("hf_tokenizer_name")
    if asked and not named:
        _refuse(directory / CONFIG, "text_cfg.tokenizer_kwargs", asked, "none for CLIP's own tokenizer")
    own = read_tokenizer(directory, manners[asked.get("clean", "whitespace")] if named else "clip")
    if own is not None:
        if asked.get("strip_sep_token"):  # what ends a sentence is written as padding, which follows anyway
            own.closing = []
        return own
    if text.get("hf_tokenizer_name") or config.vocab_size != clip_tokenizer().vocab_size:
        raise data_error(
            f"{directory} has no tokenizer.json, but its model reads {config.vocab_size} tokens of the tokenizer "
            f"{text.get('hf_tokenizer_name')!r}. Allowed without one: CLIP's own vocabulary of {clip_tokenizer().vocab_size}. "
            f"Copy the model's tokenizer.json into the directory."
        )
    return clip_tokenizer()


def _preprocess(values: Mapping[str, Any], config: ClipConfig, path: Path) -> Preprocess:
    """Short edge to the tower's size and centre crop, or both edges (squash); normalise. Other ways to resize are refused."""
    choices = {"interpolation": ("bicubic", "bilinear"), "resize_mode": ("shortest", "squash"), "mode": ("RGB",)}
    for key, allowed in choices.items():
        if values.get(key) not in (None, *allowed):
            _refuse(path, f"preprocess_cfg.{key}", values[key], " or ".join(map(repr, allowed)))
    size = values.get("size") or config.image_size
    if _side(size, "preprocess_cfg.size", path) != config.image_size:
        _refuse(path, "preprocess_cfg.size", size, f"the tower's {config.image_size}")
    mean, std = values.get("mean") or MEAN, values.get("std") or STD
    return Preprocess(
        resize=config.image_size,
        crop=config.image_size,
        mean=tuple(mean),
        std=tuple(std),
        squash=values.get("resize_mode") == "squash",
        filter="bilinear" if values.get("interpolation") == "bilinear" else "bicubic",
    )


def _side(value: Any, key: str, path: Path) -> int:
    """The side of a square, given as a number or as two (or, for a size, three: channels first) of which the last are equal."""
    sides = value[-2:] if isinstance(value, list) else [value]
    if not sides or len(set(sides)) != 1 or type(sides[0]) is not int:
        _refuse(path, key, value, "a square")
    return int(sides[0])


def _object(value: Any, key: str, path: Path) -> Mapping[str, Any]:
    if not isinstance(value, dict):
        _refuse(path, key, value, "a JSON object")
    return value


def _refuse(path: Path, key: str, value: object, allowed: str) -> NoReturn:
    raise data_error(f"{path}: {key} is {value!r} (allowed: {allowed}). {_NATIVE}")
