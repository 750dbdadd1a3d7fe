"""timm's image towers as open_clip stores them (``visual.trunk.*``): names and facts in our terms.

Read: SigLIP's ViTs, EVA-CLIP's (EVA-02 base and large, EVA-01 giant), CLIP's own, and MobileCLIP-B's. Sizes come from the tensors;
what tensors do not show (heads, activation, norms' epsilon) from the model's name. Source: huggingface/pytorch-image-models, models/eva.py,
models/vision_transformer.py, models/vision_transformer_hybrid.py.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field

import torch
from torch import Tensor

from vlprompt.towers.config import Activation, ImageForm, TowerConfig

EPS, CLIP_EPS = 1e-6, 1e-5
TRUNK = "visual.trunk."
_HEADS = {"base": 12, "large": 16, "so400m": 16, "giantopt": 16, "giant": 16, "huge": 16, "gigantic": 16, "medium": 8}
_SIGLIP = re.compile(r"vit_(base|large|so400m|giantopt)_patch(\d+)_siglip_\d+")
_TANH = re.compile(r"vit_(giantopt_.*|base_patch32_.*|so400m_patch16_.*|large_patch16_siglip_512)")
"""SigLIP's towers whose GELU is the one by tanh."""
_CLIP = re.compile(r"vit_(medium|base|large|huge|giant|gigantic)_patch\d+_clip_(quickgelu_)?\d+")
_EVA = re.compile(r"eva02_(base|large)_patch\d+_clip_\d+|eva_(giant)_patch14(?:_clip)?_\d+")
_MOBILE = "vit_base_mci_224"
REASONS = {
    "fastvit": "FastViT is a convolutional network that is not built here",
    "convnext": "ConvNeXt is a convolutional network",
    "eva02_enormous": "its blocks are normalised after each product, not before",
    "vit_pe": "its pooling and positions are not built",
    "vitamin": "ViTamin is a hybrid that is not built here",
}
"""Beginning of a name -> why it is not read."""
ALLOWED = "vit_*_siglip_*, vit_*_clip_*, eva02_base_* and eva02_large_*, eva_giant_*, vit_base_mci_224"


@dataclass(frozen=True, slots=True, kw_only=True)
class TimmTower:
    """An image tower in our terms."""

    config: TowerConfig
    form: ImageForm
    patch_size: int
    stem: tuple[tuple[int, int], ...] = ()
    weights: dict[str, Tensor] = field(repr=False)


def reads(name: str) -> bool:
    """Whether this timm model is one of those that are read."""
    return name == _MOBILE or any(one.fullmatch(name) for one in (_SIGLIP, _EVA, _CLIP))


def reason(name: str) -> str:
    """Why another one is not."""
    return next((why for start, why in REASONS.items() if name.startswith(start)), "it is not known here")


def tower(name: str, tensors: Mapping[str, Tensor]) -> TimmTower:
    """The tower of a model that `reads` allows; every tensor of an open_clip file may be there, those of the trunk are taken.

    KeyError: a tensor that such a tower has is missing.
    """
    trunk = {key.removeprefix(TRUNK): one for key, one in tensors.items() if key.startswith(TRUNK)}
    trunk = {key: one for key, one in trunk.items() if "rope" not in key and not key.endswith("num_batches_tracked")}
    siglip, eva, clip = _SIGLIP.fullmatch(name), _EVA.fullmatch(name), _CLIP.fullmatch(name)
    activation: Activation = "gelu"
    stem: tuple[tuple[int, int], ...] = ()
    if siglip:
        size = siglip[1]
        activation = "gelu_tanh" if _TANH.fullmatch(name) else "gelu"
        form = ImageForm(class_row=False, pre_norm=False, patch_bias=True, pool="attention", projection="none")
    elif eva:
        size = eva[1] or eva[2]
        activation = "gelu" if eva[2] else "swiglu"
        form = ImageForm(pre_norm=False, patch_bias=True, projection="affine", rotary=0 if eva[2] else 16)
    elif clip:
        size, form = clip[1], ImageForm(projection="affine")
        activation = "quick_gelu" if clip[2] else "gelu"
    else:
        size, form = "base", ImageForm(pre_norm=False, projection="affine")
        trunk, stem = _folded(trunk)
    width = trunk["blocks.0.norm1.weight"].shape[0]
    hidden = trunk["blocks.0.mlp.fc1_g.weight" if activation == "swiglu" else "blocks.0.mlp.fc1.weight"].shape[0]
    config = TowerConfig(
        width=width,
        layers=1 + max(int(key.split(".")[1]) for key in trunk if key.startswith("blocks.")),
        heads=_HEADS[size],
        hidden=hidden,
        activation=activation,
        eps=CLIP_EPS if clip else EPS,
        inner_norm=activation == "swiglu",
    )
    patch = 1
    for stride, _ in stem:
        patch *= stride
    patch = patch if stem else int(trunk["patch_embed.proj.weight"].shape[-1])
    weights = {f"visual.{key}": one for key, one in _named(trunk).items()}
    return TimmTower(config=config, form=form, patch_size=patch, stem=stem, weights=weights)


