"""The ResNet image tower: against the published numbers, against its formulas written out, and what it refuses."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from safetensors.torch import save_file
from torch import Tensor

from tests.towers import layouts
from vlprompt.errors import UserError
from vlprompt.towers import Clip, load
from vlprompt.towers.config import ResNetConfig
from vlprompt.towers.resnet import AttentionPool, Bottleneck
from vlprompt.types import Prompted, Splice
from vlprompt.verify import parity

CASE = next(case["config"] for case in parity.OURS.index()["cases"] if case["name"] == "clip_resnet")
CONFIG = layouts.config(ResNetConfig(blocks=(1, 2, 1, 1), stem=16, heads=8), size=64)


def error(ours: Tensor, theirs: np.ndarray) -> float:
    return float((ours.detach() - torch.from_numpy(theirs)).abs().max() / np.abs(theirs).max())


@pytest.fixture(scope="module")
def published(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The seeded weights of the case, as a `.pt` state dict."""
    rows = parity.OURS.manifest(CASE["manifest"])
    tensors = {name: torch.from_numpy(x) for name, x in parity.drawn_weights(rows, CASE["weights_seed"]).items()}
    return layouts.state_dict_file(tmp_path_factory.mktemp("resnet") / "case.pt", tensors)


@pytest.fixture(scope="module")
def clip(published: Path) -> Clip:
    return load(published)


@pytest.fixture(scope="module")
def pixels() -> Tensor:
    return torch.from_numpy(parity.drawn_images(CASE["batch"], CASE["size"], CASE["images_seed"]))


def test_clip_resnet(clip: Clip, pixels: Tensor) -> None:
    want = parity.OURS.case("clip_resnet")
    text = clip.encode_text(clip.sentence_tokens(CASE["sentences"])).pooled
    assert error(clip.encode_images(pixels).pooled, want["image"]) <= 1e-5
    assert error(text, want["text"]) <= 1e-5


def test_the_architecture_is_read_off_the_shapes(clip: Clip) -> None:
    assert clip.config.image == ResNetConfig(blocks=(1, 2, 1, 1), stem=16, heads=8)
    assert (clip.config.image_size, clip.config.patch_size, clip.config.num_patches) == (64, 32, 4)
    assert (clip.facts.image_width, clip.facts.image_layers, clip.facts.takes_image_prompts) == (512, 5, False)
    assert (clip.preprocess.resize, clip.preprocess.crop) == (64, 64)


@pytest.mark.parametrize(("channels", "stride"), [(8, 1), (16, 1), (16, 2)])
def test_a_bottleneck_is_its_formula(channels: int, stride: int) -> None:
    generator = torch.Generator().manual_seed(0)
    block = Bottleneck(channels, 4, stride).double()
    for name, tensor in block.state_dict().items():
        drawn = torch.randn(tensor.shape, generator=generator, dtype=torch.float64)
        tensor.copy_(drawn.abs() + 0.5 if name.endswith("running_var") else drawn)
    block.requires_grad_(False)
    x = torch.randn(2, channels, 6, 6, generator=generator, dtype=torch.float64)

    def norm(layer: torch.nn.Module, y: Tensor) -> Tensor:
        rows = [
            (y[:, c] - layer.running_mean[c]) / (layer.running_var[c] + 1e-5) ** 0.5 * layer.weight[c] + layer.bias[c]
            for c in range(y.shape[1])
        ]
        return torch.stack(rows, dim=1)

    def one_by_one(weight: Tensor, y: Tensor) -> Tensor:
        return torch.einsum("oc,bchw->bohw", weight[:, :, 0, 0], y)

    def pool(y: Tensor) -> Tensor:
        return y.unflatten(2, (-1, stride)).unflatten(4, (-1, stride)).mean((3, 5))

    y = norm(block.bn1, one_by_one(block.conv1.weight, x)).clamp(min=0)
    padded = F.pad(y, (1, 1, 1, 1))
    patches = torch.stack([padded[:, :, i : i + 6, j : j + 6] for i in range(3) for j in range(3)], dim=2)
    y = norm(block.bn2, torch.einsum("ock,bckhw->bohw", block.conv2.weight.flatten(2), patches)).clamp(min=0)
    y = norm(block.bn3, one_by_one(block.conv3.weight, pool(y)))
    shortcut = x
    if stride > 1 or channels != 16:
        assert block.downsample is not None
        shortcut = norm(block.downsample[1], one_by_one(block.downsample[0].weight, pool(x)))
    else:
        assert block.downsample is None
    torch.testing.assert_close(block(x), (y + shortcut).clamp(min=0), rtol=1e-10, atol=1e-10)


