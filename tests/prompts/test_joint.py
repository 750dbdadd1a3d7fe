"""Tokens in the image tower and in both: what is built, what it starts from, and the answers against the plain way."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import nn

from tests.oracle import towers as oracle
from tests.prompts.made import NAMES, both, build, loss, pixels, shapes, stir
from vlprompt.errors import UserError
from vlprompt.prompts.joint import CoupledPrompt, CoupledSpec, IndependentSpec, VisionSpec
from vlprompt.prompts.layers import three_quarters
from vlprompt.prompts.unshared import UnsharedSpec
from vlprompt.towers import Clip
from vlprompt.types import ModelFacts, PromptSpec, Splice

SPECS: dict[str, PromptSpec] = {
    "vpt": VisionSpec(n_image=8, depth=1),
    "vpt-deep": VisionSpec(n_image=8),
    "ivlp": IndependentSpec(),
    "maple": CoupledSpec(),
    "rpp": UnsharedSpec(),
}


@pytest.mark.parametrize(("layers", "depth"), [(12, 9), (24, 18), (6, 4), (4, 3), (3, 2), (2, 1), (1, 1)])
def test_the_default_depth_is_three_quarters_and_below_the_towers(layers: int, depth: int) -> None:
    assert three_quarters(layers) == depth


def test_every_tensor_has_the_shape_of_its_tower(uneven: Clip) -> None:
    assert shapes(build(uneven, SPECS["vpt"])) == {"image.0": (8, 64)}
    assert shapes(build(uneven, SPECS["vpt-deep"])) == {f"image.{i}": (8, 64) for i in range(6)}
    assert shapes(build(uneven, IndependentSpec(n_ctx=3, n_image=5))) == {
        "ctx": (3, 48),
        **{f"text.{i}": (3, 48) for i in (1, 2)},
        **{f"image.{i}": (5, 64) for i in range(4)},
    }
    assert shapes(build(uneven, SPECS["maple"])) == {
        "ctx": (2, 48),
        **{f"text.{i}": (2, 48) for i in (1, 2)},
        **{f"proj.{i}.{part}": shape for i in range(3) for part, shape in (("weight", (64, 48)), ("bias", (64,)))},
    }


@pytest.mark.parametrize("name", SPECS)
def test_every_tensor_says_where_it_enters(uneven: Clip, name: str) -> None:
    module = build(uneven, SPECS[name])
    places = module.places()  # type: ignore[operator]
    assert set(places) == set(shapes(module))
    for tensor, place in places.items():
        assert f"layer {next((part for part in tensor.split('.') if part.isdigit()), 0)}" in place
        assert ("image" in place) == (tensor.split(".")[0] in ("image", "patch", "proj"))


@pytest.mark.parametrize("name", SPECS)
def test_the_first_values_depend_on_the_generator_alone(uneven: Clip, name: str) -> None:
    torch.manual_seed(0)
    once = build(uneven, SPECS[name])
    torch.manual_seed(1)
    again, other = build(uneven, SPECS[name]), build(uneven, SPECS[name], seed=1)
    assert all(torch.equal(a, b) for a, b in zip(once.parameters(), again.parameters()))
    assert not any(
        torch.equal(a, b) for (n, a), (_, b) in zip(once.named_parameters(), other.named_parameters()) if "image" in n
    )


@pytest.mark.parametrize("spec", [IndependentSpec(n_ctx=2), CoupledSpec(n_ctx=2), UnsharedSpec(n_ctx=2)])
def test_words_that_are_not_learned_stay_fixed_behind_the_context(uneven: Clip, spec: PromptSpec) -> None:
    module = build(uneven, spec)
    assert spec.layout is not None
    assert spec.layout.words == "of a"
    assert torch.equal(module.ctx, uneven.embed_words("a photo"))


@pytest.mark.parametrize("kind", [IndependentSpec, CoupledSpec])
def test_before_learning_the_first_layers_text_is_the_sentence_of_its_words(
    uneven: Clip, kind: type[IndependentSpec]
) -> None:
    for n_ctx in (1, 2, 4):
        prompted = build(uneven, kind(n_ctx=n_ctx, depth=1))()
        text = uneven.encode_text(uneven.class_tokens(NAMES, prompted.layout), prompted).pooled
        sentences = uneven.encode_text(uneven.sentence_tokens([f"a photo of a {name}." for name in NAMES])).pooled
        assert torch.allclose(text, sentences, atol=1e-5)


def test_more_tokens_than_words_repeat_the_words_whole_next_to_the_class_name(uneven: Clip) -> None:
    assert torch.equal(build(uneven, IndependentSpec(n_ctx=12)).ctx, uneven.embed_words("a photo of a").repeat(3, 1))
    assert torch.equal(build(uneven, CoupledSpec(n_ctx=6)).ctx, uneven.embed_words("of a a photo of a"))


def test_random_values_have_no_fixed_words(uneven: Clip) -> None:
    spec = CoupledSpec(init="normal")
    assert spec.layout.words == ""
    assert 0.01 < float(build(uneven, spec).ctx.detach().std()) < 0.03


def test_the_image_tokens_of_maple_are_the_linear_images_of_its_text_tokens(uneven: Clip) -> None:
    module = stir(build(uneven, CoupledSpec(n_ctx=3)))
    assert isinstance(module, CoupledPrompt)
    prompted = module()
    for layer, text in enumerate([module.ctx, module.text["1"], module.text["2"]]):
        weight, bias = module.proj[layer].weight, module.proj[layer].bias
        plain = torch.stack([torch.stack([(weight[j] * row).sum() + bias[j] for j in range(64)]) for row in text])
        assert torch.allclose(prompted.image[layer].q, plain, atol=1e-6)


def test_the_projections_start_as_pytorch_starts_them_and_deeper_ones_alike(uneven: Clip) -> None:
    proj = build(uneven, CoupledSpec()).proj
    for part in ("weight", "bias"):
        first, second, third = (getattr(layer, part) for layer in proj)
        assert torch.equal(second, third)
        assert not torch.equal(first, second)
        assert 0.8 * 48**-0.5 < float(first.detach().abs().max()) <= 48**-0.5


@pytest.mark.parametrize("name", SPECS)
def test_the_answers_are_those_of_the_plain_way(double: Clip, name: str) -> None:
    """Prompt module and fast towers against padded sequences and whole rows, in value and gradient."""
    module = stir(build(double, SPECS[name])).double()
    prompted = module()
    image = double.encode_images(pixels(torch.float64), prompted).pooled
    plain = torch.stack([oracle.image_row(double, one, dict(prompted.image)) for one in pixels(torch.float64)])
    pairs = [(image, plain)]
    if prompted.layout is not None:
        text = double.encode_text(double.class_tokens(NAMES, prompted.layout), prompted).pooled
        pairs.append((text, oracle.text(double, NAMES, prompted.layout, dict(prompted.text))))
    for ours, theirs in pairs:
        assert float((ours - theirs).detach().abs().max()) < 1e-10 * float(theirs.detach().abs().max())
    weights = [
        torch.randn(one.shape, generator=torch.Generator().manual_seed(3), dtype=torch.float64) for one, _ in pairs
    ]
    found = [
        torch.autograd.grad(
            sum((w * pair[side]).sum() for w, pair in zip(weights, pairs)), list(module.parameters()), retain_graph=True
        )
        for side in (0, 1)
    ]
    for ours, theirs in zip(*found):
        assert float((ours - theirs).abs().max()) <= 1e-9 * float(theirs.abs().max())


@pytest.mark.parametrize("name", SPECS)
def test_every_tensor_gets_gradient_from_cross_entropy(uneven: Clip, name: str) -> None:
    module = build(uneven, SPECS[name])
    prompted = module()
    if prompted.layout is None:
        text = uneven.encode_text(uneven.class_tokens(NAMES)).unit
        image = uneven.encode_images(pixels(), prompted).unit
        nn.functional.cross_entropy(30 * image @ text.T, torch.arange(3)).backward()
    else:
        loss(uneven, prompted).backward()
    assert [
        n for n, tensor in module.named_parameters() if tensor.grad is None or not tensor.grad.abs().sum() > 0
    ] == []


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        (VisionSpec(depth=7), "depth=7: the image tower of this model has 6 layers. Use 1 to 6"),
        (IndependentSpec(depth=5), "depth=5: the text tower of this model has 4 layers"),
        (CoupledSpec(depth=5), "the text tower of this model has 4 layers"),
        (CoupledSpec(depth=-1), "depth=-1"),
        (UnsharedSpec(depth=5), "the text tower of this model has 4 layers"),
        (UnsharedSpec(depth=7, towers="image"), "the image tower of this model has 6 layers"),
        (IndependentSpec(init=" ", n_ctx=1), "init='' has no words. Write some"),
        (CoupledSpec(init="", n_ctx=2), "init='' has no words"),
        (
            IndependentSpec(init="zebra", n_ctx=1),
            "'zebra' are 5 tokens in this model's vocabulary, but n_ctx is 1. Use --set n_ctx=5,",
        ),
        (
            CoupledSpec(init="a zebra of a", n_ctx=2),
            "'a zebra' are 6 tokens in this model's vocabulary, but n_ctx is 2. Use other",
        ),
    ],
)
def test_what_cannot_be_built_is_refused_with_what_can(uneven: Clip, spec: PromptSpec, message: str) -> None:
    with pytest.raises(UserError) as refused:
        build(uneven, spec)
    assert message in str(refused.value)


def test_a_resnet_is_refused_with_what_works_there(uneven: Clip) -> None:
    facts: ModelFacts = replace(uneven.facts, takes_image_prompts=False)
    for spec in SPECS.values():
        with pytest.raises(UserError, match="ResNet"):
            spec.build(facts, torch.Generator(), 3)
    UnsharedSpec(towers="text").build(facts, torch.Generator(), 3)


@pytest.mark.parametrize("kind", [VisionSpec, IndependentSpec, UnsharedSpec])
def test_no_tokens_are_refused(kind: type[VisionSpec]) -> None:
    with pytest.raises(UserError, match="n_image=0"):
        kind(n_image=0)


def test_the_whole_depth_can_be_prompted(uneven: Clip) -> None:
    text, image = both(uneven, build(uneven, IndependentSpec(depth=4))())
    assert torch.isfinite(text).all()
    assert torch.isfinite(image).all()
    assert isinstance(build(uneven, CoupledSpec(depth=4))().image[3], Splice)
