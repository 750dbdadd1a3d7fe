"""Literal versions of the terms that hold a prompted model near the frozen one: one number at a time, in float64."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from tests.oracle.losses import softmax


def divergence(teacher: Tensor, student: Tensor) -> Tensor:
    """KL(softmax teacher || softmax student) of one image's logits (C,)."""
    p, q = softmax(list(teacher)), softmax(list(student))
    total = torch.zeros((), dtype=torch.float64)
    for a, b in zip(p, q, strict=True):
        total = total + a * (torch.log(a) - torch.log(b))
    return total


def distillation(teacher: Tensor, student: Tensor, temperature: float) -> Tensor:
    """T^2 times the mean over images of the divergence at temperature T; (B, C) each."""
    total = torch.zeros((), dtype=torch.float64)
    for ours, theirs in zip(teacher, student, strict=True):
        total = total + divergence(ours / temperature, theirs / temperature)
    return temperature * temperature * total / len(student)


def logits_divergence(teacher: Tensor, student: Tensor) -> Tensor:
    """The sum over images of the divergence, over images times classes."""
    total = torch.zeros((), dtype=torch.float64)
    for ours, theirs in zip(teacher, student, strict=True):
        total = total + divergence(ours, theirs)
    return total / (student.shape[0] * student.shape[1])


def distance(rows: Tensor, teacher: Tensor) -> Tensor:
    """The mean absolute difference of normalised rows, (n, E) each."""
    total, count = torch.zeros((), dtype=torch.float64), 0
    for ours, theirs in zip(rows, teacher, strict=True):
        a, b = (torch.sqrt(sum(x * x for x in row)) for row in (ours, theirs))
        for x, y in zip(ours, theirs, strict=True):
            total, count = total + torch.abs(x / a - y / b), count + 1
    return total / count


def gaussian(mean: float, std: float, epochs: int) -> list[float]:
    """w_t = N(t; mean, std) / sum, t = 1 .. epochs."""
    heights = [
        math.exp(-((t - mean) ** 2) / (2 * std**2)) / (std * math.sqrt(2 * math.pi)) for t in range(1, epochs + 1)
    ]
    return [height / sum(heights) for height in heights]
