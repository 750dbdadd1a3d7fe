"""The rows that prompt the image tower: their published values, their teachers, PLPP on each, and their pages."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from tests import tiny
from tests.engine.conftest import Memory
from tests.engine.made import write_images
from vlprompt.data import FeatureStore, open_dataset
from vlprompt.describe import measure_reach
from vlprompt.engine.forward import Forward, ensemble_text, zero_shot_text
from vlprompt.engine.images import Images
from vlprompt.engine.train import Lesson, new_prompt, train
from vlprompt.errors import UserError
from vlprompt.losses.plpp import Plpp, PlppOptions, plpp_terms
from vlprompt.losses.rules import GaussianAverage
from vlprompt.methods.resolve import options, resolve
from vlprompt.methods.templates import IMAGENET, SELECTED, SIXTY
from vlprompt.towers import Clip
from vlprompt.types import Context, Ensemble, ModelFacts

NAMES = ["vpt", "vpt-deep", "ivlp", "maple", "promptsrc", "rpp", "rpp-shared3x"]
PAGES = Path(__file__).parents[1] / "docs" / "methods"


def schedule(name: str) -> tuple[int, float, int]:
    found = resolve(name, recipe=f"{name}-base-to-novel").schedule
    assert found is not None
    return found.epochs, found.lr, found.batch


def test_published_schedules() -> None:
    assert schedule("vpt-deep") == (5, 0.0025, 4)
    assert schedule("maple") == (5, 0.0035, 4)
    assert schedule("ivlp") == schedule("promptsrc") == (20, 0.0025, 4)


def test_promptsrc_is_the_published_one() -> None:
    method = resolve("promptsrc", recipe="promptsrc-base-to-novel")
    assert [(term.name, term.weight) for term in method.terms] == [
        ("cross-entropy", 1),
        ("consistency-text", 25),
        ("consistency-image", 10),
        ("consistency-logits", 1),
    ]
    assert method.steps.average == GaussianAverage(mean=15, std=1, epochs=20)
    assert method.teacher == Ensemble(templates=SIXTY)
    assert resolve("promptsrc", {"teacher": "template"}).teacher is None


def test_with_lambda_0_there_is_no_distillation() -> None:
    for name in ("rpp", "rpp-shared3x"):
        assert [term.name for term in resolve(name).terms] == ["cross-entropy", "distillation"]
        method = resolve(name, {"lambda": "0"})
        assert [term.name for term in method.terms] == ["cross-entropy"]
        assert method.needs == frozenset()
        assert method.options["weight"] == 0


def test_the_template_lists_are_the_published_ones() -> None:
    assert [len(set(one)) for one in (SELECTED, SIXTY, IMAGENET)] == [7, 60, 80]
    assert set(SELECTED) < set(IMAGENET)
    assert set(SIXTY) < set(IMAGENET)
    assert all(one.count("{}") == 1 for one in IMAGENET)


@pytest.mark.parametrize(
    ("name", "count"),
    [
        ("vpt", 6_144),
        ("vpt-deep", 73_728),
        ("ivlp", 46_080),
        ("promptsrc", 46_080),
        ("maple", 9_216 + 3_545_856),
        ("rpp", 143_360),
        ("rpp-shared3x", 138_240),
    ],
)
def test_the_counts_on_vit_b_16_are_those_of_the_pages(name: str, count: int) -> None:
    facts = ModelFacts(
        embed_dim=512,
        text_width=512,
        text_layers=12,
        image_width=768,
        image_layers=12,
        embed_words=lambda words: torch.zeros(len(words.split()), 512),
    )
    spec = resolve(name).prompt
    assert spec is not None
    module = spec.build(facts, torch.Generator().manual_seed(0), 100)
    assert sum(tensor.numel() for tensor in module.parameters()) == count
    assert all(
        f"{part:,}" in (PAGES / f"{name}.md").read_text(encoding="utf-8")
        for part in ((9_216, 3_545_856) if name == "maple" else (count,))
    )
    layers = {"vpt": 1, "vpt-deep": 12}.get(name, 9)
    assert set(module().image) == set(range(layers))


@pytest.mark.parametrize("name", NAMES)
def test_settings_go_out_and_come_back(name: str) -> None:
    method = resolve(name)
    for option in options(name):
        assert option.help
        assert resolve(name, {option.name: str(option.default)}).options == method.options
    again = resolve(name, {key: str(value) for key, value in method.options.items()})
    assert (again.prompt, again.schedule, again.steps.average) == (
        method.prompt,
        method.schedule,
        method.steps.average,
    )


@pytest.mark.parametrize(
    ("name", "settings", "message"),
    [
        ("maple", {"n_image": "3"}, "unknown option of 'maple'"),
        ("rpp", {"residual": "kept"}, "replace, keep, v"),
        ("rpp", {"lambda": "1", "weight": "1"}, "twice"),
        ("rpp", {"temperature": "0"}, "above 0"),
        ("promptsrc", {"average_std": "0"}, "average_std=0.0"),
        ("ivlp", {"depth": "deep"}, 'a whole number or "auto"'),
        ("plpp+vpt", {}, "none to label"),
        ("plpp+rpp", {"towers": "image"}, "none to label"),
    ],
)
def test_what_is_refused_says_what_was_meant(name: str, settings: dict[str, str], message: str) -> None:
    with pytest.raises(UserError) as refused:
        resolve(name, settings)
    assert message in str(refused.value)


def test_the_teacher_is_the_mean_of_unnormalised_features(clip: Clip) -> None:
    names, templates = ["cat", "red bird"], ("a {}.", "the {} x.", "a drawing of the {}.")
    each = [zero_shot_text(clip, names, template).pooled for template in templates]
    plain = ensemble_text(clip, names, Ensemble(templates=templates), "a {}.").pooled
    assert torch.allclose(plain, (each[0] + each[1] + each[2]) / 3, atol=1e-6)
    unit = ensemble_text(clip, names, Ensemble(templates=templates, unit=True), "a {}.").pooled
    assert torch.allclose(unit, sum(one / one.norm(dim=-1, keepdim=True) for one in each) / 3, atol=1e-6)
    assert not torch.allclose(plain / plain.norm(), unit / unit.norm(), atol=1e-3)


def test_the_teacher_of_a_view_is_the_methods(clip: Clip) -> None:
    method, names = resolve("promptsrc"), ["cat", "dog"]
    frozen, pixels = torch.randn(2, 32, generator=torch.Generator().manual_seed(0)), torch.zeros(2, 3, 32, 32)
    forward = Forward(clip, method, names, "a {}.")
    view = forward(new_prompt(clip, method.prompt, 2, seed=1), torch.tensor([0, 1]), frozen, pixels)
    text = ensemble_text(clip, names, Ensemble(templates=SIXTY), "a {}.")
    assert view.teacher is not None
    assert view.teacher.text is not None
    assert view.teacher.image is not None
    assert view.teacher.logits is not None
    assert torch.equal(view.teacher.text.pooled, text.pooled)
    assert torch.equal(view.teacher.image.pooled, frozen)
    wanted = clip.logit_scale * torch.nn.functional.normalize(frozen, dim=-1) @ text.unit.T
    assert torch.allclose(view.teacher.logits, wanted, atol=1e-5)


@pytest.mark.parametrize("name", ["ivlp", "maple", "promptsrc"])
def test_plpp_reaches_the_context_and_nothing_deeper_where_deeper_prompts_replace(clip: Clip, name: str) -> None:
    method = resolve(f"plpp+{name}", {"n_ctx": 4, "plpp.k": 5, "plpp.tau": 0.1})
    assert "context_states" in method.needs
    reached = measure_reach(method, clip)[0]
    assert reached["ctx"]["plpp"] == (True, True, True, False)  # shift 1: nothing predicts from the last word
    assert all(reached["ctx"]["plpp-inverse"])
    assert all(reached["ctx"]["cross-entropy"])
    for tensor, terms in reached.items():
        assert all(terms["cross-entropy"])
        if tensor != "ctx":
            assert not any(terms["plpp"])
            assert not any(terms["plpp-inverse"])


READ_ORDER = ("ctx", "text.0.q", "text.0.k", "text.0.v")
READ = {"read": {"ctx", "text.0.q", "text.0.k", "text.0.v"}, "token": {"ctx"}}


@pytest.mark.parametrize("rows", ["read", "token"])
def test_plpp_on_rpp_labels_what_the_classifier_reads_and_reads_the_hosts_own_states(clip: Clip, rows: str) -> None:
    method = resolve("plpp+rpp", {"plpp.k": 5, "plpp.tau": 0.1, "plpp.shift": 0, "plpp.rows": rows})
    assert "host_states" in method.needs
    reached = measure_reach(method, clip)[0]
    assert all(reached["ctx"]["plpp-inverse"])
    for tensor, terms in reached.items():
        assert all(terms["plpp"]) == (tensor == "ctx" or tensor.startswith("text."))
        assert any(terms["plpp-inverse"]) == (tensor in READ[rows])


def test_plpp_on_rpp_is_the_mean_over_the_labelled_tensors(clip: Clip) -> None:
    """All four start from the same words: at the start the loss of four is the loss of one; moved apart it is their mean."""
    spec = resolve("rpp").prompt
    assert spec is not None
    prompt = new_prompt(clip, spec, 3, 1)
    forward = Forward(clip, tiny.method(spec, "host_states"), ["cat", "dog", "bird"], "a {}.")
    with torch.no_grad():
        for place, tensor in enumerate(READ_ORDER):
            prompt.get_parameter(tensor).add_(0.02 * place)
    view = forward(prompt, torch.tensor([0, 1]), None, torch.zeros(2, 3, 32, 32))
    assert view.context is not None
    four = [term.score(view).item() for term in plpp_terms(PlppOptions(k=5), spec)]
    each = [
        [
            getattr(Plpp(PlppOptions(k=5)), kind)(
                Context(vectors=prompt.get_parameter(tensor), states=view.context.states), view.vocabulary
            ).item()
            for tensor in READ_ORDER
        ]
        for kind in ("log_perplexity", "inverse")
    ]
    assert four == pytest.approx([sum(values) / 4 for values in each], rel=1e-5)
    assert len(set(each[1])) == 4


@pytest.mark.filterwarnings("ignore:cross-entropy cannot reach")
@pytest.mark.parametrize("residual", ["replace", "v"])
def test_plpp_on_rpp_that_replaces_reads_the_first_query_token_in_a_separate_pass(clip: Clip, residual: str) -> None:
    method = resolve("plpp+rpp", {"plpp.k": 5, "plpp.tau": 0.1, "plpp.shift": 0, "residual": residual})
    assert "context_states" in method.needs
    for tensor, terms in measure_reach(method, clip)[0].items():
        assert all(terms["plpp"]) == (tensor == "text.0.q")
        assert any(terms["plpp-inverse"]) == (tensor in READ["read"])


def test_rpp_reaches_everything_with_both_terms(clip: Clip) -> None:
    for terms in measure_reach(resolve("rpp"), clip)[0].values():
        assert all(terms["cross-entropy"])
        assert all(terms["distillation"])


@pytest.mark.parametrize("name", [*NAMES, "plpp+maple", "plpp+rpp"])
def test_it_learns_colours_through_the_one_loop(clip: Clip, name: str, tmp_path: Path) -> None:
    data = open_dataset(write_images(tmp_path / "colours"))
    method = resolve(name, {"epochs": 8, "lr": 0.02, "batch": 6, "warmup_epochs": 0})
    lesson = Lesson(samples=data.train, class_names=data.class_names, template="a photo of a {}.", seed=1, views=2)
    images = Images(clip, FeatureStore(None))
    start = new_prompt(clip, method.prompt, len(data.class_names), lesson.seed)
    memory = Memory()
    prompt = train(clip, method, lesson, images, observer=memory)
    for (key, old), new in zip(start.named_parameters(), prompt.parameters()):
        assert not torch.allclose(old, new, rtol=0, atol=1e-7), f"{key} did not move"
    assert sum(memory.losses[-6:]) < 0.9 * sum(memory.losses[:6])


def test_the_result_of_promptsrc_is_the_average_of_the_epochs(clip: Clip, tmp_path: Path) -> None:
    """A Gaussian so narrow at the last epoch that it is the last epoch's prompt; a wide one is not."""
    data = open_dataset(write_images(tmp_path / "colours"))
    lesson = Lesson(samples=data.train, class_names=data.class_names, template="a {}.", seed=1, views=1)
    narrow = {"average_mean": 3, "average_std": 0.01, "average_epochs": 3}
    found = []
    for averaged in (narrow, {**narrow, "average_std": 50}, None):
        method = resolve("promptsrc", {"epochs": 3, "lr": 0.02, "batch": 6, "teacher": "template", **(averaged or {})})
        method = method if averaged else replace(method, learner=replace(method.steps, average=None))
        found.append(dict(train(clip, method, lesson, Images(clip, FeatureStore(None))).named_parameters()))
    at_last, wide, last = found
    for name, tensor in last.items():
        assert torch.allclose(at_last[name], tensor, atol=1e-7)
        assert not torch.allclose(wide[name], tensor, atol=1e-7)


@pytest.mark.parametrize("name", NAMES)
def test_its_page_has_every_part(name: str) -> None:
    text = (PAGES / f"{name}.md").read_text(encoding="utf-8")
    for heading in (
        "What is learned",
        "What is asked",
        "Published, and our choices",
        "Options",
        "Cost",
        "When to use it",
    ):
        assert f"\n## {heading}\n" in text
