"""Methods on features, weights, classes and test images: what they compute, against a literal second way, and what is refused."""

from __future__ import annotations

import dataclasses
import json
import shutil
from pathlib import Path

import pytest
import torch

from tests import tiny
from tests.engine.made import config, images, lesson, taught, write_images
from tests.oracle import beyond as literal
from tests.oracle import towers as oracle
from tests.solvers.test_probe import FACTS as PROBE_FACTS
from vlprompt import PromptClassifier, artifact
from vlprompt.data import open_dataset
from vlprompt.engine import teacher as engine_teacher
from vlprompt.engine.evaluate import Classifier
from vlprompt.engine.optim import lr_at, optimiser_of
from vlprompt.engine.run import train_run
from vlprompt.errors import UserError
from vlprompt.methods.resolve import resolve
from vlprompt.prompts.after_image import AdapterSpec, ProjectedSpec
from vlprompt.prompts.attest import Tpt, TptOptions
from vlprompt.prompts.context import ClassAwareSpec
from vlprompt.prompts.lowrank import LowRankSpec
from vlprompt.solvers.blend import BlendedProbe, BlendOptions, BlendSpec
from vlprompt.solvers.cache import CacheOptions, CacheSpec, FilledCache, SearchedCache
from vlprompt.towers import Clip
from vlprompt.types import BARE, Features, Given, Schedule, TeacherAnswer, View

CLASSES, WIDTH = 3, 8


