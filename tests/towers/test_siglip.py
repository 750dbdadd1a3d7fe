"""SigLIP, SigLIP 2 and MetaCLIP 2 against transformers, through the production loader: values and gradients."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from tests import siglip
from tests.towers.layouts import refused
from vlprompt.data.views import normalise, test_view
from vlprompt.errors import UserError
from vlprompt.towers import Clip, load
from vlprompt.types import Prompted, Splice, TextLayout
from vlprompt.verify.compare import error

pytest.importorskip("transformers")
SENTENCES = ["a photo of a Cat.", "dog", "a RED truck, and the green tree house!"]


@pytest.fixture(scope="module", params=["siglip", "siglip2"])
def pair(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[Clip, Any]:
    gemma = request.param == "siglip2"
    path, model = siglip.siglip_dir(tmp_path_factory.mktemp(request.param) / "model", gemma=gemma)
    return load(path), model


def ids_of(clip: Clip, sentence: str) -> list[int]:
    """As published: lower case, no punctuation where it is SigLIP's; the end; then padding (SigLIP's pad is its end)."""
    backend = clip.tokenizer._backend
    sentence = sentence.lower()
    if clip.tokenizer.manner == "canonical":
        sentence = sentence.translate(str.maketrans("", "", ".,!"))
    pad = backend.token_to_id("</s>" if clip.tokenizer.manner == "canonical" else "<pad>")
    ids = backend.encode(sentence).ids
    return [*ids, *[pad] * (24 - len(ids))]


def pixels(number: int = 3, side: int = 30) -> Tensor:
    return torch.randn(number, 3, side, side, generator=torch.Generator().manual_seed(0))


def test_values_equal_transformers(pair: tuple[Clip, Any]) -> None:
    clip, model = pair
    ids = torch.tensor([ids_of(clip, sentence) for sentence in SENTENCES])
    with torch.no_grad():
        out = model(input_ids=ids, pixel_values=pixels())
    text, image = clip.encode_text(clip.sentence_tokens(SENTENCES)), clip.encode_images(pixels())
    assert error(text.unit, out.text_embeds.numpy()) <= 1e-5
    assert error(image.unit, out.image_embeds.numpy()) <= 1e-5
    assert clip.logit_bias == -7.5
    logits = clip.logit_scale * image.unit @ text.unit.T + clip.logit_bias
    assert error(logits, out.logits_per_image.numpy()) <= 1e-5
    assert error(logits.sigmoid(), out.logits_per_image.sigmoid().numpy()) <= 1e-5


def theirs_with(model: Any, clip: Clip, names: list[str], context: Tensor) -> Tensor:
    """transformers' text tower with the first rows of each sentence replaced by the context."""
    number = len(context)
    plans = [[0] * number + clip.tokenizer.encode(f"{name}.") + clip.tokenizer.closing for name in names]
    pad = clip.config.text_form.pad
    ids = torch.tensor([[*plan, *[pad] * (24 - len(plan))] for plan in plans])
    hook = model.text_model.embeddings.token_embedding.register_forward_hook(
        lambda _module, _inputs, out: torch.cat([context.expand(len(out), -1, -1), out[:, number:]], dim=1)
    )
    with torch.enable_grad():
        found: Tensor = model.text_model(input_ids=ids).pooler_output
    hook.remove()
    return found


@pytest.mark.parametrize("max_rows", [None, 30])
def test_a_text_context_has_transformers_values_and_gradients(pair: tuple[Clip, Any], max_rows: int | None) -> None:
    clip, model = pair
    names, layout = ["cat", "red truck", "dog"], TextLayout(num_tokens=4)
    weights = torch.randn(3, 32, generator=torch.Generator().manual_seed(2))
    grads, values = [], []
    for side in range(2):
        context = (0.3 * torch.randn(4, 32, generator=torch.Generator().manual_seed(1))).requires_grad_()
        if side == 0:
            prompted = Prompted(text={0: Splice(q=context)}, layout=layout)
            found = clip.encode_text(clip.class_tokens(names, layout), prompted, max_rows=max_rows).pooled
        else:
            found = theirs_with(model, clip, names, context)
        (found * weights).sum().backward()
        assert context.grad is not None
        grads.append(context.grad)
        values.append(found.detach())
    assert error(values[0], values[1].numpy()) <= 1e-5
    assert error(grads[0], grads[1].numpy()) <= 1e-5


