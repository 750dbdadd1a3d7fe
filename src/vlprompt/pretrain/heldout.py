"""How good a prompt is so far, on a fixed slice of the held-out images and one of the training images, over all classes.

Letters: N images, C classes, E joint embedding.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from vlprompt.data import Pool, Sample
from vlprompt.engine.forward import ROWS, Forward, asked
from vlprompt.engine.images import Images
from vlprompt.engine.precision import generator
from vlprompt.losses import after, answers
from vlprompt.pretrain.feed import checked
from vlprompt.types import BARE, Features, Prompted

CHUNK = 64
"""Images that are tested at once."""


class Slice:
    """Some images of a pool, the same at every test; each rank tests its part of them."""

    def __init__(self, pool: Pool, number: int, images: Images, forward: Forward, *, seed: int, cached: bool) -> None:
        """number: at most so many, drawn by the seed. cached: the bare tower's features come from the cache, where no prompt enters
        the image tower."""
        chosen = torch.randperm(len(pool), generator=generator("slice", seed))[:number].sort().values.tolist()
        own = forward.ranks.part(len(chosen))
        self.pool, self.numbers = pool, chosen[own.start : own.stop]
        self.images, self.forward, self.cached = images, forward, cached
        self._samples: list[Sample] | None = None

    @property
    def samples(self) -> list[Sample]:
        """This rank's images that decode, looked at once."""
        if self._samples is None:
            found = (checked(self.pool, number) for number in self.numbers)
            self._samples = [one for one in found if isinstance(one, Sample)]
        return self._samples

    @torch.no_grad()
    def scores(self, text: Features, prompt: nn.Module | None) -> tuple[float | None, float | None]:
        """(percent of all ranks' images whose own class is the most probable, the largest cross-entropy of an image over all classes);
        None without images. prompt None: zero-shot."""
        right, count, largest = 0, 0, -1.0
        prompted = BARE if prompt is None else asked(prompt, self.forward.spec, None, self.forward.frozen_text)
        for start in range(0, len(self.samples), CHUNK):
            chunk = self.samples[start : start + CHUNK]
            image = after(prompted.after_image, self._image(chunk, prompted))
            answers_NC = answers(prompted, image, text, self.forward.clip.logit_scale)
            label_N = torch.tensor([sample.label for sample in chunk], device=answers_NC.device)
            right += int((answers_NC.argmax(1) == label_N).sum())
            count += len(chunk)
            largest = max(largest, float(F.cross_entropy(answers_NC, label_N, reduction="none").max()))
        every = self.forward.ranks.objects((right, count, largest))
        total = sum(one[1] for one in every)
        return (100 * sum(one[0] for one in every) / total, max(one[2] for one in every)) if total else (None, None)

    def _image(self, chunk: Sequence[Sample], prompted: Prompted) -> Features:
        clip = self.forward.clip
        if self.cached and not prompted.image:
            return Features(pooled=self.images.features(chunk, None, quiet=True).to(clip.device))
        return clip.encode_images(self.images.pixels(chunk, None), prompted)


@torch.no_grad()
def all_classes(forward: Forward, prompt: nn.Module) -> Features:
    """The class features (C, E) of a prompt for all classes, each rank encoding its part."""
    text = forward.class_features(asked(prompt, forward.spec, None, forward.frozen_text), max_rows=ROWS)
    layout = forward.spec.layout
    return text if layout is None or not layout.shared else alike(text, forward.tokens.names)


def zero_shot(forward: Forward, class_names: Sequence[str], template: str) -> Features:
    """The template's class features, each rank encoding its part."""
    clip, ranks = forward.clip, forward.ranks
    part = ranks.part(len(class_names))
    own = range(1) if len(part) == 0 else part
    names = [class_names[number] for number in own]
    with torch.no_grad():
        pooled_CE: Tensor = clip.encode_text(clip.class_tokens(names, None, template), max_rows=ROWS).pooled
    return alike(Features(pooled=ranks.gather(pooled_CE[: len(part)], len(class_names))), class_names)


def alike(text: Features, class_names: Sequence[str]) -> Features:
    """The same features for classes of one name, to the last bit: rounding does not decide between them, the first one counts."""
    first: dict[str, int] = {}
    places = [first.setdefault(name, number) for number, name in enumerate(class_names)]
    return Features(pooled=text.pooled[torch.tensor(places, device=text.pooled.device)])
