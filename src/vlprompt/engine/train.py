"""The one loop in which every gradient-trained method learns, a few images in memory or very many on several processes.

What it sees in each step is a `Feed`'s, what is written down after it a `Book`'s. A feed has training images and nothing else: neither
validation nor test images can be reached from it. Letters: B images of a step in this process.
"""

from __future__ import annotations

import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from vlprompt.data import Sample
from vlprompt.data.views import first_view
from vlprompt.engine.checkpoint import Checkpoints, State, capture, put_back, restore
from vlprompt.engine.classes import draw, said_of
from vlprompt.engine.distributed import ALONE, Alone
from vlprompt.engine.forward import Forward, SeenBatch
from vlprompt.engine.images import Images
from vlprompt.engine.memory import MemoryNeed, estimate
from vlprompt.engine.observer import SILENT, Observer
from vlprompt.engine.optim import batches, lr_at, optimiser_of
from vlprompt.engine.precision import generator
from vlprompt.engine.replicas import views_of
from vlprompt.engine.several import targets
from vlprompt.engine.step import (
    Balance,
    Gradients,
    Moment,
    Share,
    accumulate,
    fetched,
    gradients_of_all,
    labelled,
    measure_all,
    require_finite,
    take,
    weighted,
)
from vlprompt.engine.teacher import Teacher
from vlprompt.errors import UserError
from vlprompt.head import measure_head
from vlprompt.prompts.start import fill
from vlprompt.tensors import onto
from vlprompt.towers import Clip
from vlprompt.towers.tokens import longest
from vlprompt.types import ClassSampling, Method, PromptSpec, Schedule, View, Views


