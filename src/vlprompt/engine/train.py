"""The one loop in which every gradient-trained method learns.

It sees training images and nothing else: neither validation nor test images can be reached from a `Lesson`.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from vlprompt.data import Sample
from vlprompt.data.views import first_view
from vlprompt.engine.checkpoint import Checkpoints, State, capture, put_back, restore
from vlprompt.engine.classes import draw, said_of
from vlprompt.engine.forward import Forward
from vlprompt.engine.images import Images
from vlprompt.engine.memory import Estimate, estimate
from vlprompt.engine.observer import SILENT, Observer
from vlprompt.engine.optim import batches, lr_at, optimiser_of
from vlprompt.engine.precision import generator
from vlprompt.engine.step import (
    Balance,
    Place,
    accumulate,
    gradients_of,
    labelled,
    measured_gradients,
    require_finite,
    take,
    weighted,
)
from vlprompt.head import measure_head
from vlprompt.prompts.start import fill
from vlprompt.towers import Clip
from vlprompt.towers.tokens import longest
from vlprompt.types import ClassSampling, Method, PromptSpec, Views


@dataclass(frozen=True, slots=True, kw_only=True)
class Order:
    """What each step sees, where that is given instead of drawn from the seed: `vlprompt verify` repeats published runs."""

    images: Sequence[Sequence[Tensor]]
    """Epoch, step -> indices of the lesson's images, int64."""
    classes: Sequence[Sequence[Tensor]] | None = None
    """Epoch, step -> the sampled classes, as `classes.draw` draws them; None: all classes are in view."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Lesson:
    """What is to be learned from: images with labels, the names of the classes, and the words of the zero-shot teacher."""

    samples: Sequence[Sample]
    class_names: tuple[str, ...]
    template: str
    seed: int
    views: Views
    max_memory: int | None = None
    """Bytes that the process may take; None: no limit."""
    teacher: Images | None = None
    """Images as another model sees them, which is the teacher; None: the student's own frozen model is."""
    order: Order | None = None
    """None: images and classes are drawn from the seed."""

    def batches(self, epoch: int, batch: int) -> Sequence[Tensor]:
        """The images of an epoch's steps, as indices."""
        if self.order is not None:
            return self.order.images[epoch]
        return batches(len(self.samples), batch, seed=self.seed, epoch=epoch)

    def drawn(self, sampling: ClassSampling | None, epoch: int, step: int) -> Tensor | None:
        """The sampled classes of a step; None: all classes are in view."""
        if self.order is not None:
            return None if self.order.classes is None else self.order.classes[epoch][step]
        return draw(sampling, len(self.class_names), seed=self.seed, epoch=epoch, step=step)


def estimate_step(clip: Clip, method: Method, lesson: Lesson) -> Estimate:
    """The memory of one step of this lesson. UserError where its limit is too small."""
    spec, schedule, sampling = method.prompt, method.schedule, method.steps.classes
    tokens = clip.class_tokens(lesson.class_names, spec.layout, lesson.template)
    batch = min(schedule.batch, len(lesson.samples))
    drawn = sampling.drawn(tokens.num_classes) if sampling else None
    if drawn is not None:
        tokens = longest(tokens, drawn + batch)
    return estimate(clip, spec, tokens, batch=batch, limit=lesson.max_memory)


def forward_of(clip: Clip, method: Method, lesson: Lesson, *, max_rows: int | None) -> Forward:
    """The forward pass of a method on a lesson's classes."""
    names, words = lesson.class_names, lesson.template
    taught = lesson.teacher.clip if lesson.teacher else None
    return Forward(
        clip, method.prompt, method.needs, names, words, teacher=method.teacher, max_rows=max_rows, taught=taught
    )


def new_prompt(
    clip: Clip, spec: PromptSpec, num_classes: int, seed: int, start: Mapping[str, Tensor] | None = None
) -> nn.Module:
    """A prompt as it is before the first step: drawn on the CPU from the seed (or `start`), then put on the model's device."""
    prompt = spec.build(clip.facts, generator("prompt", seed), num_classes)
    if start is not None:
        fill(prompt, start)
    return prompt.to(clip.device)


