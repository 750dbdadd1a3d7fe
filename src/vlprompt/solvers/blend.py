"""A linear probe blended with the class features, without tuning: LP++ (arXiv 2404.02285).

Source: FereshteShakeri/FewShot-CLIP-Strong-Baseline, methods/linear_probe_p2.py. Letters: N images, C classes, E joint embedding.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from vlprompt.errors import require_least
from vlprompt.types import Features, Given, ModelFacts, Prompted, Reach

EVERY = 10
"""Steps between two changes of the blend, as published."""
MOMENTUM = 0.9
START = 250.0
"""What the mean cosine of images with their own class is multiplied by, to begin the blend with."""


@dataclass(frozen=True, slots=True, kw_only=True)
class BlendOptions:
    """What may be chosen about LP++."""

    steps: int = 300
    """Steps of gradient descent, each with all training images."""

    def __post_init__(self) -> None:
        require_least(self, 1, "steps")


@dataclass(frozen=True, slots=True, kw_only=True)
class BlendSpec:
    """LP++'s classifier."""

    layout = None
    reach = Reach(own_classes=True)

    def build(self, facts: ModelFacts, generator: torch.Generator, num_classes: int) -> Blend:
        return Blend(facts.embed_dim, num_classes)


class Blend(nn.Module):
    """`weight` (C, E), `bias` (C,) and `blend` (C,)."""

    def __init__(self, embed_dim: int, num_classes: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(num_classes, embed_dim))
        self.bias, self.blend = nn.Parameter(torch.zeros(num_classes)), nn.Parameter(torch.zeros(num_classes))

    def forward(self) -> Prompted:
        return Prompted(score=self.score)

    def score(self, image: Features, text: Features, scale: float) -> Tensor:
        """``x W^T + b + blend * cos(x, text)`` of unit image features x, without CLIP's logit scale (as published)."""
        return image.unit @ self.weight.T + self.bias + self.blend * (image.unit @ text.unit.T)

    def places(self) -> dict[str, str]:
        return {
            "weight": "after the image tower, one row per class, on the unit feature",
            "bias": "after the image tower, one number per class",
            "blend": "weight of each class's cosine with its text feature",
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class BlendedProbe:
    """A `types.Solver`: gradient descent whose rates follow from the features."""

    options: BlendOptions

    @property
    def formula(self) -> str:
        return "min_(W, b, blend) mean_n -log softmax(W x_n + b + blend cos(x_n, text))[label_n]"

    def solve(self, module: Blend, given: Given) -> str:
        """In float64. The step with the best accuracy on validation images is kept, the last of equals (as published); without such
        images the last step."""
        (train, label_N), (val, val_label), num_classes = given.train, given.val, len(module.bias)
        x_NE, v_ME, text_CE = (
            F.normalize(one.double(), dim=-1).to(module.weight.device) for one in (train, val, given.text().pooled)
        )
        label_N, val_label = label_N.to(x_NE.device), val_label.to(x_NE.device)
        own_NC = F.one_hot(label_N, num_classes).double()
        cosine_NC, val_cosine = x_NE @ text_CE.T, v_ME @ text_CE.T
        weight = (own_NC.T @ x_NE).requires_grad_()
        bias = weight.new_zeros(num_classes).requires_grad_()
        own = (own_NC * cosine_NC).sum(0) / own_NC.sum(0)
        blend = (START * own.mean()).repeat(num_classes).detach().requires_grad_()
        rate = 4 * len(x_NE) / float(torch.linalg.eigvalsh(x_NE.T @ x_NE)[-1])
        blend_rate = len(x_NE) / (4 * float(cosine_NC.square().sum(0).max()))
        descent = torch.optim.SGD([weight, bias], rate, momentum=MOMENTUM, foreach=False)
        summed, best, kept, when = torch.zeros_like(blend), -1, [weight, bias, blend], self.options.steps
        for step in range(1, self.options.steps + 1):
            loss = F.cross_entropy(x_NE @ weight.T + bias + blend * cosine_NC, label_N)
            *slopes, slope = torch.autograd.grad(loss, [weight, bias, blend])
            weight.grad, bias.grad = slopes
            descent.step()
            summed += slope  # the published code adds the blend's gradients up over all steps
            with torch.no_grad():
                if step % EVERY == 0:
                    blend -= blend_rate * summed
                answer = v_ME @ weight.T + bias + blend * val_cosine
                right = int((answer.argmax(1) == val_label).sum())
                if len(val_label) == 0 or right >= best:
                    best, when, kept = right, step, [one.detach().clone() for one in (weight, bias, blend)]
        with torch.no_grad():
            for parameter, value in zip((module.weight, module.bias, module.blend), kept, strict=True):
                parameter.copy_(value)
        how = f", the best on {len(val_label)} validation images" if len(val_label) else ", the last"
        return f"LP++: step {when} of {self.options.steps}{how}."
