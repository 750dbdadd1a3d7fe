"""The images of every step, decoded or as cached features, with what could not be used left out.

Letters: B images of a rank's share of a step (each with all its copies), S side in pixels, E joint embedding.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace

import torch
from PIL import Image
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from vlprompt.data import Pool, Sample, augmented_view, picture, test_view, train_view
from vlprompt.data.views import first_view, in_threads
from vlprompt.engine.distributed import Alone
from vlprompt.engine.forward import Forward
from vlprompt.engine.images import Images
from vlprompt.engine.train import Batch, Feed
from vlprompt.errors import UserError
from vlprompt.pretrain.config import PretrainViews
from vlprompt.pretrain.order import StepOrder
from vlprompt.tensors import onto
from vlprompt.towers import Clip
from vlprompt.types import Preprocess, Schedule

PREPARED = 4096
"""Images whose features are asked for at once before learning: a block of the cache."""


@dataclass(frozen=True, slots=True, kw_only=True)
class StepViews:
    """What is seen of an image in its step."""

    views: PretrainViews
    copies: int
    seed: int
    """A run's own crops begin at it, as those of `vlprompt train`."""

    @property
    def fixed(self) -> bool:
        """Whether the views of an image are few and come again."""
        return isinstance(self.views, int) or self.views == "centre"

    def numbers(self, epoch: int) -> tuple[int | None, ...]:
        """The numbers of the views that an epoch shows; None: the test view."""
        if self.views == "centre":
            return (None,)
        fresh = range(epoch * self.copies, (epoch + 1) * self.copies)
        of_seed = [number % self.views for number in fresh] if isinstance(self.views, int) else fresh
        return tuple(first_view(self.seed) + number for number in of_seed)

    def pixels(self, image: Image.Image, sample: Sample, preprocess: Preprocess, epoch: int) -> Tensor:
        """(copies, 3, S, S) of one image: the same crops for every model."""
        out = []
        for number in self.numbers(epoch):
            if number is None:
                out.append(test_view(image, preprocess))
            elif self.views == "published":
                out.append(augmented_view(image, preprocess, sample.content_hash, number))
            else:
                out.append(train_view(image, preprocess, sample.content_hash, number))
        return torch.stack(out)


@dataclass(slots=True)
class Decoder(Dataset[tuple[Batch, Tensor | None]]):
    """Step -> this rank's batch with pixels, and the same views as a teacher sees them if its images are made otherwise: what a worker
    process runs."""

    pool: Pool
    plan: StepOrder
    look: StepViews
    preprocess: Preprocess
    ranks: tuple[int, int]
    """(rank, world)."""
    other: Preprocess | None = None
    """A teacher's; None: it sees the same pixels, or there is none."""

    def __getitem__(self, step: int) -> tuple[Batch, Tensor | None]:
        epoch, _ = self.plan.place(step)
        samples, skipped = self.samples(step)
        both = [one for one in (self.preprocess, self.other) if one is not None]
        looks = in_threads(lambda sample: _looked(self.look, sample, both, epoch), samples)
        good = [(sample, one) for sample, one in zip(samples, looks, strict=True) if not isinstance(one, str)]
        bad = [(sample.id, one) for sample, one in zip(samples, looks, strict=True) if isinstance(one, str)]
        sides = [one.crop for one in both]
        pixels = [
            torch.cat([each[i] for _, each in good]) if good else torch.empty(0, 3, side, side)
            for i, side in enumerate(sides)
        ]
        batch = Batch(
            ids=tuple(sample.id for sample, _ in good),
            labels_B=labels_of([sample for sample, _ in good], self.look.copies),
            pixels=pixels[0],
            skipped=(*skipped, *bad),
        )
        return batch, pixels[1] if self.other is not None else None

    def samples(self, step: int) -> tuple[list[Sample], list[tuple[str, str]]]:
        """This rank's samples of a step, and those that have none with the reason."""
        return usable(self.pool, own_share(self.plan.images(step), *self.ranks).tolist())


def features_of(samples: Sequence[Sample], views: Sequence[int | None], images: Images) -> Tensor:
    """(B, E): a model's cached features of some images' views, those of an image together."""
    if not samples:
        return torch.empty(0, images.clip.facts.embed_dim)
    return torch.stack([images.features(samples, view, quiet=True) for view in views], dim=1).flatten(0, 1)


