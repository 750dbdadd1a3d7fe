"""The loop of pretraining: by steps, alone or with other ranks; the step itself is every other method's (`engine.step`).

Every rank runs it; only rank 0 writes. Letters: R ranks, n_r images of rank r, N all images of a step.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import torch
from torch import Tensor, nn

from vlprompt.engine.checkpoint import capture
from vlprompt.engine.classes import draw
from vlprompt.engine.forward import Forward
from vlprompt.engine.observer import Observer
from vlprompt.engine.optim import lr_at
from vlprompt.engine.precision import generator
from vlprompt.engine.step import Place, accumulate, require_finite, summed, take, weighted
from vlprompt.errors import DATA, UserError
from vlprompt.pretrain import progress as record
from vlprompt.pretrain.feed import Batch
from vlprompt.pretrain.order import Plan
from vlprompt.pretrain.progress import Progress
from vlprompt.towers import Clip
from vlprompt.types import Method, View


@dataclass(frozen=True, slots=True, kw_only=True)
class Times:
    """When something beside learning is done, in steps (and minutes)."""

    save: int
    save_minutes: float
    evaluate: int | None
    """None: after every epoch."""
    log: int
    max_skipped: int


@dataclass(slots=True, kw_only=True)
class Loop:
    """One run from its first or restored step to its last."""

    method: Method
    forward: Forward
    prompt: nn.Module
    optimiser: torch.optim.Optimizer
    plan: Plan
    seed: int
    copies: int
    times: Times
    progress: Progress
    average: dict[str, Tensor]
    directory: Path
    config_hash: str
    observer: Observer
    test: Callable[[nn.Module], Mapping[str, float | None]]
    """Prompt -> top1 and train_top1; called by all ranks at once."""
    better: Callable[[nn.Module], None]
    """Called by rank 0 with a prompt that is the best so far on held-out images."""
    _sums: dict[str, float] = field(default_factory=dict)
    _logged: tuple[int, int, float] = (0, 0, 0.0)
    """Steps, images and seconds at the last line of the log."""
    _saved: float = 0.0
    _tested: float = 0.0
    """Seconds of this start that went to tests."""

    @property
    def first(self) -> bool:
        return self.forward.ranks.rank == 0

    def run(self, batches: Iterator[Batch]) -> None:
        """Learn from every batch. UserError: a loss or gradient that is not finite (exit 4), too many unusable images (exit 3)."""
        before, began = self.progress.seconds, time.perf_counter()
        self._saved = began
        self._logged = self.progress.step, self.progress.images, before
        for batch in batches:
            assert batch.step == self.progress.step, "batches come in the order of steps"
            epoch, within = self.plan.place(batch.step)
            for group in self.optimiser.param_groups:
                group["lr"] = lr_at(epoch, self.method.schedule, within / self.plan.steps_per_epoch)
            losses, images, classes = self._step(batch, epoch, within)
            self.progress.step += 1
            self.progress.images += images
            self.progress.seconds = before + time.perf_counter() - began - self._tested
            self._report(losses, epoch, classes)
            last = within + 1 == self.plan.steps_per_epoch
            if last:
                self._epoch_done(epoch)
            tested = self._test_if_due(epoch, last)
            self._save_if_due(tested or last)

    def _step(self, batch: Batch, epoch: int, within: int) -> tuple[dict[str, float], int, int]:
        """(the losses of all ranks, their images, the classes in view)."""
        ranks, device = self.forward.ranks, self.forward.clip.device
        most = self.copies * -(-self.plan.batch // ranks.world)
        labels_B = batch.labels_B.to(device)
        everyones = ranks.labels(labels_B, most)
        total = sum(len(one) for one in everyones)
        self._note_skipped(batch, total)
        share = ranks.world * len(labels_B) / total if total else 0.0
        drawn = draw(
            self.method.steps.classes, self.forward.tokens.num_classes, seed=self.seed, epoch=epoch, step=within
        )
        chance = generator("chance", self.seed, epoch, within).initial_seed()
        view = self._view(batch, labels_B, drawn, everyones, chance)
        losses = weighted(self.method.terms, view, share)
        parameters = list(self.prompt.parameters())
        found = ranks.average(summed(losses, parameters), parameters)
        values = ranks.total(torch.stack([loss.detach().double() for loss in losses.values()])) / ranks.world
        means = dict(zip(losses, values, strict=True))
        kept = f" The state after step {self.progress.step} or before is kept in {self.directory / record.CHECKPOINT}."
        place = Place(when=f"epoch {epoch + 1}, step {batch.step + 1}", images=batch.ids, kept=kept)
        require_finite(means, found, self.prompt, place)
        take(self.optimiser, parameters, found)
        return {name: float(value) for name, value in means.items()}, total // self.copies, view.text.pooled.shape[0]

    def _view(
        self, batch: Batch, labels_B: Tensor, drawn: Tensor | None, everyones: tuple[Tensor, ...], chance: int
    ) -> View:
        forward = self.forward
        pixels = None if batch.pixels is None else batch.pixels.to(forward.clip.device, non_blocking=True)
        frozen = None if batch.frozen_BE is None else batch.frozen_BE.to(forward.clip.device)
        if frozen is None and forward.reads_frozen:
            assert pixels is not None
            with torch.no_grad():
                found = forward.clip.encode_images(pixels) if len(pixels) else forward.no_images()
            frozen = found.pooled
        taught = None if forward.taught is None else self._taught(batch, pixels, forward.taught)
        return forward(self.prompt, labels_B, frozen, pixels, drawn, everyones, chance, taught)

    @staticmethod
    def _taught(batch: Batch, pixels: Tensor | None, teacher: Clip) -> Tensor:
        """Another model's features of the batch's views: from the cache, of its own pixels, or of the student's where they are alike."""
        if batch.taught_BE is not None:
            return batch.taught_BE.to(teacher.device)
        seen = pixels if batch.taught_pixels is None else batch.taught_pixels.to(teacher.device)
        assert seen is not None
        if not len(seen):
            return torch.empty(0, teacher.facts.embed_dim, device=teacher.device)
        with torch.no_grad():
            return teacher.encode_images(seen).pooled

    def _note_skipped(self, batch: Batch, total: int) -> None:
        """Count what could not be used, on all ranks alike; stop where it is too much, or nothing is left of a step."""
        due = len(self.plan.images(batch.step))
        if total == due * self.copies:
            return
        for found in self.forward.ranks.objects(batch.skipped):
            for name, reason in found:
                if name not in self.progress.skipped:
                    self.progress.skipped[name] = reason
                    if self.first:
                        line = {"step": batch.step + 1, "image": name, "reason": reason}
                        record.log(self.directory, record.SKIPPED, line)
        number, limit = len(self.progress.skipped), self.times.max_skipped
        if number > limit:
            name, reason = next(reversed(self.progress.skipped.items()))
            raise UserError(
                f"{number} images could not be used, more than --max-skipped {limit}; the last: {reason or name} All are in "
                f"{self.directory / record.SKIPPED}. Repair the data, or allow more.",
                exit_code=DATA,
            )

    def _report(self, losses: dict[str, float], epoch: int, classes: int) -> None:
        """The progress display at every step, a line of the log now and then."""
        progress = self.progress
        for name, value in losses.items():
            self._sums[name] = self._sums.get(name, 0.0) + value
        steps, images, seconds = (now - then for now, then in zip(self._now(), self._logged, strict=True))
        rate = images / seconds if seconds else 0.0
        self.observer.advance(1, {"loss": sum(losses.values()), "epoch": epoch + 1, "images/s": rate})
        if progress.step % self.times.log and progress.step != self.plan.steps:
            return
        means = {name: total / steps for name, total in self._sums.items()}
        line = {
            "step": progress.step,
            "epoch": epoch,
            "lr": lr_at(epoch, self.method.schedule),
            "loss": sum(means.values()),
            "losses": means,
            "classes": classes,
            "images": progress.images,
            "skipped": len(progress.skipped),
            "images_per_s": round(rate, 3),
            "seconds": round(progress.seconds, 3),
            "left_s": round((self.plan.steps - progress.step) * seconds / steps, 1),
        }
        if self.first:
            record.log(self.directory, record.METRICS, line)
        self._sums.clear()
        self._logged = self._now()

    def _now(self) -> tuple[int, int, float]:
        return self.progress.step, self.progress.images, self.progress.seconds

    def _epoch_done(self, epoch: int) -> None:
        average = self.method.steps.average
        shares = average.weights(self.plan.epochs) if average else None
        if shares is not None:
            accumulate(self.average, shares[epoch], self.prompt)

    def _test_if_due(self, epoch: int, last_of_epoch: bool) -> bool:
        step, every = self.progress.step, self.times.evaluate
        due = last_of_epoch if every is None else step % every == 0 or step == self.plan.steps
        if not due:
            return False
        began = time.perf_counter()
        found = self.test(self.prompt)
        self._tested += time.perf_counter() - began
        top1, best = found.get("top1"), self.progress.best_top1
        self.progress.tests.append({"step": step, "epoch": epoch, **found})
        if top1 is not None and (best is None or top1 > best):
            self.progress.best_top1, self.progress.best_step = top1, step
            if self.first:
                self.better(self.prompt)
        if self.first and any(value is not None for value in found.values()):
            record.log(self.directory, record.METRICS, {"step": step, "epoch": epoch, "test": dict(found)})
        return True

    def _save_if_due(self, now: bool) -> None:
        if not self.first:
            return
        late = time.perf_counter() - self._saved > 60 * self.times.save_minutes
        if now or late or self.progress.step % self.times.save == 0:
            epoch, _ = self.plan.place(self.progress.step)
            state = capture(epoch, self.prompt, self.optimiser, self.average, self.progress.seconds)
            record.save(self.directory, state, self.progress, self.config_hash)
            self._saved = time.perf_counter()
