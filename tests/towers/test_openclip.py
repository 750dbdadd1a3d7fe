"""open_clip's directories and directories of two layouts: what is read, and what is refused by name."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import torch

from tests.towers import layouts
from tests.towers.layouts import refused
from vlprompt.towers import Clip, load
from vlprompt.towers.tokenizer import clip_tokenizer

CONFIG = layouts.config()


def changed(paths: dict[str, Path], tmp_path: Path, part: str | None, **values: object) -> Path:
    """The open_clip directory with some values of its configuration changed."""
    directory = Path(shutil.copytree(paths["openclip"], tmp_path / "copy", dirs_exist_ok=True))
    raw = layouts.openclip_config(CONFIG)
    target = raw if part is None else raw["model_cfg"] if part == "model_cfg" else raw.get(part)
    target = raw["model_cfg"][part] if target is None else target
    target.update(values)
    (directory / "open_clip_config.json").write_text(json.dumps(raw), encoding="utf-8")
    return directory


REFUSED = [
    ("model_cfg", {"multimodal_cfg": {"width": 512}}, "multimodal_cfg is {'width': 512}"),
    ("model_cfg", {"something_new": 1}, "something_new is 1 (allowed: no such key)"),
    ("text_cfg", {"hf_model_name": "roberta-base"}, "text_cfg.hf_model_name is 'roberta-base'"),
    (
        "text_cfg",
        {"pool_type": "last"},
        "text_cfg.pool_type is 'last' (allowed: 'argmax' or 'eos', and 'last' with no_causal_mask)",
    ),
    ("text_cfg", {"act_kwargs": {"approximate": "none"}}, "text_cfg.act_kwargs is {'approximate': 'none'}"),
    ("text_cfg", {"embed_cls": True}, "text_cfg.embed_cls is True"),
    ("text_cfg", {"proj_bias": True}, "missing text_projection_bias"),
    ("text_cfg", {"tokenizer_kwargs": {"clean": "canonicalize"}}, "text_cfg.tokenizer_kwargs"),
    ("text_cfg", {"tokenizer_kwargs": {"language": "en"}, "hf_tokenizer_name": "a/b"}, "text_cfg.tokenizer_kwargs"),
    ("text_cfg", {"heads": 7}, "multiple of the number of heads (7)"),
    ("text_cfg", {"width": None}, "where a number belongs"),
    ("vision_cfg", {"timm_model_name": "convnext_base"}, "vision_cfg.timm_model_name is 'convnext_base'"),
    (
        "vision_cfg",
        {"pool_type": "avg"},
        "vision_cfg.pool_type is 'avg' (allowed: 'tok', or 'avg' with final_ln_after_pool)",
    ),
    ("vision_cfg", {"attentional_pool": True}, "vision_cfg.attentional_pool is True"),
    ("vision_cfg", {"no_ln_pre": True}, "unexpected visual.ln_pre.weight"),
    ("vision_cfg", {"ls_init_value": 0.0001}, "vision_cfg.ls_init_value is 0.0001"),
    ("vision_cfg", {"image_size": [32, 64]}, "vision_cfg.image_size is [32, 64] (allowed: a square)"),
    ("vision_cfg", {"norm_kwargs": {"bias": False}}, "vision_cfg.norm_kwargs is {'bias': False} (allowed: eps alone)"),
    ("preprocess_cfg", {"resize_mode": "longest"}, "resize_mode is 'longest' (allowed: 'shortest' or 'squash')"),
    ("preprocess_cfg", {"interpolation": "random"}, "preprocess_cfg.interpolation is 'random'"),
    ("preprocess_cfg", {"size": [48, 48]}, "preprocess_cfg.size is [48, 48] (allowed: the tower's 32)"),
]


@pytest.mark.parametrize(("part", "values", "message"), REFUSED, ids=[row[2] for row in REFUSED])
def test_other_architectures_of_open_clip_are_refused_by_name(
    paths: dict[str, Path], tmp_path: Path, part: str, values: dict[str, object], message: str
) -> None:
    assert message in refused(changed(paths, tmp_path, part, **values))


def test_all_that_is_wrong_is_named_at_once(paths: dict[str, Path], tmp_path: Path) -> None:
    directory = changed(paths, tmp_path, "model_cfg", multimodal_cfg={"a": 1}, vision_cfg={"attentional_pool": True})
    message = refused(directory)
    assert "multimodal_cfg is {'a': 1}" in message
    assert "vision_cfg.attentional_pool is True" in message


def test_open_clips_gelu_heads_and_epsilon_are_read(paths: dict[str, Path], tmp_path: Path) -> None:
    assert load(changed(paths, tmp_path, "model_cfg", quick_gelu=False)).config.text.activation == "gelu"
    clip = load(changed(paths, tmp_path, "vision_cfg", head_width=16, norm_kwargs={"eps": 1e-6}, patch_dropout=0.5))
    assert clip.config.image.heads == 4
    assert clip.config.image.eps == 1e-6
    assert clip.visual.ln_post.eps == 1e-6
    assert clip.config.text.eps == 1e-5
    mean = load(changed(paths, tmp_path, "preprocess_cfg", mean=[0.5, 0.4, 0.3], size=[3, 32, 32])).preprocess.mean
    assert mean == (0.5, 0.4, 0.3)


def test_open_clips_vocabulary_is_carried_only_where_it_is_clips(paths: dict[str, Path], tmp_path: Path) -> None:
    directory = changed(paths, tmp_path, "text_cfg", hf_tokenizer_name="someone/else")
    assert "someone/else" in refused(directory)
    shutil.copy(paths["huggingface"] / "tokenizer.json", directory)
    assert load(directory).tokenizer.encode("cat") == clip_tokenizer().encode("cat")
    assert "32000 tokens" in refused(changed(paths, tmp_path / "other", "text_cfg", vocab_size=32000))


def test_missing_open_clip_weights_are_named(paths: dict[str, Path], tmp_path: Path) -> None:
    assert "neither config.json nor open_clip_config.json" in refused(tmp_path)
    directory = changed(paths, tmp_path, "model_cfg")
    (directory / "open_clip_model.safetensors").unlink()
    assert "open_clip_model.safetensors" in refused(directory)


def test_of_two_layouts_the_complete_one_is_read(paths: dict[str, Path], tmp_path: Path, reference: Clip) -> None:
    directory = changed(paths, tmp_path, "model_cfg")
    shutil.copy(paths["huggingface"] / "config.json", directory)
    assert load(directory).weight_hash == reference.weight_hash  # open_clip's: the other has no weights
    (directory / "config.json").write_text(json.dumps({"architecture": "vit_base_patch32_clip_224"}), encoding="utf-8")
    shutil.copy(paths["huggingface"] / "model.safetensors", directory)
    assert load(directory).weight_hash == reference.weight_hash  # open_clip's: the other is no CLIPModel
    shutil.copytree(paths["huggingface"], directory, dirs_exist_ok=True)
    (directory / "open_clip_model.safetensors").unlink()
    assert load(directory).weight_hash == reference.weight_hash


def test_hugging_faces_older_pickled_weights_are_read(paths: dict[str, Path], tmp_path: Path, reference: Clip) -> None:
    directory = Path(shutil.copytree(paths["huggingface"], tmp_path / "copy"))
    (directory / "model.safetensors").unlink()
    torch.save(layouts.huggingface_names(layouts.weights(CONFIG)), directory / "pytorch_model.bin")
    assert load(directory).weight_hash == reference.weight_hash


def test_a_broken_index_and_missing_shards_are_named(paths: dict[str, Path], tmp_path: Path) -> None:
    directory = Path(shutil.copytree(paths["sharded"], tmp_path / "copy"))
    (directory / "model-00002-of-00003.safetensors").unlink()
    assert "model-00002-of-00003.safetensors" in refused(directory)
    (directory / "model.safetensors.index.json").write_text(
        json.dumps({"weight_map": {"a": "../elsewhere"}}), encoding="utf-8"
    )
    assert "no weight_map" in refused(directory)
