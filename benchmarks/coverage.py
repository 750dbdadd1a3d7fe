"""How often the interval of `vlprompt compare` covers a known truth, next to that of a plain bootstrap over images and seeds.

python -m benchmarks.coverage --trials 1000
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from vlprompt.report.bootstrap import PairedTest, estimate, paired_test

CASES = (
    ("seeds hardly differ", 3, 700, 0.0, 0.0),
    ("images differ", 3, 700, 0.0, 60.0),
    ("seeds and images differ", 3, 700, 3.0, 60.0),
    ("seeds differ most", 3, 2000, 8.0, 0.0),
    ("five seeds", 5, 700, 3.0, 60.0),
)
"""What it is, seeds, images, standard deviation of the gain over seeds and over images (points)."""
SHARED = (
    ("the prompt decides little", 6, 1.0),
    ("as much as the targets", 6, 3.0),
    ("the prompt decides most", 6, 8.0),
    ("ten targets", 10, 3.0),
)
"""What it is, targets of one prompt a seed, and the standard deviation over prompts of what one gains on all targets (points)."""
TARGET_SEEDS, TARGET_IMAGES, OF_TARGET, OF_IMAGE = 3, 400, 3.0, 40.0
GAIN, DISAGREE = 3.0, 0.9
RESAMPLES, PLAIN = 1000, 200


def simulated(
    rng: np.random.Generator,
    seeds: int,
    images: int,
    of_seed: float,
    of_image: float,
    gain: float = GAIN,
    of_prompt_S: NDArray[np.float64] | float = 0.0,
) -> tuple[NDArray[np.int8], float]:
    """A table of -1, 0 and +1, and the true gain in points."""
    of_seeds_S = rng.normal(0, of_seed, seeds) + of_prompt_S
    of_images_N = rng.choice([-1.0, 1.0], images) * of_image
    chance_SN = np.clip((gain + of_seeds_S[:, None] + of_images_N[None]) / 100, -1, 1)
    draw_SN = rng.random((seeds, images))
    up_SN = DISAGREE * (1 + chance_SN) / 2
    return np.where(draw_SN < up_SN, 1, np.where(draw_SN < DISAGREE, -1, 0)).astype(np.int8), DISAGREE * gain


def plain_interval(rng: np.random.Generator, difference_SN: NDArray[np.int8]) -> tuple[float, float]:
    """Seeds and images both drawn with replacement, and nothing else."""
    seeds, images = difference_SN.shape
    rows, columns = rng.integers(0, seeds, (PLAIN, seeds)), rng.integers(0, images, (PLAIN, images))
    mean_R = 100 * difference_SN[rows[:, :, None], columns[:, None]].mean((1, 2))
    low, high = np.quantile(mean_R, [0.025, 0.975])
    return float(low), float(high)


def of_one_prompt(
    rng: np.random.Generator, targets: int, of_prompt: float, gain: float
) -> tuple[list[PairedTest], float]:
    """The tables of several targets on which the same prompts are tested, one prompt a seed; and the true gain in points."""
    prompt_S = rng.normal(0, of_prompt, TARGET_SEEDS)
    sizes = (TARGET_SEEDS, TARGET_IMAGES, OF_TARGET, OF_IMAGE)
    made = [simulated(rng, *sizes, gain, prompt_S) for _ in range(targets)]
    return [paired_test(difference) for difference, _ in made], made[0][1]


def shared_prompts(trials: int) -> None:
    """Coverage, and verdicts where there is no difference: averaged seed by seed first, and as if targets were independent."""
    print("| | targets | compare | as if independent | false verdicts | as if independent |")
    print("| --- | ---: | ---: | ---: | ---: | ---: |")
    for words, targets, of_prompt in SHARED:
        rng = np.random.default_rng(0)
        held, false = [0, 0], [0, 0]
        for _ in range(trials):
            tests, truth = of_one_prompt(rng, targets, of_prompt, GAIN)
            nothing, _ = of_one_prompt(rng, targets, of_prompt, 0.0)
            for way, shared in enumerate((True, False)):
                found = estimate(tests, shared=shared)
                held[way] += found.low <= truth <= found.high
                false[way] += estimate(nothing, shared=shared).verdict in ("better", "worse")
        shares = " | ".join(f"{100 * count / trials:.1f} %" for count in (*held, *false))
        print(f"| {words} | {targets} | {shares} |")


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--trials", type=int, default=1000)
    trials = parser.parse_args(arguments).trials
    print("| | seeds | images | compare | bootstrap over both |\n| --- | ---: | ---: | ---: | ---: |")
    for words, seeds, images, of_seed, of_image in CASES:
        rng = np.random.default_rng(0)
        ours = plain = 0
        for _ in range(trials):
            difference, truth = simulated(rng, seeds, images, of_seed, of_image)
            found = estimate([paired_test(difference)], resamples=RESAMPLES)
            ours += found.low <= truth <= found.high
            low, high = plain_interval(rng, difference)
            plain += low <= truth <= high
        print(f"| {words} | {seeds} | {images} | {100 * ours / trials:.1f} % | {100 * plain / trials:.1f} % |")
    print()
    shared_prompts(trials)


if __name__ == "__main__":
    main()
