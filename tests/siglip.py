"""Tiny random models of transformers' other dual encoders, written as their checkpoints are."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import tokenizers
import torch
from tokenizers import models, normalizers, pre_tokenizers, processors

from tests.tiny import WORDS


def unigram(specials: tuple[str, ...] = ("<pad>", "</s>", "<unk>"), around: str = "$A </s>") -> tokenizers.Tokenizer:
    """A SentencePiece tokenizer of the tests' words and of letters; what `around` says stands around every sentence."""
    pieces = [
        *(f"▁{word}" for word in WORDS),
        "▁",
        *"abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ.,!'-0123456789",
    ]
    vocab = [
        *((special, 0.0) for special in specials),
        *((piece, -2.0 - (len(piece) == 1)) for piece in dict.fromkeys(pieces)),
    ]
    out = tokenizers.Tokenizer(models.Unigram(vocab, unk_id=specials.index("<unk>")))
    out.add_special_tokens(list(specials))
    out.normalizer = normalizers.Sequence([normalizers.NFKC(), normalizers.Replace(tokenizers.Regex(" {2,}"), " ")])
    out.pre_tokenizer = pre_tokenizers.Metaspace()
    named = [(one, out.token_to_id(one)) for one in specials if one in around]
    out.post_processor = processors.TemplateProcessing(single=around, special_tokens=named)
    return out


def text_part(**changes: Any) -> dict[str, Any]:
    sizes = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 2}
    return {**sizes, "max_position_embeddings": 24, "vocab_size": 128, **changes}


def image_part(**changes: Any) -> dict[str, Any]:
    sizes = {"hidden_size": 32, "intermediate_size": 56, "num_hidden_layers": 2, "num_attention_heads": 4}
    return {**sizes, "image_size": 30, "patch_size": 8, **changes}


def perturbed(model: torch.nn.Module, seed: int = 0) -> Any:
    """The model with weights far enough from their start values that nothing hides."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, one in model.named_parameters():
            if name not in ("logit_scale", "logit_bias"):
                one.copy_(
                    torch.randn(one.shape, generator=generator) * (one.shape[-1] ** -0.5 if one.dim() > 1 else 0.2)
                )
                one.add_(1.0 if "norm" in name and name.endswith("weight") else 0.0)
    return model.eval()


def siglip_dir(path: Path, *, gemma: bool = False, **vision: Any) -> tuple[Path, Any]:
    """A SiglipModel's directory, and the model; `gemma`: with SigLIP 2's tokenizer and its bilinear filter."""
    import transformers

    config = transformers.SiglipConfig(text_config=text_part(), vision_config=image_part(**vision))
    model = perturbed(transformers.SiglipModel(config))
    with torch.no_grad():
        model.logit_scale.fill_(2.0)
        model.logit_bias.fill_(-7.5)
    model.save_pretrained(path)
    specials = ("<pad>", "<eos>", "<bos>", "<unk>") if gemma else ("<pad>", "</s>", "<unk>")
    unigram(specials, f"$A {specials[1]}").save(str(path / "tokenizer.json"))
    said = (
        {"tokenizer_class": "GemmaTokenizer", "pad_token": "<pad>"} if gemma else {"tokenizer_class": "SiglipTokenizer"}
    )
    (path / "tokenizer_config.json").write_text(json.dumps({"pad_token": "</s>"} | said), encoding="utf-8")
    size = {"height": 30, "width": 30}
    processor = {"size": size, "resample": 2 if gemma else 3, "image_mean": [0.5] * 3, "image_std": [0.5] * 3}
    (path / "preprocessor_config.json").write_text(json.dumps(processor), encoding="utf-8")
    return path, model


def metaclip2_dir(path: Path) -> tuple[Path, Any]:
    """A MetaClip2Model's directory, and the model."""
    import transformers

    text, image = text_part(eos_token_id=3, bos_token_id=0), image_part(image_size=32)
    config = transformers.MetaClip2Config(text_config=text, vision_config=image, projection_dim=24)
    model = perturbed(transformers.MetaClip2Model(config))
    model.save_pretrained(path)
    unigram(("<s>", "<pad>", "<unk>", "</s>"), "<s> $A </s>").save(str(path / "tokenizer.json"))
    (path / "preprocessor_config.json").write_text(
        json.dumps({"size": {"shortest_edge": 32}, "crop_size": 32}), encoding="utf-8"
    )
    return path, model