def _named(trunk: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """OpenAI's names where it has one; unknown ones are kept, to be refused."""
    direct = {
        "patch_embed.proj.weight": "conv1.weight",
        "patch_embed.proj.bias": "conv1.bias",
        "norm_pre.weight": "ln_pre.weight",
        "norm_pre.bias": "ln_pre.bias",
        "norm.weight": "ln_post.weight",
        "norm.bias": "ln_post.bias",
        "head.bias": "proj_bias",
    }
    inside = {"norm1": "ln_1", "norm2": "ln_2", "norm": "ln_2", "attn.proj": "attn.out_proj", "proj": "attn.out_proj"}
    inside |= {"attn.norm": "attn.ln_inner", "mlp.norm": "mlp.ln_inner", "mlp.fc1": "mlp.c_fc", "mlp.fc2": "mlp.c_proj"}
    out: dict[str, Tensor] = {}
    for key, x in _joined(trunk).items():
        if key in direct:
            out[direct[key]] = x
        elif key == "cls_token":
            out["class_embedding"] = x.flatten()
        elif key == "pos_embed":
            out["positional_embedding"] = x[0]
        elif key == "head.weight":
            out["proj"] = x.T
        elif key == "attn_pool.latent":
            out["attn_pool.probe"] = x.flatten()
        elif key.startswith(("blocks.", "attn_pool.")):
            to, number, rest = (
                ("attn_pool", "", key[10:]) if key[0] == "a" else ("transformer.resblocks.", *key[7:].split(".", 1))
            )
            part, _, kind = rest.rpartition(".")
            out[f"{to}{number}.{inside.get(part, part)}.{kind}" if part else f"{to}{number}.{rest}"] = x
        else:
            out[key] = x
    return out


_JOINS = {
    "attn.in_proj": ("attn.q_proj", "attn.k_proj", "attn.v_proj"),
    "mlp.fc1": ("mlp.fc1_g", "mlp.fc1_x"),
    "attn_pool.attn.in_proj": ("attn_pool.q", "attn_pool.kv"),
}


def _joined(trunk: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Queries, keys and values as one product, keys with a bias of zeros where they have none; SwiGLU's two products as one."""
    out = dict(trunk)
    for key, x in trunk.items():
        if key.endswith(".attn.q_proj.bias"):
            out.setdefault(key.replace("q_proj", "k_proj"), torch.zeros_like(x))
        elif key.endswith(".attn.q_bias") and (whole := key.replace("q_bias", "qkv.bias")) not in trunk:
            out[whole] = torch.cat([out.pop(key), torch.zeros_like(x), out.pop(key.replace("q_bias", "v_bias"))])
    for to, parts in _JOINS.items():
        first = f"{parts[0]}.weight"
        for place in [key.removesuffix(first) for key in trunk if key.endswith(first)]:
            for kind in ("weight", "bias"):
                out[f"{place}{to}.{kind}"] = torch.cat([out.pop(f"{place}{part}.{kind}") for part in parts])
    return {re.sub(r"\.(qkv|in_proj)\.(weight|bias)$", r".in_proj_\2", key): x for key, x in out.items()}


def _folded(trunk: Mapping[str, Tensor]) -> tuple[dict[str, Tensor], tuple[tuple[int, int], ...]]:
    """MobileCLIP-B's stem with its batch norms folded into the convolutions; its class row has no position, so one of zeros."""
    stem = "patch_embed.backbone."
    out = {key: x for key, x in trunk.items() if not key.startswith(stem)}
    shape = []
    for i in range(1 + max(int(key.split(".")[2]) for key in trunk if key.startswith(stem))):
        weight = trunk[f"{stem}{i}.conv.weight"].float()
        if f"{stem}{i}.bn.weight" in trunk:
            gain, shift, mean, var = (
                trunk[f"{stem}{i}.bn.{one}"].float() for one in ("weight", "bias", "running_mean", "running_var")
            )
            gain = gain / (var + 1e-5).sqrt()
            weight, bias = weight * gain[:, None, None, None], shift - mean * gain
        else:
            bias = trunk[f"{stem}{i}.conv.bias"]
        out[f"stem.{i}.weight"], out[f"stem.{i}.bias"] = weight, bias
        shape.append((int(weight.shape[-1]), int(weight.shape[0])))
    positions = trunk["pos_embed"]
    out["pos_embed"] = torch.cat([torch.zeros_like(positions[:, :1]), positions], dim=1)
    return out, tuple(shape)
