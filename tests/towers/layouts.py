"""The same random CLIP written in every layout that the loader reads."""

from __future__ import annotations

import json
import warnings
import zipfile
from collections.abc import Mapping
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from vlprompt.errors import UserError
from vlprompt.towers import load
from vlprompt.towers.config import ClipConfig, ResNetConfig, TowerConfig
from vlprompt.towers.resnet import ResNetTower
from vlprompt.towers.text import TextTower
from vlprompt.towers.tokenizer import clip_tokenizer
from vlprompt.towers.vision import VisionTower
from vlprompt.verify import parity

NAMES = ("huggingface", "sharded", "split_tokenizer", "openclip", "openclip_pickled", "state_dict", "torchscript")
BUFFERS = {"input_resolution": 32, "context_length": 77, "vocab_size": 49408}


def config(image: ResNetConfig | None = None, *, size: int = 32) -> ClipConfig:
    """Width 64 (one head, as OpenAI's files imply), two blocks, and CLIP's own vocabulary."""
    tower = TowerConfig(width=64, layers=2, heads=1, hidden=256, activation="quick_gelu")
    return ClipConfig(
        embed_dim=32,
        text=tower,
        image=image or tower,
        vocab_size=49408,
        context_length=77,
        image_size=size,
        patch_size=32 if image else 8,
    )


def weights(of: ClipConfig, seed: int = 0) -> dict[str, Tensor]:
    """Random weights in OpenAI's names; every value is a float16, so that half-precision files lose nothing."""
    with torch.device("meta"):
        visual = ResNetTower(of) if isinstance(of.image, ResNetConfig) else VisionTower(of)
        shapes = {**TextTower(of).state_dict(), **{f"visual.{k}": v for k, v in visual.state_dict().items()}}
    rows = [(name, tuple(tensor.shape)) for name, tensor in shapes.items()]
    rows.append(("logit_scale", ()))
    drawn = parity.drawn_weights(rows, seed)
    return {name: torch.from_numpy(x).half().float().reshape(shape) for (name, shape), x in zip(rows, drawn.values())}


