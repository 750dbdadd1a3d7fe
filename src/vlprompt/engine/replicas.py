"""Several prompts through the frozen towers at once: seeds, or option values, of one method.

A small model on a processor spends much of a step on calls, not on numbers. R prompts as one batch of the towers' group axis make the
same calls for all of them. What belongs to one prompt (its images, losses, optimiser) stays its own, in `train`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace

import torch
from torch import Tensor

from vlprompt.engine.forward import Forward, SeenBatch
from vlprompt.types import Features, Prompted, Splice, View


def views_of(forwards: Sequence[Forward], seen: Sequence[SeenBatch]) -> list[View]:
    """The view of each prompt; the towers are run once for all where the prompts fit together, else once each."""
    text = _text(forwards, seen)
    image = _image(forwards, seen)
    return [
        forward.view(one, text[place] if text else None, image[place] if image else None)
        for place, (forward, one) in enumerate(zip(forwards, seen, strict=True))
    ]


def _text(forwards: Sequence[Forward], seen: Sequence[SeenBatch]) -> list[Features] | None:
    """The class features of each prompt, before what is done with them; None: they cannot be had together."""
    first, prompted = forwards[0], [one.prompted for one in seen]
    together = (
        len(seen) > 1
        and first.spec.layout is not None
        and all(one.tokens is first.tokens for one in forwards)
        and all(one.drawn is None and not one.prompted.weights for one in seen)
        and _stack([one.text for one in prompted], [1] * len(seen))
    )
    if not together:
        return None
    states = any("host_states" in one.needs for one in forwards)
    whole = Prompted(text=together, layout=prompted[0].layout)
    found = first.clip.encode_text(first.tokens, whole, states=states, max_rows=first.max_rows)
    each = found.states if found.states is not None else [None] * len(seen)
    return [Features(pooled=pooled, states=own) for pooled, own in zip(found.pooled, each, strict=True)]


def _image(forwards: Sequence[Forward], seen: Sequence[SeenBatch]) -> list[Features] | None:
    """The image features of each prompt's batch, before what is done with them; None: they cannot be had together."""
    pixels = [one.pixels for one in seen if one.pixels is not None]
    if len(seen) == 1 or len(pixels) < len(seen) or any(one.prompted.weights for one in seen):
        return None
    sizes = [len(one) for one in pixels]
    together = _stack([one.prompted.image for one in seen], sizes)
    if not together:
        return None
    found = forwards[0].clip.encode_images(torch.cat(pixels), Prompted(image=together))
    return [Features(pooled=part) for part in torch.split(found.pooled, sizes)]


def _stack(each: Sequence[Mapping[int, Splice]], times: Sequence[int]) -> dict[int, Splice]:
    """The tokens of several prompts as those of a batch, each prompt's `times` over; empty where they do not fit together."""
    if any(one.keys() != each[0].keys() for one in each):
        return {}
    out = {}
    for layer in each[0]:
        splices = [one[layer] for one in each]
        first = splices[0]
        if any(one.axis != "shared" or _shape(one) != _shape(first) for one in splices):
            return {}

        def joined(part: Callable[[Splice], Tensor | None], splices: Sequence[Splice] = splices) -> Tensor | None:
            tensors = [tensor for one in splices if (tensor := part(one)) is not None]
            if not tensors:
                return None
            return torch.cat([one.expand(n, *one.shape) for one, n in zip(tensors, times, strict=True)])

        q = joined(lambda one: one.q)
        assert q is not None
        k, v, token = joined(lambda one: one.k), joined(lambda one: one.v), joined(lambda one: one.token)
        out[layer] = replace(first, q=q, k=k, v=v, token=token, axis="image")
    return out


def _shape(splice: Splice) -> tuple[object, ...]:
    return splice.q.shape, splice.k is None, splice.token is None, splice.residual
