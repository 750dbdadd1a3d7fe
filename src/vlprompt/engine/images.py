"""What the loop and the evaluation ask of images: frozen features through the cache, pixels, and which of them can be used."""

from __future__ import annotations

from collections.abc import Callable, MutableMapping, Sequence, Set
from pathlib import Path

import torch
from torch import Tensor

from vlprompt.data import FeatureStore, Sample, load_pixels, verify
from vlprompt.data.views import AnyView
from vlprompt.disk import default_root
from vlprompt.engine.observer import SILENT, Observer
from vlprompt.engine.precision import resolve_device, slow_note
from vlprompt.tensors import onto
from vlprompt.towers import Clip, load
from vlprompt.types import Preprocess

BATCH = 64
"""Images that the tower encodes at once."""
BLOCK = 8
"""Images in one pass of the frozen tower on a processor, where features are kept (project's choice). Matrix products of other sizes
round otherwise; with one size alone an image has the same bits in whatever company it is encoded."""


class Images:
    """Samples as one frozen model sees them."""

    def __init__(
        self,
        clip: Clip,
        store: FeatureStore | None,
        observer: Observer = SILENT,
        read: Callable[[Sequence[Sample], Preprocess, AnyView], Tensor] = load_pixels,
    ) -> None:
        """store None: nothing is remembered, every question encodes again (loose pictures to predict). read: where the pixels of
        samples come from; with a store its own reading counts."""
        self.clip, self.store, self.observer, self.read = clip, store, observer, read
        self.model_key = f"{clip.weight_hash} {str(clip.dtype).removeprefix('torch.')}"
        """All that decides a feature, apart from preprocessing and view; the device is left out, as it changes the last bits only."""
        self.at_once = 1 if store is None and clip.device.type == "cpu" else BATCH
        """Images of one pass at evaluation. Loose pictures go alone on a processor, where that takes no longer: an answer has the same
        bits in whatever company it is asked for. A filled block would take eight times as long for one picture."""
        self._usable: set[object] = set()

    def quiet(self) -> Images:
        """The same without a display, for work inside of other work."""
        return Images(self.clip, self.store, SILENT, self.read)

    @property
    def seconds(self) -> float:
        """Wall time spent on features so far."""
        return self.store.stats.seconds if self.store is not None else 0.0

    def prepare(self, samples: Sequence[Sample], views: Sequence[int | None]) -> None:
        """Encode training views that are going to be used, as a separate stage."""
        progress = self._stage("encoding training images", len(samples) * len(views))
        for view in views:
            self._features(samples, view, progress)

    def features(self, samples: Sequence[Sample], view: int | None, *, quiet: bool = False) -> Tensor:
        """(N, E) float32 on the CPU: the bare tower's un-normalised features, of the test view (None) or of a training view.

        quiet: show no stage, because another one is running.
        """
        known = self.known(view)
        new = any(sample.content_hash not in known for sample in samples)
        stage = self._stage("encoding images", len(samples)) if new and not quiet else None
        return self._features(samples, view, stage)

    def _features(self, samples: Sequence[Sample], view: int | None, progress: Callable[[int], None] | None) -> Tensor:
        if self.store is None:
            chunks = [samples[start : start + BATCH] for start in range(0, len(samples), BATCH)]
            read = (self.read(chunk, self.clip.preprocess, view) for chunk in chunks)
            return torch.cat(
                [self._encode(part).cpu() for pixels in read for part in torch.split(pixels, self.at_once)]
            )
        return self.store.features(
            samples,
            view=view,
            model_key=self.model_key,
            preprocess=self.clip.preprocess,
            encode=lambda pixels: in_blocks(self._encode, pixels, self.clip.device),
            batch=BATCH,
            progress=progress,
        )

    @torch.no_grad()
    def _encode(self, pixels_B3SS: Tensor) -> Tensor:
        return self.clip.encode_images(onto(pixels_B3SS, self.clip.device)).pooled

    def views(self, samples: Sequence[Sample], number: int) -> Tensor:
        """(N, 1 + V, E) float32 on the CPU: the bare tower's features of the test view and the first `number` training views.

        An image is decoded once, and its views pass the tower together, so they have the same bits in whatever company it is asked for.
        """
        view = range(number)
        if self.store is None:
            rows = [self._encode(self.read([one], self.clip.preprocess, view)[0]).cpu() for one in samples]
            return torch.stack(rows)
        rows_NF = self.store.features(
            samples,
            view=view,
            model_key=self.model_key,
            preprocess=self.clip.preprocess,
            encode=lambda pixels: self._encode(pixels[0]).flatten()[None],
            batch=1,
        )
        return rows_NF.reshape(len(samples), 1 + number, -1)

    def pixels(self, samples: Sequence[Sample], view: int | None) -> Tensor:
        """What a prompted image tower reads, float32 on the CPU: pixels (N, 3, S, S), or a trunk's cells (N, L, C) from the cache."""
        if self.store is None or not self.clip.reads_cells or not samples:
            return self.read(samples, self.clip.preprocess, view)
        rows = self.store.features(
            samples,
            view=view,
            model_key=f"{self.model_key} cells",
            preprocess=self.clip.preprocess,
            encode=lambda pixels: in_blocks(self.clip.read_images, pixels, self.clip.device).flatten(1),
            batch=BATCH,
        )
        return rows.reshape(len(samples), self.clip.config.num_patches, -1)

    def usable(
        self, samples: Sequence[Sample], skipped: MutableMapping[str, str], *, strict: bool
    ) -> tuple[Sample, ...]:
        """The samples that decode; the others are added to `skipped` (id -> reason), or with `strict` are a UserError.

        Images are looked at once, and not at all if the cache has their test view.
        """
        new = [sample for sample in samples if sample.source not in self._usable and sample.id not in skipped]
        if new:
            known = self.known(None)
            _, bad = verify(new, strict=strict, known=known, progress=self._stage("checking images", len(new)))
            skipped.update(bad)
            self._usable.update(sample.source for sample in new if sample.id not in skipped)
        return tuple(sample for sample in samples if sample.id not in skipped)

    def known(self, view: int | None) -> Set[str]:
        """Contents whose view (None: the test view) is in the cache."""
        if self.store is None:
            return frozenset()
        return self.store.known(model_key=self.model_key, preprocess=self.clip.preprocess, view=view)

    def encode(self, samples: Sequence[Sample], view: int | None) -> Tensor:
        """(N, E): decode and encode at once, without the cache."""
        return self._encode(self.read(samples, self.clip.preprocess, view))

    def _stage(self, name: str, total: int) -> Callable[[int], None] | None:
        if not total:
            return None
        self.observer.stage(name, total)
        return lambda steps: self.observer.advance(steps, {})


