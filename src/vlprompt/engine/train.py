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
from vlprompt.engine.replicas import Seen, views_of
from vlprompt.engine.step import (
    Balance,
    Gradients,
    Place,
    Share,
    accumulate,
    gradients_of_all,
    labelled,
    measured_gradients_of_all,
    require_finite,
    take,
    weighted,
)
from vlprompt.errors import UserError
from vlprompt.head import measure_head
from vlprompt.prompts.start import fill
from vlprompt.towers import Clip
from vlprompt.towers.tokens import longest
from vlprompt.types import ClassSampling, Method, PromptSpec, Schedule, View, Views


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


@dataclass(frozen=True, slots=True, kw_only=True)
class Task:
    """One prompt to be learned."""

    method: Method
    lesson: Lesson
    start: State | None = None
    """The state to go on from; None: from the beginning."""
    first: Callable[[nn.Module], object] | None = None
    """Fits the new prompt before the first step."""
    checkpoints: Checkpoints | None = None


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
    """Learn a prompt: the last step's, or the method's average over epochs. The arguments are those of `Task`.

    UserError (exit 4) where a loss or a gradient is not finite; the checkpoint of the last full epoch stays.
    """
    task = Task(method=method, lesson=lesson, start=start, first=first, checkpoints=checkpoints)
    (learned,) = train_all(clip, [task], images, observer)
    if isinstance(learned, UserError):
        raise learned
    return learned


def train_all(
    clip: Clip, tasks: Sequence[Task], images: Images, observer: Observer = SILENT
) -> list[nn.Module | UserError]:
    """Learn several prompts in the same steps, each from its own images; they go through the towers together (`replicas`).

    The tasks are `replicas.alike`. A prompt whose loss or gradient is not finite stops, the others go on: its place has the error.
    """
    pupils = [_Pupil(clip, task, images) for task in tasks]
    leader = pupils[0]
    per_epoch = len(leader.lesson.batches(0, leader.schedule.batch))
    seeds = ", ".join(dict.fromkeys(str(one.lesson.seed) for one in pupils))
    observer.stage(f"seed{'s' if ',' in seeds else ''} {seeds}: learning", leader.schedule.epochs * per_epoch)
    observer.advance(leader.done * per_epoch, {})
    for said in dict.fromkeys(said for one in pupils for said in _notes(clip, one.method, one.lesson)):
        observer.note(said)
    for epoch in range(leader.done, leader.schedule.epochs):
        began, present = time.perf_counter(), [one for one in pupils if one.failed is None]
        if not present:
            break
        _epoch(epoch, present, observer)
        for pupil in present:
            pupil.ends(epoch, (time.perf_counter() - began) / len(present))
    return [one.failed or one.learned() for one in pupils]


