"""Every model that open_clip lists, against open_clip itself: both read the same directory, or ours refuses it with the reason.

It runs where open_clip is installed: `make openclip-test`. Widths, vocabularies and pixels are the model's, layers are two.
"""

from __future__ import annotations

import copy
import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file

from tests import siglip
from vlprompt import cli
from vlprompt.data.views import test_view as view
from vlprompt.errors import UserError
from vlprompt.towers import load
from vlprompt.verify.compare import error

pytestmark = pytest.mark.slow
OPERATORS = (
    *("nms", "qnms", "roi_align", "qroi_align", "ps_roi_align", "roi_pool", "ps_roi_pool", "deform_conv2d"),
    *("_roi_align_backward", "_ps_roi_align_backward", "_roi_pool_backward", "_ps_roi_pool_backward"),
    "_deform_conv2d_backward",
)


KEPT: list[Any] = []


def declare_operators() -> None:
    """Where torchvision was built for another torch: its operators, which nothing here calls, so that it can be imported."""
    try:
        import torchvision  # noqa: F401
    except ModuleNotFoundError:
        return
    except RuntimeError:
        for name in [one for one in sys.modules if one.split(".")[0] == "torchvision"]:
            del sys.modules[name]
        library = torch.library.Library("torchvision", "DEF")
        for name in OPERATORS:
            library.define(f"{name}(Tensor x) -> Tensor")
        KEPT.append(library)


declare_operators()
open_clip = pytest.importorskip("open_clip")
from open_clip import factory, timm_model  # noqa: E402

SENTENCES = ["a photo of a Cat.", "the red dog"]
REFUSED = {
    "coca": "multimodal_cfg",
    "convnext": "convolutional",
    "EVA02-E": "after each product",
    "MobileCLIP-S": "FastViT",
    "MobileCLIP2-S": "FastViT",
    "mt5-": "hf_model_name",
    "nllb-": "hf_model_name",
    "roberta-": "hf_model_name",
    "xlm-roberta-": "hf_model_name",
    "PE-": "not built",
    "swin": "not known",
    "ViT-M-16-alt": "ls_init_value",
    "vit_": "not known",
    "ViTamin": "hybrid",
}
"""Beginning of a name -> what the message says."""
NAMES = open_clip.list_models()
TOKENS: dict[str, tuple[tuple[str, ...], str]] = {
    "bert-base-uncased": (("[PAD]", "[CLS]", "[SEP]", "<unk>"), "[CLS] $A [SEP]"),
    "facebook/xlm-v-base": (("<s>", "<pad>", "</s>", "<unk>"), "<s> $A </s>"),
    "SigLIP2": (("<pad>", "<eos>", "<bos>", "<unk>"), "$A <eos>"),
}
"""Part of a tokenizer's name -> its specials, and what it puts around a text; others are as SigLIP's and T5's."""
ROLES = {"<pad>": "pad", "[PAD]": "pad", "</s>": "eos", "<eos>": "eos", "<s>": "bos", "[CLS]": "cls", "[SEP]": "sep"}


def why(name: str) -> str:
    return next((reason for start, reason in REFUSED.items() if name.startswith(start)), "")


def shallow(name: str) -> dict[str, Any]:
    found: dict[str, Any] = copy.deepcopy(open_clip.get_model_config(name))
    found["text_cfg"]["layers"] = 2
    layers = found["vision_cfg"].get("layers")
    if layers is not None:
        found["vision_cfg"]["layers"] = [1, 1, 1, 1] if isinstance(layers, list) else 2
    return found


def place_tokenizer(text: dict[str, Any], path: Path) -> None:
    """A small tokenizer of the kind that the configuration names; the vocabulary is as large as it."""
    name = text.get("hf_tokenizer_name")
    if name is None:
        return
    specials, around = next(
        (one for part, one in TOKENS.items() if part in name), (("<pad>", "</s>", "<unk>"), "$A </s>")
    )
    backend = siglip.unigram(specials, around)
    backend.save(str(path / "tokenizer.json"))
    roles = {f"{ROLES[one]}_token": one for one in specials if one in ROLES}
    (path / "tokenizer_config.json").write_text(
        json.dumps({"tokenizer_class": "PreTrainedTokenizerFast", "unk_token": "<unk>", **roles}), encoding="utf-8"
    )
    text |= {"vocab_size": backend.get_vocab_size(), "hf_tokenizer_name": str(path)}


