"""A model's name, directory, file or Hub id -> `Clip`."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor

from vlprompt.errors import NUMERICAL, UserError, data_error
from vlprompt.pocket import model_dir, model_names
from vlprompt.towers.clip import Clip
from vlprompt.towers.config import ResNetConfig
from vlprompt.towers.formats import hub, huggingface, openai, openclip, trunk
from vlprompt.towers.formats.files import Source
from vlprompt.towers.limits import bias_of, require_buildable, scale_of
from vlprompt.towers.resnet import ResNetTower
from vlprompt.towers.text import TextTower
from vlprompt.towers.vision import VisionTower

ALIGNMENT = 64
"""Bytes: where torch begins a tensor on the CPU."""
DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}


def load(model: str | Path, *, device: str | torch.device = "cpu", dtype: str = "float32") -> Clip:
    """Load a frozen CLIP from a pocket model's name, a Hugging Face or open_clip directory or Hub id, or OpenAI's `.pt` file.

    The weights are held in `dtype` (float32, bfloat16 or float16), norms in float32. Raises UserError for a path that is not there,
    files that are missing or damaged, tensors that are missing, unexpected or misshapen, and architectures that are not built.
    """
    if dtype not in DTYPES:
        raise UserError(f"unknown dtype {dtype!r}. Allowed: {', '.join(DTYPES)}.")
    path = locate(str(model))
    try:
        source = read(path)
    except UserError:
        raise
    except (TypeError, ValueError, KeyError, AttributeError, IndexError, ArithmeticError, RuntimeError) as problem:
        raise data_error(
            f"{path}: a value in its files cannot be used ({type(problem).__name__}: {problem}). "
            "Fetch the model's files again."
        ) from problem
    return assemble(source, name=str(model), device=device, dtype=dtype, where=str(path))


def locate(model: str) -> Path:
    """The directory or file that holds a model: the package's own, one on disk, or the Hub's cached copy.

    The prefix `hf-hub:`, by which open_clip marks Hub ids, may stand before an id.
    """
    if model in model_names():
        return model_dir(model)
    path, name = Path(model).expanduser(), model.removeprefix("hf-hub:")
    if path.exists():
        return path
    known = f"The package's own models: {', '.join(model_names())}."
    if name in openai.PUBLISHED:
        raise data_error(
            f"{name!r} is OpenAI's name of a model, whose weights come as a file. Give the path of the .pt file, or a Hub id with the same "
            f"weights (owner/name). {known}"
        )
    if name.count("/") != 1 or name.startswith((".", "/", "~")):
        raise data_error(
            f"there is no model {model!r}: no file or directory of that name, and no Hub id (owner/name). {known}"
        )
    return hub.download(name)


def read(path: Path) -> Source:
    """Read a file or directory in whichever layout it has; where a directory has two, the Hugging Face one if it is complete."""
    if path.is_file() and path.suffix not in (".pt", ".pth"):
        raise data_error(
            f"the model {path} is a file. Allowed: OpenAI's .pt files, or a directory with the weights and their configuration "
            f"(config.json or {openclip.CONFIG}); give the directory."
        )
    if path.is_file():
        return openai.read(path)
    if not any((path / name).is_file() for name in ("config.json", openclip.CONFIG)):
        raise data_error(
            f"{path} has neither config.json nor {openclip.CONFIG}. Allowed: a Hugging Face directory ({', '.join(huggingface.FILES)}), an "
            f"open_clip one ({openclip.CONFIG}, {openclip.WEIGHTS[0]}), or the path of OpenAI's .pt file itself."
        )
    if trunk.describes_trunk(path):
        return trunk.read(path)
    whole = huggingface.describes_clip(path) and huggingface.has_weights(path)
    if (path / openclip.CONFIG).is_file() and not whole:
        return openclip.read(path)
    return huggingface.read(path)


def assemble(
    source: Source,
    *,
    name: str = "",
    device: str | torch.device = "cpu",
    dtype: str = "float32",
    where: str = "the checkpoint",
) -> Clip:
    """Towers from weights in OpenAI's names, every tensor checked against the configuration."""
    config, tokens, weights = source.config, source.tokenizer.vocab_size, _tidy(source.weights)
    _require_floats(weights, where)
    require_buildable(config, source.preprocess, weights, where)
    scale = scale_of(weights, where)
    resnet = isinstance(config.image, ResNetConfig)
    with torch.device("meta"):
        text, visual = TextTower(config), (ResNetTower(config) if resnet else VisionTower(config))
    expected = {**text.state_dict(), **{f"visual.{key}": value for key, value in visual.state_dict().items()}}
    _check(expected, {key: one for key, one in weights.items() if key not in ("logit_scale", "logit_bias")}, where)
    if tokens > config.vocab_size:
        raise data_error(
            f"{where}: the tokenizer has {tokens} tokens, but the token embedding {config.vocab_size} rows. The tokenizer "
            f"belongs to other weights; use the one that came with them."
        )
    _require_finite(weights, where)
    placed = {key: _place(key, weights[key], DTYPES[dtype], device) for key in expected}
    text.load_state_dict({k: v for k, v in placed.items() if not k.startswith("visual.")}, assign=True)
    visual.load_state_dict({k[len("visual.") :]: v for k, v in placed.items() if k.startswith("visual.")}, assign=True)
    return Clip(
        text,
        visual,
        source,
        logit_scale=scale,
        logit_bias=bias_of(weights, where),
        name=name,
        weight_hash=weight_hash(weights),
    )


