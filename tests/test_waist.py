"""Throw-away methods learn with no edit of towers or engine: the proof that the waist is wide enough.

A context that reads the image's features; queries, keys and values with tokens of their own in both towers; low-rank changes of
weights with dropout; tokens made of class features, deep in the text tower, with an adapter after the image tower; a cache of
training images that is fitted at once and scores; a context that learns from each test image; a teacher of another model.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import pytest
import torch
from torch import Tensor, nn

from tests import tiny
from tests.engine.made import taught, write_images
from vlprompt.data import FeatureStore, few_shot, open_dataset
from vlprompt.engine.classes import in_view
from vlprompt.engine.evaluate import Classifier, accuracy, check_classes
from vlprompt.engine.forward import TEMPLATE, ensemble_text
from vlprompt.engine.images import Images, open_images
from vlprompt.engine.optim import batches
from vlprompt.engine.teacher import Teacher
from vlprompt.engine.train import Lesson, new_prompt, train
from vlprompt.errors import UserError
from vlprompt.losses import CROSS_ENTROPY, logits
from vlprompt.methods.resolve import resolve
from vlprompt.prompts import ContextSpec
from vlprompt.towers import Clip
from vlprompt.types import (
    Features,
    Fit,
    Given,
    LowRank,
    Method,
    ModelFacts,
    Prompted,
    Reach,
    Schedule,
    Splice,
    Steps,
    TextLayout,
    View,
    WeightPart,
)


class _Conditioned(nn.Module):
    def __init__(self, facts: ModelFacts, generator: torch.Generator) -> None:
        super().__init__()
        self.ctx = nn.Parameter(torch.empty(2, facts.text_width).normal_(std=0.02, generator=generator))
        self.net = nn.Linear(facts.embed_dim, facts.text_width)
        nn.init.normal_(self.net.weight, std=0.02, generator=generator)
        nn.init.zeros_(self.net.bias)

    def forward(self, image: Tensor) -> Prompted:
        ctx_BND = self.ctx + self.net(image)[:, None]
        return Prompted(text={0: Splice(q=ctx_BND, axis="image")}, layout=TextLayout(num_tokens=2))


class _Unshared(nn.Module):
    def __init__(self, facts: ModelFacts, generator: torch.Generator) -> None:
        super().__init__()
        self.depth = 2
        for tower, width in (("text", facts.text_width), ("image", facts.image_width)):
            for layer in range(self.depth):
                for part in ("q", "k", "v"):
                    self._draw(f"{tower}_{layer}_{part}", width, generator)
            self._draw(f"{tower}_token", width, generator)

    def _draw(self, name: str, width: int, generator: torch.Generator) -> None:
        self.register_parameter(name, nn.Parameter(torch.empty(2, width).normal_(std=0.3, generator=generator)))

    def _splice(self, tower: str, layer: int) -> Splice:
        q, k, v = (getattr(self, f"{tower}_{layer}_{part}") for part in ("q", "k", "v"))
        token = getattr(self, f"{tower}_token") if layer == 0 else None
        return Splice(q=q, k=k, v=v, token=token, residual="keep")

    def forward(self) -> Prompted:
        text, image = ({i: self._splice(tower, i) for i in range(self.depth)} for tower in ("text", "image"))
        return Prompted(text=text, image=image, layout=TextLayout(num_tokens=2))


@dataclass(frozen=True, slots=True, kw_only=True)
class _Spec:
    module: type[_Conditioned] | type[_Unshared]
    reach: Reach

    @property
    def layout(self) -> TextLayout:
        return TextLayout(num_tokens=2)

    def build(self, facts: ModelFacts, generator: torch.Generator, num_classes: int) -> nn.Module:
        return self.module(facts, generator)


@dataclass(frozen=True, slots=True, kw_only=True)
class _LowRankSpec:
    layout = None
    reach = Reach(sees=frozenset({"chance"}), image_tower=True, text_tower=True)

    def build(self, facts: ModelFacts, generator: torch.Generator, num_classes: int) -> nn.Module:
        return _LowRank(facts, generator)


class _LowRank(nn.Module):
    def __init__(self, facts: ModelFacts, generator: torch.Generator) -> None:
        super().__init__()
        self.places: tuple[tuple[Literal["text", "image"], WeightPart], ...] = (
            ("text", "q"),
            ("image", "v"),
            ("image", "fc"),
        )
        for tower, part in self.places:
            width = facts.text_width if tower == "text" else facts.image_width
            wide = width * 4 if part == "fc" else width
            down = torch.empty(2, width).normal_(std=0.1, generator=generator)
            self.register_parameter(f"{tower}_{part}_down", nn.Parameter(down))
            self.register_parameter(f"{tower}_{part}_up", nn.Parameter(torch.zeros(wide, 2)))

    def forward(self, chance: int | None) -> Prompted:
        drop = {} if chance is None else {"drop": 0.25, "seed": chance}
        weights = {
            (tower, 1, part): LowRank(
                down=self.get_parameter(f"{tower}_{part}_down"), up=self.get_parameter(f"{tower}_{part}_up"), **drop
            )
            for tower, part in self.places
        }
        return Prompted(weights=weights)


@dataclass(frozen=True, slots=True, kw_only=True)
class _ClassAwareSpec:
    layout = TextLayout(num_tokens=2, shared=False)
    reach = Reach(sees=frozenset({"classes"}), deep_text=True)

    def build(self, facts: ModelFacts, generator: torch.Generator, num_classes: int) -> nn.Module:
        return _ClassAware(facts, generator)


class _ClassAware(nn.Module):
    def __init__(self, facts: ModelFacts, generator: torch.Generator) -> None:
        super().__init__()
        self.ctx = nn.Parameter(torch.empty(2, facts.text_width).normal_(std=0.02, generator=generator))
        self.net = nn.Parameter(torch.empty(facts.embed_dim, 2, facts.text_width).normal_(std=0.1, generator=generator))
        self.adapter = nn.Parameter(torch.empty(facts.embed_dim, facts.embed_dim).normal_(std=0.1, generator=generator))

    def forward(self, classes: Tensor) -> Prompted:
        rows_CND = torch.einsum("ce,end->cnd", classes, self.net)
        return Prompted(
            text={0: Splice(q=self.ctx), 1: Splice(q=rows_CND, axis="class")},
            layout=TextLayout(num_tokens=2, shared=False),
            after_image=lambda image_BE: image_BE + image_BE @ self.adapter,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class _CacheSpec:
    layout = None
    reach = Reach(own_classes=True)

    def build(self, facts: ModelFacts, generator: torch.Generator, num_classes: int) -> nn.Module:
        return _Cache(num_classes, facts.embed_dim)


class _Cache(nn.Module):
    def __init__(self, num_classes: int, embed_dim: int) -> None:
        super().__init__()
        self.keys = nn.Parameter(torch.zeros(num_classes, embed_dim))

    def forward(self) -> Prompted:
        return Prompted(score=lambda image, text, scale: scale * image.unit @ (text.unit + self.keys).T)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Means:
    """Class means of the training features."""

    formula = "key_c = mean of the unit features of class c"

    def solve(self, module: _Cache, given: Given) -> str:
        features, labels = given.train
        assert len(given.val[1]) == 0
        assert given.view(0).shape == features.shape
        assert given.text().pooled.shape == module.keys.shape
        for c in range(len(module.keys)):
            module.keys.data[c] = nn.functional.normalize(features[labels == c], dim=-1).mean(dim=0)
        return "means"


@dataclass(frozen=True, slots=True, kw_only=True)
class _Sharpen:
    """One step towards answers of less entropy, the mean over views."""

    views: int = 2

    def adapt(self, module: nn.Module, answers: Callable[[], Tensor]) -> None:
        mean = answers().softmax(-1).mean(0)
        loss = -(mean * mean.log()).sum()
        for one, slope in zip(module.parameters(), torch.autograd.grad(loss, list(module.parameters())), strict=True):
            one.data -= 0.05 * slope / slope.norm()


SPECS = {
    "conditioned": _Spec(module=_Conditioned, reach=Reach(sees=frozenset({"image"}))),
    "low-rank": _LowRankSpec(),
    "class-aware": _ClassAwareSpec(),
    "unshared": _Spec(module=_Unshared, reach=Reach(image_tower=True, deep_text=True)),
}


@pytest.fixture(scope="module")
def lesson(tmp_path_factory: pytest.TempPathFactory) -> Lesson:
    dataset = open_dataset(write_images(tmp_path_factory.mktemp("waist") / "colours"))
    sample = few_shot(dataset, 4, seed=1)
    return Lesson(samples=sample.train, class_names=sample.class_names, template="a photo of a {}.", seed=1, views=2)


@pytest.fixture(scope="module")
def images(clip: Clip, tmp_path_factory: pytest.TempPathFactory) -> Images:
    return open_images(clip, tmp_path_factory.mktemp("cache"))


def learned(name: str, clip: Clip, lesson: Lesson, images: Images) -> tuple[nn.Module, nn.Module, Method]:
    schedule = Schedule(epochs=12, lr=0.05, batch=4, warmup_epochs=0)
    method = Method(name=name, prompt=SPECS[name], learner=Steps(terms=(CROSS_ENTROPY,), schedule=schedule))
    start = new_prompt(clip, SPECS[name], len(lesson.class_names), lesson.seed)
    return start, train(clip, method, lesson, images), method


@pytest.mark.parametrize("name", SPECS)
def test_a_throw_away_prompt_learns_through_the_one_loop(name: str, clip: Clip, lesson: Lesson, images: Images) -> None:
    before = {key: value.clone() for key, value in clip.state_dict().items()}
    start, prompt, method = learned(name, clip, lesson, images)
    assert all(torch.equal(value, before[key]) for key, value in clip.state_dict().items())
    assert not any(parameter.grad is not None for parameter in clip.parameters())
    for (key, old), new in zip(start.named_parameters(), prompt.parameters()):
        assert not torch.allclose(old, new, rtol=0, atol=1e-7), f"{key} did not move"
    untrained, trained = (
        accuracy(Classifier(clip, method, module, lesson.class_names, lesson.template), lesson.samples, images)
        for module in (start, prompt)
    )
    assert untrained is not None
    assert trained is not None
    assert trained > untrained


def test_every_unshared_tensor_of_every_layer_gets_gradient(clip: Clip) -> None:
    """What weight decay would hide: with `keep` and prompts below the last layer, no query prompt is dead."""
    prompt = SPECS["unshared"].build(clip.facts, torch.Generator().manual_seed(3), 3)
    prompted = prompt()
    text = clip.encode_text(clip.class_tokens(["cat", "dog", "red bird"], prompted.layout), prompted)
    pixels = torch.randn(3, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    loss = torch.nn.functional.cross_entropy(
        30 * clip.encode_images(pixels, prompted).unit @ text.unit.T, torch.tensor([0, 1, 2])
    )
    loss.backward()
    dead = [key for key, value in prompt.named_parameters() if value.grad is None or float(value.grad.norm()) < 1e-7]
    assert dead == []


def test_dropout_differs_from_step_to_step_and_is_off_in_answers(clip: Clip) -> None:
    module = SPECS["low-rank"].build(clip.facts, torch.Generator().manual_seed(3), 3)
    for name, parameter in module.named_parameters():
        parameter.data += 0.1 if name.endswith("up") else 0
    pixels = torch.randn(2, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    first, second, again, plain, same = (
        clip.encode_images(pixels, module(chance)).pooled for chance in (1, 2, 1, None, None)
    )
    assert torch.equal(first, again)
    assert torch.equal(plain, same)
    assert not torch.allclose(first, second)
    assert not torch.allclose(first, plain)


def test_a_cache_is_fitted_at_once_and_scores(clip: Clip, lesson: Lesson, images: Images) -> None:
    method = Method(name="cache", prompt=_CacheSpec(), learner=Fit(solver=_Means()))
    prompt = taught(clip, method, lesson, (), images)
    fitted = Classifier(clip, method, prompt, lesson.class_names, lesson.template)
    features = images.features(lesson.samples, None)
    text = ensemble_text(clip, lesson.class_names, TEMPLATE, lesson.template)
    keys = torch.stack([nn.functional.normalize(features[4 * c : 4 * c + 4], dim=-1).mean(0) for c in range(3)])
    wanted = clip.logit_scale * nn.functional.normalize(features, dim=-1) @ (text.unit + keys).T
    torch.testing.assert_close(fitted.logits(lesson.samples, images), wanted, rtol=1e-4, atol=1e-4)
    with pytest.raises(UserError, match="its 3 classes"):
        check_classes(method.prompt, lesson.class_names, ["tree", "house"])


def test_a_prompt_learns_from_each_test_image_alone(clip: Clip, lesson: Lesson, images: Images) -> None:
    method = Method(name="sharp", prompt=ContextSpec(n_ctx=2), at_test=_Sharpen())
    prompt = taught(clip, method, lesson, (), images)
    before = {name: one.clone() for name, one in prompt.named_parameters()}
    plain, sharp = (
        Classifier(clip, one, prompt, lesson.class_names, lesson.template)
        for one in (dataclasses.replace(method, at_test=None), method)
    )
    few = lesson.samples[:3]
    answers, adapted = plain.logits(few, images), sharp.logits(few, images)
    assert all(torch.equal(one, before[name]) for name, one in prompt.named_parameters())
    assert not torch.allclose(answers, adapted)
    torch.testing.assert_close(adapted[1:2], sharp.logits(few[1:2], images))
    entropies = [-(one.softmax(-1) * one.log_softmax(-1)).sum(-1).mean() for one in (answers, adapted)]
    assert entropies[1] < entropies[0]
    assert method.setting == "test-time"


def test_another_model_teaches(clip: Clip, lesson: Lesson, images: Images, tmp_path: Path) -> None:
    """Its answers are what it answers alone, on the same views and on sampled classes; its features cannot be compared."""
    other = tiny.clip(tmp_path / "teacher", seed=5)
    teacher = Teacher(other, FeatureStore(None))
    taught = dataclasses.replace(lesson, teacher=teacher)
    method = resolve("rpp", {"towers": "text", "epochs": 2, "batch": 4, "n_ctx": 2, "classes": 2})
    seen: list[tuple[View, Tensor]] = []
    distillation = method.terms[1]

    def watched(view: View) -> Tensor:
        assert view.teacher is not None
        assert view.teacher.logits is not None
        seen.append((view, view.teacher.logits))
        return distillation.score(view)

    terms = (method.terms[0], dataclasses.replace(distillation, score=watched))
    watching = dataclasses.replace(method, learner=dataclasses.replace(method.steps, terms=terms))
    learned = train(clip, watching, taught, images)
    alone = train(clip, method, lesson, images)
    assert not all(torch.equal(a, b) for a, b in zip(learned.parameters(), alone.parameters(), strict=True))
    index = batches(len(lesson.samples), 4, seed=lesson.seed, epoch=0)[0]
    drawn = taught.drawn(method.steps.classes, 0, 0)
    assert drawn is not None
    labels = torch.tensor([lesson.samples[i].label for i in index])
    classes = in_view(labels, drawn, 3).classes_C
    text = ensemble_text(other, lesson.class_names, TEMPLATE, lesson.template)
    wanted = logits(Features(pooled=teacher.features(lesson.samples, 0)[index]), text, other.logit_scale)
    torch.testing.assert_close(seen[0][1], wanted[:, classes])
    with pytest.raises(UserError, match="compares features"):
        train(clip, resolve("kgcoop", {"epochs": 1, "n_ctx": 4, "init": "normal"}), taught, images)