def drawn(model: Any) -> Any:
    """Random weights far enough from their start that nothing hides."""
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for name, one in model.named_parameters():
            if name in ("logit_scale", "logit_bias"):
                continue
            x = torch.randn(one.shape, generator=generator)
            if one.dim() > 1:
                one.copy_(x * (0.3 if "embed" in name else one[0].numel() ** -0.5))
            else:
                one.copy_(0.2 * x + (1 if name.endswith("weight") else 0))
        for name, one in model.named_buffers():
            if "running" in name:
                one.copy_(0.1 * torch.randn(one.shape, generator=generator).abs() + ("var" in name))
    return model.eval()


def written(name: str, path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """open_clip's own model of this name, two layers deep, in its own layout."""
    path.mkdir()
    config = shallow(name)
    place_tokenizer(config["text_cfg"], path)
    create = timm_model.timm.create_model
    monkeypatch.setattr(timm_model.timm, "create_model", lambda one, **more: create(one, depth=2, **more))
    monkeypatch.setitem(factory._MODEL_CONFIGS, "shallow", config)
    model = drawn(open_clip.create_model("shallow", pretrained=None))
    save_file(
        {key: one.clone().contiguous() for key, one in model.state_dict().items()}, path / "open_clip_model.safetensors"
    )
    how = open_clip.get_model_preprocess_cfg(model)
    raw = {
        "model_cfg": config,
        "preprocess_cfg": {key: how[key] for key in ("mean", "std", "interpolation", "resize_mode")},
    }
    (path / "open_clip_config.json").write_text(json.dumps(raw), encoding="utf-8")
    return path


def picture() -> Image.Image:
    colours = np.random.default_rng(0).integers(0, 255, (9, 14, 3), dtype=np.uint8)
    return Image.fromarray(colours).resize((420, 300), Image.Resampling.BICUBIC)


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", [name for name in NAMES if not why(name)])
def test_the_same_directory_gives_the_same_features(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = written(name, tmp_path / "model", monkeypatch)
    theirs, _, transform = open_clip.create_model_and_transforms(f"local-dir:{path}")
    theirs.eval()
    ours, tokenize = load(path), open_clip.get_tokenizer(f"local-dir:{path}")
    pixels = transform(picture())
    assert torch.equal(view(picture(), ours.preprocess), pixels)
    with torch.no_grad():
        image, text = theirs.encode_image(pixels[None]), theirs.encode_text(tokenize(SENTENCES))
        assert error(ours.encode_images(pixels[None]).pooled, image.numpy()) <= 1e-5
        assert error(ours.encode_text(ours.sentence_tokens(SENTENCES)).pooled, text.numpy()) <= 1e-5
    assert ours.logit_scale == pytest.approx(float(theirs.logit_scale.exp()))


@pytest.mark.parametrize("name", [name for name in NAMES if why(name)])
def test_other_models_are_refused_with_the_reason(name: str, tmp_path: Path) -> None:
    (tmp_path / "open_clip_config.json").write_text(json.dumps({"model_cfg": shallow(name)}), encoding="utf-8")
    save_file({"x": torch.zeros(1)}, tmp_path / "open_clip_model.safetensors")
    with pytest.raises(UserError, match=why(name)):
        load(tmp_path)


@pytest.mark.filterwarnings("ignore")
def test_class_vectors_are_those_of_its_zero_shot_classifier(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path, run, out = written("ViT-B-32", tmp_path / "model", monkeypatch), tmp_path / "run", tmp_path / "c.safetensors"
    given = ["--data", "emoji-food", "--model", str(path), "--out", str(run), "--cache", str(tmp_path / "cache")]
    assert cli.run(["train", *given, "--method", "zero-shot", "--template", "a drawing of a {}."]) == 0
    assert cli.run(["export", "class-vectors", str(run), "--form", "open-clip", "--out", str(out)]) == 0
    model = open_clip.create_model(f"local-dir:{path}").eval()
    tokenize, names = (
        open_clip.get_tokenizer(f"local-dir:{path}"),
        json.loads((run / "seed1" / "prompt.json").read_text(encoding="utf-8")),
    )
    expected = open_clip.build_zero_shot_classifier(
        model, tokenize, names["class_names"], ["a drawing of a {}.".format]
    )
    assert error(load_file(out)["classifier"], expected.numpy()) <= 1e-5