def _require_floats(weights: Mapping[str, Tensor], where: str) -> None:
    """UserError where a tensor has another type than the weights of a tower: they are packed, and their scales are not read."""
    allowed = (*DTYPES.values(), torch.float64)
    if odd := [
        f"{key} of {str(one.dtype).removeprefix('torch.')}" for key, one in weights.items() if one.dtype not in allowed
    ]:
        raise data_error(
            f"{where}: the weights have {odd[0]}{f' and {len(odd) - 1} more of such' * (len(odd) > 1)}. Allowed: {', '.join(DTYPES)} and "
            "float64. Give the model as it was before it was quantised."
        )


def _require_finite(weights: Mapping[str, Tensor], where: str) -> None:
    """UserError (exit 4) where a tensor has NaN or infinity: every answer would be the first class."""
    bad = [
        key for key, tensor in weights.items() if tensor.is_floating_point() and not bool(torch.isfinite(tensor).all())
    ]
    if bad:
        raise UserError(
            f"{where}: {bad[0]} holds numbers that are not finite{f', and so do {len(bad) - 1} more' * (len(bad) > 1)} (in CLIP's own "
            "names). The weights are damaged, or too large for their type: fetch them again.",
            exit_code=NUMERICAL,
        )


def weight_hash(weights: Mapping[str, Tensor]) -> str:
    """SHA-256 over all tensors in the order of their (OpenAI) names, as float32 bytes."""
    digest = hashlib.sha256()
    for key in sorted(weights):
        digest.update(f"{key} {tuple(weights[key].shape)}".encode())
        digest.update(weights[key].detach().float().contiguous().numpy().tobytes())
    return digest.hexdigest()


def _tidy(weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Without batch norms' step counters, which no tower computes with; the logit scale and bias as scalars."""
    kept = {key: tensor for key, tensor in weights.items() if not key.endswith("num_batches_tracked")}
    for key in ("logit_scale", "logit_bias"):
        if key in kept and kept[key].numel() == 1:
            kept[key] = kept[key].reshape(())
    return kept


def _place(key: str, tensor: Tensor, dtype: torch.dtype, device: str | torch.device) -> Tensor:
    """Norms' parameters stay float32; everything else takes the tower's dtype.

    Weights that begin anywhere in a file's bytes are copied to where torch would begin a tensor. Kernels choose by alignment,
    and the same weights would give other last bits from one file to another.
    """
    norm = any(part.startswith(("ln_", "bn")) for part in key.split(".")) or ".downsample.1." in key
    placed = tensor.to(device, torch.float32 if norm else dtype).contiguous()
    return placed.clone() if placed.data_ptr() % ALIGNMENT else placed


def _check(expected: Mapping[str, Tensor], found: Mapping[str, Tensor], where: str) -> None:
    """Refuse missing, unexpected and misshapen tensors, each named."""
    problems = [f"missing {key}" for key in expected if key not in found]
    problems += [f"unexpected {key}" for key in found if key not in expected]
    problems += [
        f"{key} has shape {tuple(found[key].shape)}, the configuration says {tuple(value.shape)}"
        for key, value in expected.items()
        if key in found and found[key].shape != value.shape
    ]
    if problems:
        shown = "; ".join(problems[:6]) + (f"; and {len(problems) - 6} more" if len(problems) > 6 else "")
        raise data_error(
            f"{where}: {len(problems)} tensor(s) do not fit the configuration (in CLIP's own names): {shown}. The weights and the "
            f"configuration must come from the same CLIP model; fetch both again."
        )
