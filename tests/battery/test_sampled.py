"""RPP with sampled classes: both losses see an image's own class and the drawn ones, and no other that came with its batch."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from tests.engine.made import images, lesson, write_images
from tests.oracle import teaching as oracle
from vlprompt.engine.forward import Forward
from vlprompt.engine.train import train
from vlprompt.methods.resolve import resolve
from vlprompt.towers import Clip
from vlprompt.types import View

NAMES = ("cat", "a red dog", "bird", "the green house tree", "truck x", "dog", "blue circle square", "pet")
LABELS, DRAWN = (6, 0, 6), (2, 6)
SEEN = ((2, 6), (0, 2, 6), (2, 6))
"""Per image: its own class and the drawn ones. Class 0 is in view because of the second image, and is none of the others'."""


def view_of(clip: Clip, drawn: tuple[int, ...] | None) -> View:
    method = resolve("rpp", {"classes": 3})
    assert method.steps.classes is not None
    generator = torch.Generator().manual_seed(0)
    prompt = method.prompt.build(clip.facts, generator, len(NAMES))
    forward = Forward(clip, method, NAMES, "a photo of a {}.")
    frozen, pixels = (torch.randn(3, *size, generator=generator) for size in ((clip.facts.embed_dim,), (3, 32, 32)))
    return forward(prompt, torch.tensor(LABELS), frozen, pixels, None if drawn is None else torch.tensor(drawn))


@pytest.mark.parametrize("temperature", [1.0, 2.0])
def test_distillation_and_cross_entropy_are_over_the_same_classes(clip: Clip, temperature: float) -> None:
    """Against the whole list's logits, with the classes of each image picked by hand."""
    whole, some = view_of(clip, None), view_of(clip, DRAWN)
    assert whole.teacher is not None
    assert whole.teacher.logits is not None
    first, second = resolve("rpp", {"classes": 3, "correction": "none", "temperature": temperature}).terms
    divergences, losses = [], []
    for teacher, student, label, seen in zip(whole.teacher.logits, whole.logits.detach(), LABELS, SEEN, strict=True):
        chosen = list(seen)
        divergences.append(
            oracle.divergence(teacher[chosen].double() / temperature, student[chosen].double() / temperature)
        )
        losses.append(-student[chosen].double().log_softmax(0)[chosen.index(label)])
    wanted = float(temperature**2 * torch.stack(divergences).mean())
    assert wanted > 0.01
    assert float(second.score(some).detach()) == pytest.approx(wanted, rel=1e-4)
    assert float(first.score(some).detach()) == pytest.approx(float(torch.stack(losses).mean()), rel=1e-4)
    assert float(second.score(whole).detach()) != pytest.approx(wanted, rel=1e-2)


def test_the_correction_is_the_cross_entropys_alone(clip: Clip) -> None:
    some = view_of(clip, DRAWN)
    plain, natural = (resolve("rpp", {"classes": 3, "correction": one}).terms for one in ("none", "natural"))
    assert float(plain[0].score(some).detach()) != pytest.approx(float(natural[0].score(some).detach()), rel=1e-3)
    assert float(plain[1].score(some).detach()) == float(natural[1].score(some).detach())


def test_every_class_drawn_is_no_sampling(clip: Clip) -> None:
    whole, every = view_of(clip, None), view_of(clip, tuple(range(len(NAMES))))
    for one in resolve("rpp", {"classes": 3}).terms:
        assert float(one.score(every).detach()) == pytest.approx(float(one.score(whole).detach()), rel=1e-5)
    all_classes = resolve("rpp")
    assert all_classes.steps.classes is None
    assert [term.name for term in all_classes.terms] == ["cross-entropy", "distillation"]


@pytest.mark.parametrize("name", ["rpp", "rpp-shared3x", "plpp+rpp"])
def test_it_learns(clip: Clip, tmp_path: Path, name: str) -> None:
    method = resolve(name, {"classes": 2, "epochs": 8, "batch": 8, "lr": 0.01})
    before = train(
        clip,
        resolve(name, {"classes": 2, "epochs": 1, "lr": 0, "warmup_lr": 0}),
        lesson(write_images(tmp_path / "a")),
        images(clip),
    )
    after = train(clip, method, lesson(write_images(tmp_path / "b")), images(clip))
    moved = [not torch.equal(one, other) for one, other in zip(before.parameters(), after.parameters(), strict=True)]
    assert all(moved)
