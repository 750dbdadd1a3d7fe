"""A cache of the training images, asked by likeness: Tip-Adapter and Tip-Adapter-F (arXiv 2207.09519).

Letters: B images, N training images, C classes, E joint embedding.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from vlprompt.errors import require_least
from vlprompt.types import Features, Given, ModelFacts, Prompted, Reach


@dataclass(frozen=True, slots=True, kw_only=True)
class CacheOptions:
    """What may be chosen about the cache."""

    alpha: float = 1.17
    """The weight of the cache's answer against zero-shot's; where nothing is searched, and in the steps of tip-adapter-f."""
    beta: float = 1.0
    """How fast the answer of a training image falls with its distance; used as `alpha` is."""
    views: int = 10
    """Random views of a training image whose mean is its key; 0: its test view."""
    search: bool = True
    """Whether alpha and beta are searched on validation images, where there are some."""
    most_alpha: float = 3.0
    """The end of the search of alpha, which begins at 0.1."""
    most_beta: float = 7.0
    """The end of the search of beta, which begins at 0.1."""
    alphas: int = 20
    """Values of alpha that are tried."""
    betas: int = 200
    """Values of beta that are tried."""

    def __post_init__(self) -> None:
        require_least(self, 0, "alpha", "beta", "views")
        require_least(self, 1, "alphas", "betas")


@dataclass(frozen=True, slots=True, kw_only=True)
class CacheSpec:
    """The cache's prompt, which enters no tower."""

    layout = None
    reach = Reach(own_classes=True)

    def build(self, facts: ModelFacts, generator: torch.Generator, num_classes: int) -> Cache:
        """One key of zeros per class, until the cache is filled."""
        return Cache(num_classes, facts.embed_dim)


class Cache(nn.Module):
    """`keys` (N, E), of which steps learn; `labels` (N,), `alpha` (1,) and `beta` (1,), which they do not."""

    per_image = ("keys", "labels")
    """Parameters with a row for each training image, however many there are."""

    def __init__(self, num_classes: int, embed_dim: int) -> None:
        super().__init__()
        self.keys = nn.Parameter(torch.zeros(num_classes, embed_dim))
        self.labels = nn.Parameter(torch.zeros(num_classes))
        self.alpha, self.beta = nn.Parameter(torch.ones(1)), nn.Parameter(torch.ones(1))
        self.num_classes = num_classes

    def forward(self) -> Prompted:
        return Prompted(score=self.score)

    def score(self, image: Features, text: Features, scale: float) -> Tensor:
        """``scale cos(image, text) + alpha exp(-beta (1 - image keys^T)) onehot(labels)``, (B, C)."""
        alpha, beta = self.alpha.detach(), self.beta.detach()
        return scale * (image.unit @ text.unit.T) + alpha * self.likeness(image.unit, beta)

    def likeness(self, image_BE: Tensor, beta: float | Tensor) -> Tensor:
        """The cache's answer (B, C) to unit features."""
        onehot_NC = F.one_hot(self.labels.detach().long(), self.num_classes).to(image_BE.dtype)
        return torch.exp(-beta * (1 - image_BE @ self.keys.T)) @ onehot_NC

    def places(self) -> dict[str, str]:
        place = "the cache, next to the cosine with the class features"
        return {
            "keys": f"{place}: one row per training image",
            "labels": f"{place}: their classes, not learned in steps",
            "alpha": f"{place}: its weight, not learned in steps",
            "beta": f"{place}: its sharpness, not learned in steps",
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class FilledCache:
    """A `types.Solver`: the cache is filled with the training images."""

    options: CacheOptions
    search: bool = False
    """Whether alpha and beta are searched at once."""

    @property
    def formula(self) -> str:
        return "logits = s cos(x, text) + alpha exp(-beta (1 - x K^T)) onehot(labels), K the training images' features"

    def solve(self, module: Cache, given: Given) -> str:
        options = self.options
        seen = [given.view(number) for number in range(options.views)] or [given.train[0]]
        module.keys = nn.Parameter(F.normalize(torch.stack(seen).mean(dim=0), dim=-1))
        module.labels = nn.Parameter(given.train[1].float())
        module.alpha.data.fill_(options.alpha)
        module.beta.data.fill_(options.beta)
        said = f"cache: {len(module.keys)} training images in it"
        return f"{said}; {SearchedCache(options=options).solve(module, given)}" if self.search else f"{said}."


@dataclass(frozen=True, slots=True, kw_only=True)
class SearchedCache:
    """A `types.Solver`: alpha and beta by accuracy on validation images, by the published grid; the first of equals."""

    options: CacheOptions

    @property
    def formula(self) -> str:
        return "alpha, beta = argmax of validation accuracy"

    @torch.no_grad()
    def solve(self, module: Cache, given: Given) -> str:
        options, (features, labels) = self.options, given.val
        if not options.search or len(labels) == 0:
            return f"alpha {options.alpha:g} and beta {options.beta:g} as given (no search on validation images)."
        device = module.keys.device
        image, label_N = Features(pooled=features.to(device)), labels.to(device)
        plain = given.scale * (image.unit @ given.text().unit.T)
        best = -1
        for beta in _grid(options.most_beta, options.betas):
            answer = module.likeness(image.unit, beta)
            for alpha in _grid(options.most_alpha, options.alphas):
                right = int(((plain + alpha * answer).argmax(1) == label_N).sum())
                if right > best:
                    best, chosen = right, (alpha, beta)
        module.alpha.fill_(chosen[0])
        module.beta.fill_(chosen[1])
        share = 100 * best / len(labels)
        return f"alpha {chosen[0]:.3g} and beta {chosen[1]:.3g}, by accuracy on {len(labels)} validation images ({share:.1f} %)."


def _grid(most: float, number: int) -> list[float]:
    """From 0.1, in `number` steps that would reach `most` with one more."""
    return [0.1 + i * (most - 0.1) / number for i in range(number)]