def train(
    clip: Clip,
    method: Method,
    lesson: Lesson,
    images: Images,
    *,
    start: State | None = None,
    first: Callable[[nn.Module], object] | None = None,
    checkpoints: Checkpoints | None = None,
    observer: Observer = SILENT,
) -> nn.Module:
    """Learn a prompt: the last step's, or the method's average over epochs.

    start: the state to go on from; None: from the beginning. first: fits the new prompt before the first step.
    UserError (exit 4) where a loss or a gradient is not finite; the checkpoint of the last full epoch stays.
    """
    steps, schedule = method.steps, method.schedule
    prompt = new_prompt(clip, method.prompt, len(lesson.class_names), lesson.seed, method.start)
    if first is not None:
        first(prompt)
    optimiser = optimiser_of(prompt.parameters(), schedule)
    if start is not None:
        restore(start, prompt, optimiser)
    done, average, seconds = (start.epoch, start.average, start.seconds) if start else (0, {}, 0.0)
    balance = Balance(method.terms, start.weights if start else {})
    need = estimate_step(clip, method, lesson)
    forward = forward_of(clip, method, lesson, max_rows=need.max_rows)
    shares = steps.average.weights(schedule.epochs) if steps.average else None
    per_epoch = len(lesson.batches(0, schedule.batch))
    for source in (images if forward.reads_frozen else None, lesson.teacher):
        if source is not None and lesson.views != "epochs":
            views = {view_of(lesson.views, epoch, lesson.seed) for epoch in range(schedule.epochs)}
            source.prepare(lesson.samples, sorted(views, key=str))
    observer.stage(f"seed {lesson.seed}: learning", schedule.epochs * per_epoch)
    observer.advance(done * per_epoch, {})
    for said in _notes(clip, method, lesson):
        observer.note(said)

    for epoch in range(done, schedule.epochs):
        began, rate = time.perf_counter(), lr_at(epoch, schedule)
        tally = _epoch(epoch, method, lesson, images, forward, prompt, optimiser, balance, checkpoints, observer)
        if shares is not None:
            accumulate(average, shares[epoch], prompt)
        took = time.perf_counter() - began
        seconds += took
        if checkpoints:
            weights = {"weights": dict(balance.weights)} if balance.weights else {}
            checkpoints.log({"epoch": epoch, "lr": rate, **tally.summary(), **weights, "seconds": round(took, 4)})
            if (epoch + 1) % checkpoints.every == 0 or epoch + 1 == schedule.epochs:
                checkpoints.save(capture(epoch + 1, prompt, optimiser, average, seconds, balance.weights))

    with torch.no_grad():
        for name, parameter in prompt.named_parameters():
            parameter.grad = None
            if shares is not None:
                parameter.copy_(average[name])
    return prompt.requires_grad_(False)


def _notes(clip: Clip, method: Method, lesson: Lesson) -> list[str]:
    """What should be known before the first step: that classes are sampled; what the head knows that a term reads."""
    sampled = said_of(method.steps.classes, len(lesson.class_names))
    head = measure_head(clip).line() if method.needs & {"host_states", "context_states"} else None
    return [said for said in (sampled, head) if said is not None]


def view_of(views: Views, epoch: int, seed: int) -> int | None:
    """The view of the training images that an epoch (from 0) sees; None: the test view."""
    if views == "centre":
        return None
    return first_view(seed) + (epoch if views == "epochs" else epoch % views)


