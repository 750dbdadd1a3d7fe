"""Checkpoints that are whole, and all the ways in which they are not."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from tests import tiny
from vlprompt.errors import NUMERICAL, UserError
from vlprompt.pocket import model_names
from vlprompt.towers import Clip, load
from vlprompt.types import TextLayout


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    return tiny.clip_dir(tmp_path / "clip", text_layers=1, image_layers=1)


def refused(directory: Path) -> str:
    with pytest.raises(UserError) as caught:
        load(directory)
    assert caught.value.exit_code == 3
    return str(caught.value)


def edit(path: Path, **changes: object) -> None:
    path.write_text(json.dumps(json.loads(path.read_text(encoding="utf-8")) | changes), encoding="utf-8")


@pytest.mark.parametrize("name", ["config.json", "model.safetensors", "tokenizer.json", "preprocessor_config.json"])
def test_a_missing_file_is_named(directory: Path, name: str) -> None:
    (directory / name).unlink()
    assert name in refused(directory)


def test_missing_unexpected_and_misshapen_tensors_are_named(directory: Path) -> None:
    weights = load_file(directory / "model.safetensors")
    del weights["vision_model.pre_layrnorm.weight"]
    weights["something.new"] = torch.zeros(1)
    weights["text_projection.weight"] = torch.zeros(7, 64)
    save_file(weights, directory / "model.safetensors")
    message = refused(directory)
    assert "missing visual.ln_pre.weight" in message
    assert "unexpected something.new" in message
    assert "text_projection has shape (64, 7)" in message


def test_a_missing_query_matrix_is_named(directory: Path) -> None:
    weights = load_file(directory / "model.safetensors")
    del weights["text_model.encoder.layers.0.self_attn.k_proj.weight"]
    save_file(weights, directory / "model.safetensors")
    assert "missing transformer.resblocks.0.attn.in_proj_weight" in refused(directory)


def test_a_truncated_weight_file_is_refused(directory: Path) -> None:
    path = directory / "model.safetensors"
    path.write_bytes(path.read_bytes()[:1000])
    assert "not a complete safetensors file" in refused(directory)


def test_another_architecture_is_refused(directory: Path) -> None:
    edit(directory / "config.json", model_type="blip")
    assert "'blip'" in refused(directory)


def test_broken_json_is_refused(directory: Path) -> None:
    (directory / "config.json").write_text('{"model_type": ', encoding="utf-8")
    assert "damaged or no JSON" in refused(directory)


def test_an_image_transform_that_is_not_clips_is_refused(directory: Path) -> None:
    edit(directory / "preprocessor_config.json", resample=2)
    assert "bicubic" in refused(directory)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"do_resize": False}, "do_resize is false"),
        ({"do_center_crop": False}, "do_center_crop is false"),
        ({"do_rescale": False}, "do_rescale is false"),
        ({"rescale_factor": 1 / 127.5}, "rescale_factor is"),
        ({"size": [32, 32]}, "a shortest edge"),
        ({"size": {"height": 32, "width": 32}}, "a shortest edge"),
        ({"size": {"shortest_edge": 32, "longest_edge": 64}}, "a shortest edge"),
        ({"size": "32"}, "a shortest edge"),
        ({"size": {"shortest_edge": 32, "height": 99, "width": 3}}, "a shortest edge"),
        ({"size": {"shortest_edge": 16}}, "a shortest edge"),
        ({"crop_size": {"height": 32, "width": 16}}, "crop_size"),
        ({"crop_size": {"height": 32, "width": 32, "depth": 32}}, "crop_size"),
        ({"crop_size": [32, 32]}, "crop_size"),
        ({"do_resize": 0}, "do_resize is 0"),
        ({"do_center_crop": None}, "do_center_crop is None"),
        ({"do_normalize": 0}, "do_normalize is 0"),
        ({"image_processor_type": "ViTImageProcessor"}, "'ViTImageProcessor'"),
        ({"image_mean": [0.5]}, "mean is"),
    ],
)
def test_steps_of_the_image_transform_that_are_not_done_are_refused(
    directory: Path, change: dict[str, object], said: str
) -> None:
    edit(directory / "preprocessor_config.json", **change)
    assert said in refused(directory)


def test_images_are_not_normalised_where_the_file_says_so(directory: Path) -> None:
    edit(directory / "preprocessor_config.json", do_normalize=False)
    preprocess = load(directory).preprocess
    assert (preprocess.mean, preprocess.std) == ((0.0,) * 3, (1.0,) * 3)


@pytest.mark.parametrize("crop", [32, {"height": 32, "width": 32}])
def test_a_crop_and_one_mean_for_all_colours(directory: Path, crop: object) -> None:
    edit(
        directory / "preprocessor_config.json",
        crop_size=crop,
        image_mean=0.5,
        image_processor_type="CLIPImageProcessorFast",
    )
    preprocess = load(directory).preprocess
    assert (preprocess.crop, preprocess.mean) == (32, (0.5,) * 3)


@pytest.mark.parametrize("part", ["text_config", "vision_config"])
@pytest.mark.parametrize("value", [2.5, "4", True, [4]])
def test_counts_that_are_no_whole_numbers_are_refused(directory: Path, part: str, value: object) -> None:
    raw = json.loads((directory / "config.json").read_text(encoding="utf-8"))
    edit(directory / "config.json", **{part: raw[part] | {"num_attention_heads": value}})
    assert "num_attention_heads is" in refused(directory)


@pytest.mark.parametrize(
    "dtype", [torch.int8, torch.int64, torch.bool, torch.float8_e4m3fn, torch.float8_e5m2, torch.complex64]
)
def test_weights_of_types_that_are_not_read_are_refused(directory: Path, dtype: torch.dtype) -> None:
    file = directory / "model.safetensors"
    save_file({name: one.to(dtype) for name, one in load_file(file).items()}, file)
    assert str(dtype).removeprefix("torch.") in refused(directory)


def test_a_tensor_in_two_files_is_refused(directory: Path) -> None:
    weights = load_file(directory / "model.safetensors")
    names = sorted(weights)
    (directory / "model.safetensors").unlink()
    save_file({name: weights[name] for name in names[:9]}, directory / "a.safetensors")
    save_file({name: weights[name] + 1 for name in names[8:]}, directory / "b.safetensors")
    listed = {name: "a.safetensors" if number < 9 else "b.safetensors" for number, name in enumerate(names)}
    (directory / "model.safetensors.index.json").write_text(json.dumps({"weight_map": listed}), encoding="utf-8")
    assert f"{names[8]}, which another file" in refused(directory)


def test_names_under_an_unknown_prefix_are_shown(directory: Path) -> None:
    file = directory / "model.safetensors"
    save_file({f"student.{name}": one for name, one in load_file(file).items()}, file)
    assert "there are student.logit_scale" in refused(directory)


def test_the_second_description_of_a_tower_is_the_one_that_counts(directory: Path) -> None:
    plain = load(directory).config
    raw = json.loads((directory / "config.json").read_text(encoding="utf-8"))
    both = {f"{part}_config_dict": raw[f"{part}_config"] for part in ("text", "vision")}
    wrong = {f"{part}_config": {**raw[f"{part}_config"], "num_attention_heads": 1} for part in ("text", "vision")}
    edit(directory / "config.json", **both, **wrong)
    assert load(directory).config == plain
    edit(directory / "config.json", text_config_dict=None, vision_config_dict=None)
    assert load(directory).config != plain


@pytest.mark.parametrize("prefix", ["clip.", "model.", "module.", "_orig_mod.", "base_model.model."])
def test_names_within_wrappers_are_read(directory: Path, prefix: str) -> None:
    plain = load(directory).weight_hash
    file = directory / "model.safetensors"
    save_file({f"{prefix}{name}": one for name, one in load_file(file).items()}, file)
    assert load(directory).weight_hash == plain


def test_pickled_shards_are_read(directory: Path) -> None:
    plain = load(directory).weight_hash
    tensors = load_file(directory / "model.safetensors")
    (directory / "model.safetensors").unlink()
    names = list(tensors)
    files = {name: f"pytorch_model-0000{1 + number % 2}-of-00002.bin" for number, name in enumerate(names)}
    for file in set(files.values()):
        torch.save({name: tensors[name] for name in names if files[name] == file}, directory / file)
    (directory / "pytorch_model.bin.index.json").write_text(json.dumps({"weight_map": files}), encoding="utf-8")
    assert load(directory).weight_hash == plain


def test_a_tokenizer_of_other_weights_is_refused(directory: Path) -> None:
    tiny.tokenizer([f"{a}{b}{c}" for a in "abcdefgh" for b in "abcdefgh" for c in "xyz"]).save(
        str(directory / "tokenizer.json")
    )
    assert "belongs to other weights" in refused(directory)


def test_paths_and_names_that_are_nothing_are_refused(tmp_path: Path) -> None:
    assert "no model" in refused(tmp_path / "nowhere" / "deep")
    (tmp_path / "file.bin").write_bytes(b"")
    assert "is a file" in refused(tmp_path / "file.bin")


def test_the_hub_offline_says_what_to_do(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    with pytest.raises(UserError, match="Go online once") as caught:
        load("nobody/nothing")
    assert caught.value.exit_code == 3


def test_shards_give_the_same_tensors(directory: Path, tmp_path: Path) -> None:
    whole = load(directory)
    weights = load_file(directory / "model.safetensors")
    names = sorted(weights)
    halves = {"model-00001-of-00002.safetensors": names[::2], "model-00002-of-00002.safetensors": names[1::2]}
    for file, keys in halves.items():
        save_file({key: weights[key] for key in keys}, directory / file)
    index = {"weight_map": {key: file for file, keys in halves.items() for key in keys}}
    (directory / "model.safetensors.index.json").write_text(json.dumps(index), encoding="utf-8")
    (directory / "model.safetensors").unlink()
    assert load(directory).weight_hash == whole.weight_hash


def test_dtypes_hold_weights_but_norms_stay_float32(directory: Path) -> None:
    clip = load(directory, dtype="bfloat16")
    assert clip.dtype == torch.bfloat16
    assert clip.visual.ln_pre.weight.dtype == torch.float32
    full = load(directory)
    assert clip.weight_hash == full.weight_hash
    a, b = (c.encode_text(c.class_tokens(["cat", "dog"])).unit for c in (clip, full))
    assert a.dtype == torch.float32
    torch.testing.assert_close(a, b, rtol=0, atol=0.03)
    with pytest.raises(UserError, match="float64"):
        load(directory, dtype="float64")


def test_no_parameter_has_a_gradient(clip: Clip) -> None:
    assert not any(parameter.requires_grad for parameter in clip.parameters())


def test_pocket_models_load_by_name() -> None:
    for name in model_names():
        assert load(name).name == name


def test_names_that_are_too_long_or_reserved_are_refused(clip: Clip) -> None:
    with pytest.raises(UserError, match="too long for the text tower"):
        clip.class_tokens(["cat", "z" * 60], TextLayout(num_tokens=4))
    with pytest.raises(UserError, match="reserves"):
        clip.class_tokens(["cat", "dog<|endoftext|>"])
    with pytest.raises(UserError, match="must have one"):
        clip.class_tokens(["cat"], template="a photo")


def test_a_name_that_ends_in_punctuation_merges_with_the_full_stop(clip: Clip) -> None:
    # "Inc." + "." is one run of punctuation for CLIP's pre-tokenizer: the sentence is tokenised whole.
    tokens = clip.class_tokens(["St.", "cat"], TextLayout(num_tokens=2))
    whole = clip.tokenizer.encode("X X St..")
    assert len(tokens.own.ids) == len(whole) - 2 + len(clip.tokenizer.encode("cat.")) + 2


def test_a_single_class_and_equal_names_are_encoded(clip: Clip) -> None:
    one = clip.encode_text(clip.class_tokens(["cat"])).pooled
    two = clip.encode_text(clip.class_tokens(["cat", "cat"])).pooled
    torch.testing.assert_close(two, one.expand(2, -1), rtol=1e-5, atol=1e-6)


def test_loading_does_not_import_torchs_compiler() -> None:
    """Start values drawn on the meta device would; it takes as long as everything else that `predict` does."""
    code = "import sys; from vlprompt.towers import load; load('pocket-s'); assert 'torch._dynamo' not in sys.modules"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
@pytest.mark.parametrize("name", ["text_model.final_layer_norm.weight", "visual_projection.weight"])
def test_numbers_that_are_not_finite_are_refused(directory: Path, name: str, value: float) -> None:
    weights = load_file(directory / "model.safetensors")
    weights[name].reshape(-1)[1] = value
    save_file(weights, directory / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(UserError, match="not finite") as caught:
        load(directory)
    assert caught.value.exit_code == NUMERICAL
