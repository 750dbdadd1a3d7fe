"""Two throw-away prompts learn through the one loop with no edit of towers or engine: the proof that the waist is wide enough.

One reads the image's features (as CoCoOp does), one gives queries, keys and values tokens of their own in both towers and keeps
the un-replaced rows in the residual stream (as RPP does).
"""

from __future__ import annotations

from dataclasses import dataclass

import pytest
import torch
from torch import Tensor, nn

from tests.engine.made import write_images
from vlprompt.data import few_shot, open_dataset
from vlprompt.engine.evaluate import Classifier, accuracy
from vlprompt.engine.images import Images, open_images
from vlprompt.engine.train import Lesson, new_prompt, train
from vlprompt.losses import CROSS_ENTROPY
from vlprompt.towers import Clip
from vlprompt.types import Method, ModelFacts, Prompted, Schedule, Splice, TextLayout


class _Conditioned(nn.Module):
    def __init__(self, facts: ModelFacts, generator: torch.Generator) -> None:
        super().__init__()
        self.ctx = nn.Parameter(torch.empty(2, facts.text_width).normal_(std=0.02, generator=generator))
        self.net = nn.Linear(facts.embed_dim, facts.text_width)
        nn.init.normal_(self.net.weight, std=0.02, generator=generator)
        nn.init.zeros_(self.net.bias)

    def forward(self, image_features: Tensor | None) -> Prompted:
        assert image_features is not None
        ctx_BND = self.ctx + self.net(image_features)[:, None]
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

    def forward(self, image_features: Tensor | None) -> Prompted:
        text, image = ({i: self._splice(tower, i) for i in range(self.depth)} for tower in ("text", "image"))
        return Prompted(text=text, image=image, layout=TextLayout(num_tokens=2))


@dataclass(frozen=True, slots=True, kw_only=True)
class _Spec:
    module: type[_Conditioned] | type[_Unshared]
    conditioned: bool
    prompts_image: bool
    deep_text: bool

    @property
    def layout(self) -> TextLayout:
        return TextLayout(num_tokens=2)

    def build(self, facts: ModelFacts, generator: torch.Generator, num_classes: int) -> nn.Module:
        return self.module(facts, generator)


SPECS = {
    "conditioned": _Spec(module=_Conditioned, conditioned=True, prompts_image=False, deep_text=False),
    "unshared": _Spec(module=_Unshared, conditioned=False, prompts_image=True, deep_text=True),
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
    method = Method(name=name, prompt=SPECS[name], terms=(CROSS_ENTROPY,), schedule=schedule)
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
        accuracy(Classifier(clip, method.prompt, module, lesson.class_names, lesson.template), lesson.samples, images)
        for module in (start, prompt)
    )
    assert untrained is not None
    assert trained is not None
    assert trained > untrained


def test_every_unshared_tensor_of_every_layer_gets_gradient(clip: Clip) -> None:
    """What weight decay would hide: with `keep` and prompts below the last layer, no query prompt is dead."""
    prompt = SPECS["unshared"].build(clip.facts, torch.Generator().manual_seed(3), 3)
    prompted = prompt(None)
    text = clip.encode_text(clip.class_tokens(["cat", "dog", "red bird"], prompted.layout), prompted)
    pixels = torch.randn(3, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    loss = torch.nn.functional.cross_entropy(
        30 * clip.encode_images(pixels, prompted).unit @ text.unit.T, torch.tensor([0, 1, 2])
    )
    loss.backward()
    dead = [key for key, value in prompt.named_parameters() if value.grad is None or float(value.grad.norm()) < 1e-7]
    assert dead == []
