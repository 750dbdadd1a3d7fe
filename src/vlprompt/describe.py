"""What a resolved method is, on one model: what it learns, where that enters, what is asked, and what reaches what.

Nothing here is told by hand: which term trains which tensor is found by one backward pass per term through the towers.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from vlprompt.engine.forward import Forward
from vlprompt.engine.precision import generator
from vlprompt.engine.step import by_term, labelled, ratios, weighted
from vlprompt.errors import UserError
from vlprompt.losses import CROSS_ENTROPY
from vlprompt.methods.resolve import overlay_costs, overlay_notes, parse, resolve
from vlprompt.towers import Clip
from vlprompt.types import Fit, Method, PromptSpec, Steps, Term, View, places_of

IMAGES, CLASSES = 8, 3
"""Size of the made-up batch that gradients are measured on."""
NAMES = ("cat", "dog", "bird")
NEGLIGIBLE = 1e-12
"""A row whose gradient is shorter than this share of the term's longest row counts as not reached (rounding)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LearnedTensor:
    """One learned tensor, and which terms train it."""

    name: str
    shape: tuple[int, ...]
    place: str
    """Where it enters, in words."""
    reached: Mapping[str, tuple[bool, ...]] = field(default_factory=dict)
    """Term -> for each row (of the last axis but one; one row for a vector) whether its gradient is not zero.

    Class axes are taken together.
    """

    def reach(self, term: str) -> str:
        """`all`, `none`, or the rows in words: `rows 1-3 of 4`."""
        rows = self.reached[term]
        if all(rows) or not any(rows):
            return "all" if all(rows) else "none"
        return f"rows {_ranges([i + 1 for i, one in enumerate(rows) if one])} of {len(rows)}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Description:
    """A method on a model."""

    name: str
    summary: str
    source: str
    model: str
    num_classes: int
    parameters: int
    """Learned numbers."""
    tensors: tuple[LearnedTensor, ...]
    loss: str
    """One line: the terms' symbols with their weights."""
    terms: tuple[Term, ...]
    gradient_rule: str
    """How the terms become one gradient."""
    result: str
    """Which prompt is the result."""
    schedule: Mapping[str, object]
    options: Mapping[str, object]
    cost: tuple[str, ...]
    """What a step costs, in words."""
    notes: tuple[str, ...]
    """What overlays label and read on this host, in words."""
    gradient_ratios: Mapping[str, float]
    """Term -> length of its weighted gradient over cross-entropy's on what it labels (else on all), before the first step, on
    random images. This is a first look; `metrics.jsonl` has those of a run."""

    def as_dict(self) -> dict[str, object]:
        return {one.name: getattr(self, one.name) for one in dataclasses.fields(self)} | {
            "tensors": [
                {
                    "name": tensor.name,
                    "shape": list(tensor.shape),
                    "count": math.prod(tensor.shape),
                    "place": tensor.place,
                    "reached": {term: tensor.reach(term) for term in tensor.reached},
                }
                for tensor in self.tensors
            ],
            "terms": [
                {
                    "name": term.name,
                    "weight": None if term.balance else term.weight,
                    "balance": term.balance or None,
                    "formula": term.formula,
                    "needs": sorted(term.needs),
                }
                for term in self.terms
            ],
        }


def describe(method: Method, clip: Clip, num_classes: int = 100) -> Description:
    """A resolved method on a model with so many classes (class-specific contexts and costs depend on it)."""
    overlays, host = parse(method.name)
    module = method.prompt.build(clip.facts, generator("describe"), num_classes)
    places, learner = places_of(module), method.learner
    reached, lengths = measure_reach(method, clip) if isinstance(learner, Steps) else ({}, {})
    tensors = tuple(
        LearnedTensor(name=name, shape=tuple(one.shape), place=places[name], reached=reached.get(name, {}))
        for name, one in module.named_parameters()
    )
    return Description(
        name=method.name,
        summary="; ".join([host.summary, *(overlay.summary for overlay in overlays)]),
        source="; ".join([host.source, *(overlay.source for overlay in overlays)]),
        model=clip.name,
        num_classes=num_classes,
        parameters=sum(math.prod(one.shape) for one in tensors),
        tensors=tensors,
        terms=method.terms,
        loss=learner.solver.formula if isinstance(learner, Fit) else loss_line(method.terms),
        gradient_rule=str(learner.rule or "of the weighted sum") if isinstance(learner, Steps) else "none",
        result=str(learner.average or "the last step's prompt")
        if isinstance(learner, Steps)
        else "the fit"
        if learner
        else "nothing is learned",
        schedule=learner.schedule.settings if isinstance(learner, Steps) else {},
        options=method.options,
        cost=step_cost(method, clip, num_classes),
        notes=overlay_notes(method),
        gradient_ratios=lengths,
    )


def obstacle(name: str, clip: Clip, recipe: str = "") -> str:
    """Why a method cannot be learned on a model, in words; empty where it can."""
    try:
        method = resolve(name, recipe=recipe, facts=clip.facts)
        method.prompt.build(clip.facts, generator("describe"), CLASSES)
    except UserError as error:
        return str(error)
    reach, states = method.prompt.reach, method.needs & {"host_states", "context_states"}
    if reach.image_tower and not clip.facts.takes_image_prompts:
        return "the image tower is a ResNet, which has no rows that a prompt could join"
    if states and not clip.facts.predicts_words:
        return (
            "it reads the text tower as a language model, and that predicts no words without a causal mask, and no first word "
            "without a start token"
        )
    return ""


