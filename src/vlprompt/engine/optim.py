"""The field's shared optimiser and schedule (Dassl), exactly, and the order in which images are seen.

Source: KaiyangZhou/Dassl.pytorch, dassl/optim/optimizer.py, optim/lr_scheduler.py, data/data_manager.py.
"""

from __future__ import annotations

import math
from collections.abc import Iterable

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


def batches(count: int, batch: int, *, seed: int, epoch: int) -> tuple[Tensor, ...]:
    """The images of one epoch's steps: index tensors, int64, in random order.

    The order depends on (seed, epoch) alone, so a resumed run needs no random state. The last batch is dropped if it is
    not full, unless the whole set is smaller than one batch (as published).
    """
    order = torch.randperm(count, generator=generator("order", seed, epoch))
    kept = order if count < batch else order[: count - count % batch]
    return torch.split(kept, batch)