def test_deep_and_unshared_text_tokens_are_put_into_every_sentence(pair: tuple[Clip, Any]) -> None:
    """Shared q, k and v equal an ordinary deep prompt, whose second layer is written into transformers' states."""
    clip, model = pair
    names, layout = ["cat", "red truck"], TextLayout(num_tokens=2)
    draw = torch.Generator().manual_seed(5)
    first, second = (torch.randn(2, 32, generator=draw) for _ in range(2))
    prompted = Prompted(text={0: Splice(q=first), 1: Splice(q=second)}, layout=layout)
    tokens = clip.class_tokens(names, layout)
    ours = clip.encode_text(tokens, prompted).pooled
    hook = model.text_model.encoder.layers[1].register_forward_pre_hook(
        lambda _module, inputs: (
            torch.cat([second.expand(len(inputs[0]), -1, -1), inputs[0][:, 2:]], dim=1),
            *inputs[1:],
        )
    )
    theirs = theirs_with(model, clip, names, first).detach()
    hook.remove()
    assert error(ours, theirs.numpy()) <= 1e-5
    split = {
        0: Splice(q=first, k=first, v=first, residual="replace"),
        1: Splice(q=second, k=second, v=second, residual="replace"),
    }
    torch.testing.assert_close(
        clip.encode_text(tokens, Prompted(text=split, layout=layout)).pooled, ours, rtol=1e-4, atol=1e-5
    )


def test_images_and_classes_may_have_contexts_of_their_own(pair: tuple[Clip, Any]) -> None:
    clip, _ = pair
    names = ["cat", "red truck", "dog"]
    each = torch.randn(3, 2, 32, generator=torch.Generator().manual_seed(6))
    layout = TextLayout(num_tokens=2)
    tokens = clip.class_tokens(names, layout)
    by_image = clip.encode_text(
        tokens, Prompted(text={0: Splice(q=each, axis="image")}, layout=layout), max_rows=30
    ).pooled
    assert by_image.shape == (3, 3, 32)
    one = [clip.encode_text(tokens, Prompted(text={0: Splice(q=q)}, layout=layout)).pooled for q in each]
    torch.testing.assert_close(by_image, torch.stack(one), rtol=1e-4, atol=1e-5)
    own = TextLayout(num_tokens=2, shared=False)
    by_class = clip.encode_text(
        clip.class_tokens(names, own), Prompted(text={0: Splice(q=each, axis="class")}, layout=own)
    ).pooled
    torch.testing.assert_close(by_class, torch.stack([one[c][c] for c in range(3)]), rtol=1e-4, atol=1e-5)


def test_image_tokens_stand_behind_the_patches_and_are_not_pooled(pair: tuple[Clip, Any]) -> None:
    clip, model = pair
    tokens = torch.randn(2, 32, generator=torch.Generator().manual_seed(7), requires_grad=True)
    ours = clip.encode_images(pixels(), Prompted(image={0: Splice(q=tokens)})).pooled
    vision = model.vision_model
    rows = vision.embeddings(pixels())
    number = rows.shape[1]
    rows = torch.cat([rows, tokens.expand(3, -1, -1)], dim=1)
    for layer in vision.encoder.layers:
        rows = layer(rows, attention_mask=None)
        rows = rows[0] if isinstance(rows, tuple) else rows
    theirs = vision.head(vision.post_layernorm(rows)[:, :number])
    assert error(ours.detach(), theirs.detach().numpy()) <= 1e-5
    weights = torch.randn(3, 32, generator=torch.Generator().manual_seed(8))
    (mine,) = torch.autograd.grad((ours * weights).sum(), tokens, retain_graph=True)
    (other,) = torch.autograd.grad((theirs * weights).sum(), tokens)
    assert error(mine, other.numpy()) <= 1e-5


def test_a_patch_alone_is_what_the_pool_makes_of_it(pair: tuple[Clip, Any]) -> None:
    clip, model = pair
    rows = torch.randn(1, 1, 32, generator=torch.Generator().manual_seed(9))
    assert clip.visual.attn_pool is not None
    each = clip.visual.attn_pool.each(rows)[:, 0]
    assert error(each.detach(), model.vision_model.head(rows).detach().numpy()) <= 1e-5
    assert clip.encode_patches(pixels()).shape == (3, 3, 3, 32)