def measure_reach(method: Method, clip: Clip) -> tuple[dict[str, dict[str, tuple[bool, ...]]], dict[str, float]]:
    """Parameter -> term -> row -> whether the term gives it a gradient: measured on a made-up batch, term by term; and every weighted
    term's length against cross-entropy's.

    Tensors that start as zeros are measured a little away from them: two factors, one of which is zero, hide each other's gradient.
    """
    spec = method.prompt
    prompt, rng = spec.build(clip.facts, generator("describe"), CLASSES), generator("describe", "zeros")
    with torch.no_grad():
        for parameter in prompt.parameters():
            if not parameter.any():
                parameter.normal_(std=1e-3, generator=rng)
    prompt = prompt.to(clip.device)
    view = _made_up(method, spec, clip, prompt)
    losses = weighted(method.terms, view)
    parameters = dict(prompt.named_parameters())
    found = by_term(losses, list(parameters.values()))
    reached: dict[str, dict[str, tuple[bool, ...]]] = {name: {} for name in parameters}
    for term, gradients in found.items():
        lengths = [
            _row_lengths(torch.zeros_like(parameter) if one is None else one)
            for parameter, one in zip(parameters.values(), gradients, strict=True)
        ]
        least = NEGLIGIBLE * max(float(length.max()) for length in lengths)
        for name, length in zip(parameters, lengths, strict=True):
            reached[name][term] = tuple((length > least).tolist())
    return reached, ratios(found, CROSS_ENTROPY.name, labelled(method.terms, prompt, view.prompted))


def _made_up(method: Method, spec: PromptSpec, clip: Clip, prompt: nn.Module) -> View:
    """What losses see of random images of three classes."""
    rng = generator("describe", "images")
    # Which sentences stand for the classes makes no difference, and nobody has described these.
    forward = Forward(clip, dataclasses.replace(method, teacher=None), NAMES, "a photo of a {}.")
    frozen = torch.randn(IMAGES, clip.facts.embed_dim, generator=rng).to(clip.device) if forward.reads_frozen else None
    side = clip.preprocess.crop
    pixels = torch.randn(IMAGES, 3, side, side, generator=rng).to(clip.device) if spec.reach.image_tower else None
    return forward(prompt, torch.arange(IMAGES, device=clip.device) % CLASSES, frozen, pixels)


def _row_lengths(gradient: Tensor) -> Tensor:
    """Length of the gradient of every row (last axis but one), class axes taken together; (1,) for a vector."""
    rows = gradient.unsqueeze(0) if gradient.dim() < 2 else gradient
    return rows.double().square().sum(dim=-1).reshape(-1, rows.shape[-2]).sum(dim=0).sqrt()


def loss_line(terms: tuple[Term, ...]) -> str:
    """``L = L_CE + 0.1 L_ppl + 0.1 L_inv``; a term's symbol is what its formula begins with; w where its weight is yet to be found."""
    parts = [
        ("w " if term.balance else "" if term.weight == 1 else f"{term.weight:g} ")
        + (term.formula.partition(" = ")[0] or term.name)
        for term in terms
    ]
    found = sorted({term.balance for term in terms if term.balance})
    w = f"; w: found in the first epoch, for a gradient of {' or '.join(f'{one:g}' for one in found)} times cross-entropy's"
    return f"L = {' + '.join(parts)}{w if found else ''}" if parts else "nothing is learned"


def step_cost(method: Method, clip: Clip, num_classes: int) -> tuple[str, ...]:
    """What one training step costs, in words."""
    spec = method.prompt
    if isinstance(method.learner, Fit):
        return ("no steps: image features once, then one fit on the CPU for every value that is tried",)
    if method.at_test is not None:
        views = 1 + method.at_test.views
        return (
            f"no steps on training images; for each test image {views} views and a forward and backward pass of all classes",
        )
    if method.learner is None:
        return ("no steps: class features once, from the template",)
    if spec.reach.image_tower:
        image = "image tower: forward and backward for every image, every step"
    else:
        image = "image tower: none, frozen features are computed once per image and view"
    words, width = clip.vocabulary.word_ids.numel(), clip.facts.text_width
    added = overlay_costs(method, width=width, words=words, classes=num_classes)
    return (image, _text_cost(spec, classes_in_step(method, num_classes)), *added)


def classes_in_step(method: Method, num_classes: int) -> int:
    """The classes that a step sees at most: all, or the drawn ones and those of its images."""
    sampling = method.steps.classes
    drawn = sampling.drawn(num_classes) if sampling else None
    if drawn is None:
        return num_classes
    return min(num_classes, drawn + method.schedule.batch)


def _text_cost(spec: PromptSpec, num_classes: int) -> str:
    layout = spec.layout
    if spec.reach.text_tower and layout is None:
        return f"text tower: forward and backward of {num_classes} sentences, whose common words are run once"
    if layout is None:
        return "text tower: none, class features are computed once from the template"
    if layout.position != "end" or not layout.shared:
        return f"text tower: forward and backward of {num_classes} sentences, which share [SOS] alone"
    per = " for every image" if "image" in spec.reach.sees else ""
    return (
        f"text tower: forward and backward of [SOS] and {layout.num_tokens} context tokens once{per}, and of the name "
        f"of each of {num_classes} classes{per}"
    )


def _ranges(numbers: list[int]) -> str:
    """[1, 2, 3, 5] -> `1-3, 5`."""
    runs: list[list[int]] = []
    for number in numbers:
        if runs and number == runs[-1][1] + 1:
            runs[-1][1] = number
        else:
            runs.append([number, number])
    return ", ".join(str(first) if first == last else f"{first}-{last}" for first, last in runs)