def test_the_attention_pool_is_one_query_over_all_cells() -> None:
    generator = torch.Generator().manual_seed(1)
    pool = AttentionPool(4, 8, 2, 3).double()
    for parameter in pool.parameters():
        parameter.data = torch.randn(parameter.shape, generator=generator, dtype=torch.float64)
    x = torch.randn(1, 8, 2, 2, generator=generator, dtype=torch.float64)
    cells = [x[0, :, i, j] for i in range(2) for j in range(2)]
    rows = torch.stack([sum(cells) / 4, *cells]) + pool.positional_embedding
    q, k, v = pool.q_proj(rows[0]), pool.k_proj(rows), pool.v_proj(rows)
    heads = [(k[:, h] @ q[h] / 4**0.5).softmax(0) @ v[:, h] for h in (slice(0, 4), slice(4, 8))]
    torch.testing.assert_close(pool(x)[0], pool.c_proj(torch.cat(heads)), rtol=1e-10, atol=1e-10)


def test_open_clip_and_torchscript_give_the_same_resnet(tmp_path: Path, pixels: Tensor) -> None:
    tensors = layouts.weights(CONFIG)
    counted = {**tensors, "visual.bn1.num_batches_tracked": torch.tensor(7)}
    paths = [
        layouts.openclip_dir(tmp_path / "openclip", CONFIG, counted),
        layouts.state_dict_file(tmp_path / "state.pt", tensors),
        layouts.torchscript_file(tmp_path / "script.pt", layouts.halved(counted)),
    ]
    first, *others = [load(path) for path in paths]
    for other in others:
        assert other.weight_hash == first.weight_hash
        assert torch.equal(other.encode_images(pixels).pooled, first.encode_images(pixels).pooled)


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_half_precision_keeps_batch_norms_in_float32(published: Path, clip: Clip, pixels: Tensor, dtype: str) -> None:
    half = load(published, dtype=dtype)
    assert half.visual.layer1[0].conv1.weight.dtype == getattr(torch, dtype)
    assert half.visual.layer1[0].downsample[1].running_var.dtype == torch.float32
    assert half.visual.bn1.weight.dtype == torch.float32
    ours = half.encode_images(pixels)
    assert ours.pooled.dtype == torch.float32
    cosine = (ours.unit * clip.encode_images(pixels).unit).sum(-1)
    assert (cosine > 0.999).all()


def test_a_cell_has_the_value_paths_embedding(clip: Clip, pixels: Tensor) -> None:
    found, pool = clip.encode_patches(pixels), clip.visual.attnpool
    assert found.shape == (len(pixels), 2, 2, clip.config.embed_dim)
    cells = clip.visual._map(pixels)
    for i in range(2):
        for j in range(2):
            row = cells[:, :, i, j] + pool.positional_embedding[1 + 2 * i + j]
            value = row @ pool.v_proj.weight.T + pool.v_proj.bias
            expected = value @ pool.c_proj.weight.T + pool.c_proj.bias
            torch.testing.assert_close(found[:, i, j], expected.detach(), rtol=1e-4, atol=1e-5)


def test_image_prompts_are_refused(clip: Clip, pixels: Tensor) -> None:
    prompted = Prompted(image={0: Splice(q=torch.zeros(2, 512))})
    with pytest.raises(UserError, match="is a ResNet") as caught:
        clip.encode_images(pixels, prompted)
    assert "ViT image tower" in str(caught.value)


def test_a_missing_statistic_and_a_wrong_depth_are_named(tmp_path: Path) -> None:
    tensors = layouts.weights(CONFIG)
    directory = layouts.openclip_dir(tmp_path / "openclip", CONFIG, tensors)
    del tensors["visual.layer2.0.bn1.running_var"]
    save_file(tensors, directory / "open_clip_model.safetensors")
    with pytest.raises(UserError, match=r"missing visual\.layer2\.0\.bn1\.running_var"):
        load(directory)
    raw = json.loads((directory / "open_clip_config.json").read_text(encoding="utf-8"))
    raw["model_cfg"]["vision_cfg"]["layers"] = [1, 2, 1]
    (directory / "open_clip_config.json").write_text(json.dumps(raw), encoding="utf-8")
    with pytest.raises(UserError, match="four for a ResNet"):
        load(directory)
