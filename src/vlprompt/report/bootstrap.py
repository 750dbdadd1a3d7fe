"""How sure a difference is: a paired bootstrap over images, joined with Student's t over seeds.

A data set gives a table ``D`` of S seeds and N images: +1 where only the second method is right, -1 where only the first is, else 0.
The estimate is the mean of ``D`` in points, over one data set or as the plain mean over several. It is uncertain for two reasons,
and a resample draws both anew:

- other images: N images with replacement, each with all of its seeds (that is what makes the bootstrap paired);
- other seeds: resampling three seeds can at best give an interval that covers three times in four. The true mean lies between the
  smallest and the largest of three values only that often. So the mean over seeds is drawn from Student's t instead.
  If a seed's prompt is tested on several data sets, the mean over data sets is taken seed by seed first. What the prompt gains
  on one it may also gain on the others: the data sets are not independent.

The noise of single cells (this image with this seed) shows in both, and is counted once. It is left to the seeds. The
deviations of the image bootstrap are shrunk by ``sqrt(1 - MS_cell / MS_image)``, the mean squares of the two-way table.
Three seeds can be equal by chance, and one image of 155 would then be a sure gain. So the seeds' interval is never narrower
than the normal one of the cells' noise. (Project's choices; the tests and `benchmarks.coverage` measure the coverage.)

Letters: S seeds, N images, R resamples, K values that an image's row can take.
"""

from __future__ import annotations

import math
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from scipy.special import ndtri, stdtrit

RESAMPLES = 10_000
LEVEL = 0.95
MARGIN = 0.5
"""Points: a difference that stays within it, either way, counts as none (project's choice)."""
SEED = 1
MOST_SEEDS = 999
Gains = NDArray[np.int8]
Verdict = Literal["better", "worse", "same", "cannot tell"]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class PairedTest:
    """One data set's table, in points, taken apart. Each one is equal to itself alone."""

    mean: float
    num_images: int
    num_seeds: int
    values_K: NDArray[np.float64]
    """What the mean over seeds of one image can be, points."""
    share_K: NDArray[np.float64]
    """The part of the images with each value."""
    image_share: float
    """The factor on the deviations of the image bootstrap, 0 to 1."""
    seed_variance: float | None
    """Squared standard error of the mean over seeds, at least what the noise of single cells asks for; None with one seed, where it
    cannot be known."""
    mean_S: NDArray[np.float64]
    """The mean over images of each seed, points."""

    @property
    def image_variance(self) -> float:
        """What the image bootstrap adds, points squared."""
        spread = float(self.share_K @ (self.values_K - self.mean) ** 2)
        return self.image_share**2 * spread / self.num_images


def paired_test(difference_SN: Gains, *, fixed: bool = False) -> PairedTest:
    """Takes a table of -1, 0 and +1 apart.

    fixed: neither method depends on a seed, so the one row is all there is to know about seeds.
    """
    num_seeds, num_images = difference_SN.shape
    assert num_seeds > 0
    assert num_images > 0
    sum_N = difference_SN.sum(0, dtype=np.int64)
    count_K = np.bincount(sum_N + num_seeds, minlength=2 * num_seeds + 1)
    used = np.flatnonzero(count_K)
    image_share, seed_variance = 1.0, 0.0 if fixed else None
    if num_seeds > 1:
        image_share, seed_variance = _two_way(difference_SN)
    return PairedTest(
        mean=100 * float(difference_SN.mean()),
        num_images=num_images,
        num_seeds=num_seeds,
        values_K=100 * (used - num_seeds) / num_seeds,
        share_K=count_K[used] / num_images,
        image_share=image_share,
        seed_variance=seed_variance,
        mean_S=100 * difference_SN.mean(1),
    )


def _two_way(difference_SN: Gains) -> tuple[float, float]:
    """The image factor and the squared standard error over seeds, from the mean squares of the two-way table."""
    num_seeds, num_images = difference_SN.shape
    mean = difference_SN.mean()
    of_seeds = num_images * float(((difference_SN.mean(1) - mean) ** 2).sum())
    of_images = num_seeds * float(((difference_SN.mean(0) - mean) ** 2).sum())
    total = float((difference_SN.astype(np.float64) ** 2).sum()) - difference_SN.size * float(mean) ** 2
    seed_square = of_seeds / (num_seeds - 1)
    if num_images == 1:
        return 0.0, 100**2 * seed_square / difference_SN.size
    image_square = of_images / (num_images - 1)
    cell_square = max(0.0, total - of_seeds - of_images) / ((num_seeds - 1) * (num_images - 1))
    narrowest = cell_square * (_normal_quantile() / float(stdtrit(num_seeds - 1, (1 + LEVEL) / 2))) ** 2
    image_share = math.sqrt(max(0.0, 1 - cell_square / image_square)) if image_square > 0 else 0.0
    return image_share, 100**2 * max(seed_square, narrowest) / difference_SN.size


def _normal_quantile() -> float:
    return float(ndtri((1 + LEVEL) / 2))