class _Pupil:
    """A prompt that is being learned, and all that belongs to it alone."""

    def __init__(self, clip: Clip, task: Task, images: Images) -> None:
        self.method, self.lesson, self.checkpoints, self.images = task.method, task.lesson, task.checkpoints, images
        start = task.start
        self.prompt = new_prompt(
            clip, task.method.prompt, len(task.lesson.class_names), task.lesson.seed, task.method.start
        )
        if task.first is not None:
            task.first(self.prompt)
        self.optimiser = optimiser_of(self.prompt.parameters(), self.schedule)
        if start is not None:
            restore(start, self.prompt, self.optimiser)
        self.done, self._average, self._seconds = (start.epoch, start.average, start.seconds) if start else (0, {}, 0.0)
        self.balance = Balance(task.method.terms, start.weights if start else {})
        need = estimate_step(clip, task.method, task.lesson)
        self.forward = forward_of(clip, task.method, task.lesson, max_rows=need.max_rows)
        average = task.method.steps.average
        self._shares = average.weights(self.schedule.epochs) if average else None
        self.parameters = list(self.prompt.parameters())
        self.failed: UserError | None = None
        lesson = task.lesson
        for source in (images if self.forward.reads_frozen else None, lesson.teacher):
            if source is not None and lesson.views != "epochs":
                views = {view_of(lesson.views, epoch, lesson.seed) for epoch in range(self.schedule.epochs)}
                source.prepare(lesson.samples, sorted(views, key=str))

    @property
    def schedule(self) -> Schedule:
        return self.method.schedule

    def begins(self, epoch: int) -> int:
        """Get the features of an epoch's views; the number of its steps."""
        lesson = self.lesson
        self._epoch, self._crop = epoch, view_of(lesson.views, epoch, lesson.seed)
        self._labels = torch.tensor([sample.label for sample in lesson.samples])
        reads = self.forward.reads_frozen
        self._frozen_NE = self.images.features(lesson.samples, self._crop, quiet=True) if reads else None
        self._taught_NE = lesson.teacher.features(lesson.samples, self._crop, quiet=True) if lesson.teacher else None
        self.tally, self._order = Tally(view=self._crop), lesson.batches(epoch, self.schedule.batch)
        return len(self._order)

    def sees(self, step: int) -> Seen:
        """The batch of a step, the learning rate set, and what the prompt says."""
        epoch, index, device = self._epoch, self._order[step], self.forward.clip.device
        for group in self.optimiser.param_groups:
            group["lr"] = lr_at(epoch, self.schedule, step / len(self._order))
        batch = [self.lesson.samples[i] for i in index.tolist()]
        frozen_BE = None if self._frozen_NE is None else self._frozen_NE[index].to(device)
        taught_BE = None if self._taught_NE is None else self._taught_NE[index].to(device)
        pixels = self.images.pixels(batch, self._crop) if self.forward.spec.reach.image_tower else None
        drawn = self.lesson.drawn(self.method.steps.classes, epoch, step)
        chance = generator("chance", self.lesson.seed, epoch, step).initial_seed()
        self._place = _place(epoch, step, batch, self.checkpoints)
        return Seen(
            prompted=self.forward.ask(self.prompt, frozen_BE, chance),
            labels=self._labels[index].to(device),
            frozen_BE=frozen_BE,
            pixels=pixels,
            drawn=drawn,
            taught_BE=taught_BE,
        )

    def loses(self, view: View, *, measured: bool) -> Share:
        """The weighted losses of a step. measured: each term's gradient is measured as well."""
        if self._epoch == 0:
            self.balance.measure(view, self.prompt)
        losses = weighted(self.balance.terms, view)
        self.tally.add(losses)
        places = labelled(self.method.terms, self.prompt, view.prompted) if measured else {}
        return Share(method=self.method, losses=losses, parameters=self.parameters, places=places)

    def steps(self, losses: Mapping[str, Tensor], found: Gradients) -> None:
        """One step of the optimiser. UserError, nothing updated, where a loss or a gradient is not finite."""
        require_finite(losses, found, self.prompt, self._place)
        take(self.optimiser, self.parameters, found)

    def ends(self, epoch: int, took: float) -> None:
        """Average, log and keep an epoch that took so many seconds."""
        if self.failed is not None:
            return
        self._seconds += took
        if self._shares is not None:
            accumulate(self._average, self._shares[epoch], self.prompt)
        if self.checkpoints:
            weights = {"weights": dict(self.balance.weights)} if self.balance.weights else {}
            rate = lr_at(epoch, self.schedule)
            self.checkpoints.log(
                {"epoch": epoch, "lr": rate, **self.tally.summary(), **weights, "seconds": round(took, 4)}
            )
            if (epoch + 1) % self.checkpoints.every == 0 or epoch + 1 == self.schedule.epochs:
                kept = (self._average, self._seconds, self.balance.weights)
                self.checkpoints.save(capture(epoch + 1, self.prompt, self.optimiser, *kept))

    def learned(self) -> nn.Module:
        """The prompt at the end, without a gradient."""
        with torch.no_grad():
            for name, parameter in self.prompt.named_parameters():
                parameter.grad = None
                if self._shares is not None:
                    parameter.copy_(self._average[name])
        return self.prompt.requires_grad_(False)


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


def _epoch(epoch: int, pupils: Sequence[_Pupil], observer: Observer) -> None:
    """Every batch of an epoch once: image features, prompt, text features, losses, gradients, a step."""
    (number,) = {one.begins(epoch) for one in pupils}
    for step in range(number):
        present = [one for one in pupils if one.failed is None]
        if not present:
            return
        views = views_of([one.forward for one in present], [one.sees(step) for one in present])
        shares = [one.loses(view, measured=step == 0) for one, view in zip(present, views, strict=True)]
        if step == 0:
            measured = measured_gradients_of_all(shares)
            found = [gradients for gradients, _ in measured]
            for pupil, (_, ratios) in zip(present, measured, strict=True):
                pupil.tally.ratios = ratios
        else:
            found = gradients_of_all(shares)
        for pupil, share, gradients in zip(present, shares, found, strict=True):
            try:
                pupil.steps(share.losses, gradients)
            except UserError as problem:
                pupil.failed = problem
        observer.advance(1, {"loss": present[0].tally.latest, "epoch": epoch + 1})


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
    """The prompt of a state, a copy: learning continues without it."""
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
