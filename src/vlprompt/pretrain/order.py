"""Which image stands where in which step: a function of seed, epoch and step, whatever the number of processes.

Letters: N images, B images of a step.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import accumulate, pairwise

import torch
from torch import Tensor

from vlprompt.engine.precision import generator

LANES = 64
"""Most lanes (see `StepOrder`)."""
MIXED = 4
"""Shards whose images are mixed in a lane."""


class StepOrder:
    """The images of every step. Each image once per epoch; the last step of an epoch has what is left.

    Images in shards are not drawn from everywhere at once. A step is cut into lanes (as many as divide B, at most 64). Each
    lane goes through different shards, mixing four at a time. Processes take neighbouring places of a step, so each
    reads its own lanes' shards only; yet places do not depend on how many processes there are.
    """

    def __init__(self, number: int, batch: int, epochs: int, *, seed: int, runs: Sequence[int] | None = None) -> None:
        """number: N. runs: lengths of the shards, None: there are none."""
        self.number, self.batch, self.epochs, self.seed = number, batch, epochs, seed
        self.runs = tuple(runs) if runs is not None else None
        most = min(LANES, len(self.runs)) if self.runs else 1
        self.lanes = max(lanes for lanes in range(1, most + 1) if batch % lanes == 0)
        self.steps_per_epoch = -(-number // batch) if self.lanes == 1 else self._steps()
        self._epoch: tuple[int, Tensor] | None = None

    @property
    def steps(self) -> int:
        return self.epochs * self.steps_per_epoch

    def place(self, step: int) -> tuple[int, int]:
        """(epoch, step within it), from 0."""
        return divmod(step, self.steps_per_epoch)

    def images(self, step: int) -> Tensor:
        """(at most B,) int64: the numbers of the images of a step, in its order."""
        epoch, within = self.place(step)
        if self._epoch is None or self._epoch[0] != epoch:
            self._epoch = epoch, self._order(epoch)
        return self._epoch[1][within * self.batch : (within + 1) * self.batch]

    def _steps(self) -> int:
        longest = -(-self.number // self.lanes)
        return -(-longest // (self.batch // self.lanes))

    def _order(self, epoch: int) -> Tensor:
        if self.runs is None:
            return torch.randperm(self.number, generator=generator("order", self.seed, epoch))
        sequence = self._through_shards(epoch)
        cuts = [lane * self.number // self.lanes for lane in range(self.lanes + 1)]
        share = self.batch // self.lanes
        lanes_LN = torch.full((self.lanes, self.steps_per_epoch * share), -1)
        for lane_N, (start, stop) in zip(lanes_LN, pairwise(cuts), strict=True):
            lane_N[: stop - start] = sequence[start:stop]
        steps = lanes_LN.view(self.lanes, self.steps_per_epoch, share).transpose(0, 1).flatten()
        return steps[steps >= 0]

    def _through_shards(self, epoch: int) -> Tensor:
        """All images, shard after shard in a new order, some shards mixed at a time."""
        assert self.runs is not None
        rng = generator("shards", self.seed, epoch)
        starts = [0, *accumulate(self.runs)]
        shards = torch.randperm(len(self.runs), generator=rng).tolist()
        parts = []
        for first in range(0, len(shards), MIXED):
            group = [torch.arange(starts[shard], starts[shard + 1]) for shard in shards[first : first + MIXED]]
            numbers = torch.cat(group)
            parts.append(numbers[torch.randperm(len(numbers), generator=rng)])
        return torch.cat(parts)