def _epoch(
    epoch: int,
    method: Method,
    lesson: Lesson,
    images: Images,
    forward: Forward,
    prompt: nn.Module,
    optimiser: torch.optim.Optimizer,
    balance: Balance,
    checkpoints: Checkpoints | None,
    observer: Observer,
) -> Tally:
    """Every batch of an epoch once: image features, prompt, text features, losses, gradients, a step."""
    device, parameters = forward.clip.device, list(prompt.parameters())
    labels = torch.tensor([sample.label for sample in lesson.samples])
    crop = view_of(lesson.views, epoch, lesson.seed)
    frozen_NE = images.features(lesson.samples, crop, quiet=True) if forward.reads_frozen else None
    taught_NE = lesson.teacher.features(lesson.samples, crop, quiet=True) if lesson.teacher else None
    tally, order = Tally(view=crop), lesson.batches(epoch, method.schedule.batch)
    for step, index in enumerate(order):
        for group in optimiser.param_groups:
            group["lr"] = lr_at(epoch, method.schedule, step / len(order))
        batch = [lesson.samples[i] for i in index.tolist()]
        frozen_BE = None if frozen_NE is None else frozen_NE[index].to(device)
        taught_BE = None if taught_NE is None else taught_NE[index].to(device)
        pixels = images.pixels(batch, crop) if forward.spec.reach.image_tower else None
        drawn = lesson.drawn(method.steps.classes, epoch, step)
        chance = generator("chance", lesson.seed, epoch, step).initial_seed()
        view = forward(prompt, labels[index].to(device), frozen_BE, pixels, drawn, chance=chance, taught_BE=taught_BE)
        if epoch == 0:
            balance.measure(view, prompt)
        losses = weighted(balance.terms, view)
        tally.add(losses)
        if step == 0:
            found, tally.ratios = measured_gradients(
                method, losses, parameters, labelled(method.terms, prompt, view.prompted)
            )
        else:
            found = gradients_of(method, losses, parameters)
        require_finite(losses, found, prompt, _place(epoch, step, batch, checkpoints))
        take(optimiser, parameters, found)
        observer.advance(1, {"loss": tally.latest, "epoch": epoch + 1})
    return tally


def _place(epoch: int, step: int, batch: Sequence[Sample], checkpoints: Checkpoints | None) -> Place:
    kept = f" The state after epoch {epoch} is kept in {checkpoints.path}." if checkpoints else ""
    return Place(when=f"epoch {epoch + 1}, step {step + 1}", images=[sample.id for sample in batch], kept=kept)


@dataclass(slots=True)
class Tally:
    """The losses of an epoch, weighted, by term."""

    view: int | None
    """The number of the crops that it saw."""
    sums: dict[str, float] = field(default_factory=dict)
    steps: int = 0
    latest: float = 0.0
    """The whole loss of the last step."""
    ratios: dict[str, float] = field(default_factory=dict)
    """Length of a term's gradient over cross-entropy's on what the term labels, on the epoch's first batch."""

    def add(self, losses: Mapping[str, Tensor]) -> None:
        values = torch.stack([loss.detach().float() for loss in losses.values()]).tolist()
        for name, value in zip(losses, values, strict=True):
            self.sums[name] = self.sums.get(name, 0.0) + value
        self.steps += 1
        self.latest = sum(values)

    def summary(self) -> dict[str, object]:
        means = {name: total / self.steps for name, total in self.sums.items()}
        return {"view": self.view, "loss": sum(means.values()), "losses": means, "gradient_ratios": self.ratios}


def prompt_at(state: State, clip: Clip, spec: PromptSpec, num_classes: int, seed: int) -> nn.Module:
    """The prompt of a state, a copy: learning goes on without it."""
    prompt = new_prompt(clip, spec, num_classes, seed)
    put_back(state.parameters, prompt)
    return prompt


def in_words(seconds: float) -> str:
    """`about 40 s`, `about 12 min`, `about 3.5 h`: two figures at most."""
    if seconds < 1:
        return "less than a second"
    for size, unit in ((86400, "days"), (3600, "h"), (60, "min")):
        if seconds >= 1.5 * size:
            value = seconds / size
            return f"about {value:.1f} {unit}" if value < 10 else f"about {value:.0f} {unit}"
    return f"about {seconds:.0f} s"
