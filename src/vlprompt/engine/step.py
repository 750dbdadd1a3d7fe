"""One step of learning, the same for every loop: from a batch's view to weighted losses, gradients and the optimiser."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from types import MappingProxyType
from typing import final

import torch
from torch import Tensor, nn

from vlprompt.errors import NUMERICAL, UserError
from vlprompt.losses import CROSS_ENTROPY
from vlprompt.types import Method, Prompted, Rule, Term, View

Gradients = tuple[Tensor | None, ...]
"""One per parameter; None where nothing reaches it (SGD then leaves it as it is, weight decay included)."""


def weighted(terms: Sequence[Term], view: View, share: float = 1.0) -> dict[str, Tensor]:
    """Every term's weighted loss, by name.

    share: this process's images times the number of processes over all images (1 for a process alone). Terms that are a mean over
    images are multiplied by it, so the mean over processes is the mean over all images; terms without images are not. With
    share 0 there are no images: those terms are 0, still connected to the class features, whose gradient all processes exchange.
    """
    out = {}
    for term in terms:
        if share == 0 and term.over_images:
            out[term.name] = 0.0 * view.text.pooled.sum()
            continue
        loss = term.weight * term.score(view)
        out[term.name] = share * loss if term.over_images and share != 1 else loss
    return out


@dataclass(frozen=True, slots=True, kw_only=True)
class Share:
    """One prompt's part of a step: its losses, and what they are differentiated by."""

    method: Method
    losses: Mapping[str, Tensor]
    parameters: Sequence[Tensor]
    places: Mapping[str, Sequence[int]] = field(default_factory=dict)
    """As `labelled` gives them."""


def gradients_of(method: Method, losses: Mapping[str, Tensor], parameters: Sequence[Tensor]) -> Gradients:
    """One gradient per learned tensor: of the sum of all terms, or by the method's rule."""
    ((found, _),) = gradients_of_all([Share(method=method, losses=losses, parameters=parameters)])
    return found


def gradients_of_all(shares: Sequence[Share], *, measured: bool = False) -> list[tuple[Gradients, dict[str, float]]]:
    """`gradients_of` of every prompt of a step; where the prompts share a graph, in as few backward passes as one takes.

    measured: each with every term's length against cross-entropy's. Without a rule the terms' gradients are then added, so measuring
    costs no second pass through what they share.
    """
    rules = [rule for one in shares if (rule := one.method.steps.rule) is not None]
    assert len(rules) in (0, len(shares)), "prompts with a rule and without one in one step"
    losses, parameters = [one.losses for one in shares], [one.parameters for one in shares]
    measured = measured and any(len(one) > 1 for one in losses)
    each = by_term_of_all(losses, parameters, keep=bool(rules)) if measured else []
    if rules:
        found = by_rules(rules, losses, parameters)
    elif each:
        found = [added(one) for one in each]
    else:
        found = _differentiate([torch.stack(list(one.values())).sum() for one in losses], parameters, keep=False)
    if not each:
        return [(gradients, {}) for gradients in found]
    return [
        (gradients, ratios(terms, CROSS_ENTROPY.name, share.places))
        for gradients, terms, share in zip(found, each, shares, strict=True)
    ]


def labelled(terms: Sequence[Term], prompt: nn.Module, prompted: Prompted) -> dict[str, list[int]]:
    """Term -> the places, among the prompt's parameters, of the tensors that it labels; terms without labels are not in it.

    A context that is made of parameters (one shifted for each image) counts as the parameter `ctx`.
    """
    names, parameters = zip(*prompt.named_parameters(), strict=True)
    found = {}
    for term in terms:
        if term.labelled is not None:
            tensors = term.labelled(prompted)
            places = [place for place, one in enumerate(parameters) if any(one is tensor for tensor in tensors)]
            found[term.name] = places or [place for place, name in enumerate(names) if name == "ctx"]
    return found