def test_pictures_are_squashed_with_the_models_filter(pair: tuple[Clip, Any]) -> None:
    clip, _ = pair
    picture = Image.fromarray(np.random.default_rng(0).integers(0, 255, (40, 90, 3), dtype=np.uint8))
    how = Image.Resampling.BILINEAR if clip.tokenizer.manner == "lower" else Image.Resampling.BICUBIC
    expected = normalise(picture.resize((30, 30), how), clip.preprocess)
    assert torch.equal(test_view(picture, clip.preprocess), expected)


def test_a_tower_without_a_mask_predicts_no_words(pair: tuple[Clip, Any]) -> None:
    clip, _ = pair
    assert not clip.facts.predicts_words
    with pytest.raises(UserError, match="no causal mask"):
        clip.word_states(clip.tokenizer.encode("a cat"))
    layout = TextLayout(num_tokens=2)
    prompted = Prompted(text={0: Splice(q=torch.zeros(2, 32))}, layout=layout)
    with pytest.raises(UserError, match="no causal mask"):
        clip.context(prompted)
    with pytest.raises(UserError, match="no causal mask"):
        clip.encode_text(clip.class_tokens(["cat"], layout), prompted, states=True)


def test_metaclip_2_equals_transformers(tmp_path: Path) -> None:
    path, model = siglip.metaclip2_dir(tmp_path / "model")
    clip = load(path)
    sentences = ["a photo of a Cat.", "dog"]  # its words keep their capitals
    ids = [clip.tokenizer._backend.encode(sentence).ids for sentence in sentences]
    assert ids[0] != clip.tokenizer._backend.encode(sentences[0].lower()).ids
    batch = torch.tensor([[*one, *[1] * (24 - len(one))] for one in ids])
    with torch.no_grad():
        out = model(input_ids=batch, pixel_values=pixels(side=32))
    text, image = clip.encode_text(clip.sentence_tokens(sentences)), clip.encode_images(pixels(side=32))
    assert error(text.unit, out.text_embeds.numpy()) <= 1e-5
    assert error(image.unit, out.image_embeds.numpy()) <= 1e-5
    assert clip.facts.predicts_words


def test_what_is_not_built_is_refused_with_its_reason(tmp_path: Path) -> None:
    path, _ = siglip.siglip_dir(tmp_path / "model")
    raw = json.loads((path / "config.json").read_text(encoding="utf-8"))
    for kind, reason in (
        ("siglip2", "NaFlex"),
        ("chinese_clip", "BERT"),
        ("altclip", "XLM-RoBERTa"),
        ("dinov2", "Allowed"),
    ):
        (path / "config.json").write_text(json.dumps(raw | {"model_type": kind}), encoding="utf-8")
        assert reason in refused(path)
    raw["vision_config"]["vision_use_head"] = False
    (path / "config.json").write_text(json.dumps(raw), encoding="utf-8")
    assert "vision_use_head is False" in refused(path)
    raw["vision_config"]["vision_use_head"] = True
    (path / "config.json").write_text(json.dumps(raw), encoding="utf-8")
    processor = json.loads((path / "preprocessor_config.json").read_text(encoding="utf-8"))
    (path / "preprocessor_config.json").write_text(json.dumps(processor | {"resample": 0}), encoding="utf-8")
    assert "resample 0" in refused(path)


def test_reserved_tokens_and_long_names_are_refused(pair: tuple[Clip, Any]) -> None:
    clip, _ = pair
    end = "<eos>" if clip.tokenizer.manner == "lower" else "</s>"
    with pytest.raises(UserError, match="reserves"):
        clip.class_tokens(["cat", f"dog{end}"])
    with pytest.raises(UserError, match="too long for the text tower, which reads 24 tokens"):
        clip.class_tokens(["cat", "z" * 60], TextLayout(num_tokens=4))


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_half_precision_comes_near(tmp_path: Path, dtype: str) -> None:
    path, _ = siglip.siglip_dir(tmp_path / "model")
    half, full = load(path, dtype=dtype), load(path)
    context = torch.randn(2, 32, generator=torch.Generator().manual_seed(1)).requires_grad_()
    layout = TextLayout(num_tokens=2)
    prompted = Prompted(text={0: Splice(q=context)}, layout=layout)
    found = []
    for clip in (half, full):
        text = clip.encode_text(clip.class_tokens(["cat", "dog"], layout), prompted).unit
        (gradient,) = torch.autograd.grad(text[:, 0].sum(), context)
        found.append((text, clip.encode_images(pixels()).unit, gradient))
    for ours, exact in zip(*found, strict=True):
        torch.testing.assert_close(ours, exact, rtol=0, atol=0.05)