@dataclass(frozen=True, slots=True, kw_only=True)
class Batch:
    """The images of one step that this process sees; the copies of an image stand together."""

    ids: tuple[str, ...]
    """Of the images, each once."""
    labels_B: Tensor
    """int64, one per copy; of images with several labels (B, C) float32."""
    pixels: Tensor | None = None
    """(B, 3, S, S) float32, or a trunk's cells; None where nothing reads them."""
    frozen_BE: Tensor | None = None
    """The bare image tower's features, where they are read."""
    taught_BE: Tensor | None = None
    """Features of them in another model, which teaches."""
    view: int | None = None
    """The number of the crops; None: the test view, or several."""
    skipped: tuple[tuple[str, str], ...] = ()
    """(id or number, reason) of images that could not be used."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Feed(ABC):
    """What is to be learned from: images with labels, step by step, the names of the classes, and the words of the zero-shot teacher."""

    class_names: tuple[str, ...]
    template: str
    seed: int
    max_memory: int | None = None
    """Bytes that the process may take; None: no limit."""
    teacher: Teacher | None = None
    """Another model that teaches; None: the student's own frozen model does."""
    ranks: Alone = ALONE
    """The processes that share a step."""
    copies: int = 1
    """Views of an image in its step."""

    @property
    @abstractmethod
    def number(self) -> int:
        """Training images."""

    @abstractmethod
    def per_epoch(self, batch: int) -> int:
        """Steps of an epoch."""

    @abstractmethod
    def batches(self, forward: Forward, images: Images, schedule: Schedule, start: int) -> Iterator[Batch]:
        """This process's batch of every step from `start` on. What is computed before the first step is computed by the call."""

    def drawn(self, sampling: ClassSampling | None, epoch: int, step: int) -> Tensor | None:
        """The sampled classes of a step; None: all classes are in view."""
        return draw(sampling, len(self.class_names), seed=self.seed, epoch=epoch, step=step)

    def rows(self, batch: int) -> int:
        """Most images of a step in this process, copies counted."""
        return -(-min(batch, self.number) // self.ranks.world) * self.copies


@dataclass(frozen=True, slots=True, kw_only=True)
class Order:
    """What each step sees, where that is given instead of drawn from the seed: `vlprompt verify` repeats published runs."""

    images: Sequence[Sequence[Tensor]]
    """Epoch, step -> indices of the lesson's images, int64."""
    classes: Sequence[Sequence[Tensor]] | None = None
    """Epoch, step -> the sampled classes, as `classes.draw` draws them; None: all classes are in view."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Lesson(Feed):
    """A feed of listed images, all of which decode."""

    samples: Sequence[Sample]
    views: Views
    several: bool = False
    """Whether an image may have several labels."""
    order: Order | None = None
    """None: images and classes are drawn from the seed."""

    @property
    def number(self) -> int:
        return len(self.samples)

    def per_epoch(self, batch: int) -> int:
        return len(self.indices(0, batch))

    def indices(self, epoch: int, batch: int, draw: str = "images") -> Sequence[Tensor]:
        """The images of an epoch's steps."""
        if self.order is not None:
            return self.order.images[epoch]
        labels = [one.label for one in self.samples] if draw == "classes" else None
        return batches(len(self.samples), batch, seed=self.seed, epoch=epoch, labels=labels)

    def drawn(self, sampling: ClassSampling | None, epoch: int, step: int) -> Tensor | None:
        if self.order is not None:
            return None if self.order.classes is None else self.order.classes[epoch][step]
        return Feed.drawn(self, sampling, epoch, step)

    def batches(self, forward: Forward, images: Images, schedule: Schedule, start: int) -> Iterator[Batch]:
        for source in (images if forward.reads_frozen else None, self.teacher):
            if source is not None and self.views != "epochs":
                views = {view_of(self.views, epoch, self.seed) for epoch in range(schedule.epochs)}
                source.prepare(self.samples, sorted(views, key=str))
        return self._batches(forward, images, schedule, start // self.per_epoch(schedule.batch))

    def _batches(self, forward: Forward, images: Images, schedule: Schedule, first: int) -> Iterator[Batch]:
        labels_N = targets(self.samples, len(self.class_names), several=self.several)
        for epoch in range(first, schedule.epochs):
            crop = view_of(self.views, epoch, self.seed)
            frozen_NE = images.features(self.samples, crop, quiet=True) if forward.reads_frozen else None
            taught_NE = self.teacher.features(self.samples, crop, quiet=True) if self.teacher else None
            for index in self.indices(epoch, schedule.batch, schedule.draw):
                samples = [self.samples[i] for i in index.tolist()]
                yield Batch(
                    ids=tuple(sample.id for sample in samples),
                    labels_B=labels_N[index],
                    pixels=images.pixels(samples, crop) if forward.spec.reach.image_tower else None,
                    frozen_BE=None if frozen_NE is None else frozen_NE[index],
                    taught_BE=None if taught_NE is None else taught_NE[index],
                    view=crop,
                )


def estimate_step(clip: Clip, method: Method, feed: Feed) -> MemoryNeed:
    """The memory of one step in this process. UserError where its limit is too small."""
    spec, sampling = method.prompt, method.steps.classes
    tokens = clip.class_tokens(feed.class_names, spec.layout, feed.template)
    drawn = sampling.drawn(tokens.num_classes) if sampling else None
    seen = tokens.num_classes
    if drawn is not None:
        seen = min(seen, drawn + min(method.schedule.batch, feed.number))
    tokens = longest(tokens, -(-seen // feed.ranks.world))
    return estimate(clip, spec, tokens, batch=feed.rows(method.schedule.batch), limit=feed.max_memory)


def forward_of(clip: Clip, method: Method, feed: Feed, *, max_rows: int | None) -> Forward:
    """The forward pass of a method on a feed's classes."""
    return Forward(
        clip, method, feed.class_names, feed.template, max_rows=max_rows, ranks=feed.ranks, taught=feed.teacher
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
class Taken:
    """A step that was taken."""

    step: int
    """From 0, over all epochs."""
    epoch: int
    last: bool
    """Of its epoch."""
    batch: Batch
    images: int
    """Of all processes, copies counted."""
    classes: int
    """In view."""
    losses: Mapping[str, float]
    """Weighted, by term, of all processes."""
    ratios: Mapping[str, float]
    """Length of a term's gradient over cross-entropy's on what the term labels; empty where it was not measured."""
    seconds: float

    @property
    def loss(self) -> float:
        return sum(self.losses.values())


class Book(Protocol):
    """What is written down while a prompt is learned, and when its state is kept."""

    measures: bool
    """Whether the terms' gradients are measured on the first batch of an epoch."""

    def kept(self, taken: int, per_epoch: int) -> str:
        """After so many steps: what of the run is safe, a sentence that begins with a space, or nothing."""

    def counts(self, taken: Taken) -> Mapping[str, float]:
        """Count a step; what a progress display shows of it."""

    def writes(self, taken: Taken, learner: Learner) -> None:
        """Log, test, keep: what is due after a step."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Task:
    """One prompt to be learned: how, from what, and what may be chosen on."""

    method: Method
    feed: Feed
    val: Sequence[Sample] = ()
    """Images that a fit may choose on (`learn`); steps never see them."""
    start: State | None = None
    """The state to go on from; None: from the beginning."""
    first: Callable[[nn.Module], object] | None = None
    """Fits the new prompt before the first step."""
    checkpoints: Checkpoints | None = None
    """Where the epochs are kept, if there is no `book`."""
    book: Book | None = None
    """None: a line and a state for each epoch (`Epochs`)."""
    forward: Forward | None = None
    """None: the feed's (`forward_of`)."""


def train(
    clip: Clip, method: Method, feed: Feed, images: Images, *, observer: Observer = SILENT, **more: Any
) -> nn.Module:
    """Learn a prompt: the last step's, or the method's average over epochs. more: the other fields of `Task`.

    UserError (exit 4) where a loss or a gradient is not finite; the checkpoint of the last full epoch stays.
    """
    (learned,) = train_all(clip, [Task(method=method, feed=feed, **more)], images, observer)
    if isinstance(learned, UserError):
        raise learned
    return learned


def train_all(
    clip: Clip, tasks: Sequence[Task], images: Images, observer: Observer = SILENT
) -> list[nn.Module | UserError]:
    """Learn several prompts in the same steps, each from its own images; they go through the towers together (`replicas`).

    The tasks are `learn.alike`. A prompt whose loss or gradient is not finite stops, the others go on: its place has the error.
    """
    learners = [Learner(clip, task, images) for task in tasks]
    leader = learners[0]
    steps = leader.schedule.epochs * leader.per_epoch
    seeds = ", ".join(dict.fromkeys(str(one.feed.seed) for one in learners))
    observer.stage(f"seed{'s' if ',' in seeds else ''} {seeds}: learning", steps)
    observer.advance(leader.done, {})
    for said in dict.fromkeys(said for one in learners for said in _notes(clip, one.method, one.feed)):
        observer.note(said)
    for step in range(leader.done, steps):
        present = [one for one in learners if one.failed is None]
        if not present:
            break
        _step(step, present, observer)
    return [one.failed or one.learned() for one in learners]


def _step(step: int, learners: Sequence[Learner], observer: Observer) -> None:
    """Images, prompt, both towers, losses, gradients, a step of the optimiser, and what is due after it."""
    began = time.perf_counter()
    views = views_of([one.forward for one in learners], [one.sees(step) for one in learners])
    if step < learners[0].per_epoch:
        measure_all([(one.balance, view, one.prompt) for one, view in zip(learners, views, strict=True)])
    measured = step % learners[0].per_epoch == 0 and learners[0].book.measures
    shares = [one.loses(view, measured=measured) for one, view in zip(learners, views, strict=True)]
    for learner, (gradients, ratios) in zip(learners, gradients_of_all(shares, measured=measured), strict=True):
        try:
            learner.steps(gradients, ratios)
        except UserError as problem:
            learner.failed = problem
    fine = [one for one in learners if one.failed is None]
    each = (time.perf_counter() - began) / len(learners)
    taken = [one.taken(each) for one in fine]
    shown = [one.book.counts(what) for one, what in zip(fine, taken, strict=True)]
    observer.advance(1, shown[0] if shown else {})
    for learner, what in zip(fine, taken, strict=True):
        learner.ends(what)


class Learner:
    """A prompt that is being learned, and all that belongs to it alone."""

    def __init__(self, clip: Clip, task: Task, images: Images) -> None:
        self.method, self.feed, start = task.method, task.feed, task.start
        self.prompt = new_prompt(
            clip, task.method.prompt, len(task.feed.class_names), task.feed.seed, task.method.start
        )
        if task.first is not None:
            task.first(self.prompt)
        self.optimiser = optimiser_of(self.prompt.parameters(), self.schedule)
        if start is not None:
            restore(start, self.prompt, self.optimiser)
        self.parameters = list(self.prompt.parameters())
        self.average = start.average if start else {}
        self.balance = Balance(task.method.terms, start.weights if start else {})
        self.book = task.book or Epochs(task.checkpoints, start.seconds if start else 0.0)
        self.forward = task.forward or forward_of(
            clip, task.method, task.feed, max_rows=estimate_step(clip, task.method, task.feed).max_rows
        )
        self.per_epoch = task.feed.per_epoch(self.schedule.batch)
        self.done = 0
        if start is not None:
            self.done = start.epoch * self.per_epoch if start.step is None else start.step
        average = task.method.steps.average
        self._shares = average.weights(self.schedule.epochs) if average else None
        self.failed: UserError | None = None
        self._batches = task.feed.batches(self.forward, images, self.schedule, self.done)

    @property
    def schedule(self) -> Schedule:
        return self.method.schedule

    def sees(self, step: int) -> SeenBatch:
        """The batch of a step, the learning rate set, and what the prompt says."""
        epoch, within = divmod(step, self.per_epoch)
        for group in self.optimiser.param_groups:
            group["lr"] = lr_at(epoch, self.schedule, within / self.per_epoch)
        self._step, self._batch = step, next(self._batches)
        batch, device = self._batch, self.forward.clip.device

        def ready(tensor: Tensor | None) -> Tensor | None:
            return None if tensor is None else onto(tensor, device)

        labels_B, frozen_BE = batch.labels_B, ready(batch.frozen_BE)
        everyones = self.feed.ranks.labels(labels_B, self.feed.rows(self.schedule.batch))
        self._images = sum(len(one) for one in everyones)
        self._share = self.feed.ranks.world * len(labels_B) / self._images if self._images else 0.0
        chance = generator("chance", self.feed.seed, epoch, within).initial_seed()
        return SeenBatch(
            prompted=self.forward.ask(self.prompt, frozen_BE, chance),
            labels=labels_B,
            frozen_BE=frozen_BE,
            pixels=ready(batch.pixels),
            drawn=self.feed.drawn(self.method.steps.classes, epoch, within),
            others=everyones,
            taught_BE=ready(batch.taught_BE),
        )

    def loses(self, view: View, *, measured: bool) -> Share:
        """The weighted losses of a step. measured: each term's gradient is measured as well."""
        losses = weighted(self.balance.terms, view, self._share)
        self._values = {name: loss.detach().float() for name, loss in losses.items()}
        self._classes = view.text.pooled.shape[-2]
        places = labelled(self.method.terms, self.prompt, view.prompted) if measured else {}
        return Share(method=self.method, losses=losses, parameters=self.parameters, places=places)

    def steps(self, gradients: Gradients, ratios: Mapping[str, float]) -> None:
        """One step of the optimiser. UserError, nothing updated, where a loss or a gradient is not finite."""
        ranks = self.feed.ranks
        found, self._ratios = ranks.average(gradients, self.parameters), ratios
        values, fine = fetched(list(self._values.values()), found)
        self._losses = dict(zip(self._values, (ranks.total(values) / ranks.world).tolist(), strict=True))
        epoch, within = divmod(self._step, self.per_epoch)
        when = f"epoch {epoch + 1}, step {within + 1}"
        place = Moment(when=when, images=self._batch.ids, kept=self.book.kept(self._step, self.per_epoch))
        require_finite(self._losses, fine, self.prompt, place)
        take(self.optimiser, self.parameters, found)

    def taken(self, seconds: float) -> Taken:
        """The step as it was."""
        epoch, within = divmod(self._step, self.per_epoch)
        return Taken(
            step=self._step,
            epoch=epoch,
            last=within + 1 == self.per_epoch,
            batch=self._batch,
            images=self._images,
            classes=self._classes,
            losses=self._losses,
            ratios=self._ratios,
            seconds=seconds,
        )

    def ends(self, taken: Taken) -> None:
        """What is due after a step: the average over epochs, and the book."""
        if taken.last and self._shares is not None:
            accumulate(self.average, self._shares[taken.epoch], self.prompt)
        self.book.writes(taken, self)

    def state(self, epoch: int, seconds: float) -> State:
        """All that learning goes on from, by reference; epoch: epochs done."""
        return capture(epoch, self.prompt, self.optimiser, self.average, seconds, self.balance.weights)

    def learned(self) -> nn.Module:
        """The prompt at the end, without a gradient."""
        with torch.no_grad():
            for name, parameter in self.prompt.named_parameters():
                parameter.grad = None
                if self._shares is not None:
                    parameter.copy_(self.average[name])
        return self.prompt.requires_grad_(False)


class Epochs:
    """The book of a run that is read by epochs: a line of the log for each, and its state."""

    measures = True

    def __init__(self, checkpoints: Checkpoints | None, seconds: float) -> None:
        """seconds: of earlier starts."""
        self.checkpoints, self.seconds = checkpoints, seconds
        self._sums: dict[str, float] = {}
        self._steps, self._took = 0, 0.0
        self._ratios: Mapping[str, float] = {}

    def kept(self, taken: int, per_epoch: int) -> str:
        return "" if self.checkpoints is None else self.checkpoints.kept(taken // per_epoch)

    def counts(self, taken: Taken) -> Mapping[str, float]:
        for name, value in taken.losses.items():
            self._sums[name] = self._sums.get(name, 0.0) + value
        self._steps += 1
        self._took += taken.seconds
        self._ratios = taken.ratios or self._ratios
        return {"loss": taken.loss, "epoch": taken.epoch + 1}

    def writes(self, taken: Taken, learner: Learner) -> None:
        if not taken.last:
            return
        self.seconds += self._took
        if self.checkpoints:
            means = {name: total / self._steps for name, total in self._sums.items()}
            weights = {"weights": dict(learner.balance.weights)} if learner.balance.weights else {}
            self.checkpoints.log(
                {
                    "epoch": taken.epoch,
                    "lr": lr_at(taken.epoch, learner.schedule),
                    "view": taken.batch.view,
                    "loss": sum(means.values()),
                    "losses": means,
                    "gradient_ratios": dict(self._ratios),
                    **weights,
                    "seconds": round(self._took, 4),
                }
            )
            done = taken.epoch + 1
            if done % self.checkpoints.every == 0 or done == learner.schedule.epochs:
                self.checkpoints.save(learner.state(done, self.seconds))
        self._sums, self._steps, self._took, self._ratios = {}, 0, 0.0, {}


def _notes(clip: Clip, method: Method, feed: Feed) -> list[str]:
    """What should be known before the first step: that classes are sampled; what the head knows that a term reads."""
    sampled = said_of(method.steps.classes, len(feed.class_names))
    head = measure_head(clip).line() if method.needs & {"host_states", "context_states"} else None
    return [said for said in (sampled, head) if said is not None]


def view_of(views: Views, epoch: int, seed: int) -> int | None:
    """The view of the training images that an epoch (from 0) sees; None: the test view."""
    if views == "centre":
        return None
    return first_view(seed) + (epoch if views == "epochs" else epoch % views)


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