@final
class Balance:
    """The terms of a method, those with a balance weighted so that on what they label their gradient over the first epoch is R
    times cross-entropy's. The weights are then fixed; a checkpoint carries them."""

    def __init__(self, terms: Sequence[Term], weights: Mapping[str, float]) -> None:
        """weights: those found before, of a run that goes on."""
        self.weights = dict(weights)
        self._terms = tuple(terms)
        self._lengths: dict[str, tuple[float, float]] = {}

    @property
    def terms(self) -> tuple[Term, ...]:
        """With the weights as they are now."""
        return tuple(replace(term, weight=self.weights.get(term.name, term.weight)) for term in self._terms)

    def asks(self, view: View) -> dict[str, Tensor]:
        """The losses that are measured in a step of the first epoch: cross-entropy and what has a balance, or none."""
        balanced = [term for term in self._terms if term.balance]
        reference = [term for term in self._terms if term.name == CROSS_ENTROPY.name]
        return {term.name: term.score(view) for term in [*reference, *balanced]} if balanced else {}

    def counts(self, each: Mapping[str, Gradients], view: View, prompt: nn.Module) -> None:
        """Take a step's gradients into account: R times the sum of cross-entropy's lengths over the sum of the term's."""
        balanced = [term for term in self._terms if term.balance]
        places = labelled(balanced, prompt, view.prompted)
        for term in balanced:
            own, reference = (
                norm([each[name][i] for i in places[term.name]]) for name in (term.name, CROSS_ENTROPY.name)
            )
            before = self._lengths.get(term.name, (0.0, 0.0))
            total, of_reference = self._lengths[term.name] = (before[0] + own, before[1] + reference)
            self.weights[term.name] = term.balance * of_reference / total if total else 0.0


def measure_all(prompts: Sequence[tuple[Balance, View, nn.Module]]) -> None:
    """Find the balances of every prompt of a step, in as few backward passes as one takes; the graph is needed again."""
    asking = [(losses, one) for one in prompts if (losses := one[0].asks(one[1]))]
    found = by_term_of_all(
        [losses for losses, _ in asking], [list(prompt.parameters()) for _, (_, _, prompt) in asking], keep=True
    )
    for each, (_, (balance, view, prompt)) in zip(found, asking, strict=True):
        balance.counts(each, view, prompt)


def take(optimiser: torch.optim.Optimizer, parameters: Sequence[Tensor], gradients: Gradients) -> None:
    """One step of the optimiser along these gradients."""
    for parameter, one in zip(parameters, gradients, strict=True):
        parameter.grad = one
    optimiser.step()


@dataclass(frozen=True, slots=True, kw_only=True)
class Moment:
    """Where in a run something happened."""

    when: str
    """For example `epoch 3, step 7`, counted from 1."""
    images: Sequence[str]
    """The ids of the images of the step."""
    kept: str = ""
    """What of the run is safe: a sentence."""


def fetched(losses: Sequence[Tensor], gradients: Gradients) -> tuple[Tensor, list[bool]]:
    """The losses, float32 on the CPU, and whether each gradient is finite: the one place of a step that waits for the device."""
    one = losses[0].new_ones(())
    fine = [one if each is None else torch.isfinite(each).all().float() for each in gradients]
    both = torch.stack([*losses, *fine]).cpu()
    return both[: len(losses)], both[len(losses) :].bool().tolist()


def require_finite(losses: Mapping[str, float], fine: Sequence[bool], prompt: nn.Module, place: Moment) -> None:
    """Raise UserError, naming term, step and images, if a loss or gradient is not finite; nothing is updated."""
    bad = [f"the loss term {name!r}" for name, loss in losses.items() if not math.isfinite(loss)]
    named = zip(prompt.named_parameters(), fine, strict=True)
    bad += [f"the gradient of {name!r}" for (name, _), good in named if not good]
    if not bad:
        return
    raise UserError(
        f"{bad[0]} is not finite at {place.when}, on these images: {', '.join(place.images)}.{place.kept} "
        f"A lower learning rate (--set lr=...) or --dtype float32 usually helps; if not, look at the images.",
        exit_code=NUMERICAL,
    )