@dataclass(frozen=True, slots=True, kw_only=True)
class Estimate:
    """A mean difference in points, with its interval and what follows from it."""

    difference: float
    low: float
    high: float
    verdict: Verdict
    seeds_needed: int | None
    """Seeds for a verdict, if mean and spread stay as they are; None where no number would do, or one seed tells nothing."""
    images_factor: float
    """How many times as many images would be needed with any number of seeds; at most 1 where those there are suffice."""
    seeds_known: bool
    """Whether the spread over seeds could be measured; with one seed the interval holds for that seed alone."""


def estimate(
    tests: Sequence[PairedTest], *, shared: bool = False, margin: float = MARGIN, resamples: int = RESAMPLES
) -> Estimate:
    """The mean over data sets, its interval and the verdict. `same`: the whole interval lies within the margin. `better` or
    `worse`: it leaves out zero. Else, and always with one seed, `cannot tell`.

    shared: a seed has one prompt for all data sets; the tables then have the same seeds in the same order.
    """
    mean = float(np.mean([one.mean for one in tests]))
    low, high = np.quantile(draws(tests, shared=shared, resamples=resamples), [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    known = all(one.seed_variance is not None for one in tests)
    seeds, factor = _needed(tests, mean, margin, shared=shared)
    return Estimate(
        difference=mean,
        low=float(low),
        high=float(high),
        verdict=_verdict(float(low), float(high), margin) if known else "cannot tell",
        seeds_needed=seeds if known else None,
        images_factor=factor,
        seeds_known=known,
    )


def draws(tests: Sequence[PairedTest], *, shared: bool = False, resamples: int = RESAMPLES) -> NDArray[np.float64]:
    """(R,) draws of the mean over data sets, always the same ones."""
    mean_R = np.zeros(resamples)
    for one in tests:
        mean_R += one.mean + one.image_share * (image_draws(one, resamples) - one.mean)
    variance, freedom = seed_part(tests, shared=shared)
    if variance:
        mean_R += len(tests) * math.sqrt(variance) * np.random.default_rng(SEED).standard_t(freedom, size=resamples)
    return mean_R / len(tests)


@lru_cache(maxsize=64)
def image_draws(one: PairedTest, resamples: int) -> NDArray[np.float64]:
    """(R,) means over images that are drawn with replacement, before they are shrunk.

    Images with the same value are drawn together: how many there are of each is multinomial. The generator's seed comes from the
    table itself, so data sets are drawn independently, and each the same way alone and in an average.
    """
    rng = np.random.default_rng((SEED, zlib.crc32(one.values_K.tobytes() + one.share_K.tobytes())))
    count_RK = rng.multinomial(one.num_images, one.share_K, size=resamples)
    drawn_R: NDArray[np.float64] = count_RK @ one.values_K / one.num_images
    return drawn_R


def seed_part(tests: Sequence[PairedTest], *, shared: bool = False) -> tuple[float, float]:
    """Squared standard error over seeds of the mean over data sets, and its degrees of freedom.

    S - 1 where there is one mean for each seed: for one data set, or where a seed's prompt is shared by all. Else seeds of different
    data sets are independent; source: Satterthwaite, Biometrics Bulletin 2 (1946).
    """
    if shared and len(tests) > 1 and tests[0].num_seeds > 1:
        mean_S = np.mean([one.mean_S for one in tests], axis=0)
        return float(mean_S.var(ddof=1)) / len(mean_S), len(mean_S) - 1
    parts = [((one.seed_variance or 0.0) / len(tests) ** 2, one.num_seeds - 1) for one in tests if one.num_seeds > 1]
    variance = sum(part for part, _ in parts)
    if variance == 0:
        return 0.0, math.inf
    return variance, variance**2 / sum(part**2 / freedom for part, freedom in parts)


def _verdict(low: float, high: float, margin: float) -> Verdict:
    if -margin <= low and high <= margin:
        return "same"
    if low > 0:
        return "better"
    return "worse" if high < 0 else "cannot tell"


def _needed(tests: Sequence[PairedTest], mean: float, margin: float, *, shared: bool) -> tuple[int | None, float]:
    """Seeds after which the interval would leave out zero or lie within the margin; and the images' factor."""
    target = max(abs(mean), margin - abs(mean))
    image_variance = sum(one.image_variance for one in tests) / len(tests) ** 2
    of_images = _normal_quantile() * math.sqrt(image_variance)
    factor = (of_images / target) ** 2 if target > 0 else math.inf
    if factor >= 1:
        return None, factor
    variance, freedom = seed_part(tests, shared=shared)
    if variance == 0:
        return 1, factor
    now = min(one.num_seeds for one in tests if one.num_seeds > 1)
    for seeds in range(2, MOST_SEEDS + 1):
        quantile = float(stdtrit(freedom * (seeds - 1) / (now - 1), (1 + LEVEL) / 2))
        if math.hypot(quantile * math.sqrt(variance * now / seeds), of_images) < target:
            return seeds, factor
    return None, factor
