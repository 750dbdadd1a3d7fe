"""Whole training runs: the published batches and start values through the loop that `vlprompt train` runs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

import torch
import torch.nn.functional as F
from torch import Tensor

from vlprompt.engine.checkpoint import State, Watch
from vlprompt.engine.images import Images
from vlprompt.engine.observer import Observer
from vlprompt.engine.train import train
from vlprompt.types import Rule
from vlprompt.verify.compare import COSINE, Numbers
from vlprompt.verify.given import CaseInputs
from vlprompt.verify.names import LOSSES


@dataclass(slots=True)
class Recorder(Observer):
    """An observer that keeps the loss of every step, and what the loop saves after every epoch."""

    losses: list[float] = field(default_factory=list)
    rates: list[float] = field(default_factory=list)
    tensors: list[dict[str, Tensor]] = field(default_factory=list)

    def advance(self, steps: int, shown: Mapping[str, float]) -> None:
        if "loss" in shown:
            self.losses.append(shown["loss"])

    def saved(self, state: State) -> None:
        self.tensors.append({name: one.detach().cpu().clone() for name, one in state.parameters.items()})

    def logged(self, values: Mapping[str, object]) -> None:
        self.rates.append(float(str(values["lr"])))


@dataclass(frozen=True, slots=True)
class Watched:
    """A gradient rule that also keeps the losses and the cosine of the gradients that it is given."""

    rule: Rule
    losses: dict[str, list[float]] = field(default_factory=dict)
    cosines: list[float] = field(default_factory=list)

    def groups(self, losses: Mapping[str, Tensor]) -> tuple[Tensor, ...]:
        for name, loss in losses.items():
            self.losses.setdefault(name, []).append(loss.item())
        return self.rule.groups(losses)

    def combine(self, gradients: Sequence[Tensor]) -> Tensor:
        one, other = (gradient.flatten() for gradient in gradients)
        self.cosines.append(F.cosine_similarity(one, other, dim=0).item())
        return self.rule.combine(gradients)


def run(given: CaseInputs) -> Numbers:
    """Train as `vlprompt train` does."""
    method, order = given.method, given.lesson.order
    assert method is not None
    assert order is not None
    steps, seen = method.steps, Recorder()
    rule = Watched(steps.rule) if steps.rule else None
    watch = Watch(after=seen.saved, logged=seen.logged)
    images = Images(given.clip, None, read=lambda samples, *_: given.pixels[[int(one.id) for one in samples]])
    watched = replace(method, learner=replace(steps, rule=rule))
    prompt = train(given.clip, watched, given.lesson, images, checkpoints=watch, observer=seen)
    shape = (len(order.images), len(order.images[0]))
    by_step = {"loss": seen.losses}
    if rule is not None:
        by_step = {name: rule.losses[LOSSES[name]] for name in ("xe_loss", "kl_loss")} | {COSINE: rule.cosines}
    numbers = {name: torch.tensor(values, dtype=torch.float64).reshape(shape) for name, values in by_step.items()}
    numbers["lr"] = torch.tensor(seen.rates, dtype=torch.float64)[:, None].expand(shape)
    states = {f"epoch{epoch}": tensors for epoch, tensors in enumerate(seen.tensors, start=1)}
    if steps.average is not None:
        numbers["epoch_weights"] = torch.tensor(steps.average.weights(shape[0]), dtype=torch.float64)
        states["average"] = dict(prompt.named_parameters())
    tensors = {f"{at}:{given.official[name]}": one for at, state in states.items() for name, one in state.items()}
    return {"steps": numbers, "tensors": tensors}