def accumulate(average: dict[str, Tensor], share: float, prompt: nn.Module) -> None:
    """Add a prompt to an average with a share, in float64 on the CPU."""
    for name, parameter in prompt.named_parameters():
        part = share * parameter.detach().cpu().double()
        average[name] = average[name] + part if name in average else part


def by_term(losses: Mapping[str, Tensor], parameters: Sequence[Tensor], *, keep: bool = False) -> dict[str, Gradients]:
    """The gradient of each loss by itself; keep: the graph is needed again afterwards."""
    return by_term_of_all([losses], [parameters], keep=keep)[0]


def by_term_of_all(
    losses: Sequence[Mapping[str, Tensor]], parameters: Sequence[Sequence[Tensor]], *, keep: bool
) -> list[dict[str, Gradients]]:
    """`by_term` of every prompt of a step: for each name one backward pass through what the prompts share."""
    each: list[dict[str, Gradients]] = [{} for _ in losses]
    names = list(dict.fromkeys(name for one in losses for name in one))
    for name in names:
        having = [place for place, one in enumerate(losses) if name in one]
        found = _differentiate(
            [losses[place][name] for place in having],
            [parameters[place] for place in having],
            keep=keep or name != names[-1],
        )
        for place, gradients in zip(having, found, strict=True):
            each[place][name] = gradients
    return each


def by_rules(
    rules: Sequence[Rule], losses: Sequence[Mapping[str, Tensor]], parameters: Sequence[Sequence[Tensor]]
) -> list[Gradients]:
    """What rules make of the gradients of their groups; a group that does not reach a parameter counts as zero there."""
    groups = [rule.groups(own) for rule, own in zip(rules, losses, strict=True)]
    count = len(groups[0])
    each = [
        _differentiate([one[number] for one in groups], parameters, keep=number + 1 < count) for number in range(count)
    ]
    found = []
    for place, (rule, own) in enumerate(zip(rules, parameters, strict=True)):
        out: list[Tensor | None] = []
        for parameter, parts in zip(own, zip(*(one[place] for one in each), strict=True), strict=True):
            reached = any(part is not None for part in parts)
            filled = [torch.zeros_like(parameter) if part is None else part for part in parts]
            out.append(rule.combine(filled) if reached else None)
        found.append(tuple(out))
    return found


def added(gradients: Mapping[str, Gradients]) -> Gradients:
    """The sum of the terms' gradients."""
    out: list[Tensor | None] = []
    for parts in zip(*gradients.values(), strict=True):
        present = [part for part in parts if part is not None]
        out.append(torch.stack(present).sum(0) if present else None)
    return tuple(out)


def norm(gradients: Sequence[Tensor | None]) -> float:
    """The Euclidean length of a gradient over all parameters."""
    return math.sqrt(sum(float(one.double().square().sum()) for one in gradients if one is not None))


def ratios(
    gradients: Mapping[str, Gradients], reference: str, places: Mapping[str, Sequence[int]] = MappingProxyType({})
) -> dict[str, float]:
    """The length of every other term's (weighted) gradient over that of `reference`, on some parameters by term (else on all).

    A term is left out where the reference is 0 there, or absent.
    """
    found = {}
    for name, one in gradients.items():
        on = places.get(name, range(len(one)))
        base = norm([gradients[reference][place] for place in on]) if reference in gradients else 0.0
        if name != reference and base:
            found[name] = norm([one[place] for place in on]) / base
    return found


def _differentiate(losses: Sequence[Tensor], parameters: Sequence[Sequence[Tensor]], *, keep: bool) -> list[Gradients]:
    """Each loss by the parameters of its prompt, in one backward pass through what they share."""
    reaching = [
        loss for loss in losses if loss.requires_grad
    ]  # others reach no learned tensor under the chosen options
    if not reaching:
        return [(None,) * len(own) for own in parameters]
    whole = reaching[0] if len(reaching) == 1 else torch.stack(reaching).sum()
    flat = torch.autograd.grad(whole, [one for own in parameters for one in own], retain_graph=keep, allow_unused=True)
    found: list[Gradients] = []
    start = 0
    for own in parameters:
        found.append(flat[start : start + len(own)])
        start += len(own)
    return found
