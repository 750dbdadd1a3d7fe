"""Every row of the table, alone and under the overlay: it learns, repeats itself, goes on, is saved, and leaves the towers alone."""

from __future__ import annotations

import copy
import dataclasses
import json
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from tests.engine.conftest import Memory
from tests.engine.made import images, lesson, taught, write_images
from vlprompt import artifact
from vlprompt.artifact import Learned
from vlprompt.data import open_dataset
from vlprompt.describe import measure_reach
from vlprompt.engine.checkpoint import Checkpoints
from vlprompt.engine.evaluate import Classifier
from vlprompt.engine.train import Lesson, new_prompt, train
from vlprompt.methods.resolve import HOSTS, resolve, takes_steps
from vlprompt.towers import Clip, load
from vlprompt.types import Method, ModelFacts

EPOCHS, BATCH, STEPS = 10, 8, 2
WORDS = {"n_ctx": 4, "init": "a photo of a"}
SETTINGS: dict[str, dict[str, object]] = {
    "coop": {"n_ctx": 4},
    "kgcoop": WORDS,
    "prograd": {"n_ctx": 6, "init": "zeros + a photo of a"},
    "pomp": {"n_ctx": 4, "classes": 2},
    "clip-adapter": {"ratio": 0.5, "optimiser": "adam"},
    "tip-adapter-f": {"views": 0, "alpha": 3.0, "optimiser": "adamw"},
    "clip-lora": {"optimiser": "adamw", "decay": "steps", "warmup_epochs": 0},
    "tcp": {"optimiser": "adam"},
    "promptkd": {"weight": 30},
}
"""What a row needs to be small, or to do on three classes what it does on many."""
LEARNING = [host.name for host in HOSTS if takes_steps(host)]
LABELLED = [host.name for host in HOSTS if host.prompt.layout is not None and takes_steps(host)]
NAMES = [*LEARNING, *(f"plpp+{name}" for name in LABELLED)]
NEW = ("red tree", "house", "green truck", "a circle")
FIXED = {"tip-adapter-f": {"labels", "alpha", "beta"}, "promptkd": {"mean", "variance"}}
"""Tensors that no gradient moves."""
DRIFT = 0.03
"""How far a cosine may move where the frozen towers are in bfloat16 (8 bits: one rounding is 0.004)."""


def deep(facts: ModelFacts) -> int:
    """Layers that are prompted in both towers: three quarters of the smaller one."""
    return int(0.75 * min(facts.text_layers, facts.image_layers))