def own_share(images: Tensor, rank: int, world: int) -> Tensor:
    """A rank's places of a step: neighbouring ones."""
    return images[rank * len(images) // world : (rank + 1) * len(images) // world]


def usable(pool: Pool, numbers: Sequence[int]) -> tuple[list[Sample], list[tuple[str, str]]]:
    """The samples of some numbers, and those that have none with the reason."""
    samples, skipped = [], []
    for number in numbers:
        try:
            samples.append(pool.sample(number))
        except UserError as error:
            skipped.append((f"number {number}", str(error)))
    return samples, skipped


def labels_of(samples: Sequence[Sample], copies: int) -> Tensor:
    """(B,) int64: every label as often as its image has copies."""
    return torch.tensor([sample.label for sample in samples], dtype=torch.int64).repeat_interleave(copies)


def _looked(look: StepViews, sample: Sample, models: Sequence[Preprocess], epoch: int) -> list[Tensor] | str:
    try:
        image = picture(sample)
        return [look.pixels(image, sample, preprocess, epoch) for preprocess in models]
    except UserError as error:
        return str(error)


def decoded(dataset: Decoder, start: int, workers: int) -> Iterator[tuple[Batch, Tensor | None]]:
    """Every step's batch from `start` on; each worker process decodes every so-many-th step ahead."""
    steps = range(start, dataset.plan.steps)
    if not workers:
        yield from (dataset[step] for step in steps)
        return
    # A sampler may be any iterable of keys; a batch size of None hands each key's value through as it is. Processes are started
    # anew, not forked: a fork would share the handles of open archives, and threads and GPU contexts do not survive it.
    loader: DataLoader[tuple[Batch, Tensor | None]] = DataLoader(
        dataset, batch_size=None, sampler=steps, num_workers=workers, multiprocessing_context="spawn"
    )
    yield from loader


@dataclass(slots=True)
class Cached:
    """Batches of the bare image tower's cached features, for prompts of the text tower alone."""

    pool: Pool
    plan: StepOrder
    look: StepViews
    images: Images
    ranks: Alone
    teacher: Images | None = None
    """Another model that teaches; its features are kept too."""
    _seen: dict[int, Sample | tuple[str, str]] = field(default_factory=dict)
    """By number the image, or if it does not decode its id and the reason."""

    def prepare(self) -> None:
        """Encode this rank's share of all images in every fixed view, so the cache is written in large blocks."""
        own = self.ranks.part(len(self.pool))
        views = sorted({number for epoch in range(self.plan.epochs) for number in self.look.numbers(epoch)}, key=str)
        self.images.observer.stage("encoding training images", len(own) * len(views))
        for first in range(own.start, own.stop, PREPARED):
            numbers = range(first, min(first + PREPARED, own.stop))
            samples, _ = self._samples(numbers)
            for view in views:
                if samples:
                    self.images.features(samples, view, quiet=True)
                self.images.observer.advance(len(numbers), {})

    def batches(self, start: int) -> Iterator[Batch]:
        """Every step's batch from `start` on."""
        for step in range(start, self.plan.steps):
            yield self._batch(step)

    def _batch(self, step: int) -> Batch:
        epoch, _ = self.plan.place(step)
        numbers = own_share(self.plan.images(step), self.ranks.rank, self.ranks.world).tolist()
        samples, skipped = self._samples(numbers)
        views = self.look.numbers(epoch)
        return Batch(
            ids=tuple(sample.id for sample in samples),
            labels_B=labels_of(samples, len(views)),
            frozen_BE=features_of(samples, views, self.images),
            taught_BE=None if self.teacher is None else features_of(samples, views, self.teacher),
            skipped=tuple(skipped),
        )

    def _samples(self, numbers: Iterable[int]) -> tuple[list[Sample], list[tuple[str, str]]]:
        """The images that decode, and those that do not. Each is looked at once."""
        found = []
        for number in numbers:
            if number not in self._seen:
                self._seen[number] = checked(self.pool, number)
            found.append(self._seen[number])
        return [one for one in found if isinstance(one, Sample)], [one for one in found if not isinstance(one, Sample)]


def checked(pool: Pool, number: int) -> Sample | tuple[str, str]:
    """The image of a number if it decodes, else (id, reason)."""
    name = f"number {number}"
    try:
        sample = pool.sample(number)
        name = sample.id
        picture(sample)
    except UserError as error:
        return name, str(error)
    return sample


@dataclass(frozen=True, slots=True, kw_only=True)
class Stream(Feed):
    """A feed of very many images by number, shared by the processes of a step; what does not decode is left out."""

    pool: Pool
    plan: StepOrder
    look: StepViews
    cached: bool
    """Whether the images' features come from the cache."""
    workers: int = 0
    """Processes that decode; 0: threads."""

    @property
    def number(self) -> int:
        return len(self.pool)

    def per_epoch(self, batch: int) -> int:
        return self.plan.steps_per_epoch

    def batches(self, forward: Forward, images: Images, schedule: Schedule, start: int) -> Iterator[Batch]:
        if self.cached:
            cached = Cached(self.pool, self.plan, self.look, images, self.ranks, self.teacher)
            cached.prepare()
            return cached.batches(start)
        other = None
        if self.teacher is not None and not self.look.fixed and self.teacher.clip.preprocess != images.clip.preprocess:
            other = self.teacher.clip.preprocess
        own = (self.ranks.rank, self.ranks.world)
        return self._decoded(
            Decoder(self.pool, self.plan, self.look, images.clip.preprocess, own, other), forward, start
        )

    def _decoded(self, source: Decoder, forward: Forward, start: int) -> Iterator[Batch]:
        """With the bare tower's features where they are read, and the teacher's, which of fixed views are computed once."""
        for step, (batch, others) in enumerate(decoded(source, start, self.workers), start):
            assert batch.pixels is not None
            pixels = onto(batch.pixels, forward.clip.device)
            taught = None
            if self.teacher is not None and self.look.fixed:
                samples = [one for one in source.samples(step)[0] if one.id in batch.ids]
                taught = features_of(samples, self.look.numbers(self.plan.place(step)[0]), self.teacher)
            elif self.teacher is not None:
                seen = pixels if others is None else others
                taught = _bare(self.teacher.clip, seen, self.teacher.embed)
            frozen = _bare(forward.clip, pixels) if forward.reads_frozen else None
            yield replace(batch, pixels=pixels, frozen_BE=frozen, taught_BE=taught)


@torch.no_grad()
def _bare(clip: Clip, pixels: Tensor, embed: Callable[[Tensor], Tensor] | None = None) -> Tensor:
    """(B, E): what the bare image tower says, or a teacher's, also of no image."""
    if not len(pixels):
        return torch.empty(0, clip.facts.embed_dim, device=clip.device)
    there = onto(pixels, clip.device)
    return clip.encode_images(there).pooled if embed is None else embed(there)