def in_blocks(encode: Callable[[Tensor], Tensor], pixels_B3SS: Tensor, device: torch.device) -> Tensor:
    """(B, ...): `encode` of `BLOCK` images at a time on a processor, the last block filled up; else of all of them."""
    if device.type != "cpu":
        return encode(pixels_B3SS)
    number = len(pixels_B3SS)
    filled = torch.cat([pixels_B3SS, pixels_B3SS[:1].expand(-number % BLOCK, *pixels_B3SS.shape[1:])])
    return torch.cat([encode(filled[first : first + BLOCK]) for first in range(0, number, BLOCK)])[:number]


def open_images(clip: Clip, cache: Path | None, observer: Observer = SILENT) -> Images:
    """Images of a model with the cache in this directory; None: the user's."""
    return Images(clip, FeatureStore(cache or default_root()), observer)


def open_model(
    model: str, dtype: str, device: str = "auto", cache: Path | None = None, observer: Observer = SILENT
) -> Images:
    """Images as a model sees them that is loaded now; a slow `dtype` is noted. UserError: a model or device that is not there."""
    clip = load(model, device=resolve_device(device), dtype=dtype)
    if (said := slow_note(clip.dtype, clip.device)) is not None:
        observer.note(said)
    return open_images(clip, cache, observer)