COUNT: dict[str, Callable[[ModelFacts], int]] = {
    "coop": lambda f: 4 * f.text_width,
    "cocoop": lambda f: (
        4 * f.text_width + (f.embed_dim + 1) * (f.embed_dim // 16) + (f.embed_dim // 16 + 1) * f.text_width
    ),
    "kgcoop": lambda f: 4 * f.text_width,
    "prograd": lambda f: 6 * f.text_width,
    "pomp": lambda f: 4 * f.text_width,
    "vpt": lambda f: 8 * f.image_width,
    "vpt-deep": lambda f: 8 * f.image_width * f.image_layers,
    "ivlp": lambda f: 4 * deep(f) * (f.text_width + f.image_width),
    "maple": lambda f: deep(f) * (2 * f.text_width + (f.text_width + 1) * f.image_width),
    "promptsrc": lambda f: 4 * deep(f) * (f.text_width + f.image_width),
    "rpp": lambda f: 4 * (3 * deep(f) + 1) * (f.text_width + f.image_width),
    "rpp-shared3x": lambda f: 12 * deep(f) * (f.text_width + f.image_width),
    "clip-adapter": lambda f: 2 * f.embed_dim * (f.embed_dim // 4),
    "tip-adapter-f": lambda f: 18 * (f.embed_dim + 1) + 2,
    "clip-lora": lambda f: 3 * 2 * 2 * (f.text_layers * f.text_width + f.image_layers * f.image_width),
    "tcp": lambda f: (
        4 * f.text_width + (f.embed_dim + 1) * (f.embed_dim // 4) + (f.embed_dim // 4 + 1) * 4 * f.text_width
    ),
    "promptkd": lambda f: 4 * f.image_width * int(0.75 * f.image_layers) + f.embed_dim * (2 * f.embed_dim + 5),
}
"""How many numbers a row learns, by its closed form."""


def host_of(name: str) -> str:
    return name.split("+")[-1]


def method(name: str, **changes: object) -> Method:
    """Without weight decay, which would move what no loss reaches; PLPP with fixed weights, as the golden losses have it."""
    small: dict[str, object] = {"epochs": EPOCHS, "batch": BATCH, "lr": 0.01, "weight_decay": 0}
    small |= {"plpp.balance": "off"} if name.startswith("plpp") else {}
    return resolve(name, {**small, **SETTINGS.get(host_of(name), {}), **changes})


def bits(prompt: nn.Module) -> dict[str, bytes]:
    return {name: p.detach().cpu().numpy().tobytes() for name, p in prompt.named_parameters()}


@dataclass(frozen=True)
class School:
    """Where everything is learned; what was learned once is not learned again."""

    clip: Clip
    folder: Path

    @property
    def lesson(self) -> Lesson:
        return lesson(self.folder)

    def learn(self, name: str, memory: Memory | None = None, **changes: object) -> nn.Module:
        return taught(
            self.clip,
            method(name),
            self.lesson,
            (),
            images(self.clip),
            observer=memory or Memory(),
            **changes,  # type: ignore[arg-type]
        )


@pytest.fixture(scope="module")
def school(clip: Clip, tmp_path_factory: pytest.TempPathFactory) -> School:
    return School(clip, write_images(tmp_path_factory.mktemp("battery") / "colours"))


@dataclass(frozen=True)
class Once:
    """One method, learned once."""

    prompt: nn.Module
    losses: list[float]
    epochs: list[dict[str, Any]]
    """The lines of `metrics.jsonl`."""
    towers_changed: list[str]
    towers_trained: list[str]


@pytest.fixture(scope="module")
def learned(school: School, tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Once]:
    @cache
    def learn(name: str) -> Once:
        before = {key: value.clone() for key, value in school.clip.state_dict().items()}
        memory = Memory()
        checkpoints = Checkpoints(directory=tmp_path_factory.mktemp("learned"), config_hash="c")
        prompt = school.learn(name, memory, checkpoints=checkpoints)
        log = (checkpoints.directory / "metrics.jsonl").read_text(encoding="utf-8").splitlines()
        after = school.clip.state_dict()
        return Once(
            prompt=prompt,
            losses=memory.losses,
            epochs=[json.loads(line) for line in log],
            towers_changed=[key for key, value in after.items() if not torch.equal(value, before[key])],
            towers_trained=[key for key, p in school.clip.named_parameters() if p.requires_grad or p.grad is not None],
        )

    return learn


def logits(clip: Clip, chosen: Method, prompt: nn.Module, names: tuple[str, ...], folder: Path) -> Tensor:
    classifier = Classifier(clip, chosen, prompt, names, "a photo of a {}.")
    return classifier.logits(open_dataset(folder).test, images(clip))


def new_names(school: School, chosen: Method) -> tuple[str, ...]:
    """Names that it has not learned on, where it can answer for such."""
    return school.lesson.class_names if chosen.prompt.reach.own_classes else NEW


def test_every_row_that_learns_says_how_much() -> None:
    assert set(COUNT) == set(LEARNING)


@pytest.mark.parametrize("name", NAMES)
def test_towers_stay_as_they_are(learned: Callable[[str], Once], name: str) -> None:
    assert learned(name).towers_changed == []
    assert learned(name).towers_trained == []


@pytest.mark.parametrize("name", NAMES)
def test_every_learned_tensor_is_live_and_moves(school: School, learned: Callable[[str], Once], name: str) -> None:
    chosen = method(name)
    start = new_prompt(school.clip, chosen.prompt, len(school.lesson.class_names), school.lesson.seed)
    first, last = bits(start), bits(learned(name).prompt)
    reached = measure_reach(chosen, school.clip)[0]
    fixed = FIXED.get(name, set())
    assert {tensor for tensor in first if not any(any(rows) for rows in reached[tensor].values())} == fixed
    assert [tensor for tensor in first if first[tensor] == last[tensor] and tensor not in fixed] == []


@pytest.mark.parametrize("name", NAMES)
def test_the_number_of_learned_numbers_is_its_closed_form(
    school: School, learned: Callable[[str], Once], name: str
) -> None:
    counted = sum(p.numel() for p in learned(name).prompt.parameters())
    assert counted == COUNT[host_of(name)](school.clip.facts)


@pytest.mark.parametrize("name", NAMES)
def test_the_loss_falls(learned: Callable[[str], Once], name: str) -> None:
    """The sum of all terms; where a rule makes another gradient of them, the cross-entropy."""
    epochs = learned(name).epochs
    losses = [
        epoch["loss"] if method(name).steps.rule is None else epoch["losses"]["cross-entropy"] for epoch in epochs
    ]
    assert len(losses) == EPOCHS
    assert sum(losses[-2:]) < 0.97 * sum(losses[:2])


@pytest.mark.parametrize("name", NAMES)
def test_two_runs_are_equal(school: School, learned: Callable[[str], Once], name: str) -> None:
    memory = Memory()
    assert bits(school.learn(name, memory)) == bits(learned(name).prompt)
    assert memory.losses == learned(name).losses


@pytest.mark.parametrize("name", NAMES)
def test_a_stopped_run_goes_on_to_the_same_bits(
    school: School, learned: Callable[[str], Once], tmp_path: Path, name: str
) -> None:
    checkpoints = Checkpoints(directory=tmp_path, config_hash="c")
    with pytest.raises(KeyboardInterrupt):
        school.learn(name, Memory(stop_after=EPOCHS + 1), checkpoints=checkpoints)
    state = checkpoints.load()
    assert state is not None
    assert state.epoch == EPOCHS // STEPS
    assert bits(school.learn(name, start=state, checkpoints=checkpoints)) == bits(learned(name).prompt)


@pytest.mark.parametrize("name", NAMES)
def test_it_is_saved_and_answers_for_new_classes_as_before(
    school: School, learned: Callable[[str], Once], tmp_path: Path, name: str
) -> None:
    chosen, prompt = method(name), learned(name).prompt
    facts = Learned(
        method=chosen,
        prompt=prompt,
        class_names=school.lesson.class_names,
        template=school.lesson.template,
        model="tiny",
        weight_hash=school.clip.weight_hash,
    )
    artifact.save(tmp_path, facts)
    again = artifact.load(tmp_path, school.clip)
    assert again.method.options == chosen.options
    assert bits(again.prompt) == bits(prompt)
    for names in (school.lesson.class_names, new_names(school, chosen)):
        want = logits(school.clip, chosen, prompt, names, school.folder)
        got = logits(school.clip, again.method, again.prompt, names, school.folder)
        assert torch.isfinite(want).all()
        assert want.shape == (12, len(names))
        assert torch.equal(got, want)


@pytest.fixture(scope="module")
def bfloat16(clip_dir: Path) -> Clip:
    return load(clip_dir, dtype="bfloat16")


@pytest.mark.parametrize("name", NAMES)
def test_bfloat16_towers_answer_nearly_the_same(
    school: School, bfloat16: Clip, learned: Callable[[str], Once], name: str
) -> None:
    chosen, prompt = method(name), learned(name).prompt
    names = new_names(school, chosen)
    full = logits(school.clip, chosen, prompt, names, school.folder) / school.clip.logit_scale
    half = logits(bfloat16, chosen, prompt, names, school.folder) / bfloat16.logit_scale
    assert 0 < (full - half).abs().max() < DRIFT


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
@pytest.mark.parametrize("name", NAMES)
def test_cuda_agrees(school: School, clip_dir: Path, learned: Callable[[str], Once], name: str) -> None:
    chosen, prompt = method(name), copy.deepcopy(learned(name).prompt)
    names = new_names(school, chosen)
    here = logits(school.clip, chosen, prompt, names, school.folder)
    there = logits(load(clip_dir, device="cuda"), chosen, prompt.to("cuda"), names, school.folder)
    torch.testing.assert_close(there, here, rtol=1e-3, atol=1e-3 * school.clip.logit_scale)


GOLDEN = Path(__file__).parents[1] / "golden" / "text.json"
"""Losses of the first steps; `pytest tests/engine tests/battery --regen` writes them anew."""
TEXT = ("cocoop", "kgcoop", "prograd", "pomp", "plpp+cocoop", "plpp+kgcoop", "plpp+prograd", "plpp+pomp")
TEXT += ("tcp", "plpp+tcp", "clip-adapter", "tip-adapter-f", "clip-lora", "promptkd")


def test_golden_losses(learned: Callable[[str], Once], request: pytest.FixtureRequest) -> None:
    got = {name: learned(name).losses[:8] for name in TEXT}
    if request.config.getoption("--regen", default=False):
        GOLDEN.write_text(json.dumps(got, indent=2) + "\n", encoding="utf-8")
    wanted = json.loads(GOLDEN.read_text(encoding="utf-8"))
    assert set(got) == set(wanted)
    for name in got:
        assert got[name] == pytest.approx(wanted[name], rel=1e-4), name


@pytest.mark.parametrize("name", LEARNING)
def test_the_overlays_terms_are_nothing_with_weight_0(
    school: School, learned: Callable[[str], Once], name: str
) -> None:
    if name not in LABELLED:
        pytest.skip("no text context")
    chosen = method(f"plpp+{name}", **{"plpp.weight": 0})
    host = method(name)
    assert [(term.name, term.weight, term.formula) for term in chosen.terms] == [
        (term.name, term.weight, term.formula) for term in host.terms
    ]
    same = dataclasses.replace(host, learner=dataclasses.replace(host.steps, terms=chosen.terms))
    prompt = train(school.clip, same, school.lesson, images(school.clip))
    assert bits(prompt) == bits(learned(name).prompt)
