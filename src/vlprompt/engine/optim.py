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


def sgd(parameters: Iterable[nn.Parameter], schedule: Schedule) -> torch.optim.SGD:
    """SGD with momentum and weight decay on every learned tensor, without Nesterov and dampening.

    `foreach` is off: the tensors are few and small, and the plain loop has one order of operations everywhere.
    """
    return torch.optim.SGD(
        parameters,
        lr=schedule.lr,
        momentum=schedule.momentum,
        weight_decay=schedule.weight_decay,
        foreach=False,
    )


def lr_at(epoch: int, schedule: Schedule) -> float:
    """The learning rate of an epoch (from 0), constant within it.

    Warm-up epochs: ``warmup_lr``; then ``lr * (1 + cos(pi * (epoch - warmup_epochs) / epochs)) / 2``. The cosine starts
    after the warm-up but its length is all epochs, so that it does not quite reach 0, as published.
    """
    if epoch < schedule.warmup_epochs:
        return schedule.warmup_lr
    return schedule.lr * (1 + math.cos(math.pi * (epoch - schedule.warmup_epochs) / schedule.epochs)) / 2


def batches(count: int, batch: int, *, seed: int, epoch: int) -> tuple[Tensor, ...]:
    """The images of one epoch's steps: index tensors, int64, in random order.

    The order depends on (seed, epoch) alone, so that a resumed run needs no random state. The last batch is dropped if it is
    not full, unless the whole set is smaller than one batch (as published).
    """
    order = torch.randperm(count, generator=generator("order", seed, epoch))
    kept = order if count < batch else order[: count - count % batch]
    return torch.split(kept, batch)
