"""The field's shared optimiser and schedule (Dassl), exactly, and the order in which images are seen.

Source: KaiyangZhou/Dassl.pytorch, dassl/optim/optimizer.py, optim/lr_scheduler.py, data/data_manager.py.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence

import torch
from torch import Tensor, nn

from vlprompt.engine.precision import generator
from vlprompt.types import Schedule


def optimiser_of(parameters: Iterable[nn.Parameter], schedule: Schedule) -> torch.optim.Optimizer:
    """The schedule's optimiser, with weight decay on every learned tensor; SGD without Nesterov and dampening.

    `foreach` is off: the tensors are few and small, and the plain loop has one order of operations everywhere.
    """
    rate, decay = schedule.lr, schedule.weight_decay
    if schedule.optimiser == "sgd":
        return torch.optim.SGD(parameters, lr=rate, momentum=schedule.momentum, weight_decay=decay, foreach=False)
    kind = torch.optim.Adam if schedule.optimiser == "adam" else torch.optim.AdamW
    return kind(parameters, lr=rate, eps=schedule.eps, weight_decay=decay, foreach=False)


def lr_at(epoch: int, schedule: Schedule, part: float = 0.0) -> float:
    """The learning rate of an epoch (from 0), or where the cosine falls from step to step, after this part of the epoch.

    Warm-up epochs: ``warmup_lr``; then ``least + (lr - least) * (1 + cos(pi * (epoch - warmup_epochs) / epochs)) / 2``. The cosine
    starts after the warm-up but its length is all epochs, so it does not quite reach its end, as published.
    """
    if epoch < schedule.warmup_epochs:
        return schedule.warmup_lr
    place = epoch - schedule.warmup_epochs + (part if schedule.decay == "steps" else 0)
    return schedule.least_lr + (schedule.lr - schedule.least_lr) * (1 + math.cos(math.pi * place / schedule.epochs)) / 2


def batches(
    count: int, batch: int, *, seed: int, epoch: int, labels: Sequence[int] | None = None
) -> tuple[Tensor, ...]:
    """The images of one epoch's steps: index tensors, int64, in random order.

    The order depends on (seed, epoch) alone, so a resumed run needs no random state. The last batch is dropped if it is
    not full, unless the whole set is smaller than one batch (as published). labels: of the images, where classes are drawn evenly.
    """
    order = torch.randperm(count, generator=generator("order", seed, epoch))
    if labels is not None:
        order = evenly(labels, seed=seed, epoch=epoch)[order]
    kept = order if count < batch else order[: count - count % batch]
    return torch.split(kept, batch)


def evenly(labels: Sequence[int], *, seed: int, epoch: int) -> Tensor:
    """(N,) places of N images, int64: N // C of each of the C classes that there are, and one more of N % C classes, drawn at random.

    A class with fewer images gives all of them as often as that goes, then some drawn without repetition; a larger one gives some
    alone, others in each epoch (project's choice).
    """
    label_N, random = torch.tensor(labels), generator("draw", seed, epoch)
    classes = sorted(set(labels))
    share, more = divmod(len(label_N), len(classes))
    extra = set(torch.randperm(len(classes), generator=random)[:more].tolist())
    found = []
    for number, label in enumerate(classes):
        own = (label_N == label).nonzero().flatten()
        again, rest = divmod(share + (number in extra), len(own))
        found += [own] * again + [own[torch.randperm(len(own), generator=random)[:rest]]]
    return torch.cat(found)
