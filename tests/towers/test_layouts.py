"""The same weights in every layout are the same model."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
import torch

from tests.towers.layouts import NAMES
from vlprompt.errors import UserError
from vlprompt.towers import Clip, load
from vlprompt.towers.formats.files import read_tokenizer
from vlprompt.towers.tokenizer import Tokenizer, clip_tokenizer
from vlprompt.types import TextLayout
from vlprompt.verify import parity


@pytest.mark.parametrize("name", NAMES)
def test_every_layout_is_the_same_model(paths: dict[str, Path], reference: Clip, name: str) -> None:
    clip = load(paths[name])
    assert clip.weight_hash == reference.weight_hash
    assert clip.config == reference.config
    assert clip.preprocess == reference.preprocess
    assert clip.logit_scale == reference.logit_scale
    theirs = reference.state_dict()
    assert clip.state_dict().keys() == theirs.keys()
    assert all(torch.equal(tensor, theirs[key]) for key, tensor in clip.state_dict().items())
    assert all(tensor.data_ptr() % 64 == 0 for tensor in clip.state_dict().values())
    pixels = torch.randn(2, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    assert torch.equal(clip.encode_images(pixels).pooled, reference.encode_images(pixels).pooled)
    texts = [c.encode_text(c.class_tokens(["cat", "St. Bernard", "a long name"])).pooled for c in (clip, reference)]
    assert torch.equal(*texts)


def test_the_hugging_face_layout_is_transformers(paths: dict[str, Path], reference: Clip) -> None:
    transformers = pytest.importorskip("transformers")
    theirs = transformers.CLIPModel.from_pretrained(paths["sharded"], attn_implementation="eager").eval()
    pixels = torch.randn(2, 3, 32, 32, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        want = theirs.visual_projection(theirs.vision_model(pixels).pooler_output)
    got = reference.encode_images(pixels).pooled
    assert float((got - want).abs().max() / want.abs().max()) <= 1e-5


def assert_reads_the_awkward_sentences(tokenizer: Tokenizer) -> None:
    case = next(case["config"] for case in parity.OURS.index()["cases"] if case["name"] == "clip_vit")
    for sentence, ids in zip(case["sentences"], parity.OURS.case("clip_vit")["token_ids"], strict=True):
        ours = [tokenizer.start_id, *tokenizer.encode(sentence), tokenizer.end_id]
        assert ours == list(ids[: len(ours)])
        assert not ids[len(ours) :].any()


@pytest.mark.parametrize("name", NAMES)
def test_every_layout_reads_the_awkward_sentences(paths: dict[str, Path], name: str) -> None:
    assert_reads_the_awkward_sentences(load(paths[name]).tokenizer)


def test_a_tokenizer_file_that_transformers_wrote_reads_them_too(paths: dict[str, Path], tmp_path: Path) -> None:
    transformers = pytest.importorskip("transformers")
    transformers.CLIPTokenizerFast.from_pretrained(paths["split_tokenizer"]).save_pretrained(tmp_path)
    assert (tmp_path / "tokenizer.json").is_file()
    tokenizer = read_tokenizer(tmp_path)
    assert tokenizer is not None
    assert_reads_the_awkward_sentences(tokenizer)


def test_a_directory_without_a_tokenizer_gets_clips_own(paths: dict[str, Path], tmp_path: Path) -> None:
    directory = Path(shutil.copytree(paths["huggingface"], tmp_path / "copy"))
    (directory / "tokenizer.json").unlink()
    with pytest.warns(UserWarning, match=r"has no tokenizer; its token embedding has 49,408 rows, as CLIP's"):
        clip = load(directory)
    assert clip.tokenizer.encode("cat") == clip_tokenizer().encode("cat")


def test_a_tokenizer_that_cuts_and_pads_does_neither_here(paths: dict[str, Path], tmp_path: Path) -> None:
    # Published tokenizer.json files may say "truncation" and "padding"; a name that is too long must be refused, not cut.
    directory = Path(shutil.copytree(paths["huggingface"], tmp_path / "copy"))
    backend = clip_tokenizer()._backend.from_file(str(directory / "tokenizer.json"))
    backend.enable_truncation(5)
    backend.enable_padding(length=9)
    backend.save(str(directory / "tokenizer.json"))
    clip = load(directory)
    assert clip.tokenizer.encode("cat") == clip_tokenizer().encode("cat")
    with pytest.raises(UserError, match="too long"):
        clip.class_tokens(["cat", "dog " * 80], TextLayout(num_tokens=4))


@pytest.mark.parametrize("name", ["sharded", "openclip", "state_dict", "torchscript"])
@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_every_layout_loads_in_half_precision(paths: dict[str, Path], reference: Clip, name: str, dtype: str) -> None:
    clip = load(paths[name], dtype=dtype)
    assert clip.dtype == getattr(torch, dtype)
    assert clip.text_tower.ln_final.weight.dtype == torch.float32
    assert clip.weight_hash == reference.weight_hash
    pixels = torch.randn(2, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    cosine = (clip.encode_images(pixels).unit * reference.encode_images(pixels).unit).sum(-1)
    assert (cosine > 0.999).all()
