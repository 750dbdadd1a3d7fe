"""A tiny random CLIP in the Hugging Face layout, the same on every machine: what the tests train on."""

from __future__ import annotations

import json
import re
from pathlib import Path

import numpy as np
from safetensors.numpy import save_file
from tokenizers import Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors

from vlprompt.towers import Clip, load
from vlprompt.types import Method, Need, PromptSpec, Steps, Term

TEXT = "a photo of the drawing cat dog bird red green blue circle square truck house tree an type pet x"
WORDS = tuple(re.findall(r"\w+", TEXT))
SPECIAL = ("<|startoftext|>", "<|endoftext|>")
PATTERN = r"""'s|'t|'re|'ve|'m|'ll|'d|[\p{L}]+|[\p{N}]|[^\s\p{L}\p{N}]+"""


def tokenizer(words: list[str] | None = None) -> Tokenizer:
    """A byte-level BPE in CLIP's manner whose merges build `words` and nothing else."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    vocab = {token: i for i, token in enumerate(alphabet + [c + "</w>" for c in alphabet])}
    merges: list[tuple[str, str]] = []
    for word in words or WORDS:
        pieces = [*word[:-1], word[-1] + "</w>"]
        left = pieces[0]
        for right in pieces[1:]:
            if left + right not in vocab:
                vocab[left + right] = len(vocab)
                merges.append((left, right))
            left += right
    for token in SPECIAL:
        vocab[token] = len(vocab)
    out = Tokenizer(models.BPE(vocab, merges, end_of_word_suffix="</w>", unk_token=SPECIAL[1]))
    out.add_special_tokens(list(SPECIAL))
    out.normalizer = normalizers.Sequence(
        [normalizers.NFC(), normalizers.Replace(Regex(r"\s+"), " "), normalizers.Lowercase()]
    )
    out.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Split(Regex(PATTERN), "removed", invert=True), pre_tokenizers.ByteLevel(add_prefix_space=False)]
    )
    out.decoder = decoders.ByteLevel()
    ends = [(token, vocab[token]) for token in SPECIAL]
    out.post_processor = processors.RobertaProcessing(ends[1], ends[0], add_prefix_space=False)
    return out


def clip_dir(
    path: Path,
    *,
    seed: int = 0,
    text_width: int = 64,
    image_width: int = 64,
    text_layers: int = 3,
    image_layers: int = 3,
    heads: int = 2,
    embed_dim: int = 32,
    image_size: int = 32,
    patch_size: int = 8,
    context_length: int = 40,
    activation: str = "quick_gelu",
) -> Path:
    """Write a random CLIP as a Hugging Face directory (float32) and return it."""
    path.mkdir(parents=True, exist_ok=True)
    tok = tokenizer()
    tok.save(str(path / "tokenizer.json"))
    vocab_size = tok.get_vocab_size()
    rng = np.random.RandomState(seed)

    def draw(*shape: int, scale: float = 1.0, shift: float = 0.0) -> np.ndarray:
        return (shift + scale * rng.standard_normal(shape)).astype(np.float32)

    weights: dict[str, np.ndarray] = {"logit_scale": np.array(np.log(30.0), np.float32)}

    def linear(name: str, out_dim: int, in_dim: int, bias: bool = True) -> None:
        weights[f"{name}.weight"] = draw(out_dim, in_dim, scale=in_dim**-0.5)
        if bias:
            weights[f"{name}.bias"] = draw(out_dim, scale=0.05)

    def norm(name: str, width: int) -> None:
        weights[f"{name}.weight"] = draw(width, scale=0.05, shift=1.0)
        weights[f"{name}.bias"] = draw(width, scale=0.05)

    def blocks(tower: str, width: int, layers: int) -> None:
        for i in range(layers):
            for proj in ("q_proj", "k_proj", "v_proj", "out_proj"):
                linear(f"{tower}.encoder.layers.{i}.self_attn.{proj}", width, width)
            linear(f"{tower}.encoder.layers.{i}.mlp.fc1", 4 * width, width)
            linear(f"{tower}.encoder.layers.{i}.mlp.fc2", width, 4 * width)
            norm(f"{tower}.encoder.layers.{i}.layer_norm1", width)
            norm(f"{tower}.encoder.layers.{i}.layer_norm2", width)

    weights["text_model.embeddings.token_embedding.weight"] = draw(vocab_size, text_width, scale=0.5)
    weights["text_model.embeddings.position_embedding.weight"] = draw(context_length, text_width, scale=0.1)
    blocks("text_model", text_width, text_layers)
    norm("text_model.final_layer_norm", text_width)
    linear("text_projection", embed_dim, text_width, bias=False)
    num_patches = (image_size // patch_size) ** 2
    weights["vision_model.embeddings.class_embedding"] = draw(image_width, scale=0.1)
    patch = draw(image_width, 3, patch_size, patch_size, scale=(3 * patch_size**2) ** -0.5)
    weights["vision_model.embeddings.patch_embedding.weight"] = patch
    weights["vision_model.embeddings.position_embedding.weight"] = draw(num_patches + 1, image_width, scale=0.1)
    norm("vision_model.pre_layrnorm", image_width)
    blocks("vision_model", image_width, image_layers)
    norm("vision_model.post_layernorm", image_width)
    linear("visual_projection", embed_dim, image_width, bias=False)
    save_file(weights, path / "model.safetensors")

    def tower(width: int, layers: int) -> dict[str, object]:
        return {
            "hidden_size": width,
            "intermediate_size": 4 * width,
            "num_hidden_layers": layers,
            "num_attention_heads": heads,
            "hidden_act": activation,
            "layer_norm_eps": 1e-5,
        }

    text = {
        **tower(text_width, text_layers),
        "vocab_size": vocab_size,
        "max_position_embeddings": context_length,
        "bos_token_id": vocab_size - 2,
        "eos_token_id": vocab_size - 1,
        "pad_token_id": vocab_size - 1,
    }
    vision = {**tower(image_width, image_layers), "image_size": image_size, "patch_size": patch_size}
    config = {
        "architectures": ["CLIPModel"],
        "model_type": "clip",
        "projection_dim": embed_dim,
        "text_config": {**text, "projection_dim": embed_dim},
        "vision_config": {**vision, "projection_dim": embed_dim},
    }
    (path / "config.json").write_text(json.dumps(config), encoding="utf-8")
    preprocessor = {
        "image_processor_type": "CLIPImageProcessor",
        "do_resize": True,
        "size": {"shortest_edge": image_size},
        "resample": 3,
        "do_center_crop": True,
        "crop_size": {"height": image_size, "width": image_size},
        "do_normalize": True,
        "image_mean": [0.48145466, 0.4578275, 0.40821073],
        "image_std": [0.26862954, 0.26130258, 0.27577711],
    }
    (path / "preprocessor_config.json").write_text(json.dumps(preprocessor), encoding="utf-8")
    return path


def clip(path: Path, *, dtype: str = "float32", **sizes: object) -> Clip:
    """`clip_dir`, loaded through the production loader."""
    return load(clip_dir(path, **sizes), dtype=dtype)  # type: ignore[arg-type]


def method(spec: PromptSpec, *needs: Need) -> Method:
    """A prompt with a term that needs these parts of a view."""
    term = Term(name="needs", score=lambda view: view.logits.sum(), needs=frozenset(needs))
    return Method(name="tiny", prompt=spec, learner=Steps(terms=(term,)))
