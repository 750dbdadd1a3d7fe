"""Whether images can really be decoded: asked of those that are going to be used, before anything is learned."""

from __future__ import annotations

from collections.abc import Callable, Container, Sequence

from vlprompt.data.images import open_image
from vlprompt.data.samples import Sample, Skipped
from vlprompt.data.sources import strict_error
from vlprompt.data.views import WORKERS, in_threads
from vlprompt.errors import UserError

CHUNK = 64 * WORKERS


def verify(
    samples: Sequence[Sample],
    *,
    strict: bool = False,
    known: Container[str] = frozenset(),
    progress: Callable[[int], None] | None = None,
) -> tuple[tuple[Sample, ...], tuple[Skipped, ...]]:
    """The samples that decode, in order, and those that do not, each with the reason.

    `known`: content hashes of images that have been decoded before (`FeatureStore.known`), which are not decoded again.
    `progress` is called with the number of images just done. With `strict`, a UserError in place of skips.
    """
    good: list[Sample] = []
    skipped: list[Skipped] = []
    for start in range(0, len(samples), CHUNK):
        chunk = samples[start : start + CHUNK]
        for sample, reason in zip(chunk, in_threads(lambda sample: damage(sample, known), chunk), strict=True):
            if reason is None:
                good.append(sample)
            else:
                skipped.append(Skipped(sample.id, reason))
        if progress:
            progress(len(chunk))
    if strict and skipped:
        raise strict_error("--strict", [f"{skip.id} ({skip.reason})" for skip in skipped])
    return tuple(good), tuple(skipped)


def damage(sample: Sample, known: Container[str] = frozenset()) -> str | None:
    """Why a sample cannot be decoded; None: it can."""
    try:
        data = sample.read()
        if sample.content_hash not in known:
            open_image(data, name=sample.id)
    except UserError as error:
        return str(error).removeprefix(f"{sample.id}: ").removesuffix(".")
    return None