def halved(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Matrices and convolutions in float16, as OpenAI's files hold them."""
    return {name: x.half() if x.dim() > 1 else x for name, x in tensors.items()}


def huggingface_names(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """OpenAI's names -> those of transformers' CLIPModel."""
    plain = {
        "logit_scale": "logit_scale",
        "token_embedding.weight": "text_model.embeddings.token_embedding.weight",
        "positional_embedding": "text_model.embeddings.position_embedding.weight",
        "visual.class_embedding": "vision_model.embeddings.class_embedding",
        "visual.conv1.weight": "vision_model.embeddings.patch_embedding.weight",
        "visual.positional_embedding": "vision_model.embeddings.position_embedding.weight",
    }
    parts = {
        "ln_final": "text_model.final_layer_norm",
        "visual.ln_pre": "vision_model.pre_layrnorm",
        "visual.ln_post": "vision_model.post_layernorm",
        "attn.out_proj": "self_attn.out_proj",
        "ln_1": "layer_norm1",
        "ln_2": "layer_norm2",
        "mlp.c_fc": "mlp.fc1",
        "mlp.c_proj": "mlp.fc2",
    }
    out: dict[str, Tensor] = {}
    for name, x in tensors.items():
        tower = "vision_model" if name.startswith("visual.") else "text_model"
        _, in_block, rest = name.partition("transformer.resblocks.")
        if name in plain:
            out[plain[name]] = x
        elif name in ("text_projection", "visual.proj"):
            out["text_projection.weight" if name[0] == "t" else "visual_projection.weight"] = x.T.contiguous()
        elif not in_block:
            part, _, kind = name.rpartition(".")
            out[f"{parts[part]}.{kind}"] = x
        else:
            number, _, inner = rest.partition(".")
            to = f"{tower}.encoder.layers.{number}"
            if inner.startswith("attn.in_proj_"):
                for letter, third in zip("qkv", x.chunk(3)):
                    out[f"{to}.self_attn.{letter}_proj.{inner[len('attn.in_proj_') :]}"] = third.contiguous()
            else:
                part, _, kind = inner.rpartition(".")
                out[f"{to}.{parts[part]}.{kind}"] = x
    return out


def huggingface_dir(path: Path, of: ClipConfig, tensors: Mapping[str, Tensor], *, shards: int = 1) -> Path:
    """config.json, weights in one file or several, tokenizer.json, preprocessor_config.json."""
    path.mkdir(parents=True)
    assert isinstance(of.image, TowerConfig)
    text, image = (
        {
            "hidden_size": t.width,
            "intermediate_size": t.hidden,
            "num_hidden_layers": t.layers,
            "num_attention_heads": t.heads,
            "hidden_act": t.activation,
        }
        for t in (of.text, of.image)
    )
    text |= {"vocab_size": of.vocab_size, "max_position_embeddings": of.context_length}
    image |= {"image_size": of.image_size, "patch_size": of.patch_size}
    raw = {"model_type": "clip", "projection_dim": of.embed_dim, "text_config": text, "vision_config": image}
    (path / "config.json").write_text(json.dumps(raw), encoding="utf-8")
    size = {"height": of.image_size, "width": of.image_size}
    transform = {"size": {"shortest_edge": of.image_size}, "crop_size": size, "resample": 3}
    (path / "preprocessor_config.json").write_text(json.dumps(transform), encoding="utf-8")
    clip_tokenizer()._backend.save(str(path / "tokenizer.json"))
    named = huggingface_names(tensors)
    if shards == 1:
        save_file(named, path / "model.safetensors")
        return path
    files = {key: f"model-{i % shards + 1:05d}-of-{shards:05d}.safetensors" for i, key in enumerate(named)}
    for file in set(files.values()):
        save_file({key: named[key] for key in named if files[key] == file}, path / file)
    (path / "model.safetensors.index.json").write_text(
        json.dumps({"metadata": {}, "weight_map": files}), encoding="utf-8"
    )
    return path


def split_tokenizer(path: Path) -> None:
    """Replace a directory's tokenizer.json by the older vocab.json and merges.txt."""
    model = json.loads((path / "tokenizer.json").read_text(encoding="utf-8"))["model"]
    (path / "tokenizer.json").unlink()
    (path / "vocab.json").write_text(json.dumps(model["vocab"]), encoding="utf-8")
    lines = [pair if isinstance(pair, str) else " ".join(pair) for pair in model["merges"]]
    (path / "merges.txt").write_text("\n".join(["#version: 0.2", *lines, ""]), encoding="utf-8")


def openclip_config(of: ClipConfig) -> dict[str, object]:
    """open_clip_config.json, as open_clip's push_to_hf_hub writes it."""
    text = {"context_length": of.context_length, "vocab_size": of.vocab_size, "width": of.text.width}
    text |= {"heads": of.text.heads, "layers": of.text.layers}
    if isinstance(of.image, ResNetConfig):
        image = {
            "image_size": of.image_size,
            "layers": list(of.image.blocks),
            "width": of.image.stem,
            "patch_size": None,
        }
    else:
        image = {"image_size": of.image_size, "layers": of.image.layers, "width": of.image.width}
        image |= {"patch_size": of.patch_size}
    model = {"embed_dim": of.embed_dim, "vision_cfg": image, "text_cfg": text}
    model |= {"quick_gelu": True} if of.text.activation == "quick_gelu" else {}
    transform = {"mean": [0.48145466, 0.4578275, 0.40821073], "std": [0.26862954, 0.26130258, 0.27577711]}
    return {"model_cfg": model, "preprocess_cfg": transform | {"interpolation": "bicubic", "resize_mode": "shortest"}}


def openclip_dir(path: Path, of: ClipConfig, tensors: Mapping[str, Tensor], *, pickled: bool = False) -> Path:
    """open_clip_config.json and its weights, in safetensors or pickled as a training checkpoint."""
    path.mkdir(parents=True)
    (path / "open_clip_config.json").write_text(json.dumps(openclip_config(of)), encoding="utf-8")
    if pickled:
        state = {f"module.{name}": x for name, x in tensors.items()}
        torch.save({"epoch": 32, "name": "run", "state_dict": state}, path / "open_clip_pytorch_model.bin")
    else:
        save_file(dict(tensors), path / "open_clip_model.safetensors")
    return path


def state_dict_file(path: Path, tensors: Mapping[str, Tensor]) -> Path:
    torch.save(dict(tensors), path)
    return path


class Node(nn.Module):
    """A module that only has parts."""

    def forward(self, x: Tensor) -> Tensor:
        return x


def torchscript_file(path: Path, tensors: Mapping[str, Tensor]) -> Path:
    """A scripted module whose state dict is `tensors` and the three numbers that OpenAI's archives carry, with a mask beside it."""
    top = Node()
    for name, x in tensors.items():
        *parents, leaf = name.split(".")
        module: nn.Module = top
        for parent in parents:
            if parent not in module._modules:
                module.add_module(parent, Node())
            module = module.get_submodule(parent)
        module.register_parameter(leaf, nn.Parameter(x, requires_grad=False))
    top.get_submodule("transformer").attn_mask = torch.full((3, 3), float("-inf")).triu(1)
    for name, number in BUFFERS.items():
        top.register_buffer(name, torch.tensor(number))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # of TorchScript, in which OpenAI's files are written
        torch.jit.save(torch.jit.script(top), path)
    return path


def write(name: str, folder: Path, tensors: dict[str, Tensor]) -> Path:
    """One model in one layout; the path that a user would give."""
    match name:
        case "huggingface":
            return huggingface_dir(folder, config(), tensors)
        case "sharded":
            return huggingface_dir(folder, config(), tensors, shards=3)
        case "split_tokenizer":
            split_tokenizer(huggingface_dir(folder, config(), tensors))
            return folder
        case "openclip" | "openclip_pickled":
            return openclip_dir(folder, config(), tensors, pickled=name == "openclip_pickled")
        case "state_dict":
            return state_dict_file(folder.with_suffix(".pt"), tensors)
        case "torchscript":
            return torchscript_file(folder.with_suffix(".pt"), halved(tensors))
    raise AssertionError(name)


def rewritten(source: Path, target: Path, **parts: bytes) -> Path:
    """A torch archive with some parts replaced."""
    with zipfile.ZipFile(source) as old, zipfile.ZipFile(target, "w") as new:
        for name in old.namelist():
            new.writestr(name, parts.get(Path(name).name.replace(".", "_"), old.read(name)))
    return target


def refused(path: Path | str) -> str:
    with pytest.raises(UserError) as caught:
        load(path)
    assert caught.value.exit_code == 3
    return str(caught.value)
