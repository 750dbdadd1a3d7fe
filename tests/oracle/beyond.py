"""The methods on features, weights and test images, a second time: literal and slow, one image and one class at a time."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor


def unit(x: Tensor) -> Tensor:
    return x / x.norm(dim=-1, keepdim=True)


def adapted(x_E: Tensor, down_HE: Tensor, up_EH: Tensor, ratio: float) -> Tensor:
    """CLIP-Adapter on one un-normalised feature."""
    hidden = torch.stack([torch.relu((row * x_E).sum()) for row in down_HE])
    out = torch.stack([torch.relu((row * hidden).sum()) for row in up_EH])
    return ratio * out + (1 - ratio) * x_E


def cache_answer(x_E: Tensor, keys: Tensor, labels: list[int], num_classes: int, beta: float) -> Tensor:
    """Tip-Adapter's cache for one unit feature: each training image votes for its class."""
    votes = [torch.zeros((), dtype=x_E.dtype) for _ in range(num_classes)]
    for key, label in zip(keys, labels, strict=True):
        affinity = (x_E * key).sum()
        votes[label] = votes[label] + torch.exp(-(beta - beta * affinity))
    return torch.stack(votes)


def blended(
    train: Tensor, labels: Tensor, val: Tensor, val_labels: Tensor, text_CE: Tensor, steps: int
) -> tuple[Tensor, Tensor, Tensor]:
    """LP++ as its published code runs it, but for a bias that starts at zero; all features of length 1."""
    num, classes = len(train), len(text_CE)
    weight = torch.stack([train[labels == c].sum(0) for c in range(classes)]).requires_grad_()
    bias = torch.zeros(classes, dtype=train.dtype, requires_grad=True)
    means = [(train[labels == c] @ text_CE[c]).mean() for c in range(classes)]
    alpha = (250 * torch.stack(means).mean() * torch.ones(classes, dtype=train.dtype)).requires_grad_()
    lr_w = 4 * num / torch.linalg.eigvalsh(train.T @ train).max()
    lr_alpha = num / (4 * max(((train @ text) ** 2).sum() for text in text_CE))
    speeds = [torch.zeros_like(weight), torch.zeros_like(bias)]
    alpha.grad = torch.zeros_like(alpha)
    best, kept = -1.0, None
    for epoch in range(steps):
        loss = F.cross_entropy(train @ weight.T + bias + alpha * (train @ text_CE.T), labels)
        weight.grad = bias.grad = None
        loss.backward()  # adds to alpha's gradient, which nothing sets back
        with torch.no_grad():
            for i, one in enumerate((weight, bias)):
                speeds[i] = one.grad if epoch == 0 else 0.9 * speeds[i] + one.grad
                one -= lr_w * speeds[i]
            if (epoch + 1) % 10 == 0:
                alpha -= lr_alpha * alpha.grad
            answer = (val @ weight.T + bias + alpha * (val @ text_CE.T)).argmax(1)
            accuracy = float((answer == val_labels).double().mean())
            if accuracy >= best:
                best, kept = accuracy, tuple(one.detach().clone() for one in (weight, bias, alpha))
    assert kept is not None
    return kept


def class_tokens(feature_E: Tensor, layers: list[tuple[Tensor, Tensor]], num_tokens: int) -> Tensor:
    """TCP's tokens of one class from its unit feature."""
    (first, first_bias), (second, second_bias) = layers
    hidden = first @ feature_E + first_bias
    hidden = hidden * torch.sigmoid(1.702 * hidden)
    return (second @ hidden + second_bias).reshape(num_tokens, -1)


def projected(x_BE: Tensor, first_FE: Tensor, norm: tuple[Tensor, Tensor], second: tuple[Tensor, Tensor]) -> Tensor:
    """PromptKD's projector in a step of learning, number by number: the mean and variance of the batch."""
    rows = []
    hidden = [[(row * x).sum() for row in first_FE] for x in x_BE]
    for f in range(len(first_FE)):
        column = [one[f] for one in hidden]
        mean = sum(column) / len(column)
        variance = sum((value - mean) ** 2 for value in column) / len(column)
        rows.append([norm[0][f] * (value - mean) / (variance + 1e-5) ** 0.5 + norm[1][f] for value in column])
    return torch.stack(
        [second[0] @ torch.relu(torch.stack([row[b] for row in rows])) + second[1] for b in range(len(x_BE))]
    )


def imitation(teacher_BC: Tensor, student_BC: Tensor, weight: float) -> Tensor:
    """PromptKD's loss: the divergence, over images times classes."""
    total = torch.zeros((), dtype=teacher_BC.dtype)
    for teacher, student in zip(teacher_BC, student_BC, strict=True):
        p, q = teacher.softmax(0), student.softmax(0)
        total = total + sum(p[c] * (p[c].log() - q[c].log()) for c in range(len(p)))
    return weight * total / (len(teacher_BC) * len(teacher_BC[0]))


def certain_loss(logits_VC: Tensor, number: int) -> Tensor:
    """TPT's loss: the entropy of the mean probabilities of the most certain views."""
    probabilities = logits_VC.softmax(-1)
    entropies = [-sum(float(p * p.log()) for p in row.detach()) for row in probabilities]
    chosen = sorted(range(len(entropies)), key=lambda v: entropies[v])[:number]
    mean = sum(probabilities[v] for v in chosen) / number
    return -(mean * mean.log()).sum()