def rng(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def given(train: int = 12, val: int = 6, seed: int = 0) -> Given:
    """Features around a centre for each class; views differ from the test view."""
    centres = torch.randn(CLASSES, WIDTH, generator=rng(seed))

    def drawn(number: int, at: int) -> tuple[torch.Tensor, torch.Tensor]:
        labels = torch.arange(number) % CLASSES
        return 2 * centres[labels] + 1.5 * torch.randn(number, WIDTH, generator=rng(at)), labels

    text = Features(pooled=centres + torch.randn(CLASSES, WIDTH, generator=rng(9)))
    return Given(
        train=drawn(train, 1),
        val=drawn(val, 2),
        view=lambda number: drawn(train, 10 + number)[0],
        text=lambda: text,
        scale=5.0,
        seed=1,
    )


FACTS = dataclasses.replace(PROBE_FACTS, embed_dim=WIDTH)


def test_the_adapter_is_the_published_mixture() -> None:
    module = AdapterSpec(ratio=0.3).build(FACTS, rng(), CLASSES).double()
    x = torch.randn(5, WIDTH, generator=rng(4), dtype=torch.float64)
    change = module().after_image
    assert change is not None
    ours = change(x)
    theirs = torch.stack([literal.adapted(one, module.down, module.up, 0.3) for one in x])
    torch.testing.assert_close(ours, theirs)
    for a, b in zip(*(torch.autograd.grad(one.square().sum(), list(module.parameters())) for one in (ours, theirs))):
        torch.testing.assert_close(a, b)
    assert module.down.shape == (2, WIDTH)


def test_the_cache_keeps_the_mean_of_the_views_and_votes() -> None:
    asked, options = given(), CacheOptions(views=2, alpha=0.7, beta=2.5, search=False)
    module = CacheSpec().build(FACTS, rng(), CLASSES)
    said = FilledCache(options=options, search=True).solve(module, asked)
    assert said.startswith("cache: 12 training images in it; alpha 0.7 and beta 2.5 as given")
    keys = literal.unit((asked.view(0) + asked.view(1)) / 2)
    torch.testing.assert_close(module.keys.detach(), keys)
    image, text = Features(pooled=asked.val[0]), asked.text()
    ours = module.score(image, text, asked.scale)
    labels = asked.train[1].tolist()
    theirs = torch.stack(
        [
            asked.scale * text.unit @ x + 0.7 * literal.cache_answer(x, module.keys, labels, CLASSES, 2.5)
            for x in literal.unit(asked.val[0])
        ]
    )
    torch.testing.assert_close(ours, theirs)
    (slope,) = torch.autograd.grad(ours.square().sum(), [module.keys])
    (wanted,) = torch.autograd.grad(theirs.square().sum(), [module.keys])
    torch.testing.assert_close(slope, wanted)


def test_alpha_and_beta_are_the_first_best_of_the_published_grid() -> None:
    asked = given()
    options = CacheOptions(views=0, alphas=4, betas=5, most_alpha=30.0, most_beta=6.0)
    module = CacheSpec().build(FACTS, rng(), CLASSES)
    FilledCache(options=options).solve(module, asked)
    said = SearchedCache(options=options).solve(module, asked)
    best, wanted = -1.0, (0.0, 0.0)
    for i in range(5):
        beta = i * (6.0 - 0.1) / 5 + 0.1
        for j in range(4):
            alpha = j * (30.0 - 0.1) / 4 + 0.1
            right = 0
            for x, label in zip(literal.unit(asked.val[0]), asked.val[1].tolist()):
                votes = literal.cache_answer(x, literal.unit(asked.train[0]), asked.train[1].tolist(), CLASSES, beta)
                right += int((asked.scale * asked.text().unit @ x + alpha * votes).argmax() == label)
            if right > best:
                best, wanted = right, (alpha, beta)
    assert (float(module.alpha.detach()), float(module.beta.detach())) == pytest.approx(wanted)
    assert said.endswith(f"by accuracy on 6 validation images ({100 * best / 6:.1f} %).")


def test_the_blend_is_the_published_descent() -> None:
    asked = given(train=24, val=9)
    module = BlendSpec().build(FACTS, rng(), CLASSES)
    BlendedProbe(options=BlendOptions(steps=35)).solve(module, asked)
    parts = [literal.unit(one.double()) for one in (asked.train[0], asked.val[0], asked.text().pooled)]
    wanted = literal.blended(parts[0], asked.train[1], parts[1], asked.val[1], parts[2], 35)
    for ours, theirs in zip((module.weight, module.bias, module.blend), wanted, strict=True):
        torch.testing.assert_close(ours.detach(), theirs.float())
    image, text = Features(pooled=asked.val[0]), asked.text()
    x, t = literal.unit(asked.val[0]), text.unit
    torch.testing.assert_close(
        module.score(image, text, 5.0), x @ module.weight.T + module.bias + module.blend * (x @ t.T)
    )


def test_low_rank_changes_are_scaled_by_alpha_over_the_root_of_the_rank(clip: Clip) -> None:
    module = LowRankSpec(rank=4, alpha=3.0).build(clip.facts, rng(), CLASSES)
    weights = module(None).weights
    text, image = clip.facts.text_layers, clip.facts.image_layers
    assert len(weights) == 3 * (text + image)
    assert {one.scale for one in weights.values()} == {1.5}
    assert {one.drop for one in weights.values()} == {0.0}
    assert len({one.seed for one in module(7).weights.values()}) == len(weights)
    assert all(torch.equal(one.up, torch.zeros_like(one.up)) for one in weights.values())
    bound = clip.facts.text_width**-0.5
    assert 0.8 * bound < float(weights["text", 0, "q"].down.detach().abs().max()) <= bound


def test_class_aware_tokens_equal_the_plain_way(tmp_path: Path) -> None:
    double = tiny.clip(tmp_path / "double").double()
    module = ClassAwareSpec(n_ctx=2, layer=2).build(double.facts, rng(), 3).double()
    names = ["cat", "dog house", "red"]
    frozen = literal.unit(torch.randn(3, double.facts.embed_dim, generator=rng(3), dtype=torch.float64))
    prompted = module(classes=frozen)
    ours = double.encode_text(double.class_tokens(names, prompted.layout), prompted).pooled
    layers = [(one.weight, one.bias) for one in (module.linear1, module.linear2)]
    theirs = []
    for name, feature in zip(names, frozen):
        own = dataclasses.replace(prompted.text[2], q=literal.class_tokens(feature, layers, 2), axis="shared")
        theirs.append(oracle.text(double, [name], prompted.layout, {0: prompted.text[0], 2: own})[0])
    torch.testing.assert_close(ours, torch.stack(theirs), rtol=1e-9, atol=1e-9)
    slopes = [torch.autograd.grad(one.pow(3).sum(), list(module.parameters())) for one in (ours, torch.stack(theirs))]
    for a, b in zip(*slopes):
        torch.testing.assert_close(a, b, rtol=1e-7, atol=1e-9)


def test_tpt_takes_adamws_step_on_the_most_certain_views() -> None:
    module = torch.nn.Linear(WIDTH, CLASSES, bias=False).double()
    views = torch.randn(10, WIDTH, generator=rng(2), dtype=torch.float64)
    before = module.weight.detach().clone().requires_grad_()
    loss = literal.certain_loss(views @ before.T, 3)
    (slope,) = torch.autograd.grad(loss, [before])
    Tpt(options=TptOptions(views=9, share=0.3, rate=0.01)).adapt(module, lambda: module(views))
    wanted = before * (1 - 0.01 * 0.01) - 0.01 * slope / (slope.abs() + 1e-8)  # the first step of AdamW
    torch.testing.assert_close(module.weight, wanted)


def test_the_projector_is_the_published_network() -> None:
    module = ProjectedSpec(width=5).build(FACTS, rng(), CLASSES).double()
    x = torch.randn(6, WIDTH, generator=rng(4), dtype=torch.float64)
    ours = module.projected(x, learning=True)
    theirs = literal.projected(
        x, module.first, (module.scale, module.shift), (module.second.weight, module.second.bias)
    )
    torch.testing.assert_close(ours, theirs)
    learned = [
        one for name, one in module.named_parameters() if name.split(".")[0] not in ("image", "mean", "variance")
    ]
    for a, b in zip(*(torch.autograd.grad(one.pow(3).sum(), learned) for one in (ours, theirs))):
        torch.testing.assert_close(a, b)
    hidden = x @ module.first.T
    torch.testing.assert_close(module.mean.detach(), 0.1 * hidden.mean(0).detach())
    torch.testing.assert_close(module.variance.detach(), 0.9 + 0.1 * hidden.var(0).detach())
    alone = module.projected(x[:1], learning=True)
    torch.testing.assert_close(alone, module.projected(x, learning=False)[:1])
    assert not torch.allclose(alone, ours[:1])


def test_a_teacher_leaves_its_class_features_and_no_label_is_read(clip_dir: Path, tmp_path: Path) -> None:
    """The teacher is another model with a prompt that it learned; new names need it, learned ones do not."""
    folder, other = write_images(tmp_path / "colours"), tmp_path / "other"
    tiny.clip(other, seed=5, embed_dim=24)
    (tmp_path / "here").mkdir()
    train_run(config(other, folder, tmp_path / "here" / "teacher"))
    asked = config(
        clip_dir, folder, tmp_path / "run", method="promptkd", teacher=str(tmp_path / "here" / "teacher"), subset="base"
    )
    asked = dataclasses.replace(asked, overrides={"epochs": 3, "images": 15, "batch": 5, "n_image": 2})
    (record,) = train_run(asked)
    assert (record.setting, record.num_train, record.num_classes) == ("transductive", 15, 2)
    place = tmp_path / "run" / "seed1"
    learned, clip = artifact.loaded(place)
    taught = learned.method.taught
    assert taught is not None
    assert taught.names == ("blue bird", "cat", "dog")
    teacher = PromptClassifier.load(tmp_path / "here" / "teacher", cache=tmp_path / "cache")
    torch.testing.assert_close(taught.features, teacher._classifier(None).text.pooled)  # type: ignore[union-attr]
    picture = next((folder / "test" / "cat").iterdir())
    classifier = PromptClassifier.load(place, cache=tmp_path / "cache")
    new = classifier.predict_proba(picture, class_names=["tree", "house"])
    assert new.shape == (1, 2)
    module = ProjectedSpec(n_image=2, width=24).build(clip.facts, rng(), 3)
    assert {name: p.shape for name, p in module.named_parameters()} == {
        name: p.shape for name, p in learned.prompt.named_parameters()
    }
    shutil.move(tmp_path / "here", tmp_path / "gone")
    assert classifier.predict(picture, class_names=["cat", "dog"]).shape == (1,)
    facts = json.loads((place / "prompt.json").read_text(encoding="utf-8"))
    assert facts["teacher_hash"] == taught.hash
    engine_teacher._again.cache_clear()
    with pytest.raises(UserError, match=r"'sea': new classes, whose features come from the teacher .*cannot be opened"):
        classifier.predict(picture, class_names=["sea", "cat"])


def test_the_labels_do_not_matter(clip: Clip, tmp_path: Path) -> None:
    here = lesson(write_images(tmp_path / "colours"))
    method = resolve("promptkd", {"epochs": 2, "batch": 6})
    wrong = dataclasses.replace(here, samples=[dataclasses.replace(one, label=0) for one in here.samples])
    one, other = (taught(clip, method, each, (), images(clip)) for each in (here, wrong))
    assert all(torch.equal(a, b) for a, b in zip(one.parameters(), other.parameters(), strict=True))


def test_the_imitation_is_the_published_loss(clip: Clip) -> None:
    teacher, student = (
        torch.randn(4, CLASSES, generator=rng(seed), dtype=torch.float64).requires_grad_() for seed in (1, 2)
    )
    text = Features(pooled=torch.zeros(CLASSES, WIDTH))
    view = View(
        labels=torch.zeros(4, dtype=torch.int64),
        logits=student,
        text=text,
        image=Features(pooled=torch.zeros(4, WIDTH)),
        prompted=BARE,
        vocabulary=clip.vocabulary,
        teacher=TeacherAnswer(logits=teacher.detach()),
    )
    (term,) = resolve("promptkd", {"weight": 200}).terms
    ours, theirs = term.weight * term.score(view), literal.imitation(teacher.detach(), student, 200)
    torch.testing.assert_close(ours, theirs)
    torch.testing.assert_close(*(torch.autograd.grad(one, [student])[0] for one in (ours, theirs)))


@pytest.mark.parametrize("name", ["coop", "rpp"])
def test_a_prompt_that_cannot_teach_is_refused(name: str, clip_dir: Path, tmp_path: Path) -> None:
    folder = write_images(tmp_path / "colours")
    cache = dataclasses.replace(
        config(clip_dir, folder, tmp_path / "cache-run", method="tip-adapter"), overrides={"views": 0}
    )
    train_run(cache)
    with pytest.raises(UserError, match="cannot teach" if name == "rpp" else "compares no answers"):
        train_run(config(clip_dir, folder, tmp_path / "run", method=name, teacher=str(tmp_path / "cache-run")))


@pytest.mark.parametrize("name", ["tip-adapter", "tip-adapter-f", "lp-plus-plus", "tpt", "clip-adapter"])
def test_a_run_writes_records_an_artifact_and_answers(
    name: str, clip_dir: Path, tmp_path: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    folder = write_images(tmp_path / "colours")
    few = {"tip-adapter": {"views": 2}, "tip-adapter-f": {"views": 0, "epochs": 3}, "tpt": {"views": 3, "share": 0.5}}
    chosen = config(clip_dir, folder, tmp_path / "run", method=name)
    overrides = {"lp-plus-plus": {"steps": 20}, "clip-adapter": {"epochs": 3}, **few}[name]
    (record,) = train_run(dataclasses.replace(chosen, overrides=overrides))
    assert record.setting == ("test-time" if name == "tpt" else "inductive")
    assert record.num_train == (0 if name == "tpt" else 12)
    classifier = PromptClassifier.load(tmp_path / "run", cache=tmp_path / "cache")
    assert record.top1 == pytest.approx(100 * classifier.score(str(folder)))
    assert classifier.learned.num_parameters == record.parameters
    if classifier.learned.method.prompt.reach.own_classes:
        with pytest.raises(UserError, match="its 3 classes"):
            classifier.predict(next((folder / "test" / "cat").iterdir()), class_names=["tree", "house"])


def test_a_cache_of_another_size_comes_back(clip: Clip, tmp_path: Path) -> None:
    folder = write_images(tmp_path / "colours")
    method = resolve("tip-adapter", {"views": 1})
    here, seen = lesson(folder), images(clip)
    prompt = taught(clip, method, here, open_dataset(folder).val, seen)
    assert prompt.get_parameter("keys").shape == (18, clip.facts.embed_dim)
    learned = artifact.Learned(
        method=method,
        prompt=prompt,
        class_names=here.class_names,
        template=here.template,
        model=clip.name,
        weight_hash=clip.weight_hash,
    )
    artifact.save(tmp_path, learned)
    again = artifact.load(tmp_path, clip)
    before, after = (
        Classifier(clip, method, one, here.class_names, here.template).logits(here.samples, seen)
        for one in (prompt, again.prompt)
    )
    assert torch.equal(before, after)


@pytest.mark.parametrize(
    ("name", "settings"),
    [
        ("clip-adapter", {"ratio": 1.5}),
        ("clip-adapter", {"reduction": 0}),
        ("tip-adapter", {"views": -1}),
        ("tip-adapter-f", {"alphas": 0}),
        ("lp-plus-plus", {"steps": 0}),
        ("clip-lora", {"rank": 0}),
        ("clip-lora", {"matrices": "qx"}),
        ("clip-lora", {"dropout": 1}),
        ("tcp", {"n_ctx": 0}),
        ("promptkd", {"weight": 0}),
        ("promptkd", {"images": -1}),
        ("tpt", {"share": 0.001}),
    ],
)
def test_options_that_cannot_be_are_refused(name: str, settings: dict[str, object]) -> None:
    with pytest.raises(UserError, match="must"):
        resolve(name, settings)


@pytest.mark.parametrize(
    ("name", "settings"),
    [
        ("clip-adapter", {"ratio": 1.0}),
        ("clip-adapter", {"reduction": 1}),
        ("tip-adapter-f", {"alphas": 1}),
        ("lp-plus-plus", {"steps": 1}),
        ("clip-lora", {"rank": 1}),
        ("clip-lora", {"dropout": 0.0}),
        ("tcp", {"n_ctx": 1}),
        ("tpt", {"share": 1.0}),
        ("tpt", {"views": 1, "share": 0.5}),
        ("tpt", {"rate": 0.0}),
    ],
)
def test_options_at_their_edge_are_taken(name: str, settings: dict[str, object]) -> None:
    assert resolve(name, settings).options.items() >= settings.items()


def test_adams_and_the_cosine_by_steps_are_torchs() -> None:
    """AdamW with a cosine from step to step, as `CosineAnnealingLR` after every step has it; Adam's decay is in the gradient."""
    schedule = Schedule(
        epochs=3, lr=0.1, optimiser="adamw", decay="steps", eps=1e-4, least_lr=0.01, weight_decay=0.02, warmup_epochs=0
    )
    ours, theirs = (torch.nn.Parameter(torch.tensor([2.0, -1.0])) for _ in range(2))
    optimiser = optimiser_of([ours], schedule)
    other = torch.optim.AdamW([theirs], lr=0.1, eps=1e-4, weight_decay=0.02)
    cosine = torch.optim.lr_scheduler.CosineAnnealingLR(other, 3 * 4, eta_min=0.01)
    for step in range(12):
        for group in optimiser.param_groups:
            group["lr"] = lr_at(step // 4, schedule, step % 4 / 4)
        for one in (ours, theirs):
            one.grad = (one.detach() - 0.5) * (step + 1)
        optimiser.step()
        other.step()
        cosine.step()
    torch.testing.assert_close(ours, theirs)
    assert isinstance(optimiser_of([ours], Schedule(optimiser="adam")), torch.optim.Adam)
    assert "optimiser" not in Schedule().settings
    assert schedule.settings["optimiser"] == "adamw"
