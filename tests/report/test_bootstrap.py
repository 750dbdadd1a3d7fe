"""Intervals hold what they promise, by simulation with a known truth; the fast draws equal a literal loop."""

from __future__ import annotations

import math
import random

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from scipy import stats

from vlprompt.report import bootstrap
from vlprompt.report.bootstrap import Gains, PairedTest, draws, estimate, paired_test, seed_part


def table(
    rng: np.random.Generator,
    *,
    seeds: int,
    images: int,
    gain: float,
    of_seed: float,
    of_image: float,
    of_prompt_S: NDArray[np.float64] | float = 0.0,
) -> tuple[Gains, float]:
    """A simulated table: the second method is right with `gain` points more, moved by each seed and by each image.

    of_seed, of_image: standard deviations (points) of the gain over seeds and over images. of_prompt_S: what each seed's prompt gains
    on other data sets as well, in points. Returns the truth, in points, too.
    """
    shift_S = rng.normal(0, of_seed, seeds) + of_prompt_S
    shift_N = rng.choice([-1.0, 1.0], images) * of_image
    chance_SN = np.clip((gain + shift_S[:, None] + shift_N[None]) / 100, -0.9, 0.9)
    differs_SN = rng.random((seeds, images))
    up_SN = (1 + chance_SN) / 2 * 0.9
    out = np.where(differs_SN < up_SN, 1, np.where(differs_SN < 0.9, -1, 0))
    return out.astype(np.int8), 0.9 * gain


@pytest.mark.parametrize(
    ("seeds", "of_seed", "of_image"),
    [(3, 0.0, 0.0), (3, 6.0, 0.0), (3, 0.0, 60.0), (3, 2.0, 60.0), (5, 3.0, 60.0), (2, 4.0, 0.0)],
)
def test_the_interval_covers_the_truth_as_often_as_it_says(seeds: int, of_seed: float, of_image: float) -> None:
    rng = np.random.default_rng(seeds)
    held = 0
    for _ in range(400):
        difference, truth = table(rng, seeds=seeds, images=300, gain=3, of_seed=of_seed, of_image=of_image)
        found = estimate([paired_test(difference)], resamples=1000)
        held += found.low <= truth <= found.high
    assert held / 400 >= 0.925, "95 % less three standard errors of 400 trials"


def test_the_interval_of_a_mean_over_data_sets_covers_and_is_no_wider_than_it_must() -> None:
    rng = np.random.default_rng(8)
    held, widths, means = 0, [], []
    for _ in range(300):
        tests, truth = [], 0.0
        for images, of_seed in ((200, 1.0), (400, 3.0), (300, 2.0), (150, 2.0)):
            difference, one = table(rng, seeds=3, images=images, gain=2, of_seed=of_seed, of_image=40)
            tests.append(paired_test(difference))
            truth += one / 4
        found = estimate(tests, resamples=1000)
        held += found.low <= truth <= found.high
        widths.append(found.high - found.low)
        means.append(found.difference)
    assert held / 300 >= 0.925
    assert np.mean(widths) < 1.8 * 2 * 1.96 * np.std(means)


TRIALS = 250


def of_one_prompt(rng: np.random.Generator, gain: float) -> list[PairedTest]:
    """Six data sets on which the same three prompts are tested."""
    prompt_S = rng.normal(0, 5.0, 3)
    made = {"seeds": 3, "gain": gain, "of_seed": 1.0, "of_image": 40.0, "of_prompt_S": prompt_S}
    return [paired_test(table(rng, images=images, **made)[0]) for images in (300, 400, 500, 600, 400, 300)]


def test_data_sets_that_share_their_prompts_are_averaged_seed_by_seed_first() -> None:
    """Coverage of a known truth, and verdicts where there is no difference; taken as independent, both would be far off."""
    rng = np.random.default_rng(2)
    held, false = {True: 0, False: 0}, {True: 0, False: 0}
    for _ in range(TRIALS):
        found, nothing = of_one_prompt(rng, 3.0), of_one_prompt(rng, 0.0)
        for shared in held:
            said = estimate(found, shared=shared, resamples=1000)
            held[shared] += said.low <= 0.9 * 3.0 <= said.high
            false[shared] += estimate(nothing, shared=shared, resamples=1000).verdict in ("better", "worse")
    assert held[True] / TRIALS >= 0.92
    assert held[False] / TRIALS < 0.85
    assert false[True] / TRIALS <= 0.08
    assert false[False] / TRIALS > 0.12


def test_the_freedom_of_shared_prompts_does_not_grow_with_data_sets() -> None:
    rng = np.random.default_rng(0)
    one = paired_test(table(rng, seeds=3, images=500, gain=2, of_seed=3, of_image=0)[0])
    assert seed_part([one] * 4, shared=True) == (pytest.approx(one.seed_variance), 2)
    assert estimate([one], shared=True) == estimate([one])
    alone = paired_test(table(rng, seeds=1, images=50, gain=2, of_seed=3, of_image=0)[0])
    assert estimate([alone, alone], shared=True).verdict == "cannot tell"


def test_resampling_three_seeds_alone_would_not_cover() -> None:
    """Why Student's t stands in for the seeds: the plain bootstrap over both misses far more often than it says."""
    rng, held = np.random.default_rng(1), 0
    for _ in range(200):
        difference, truth = table(rng, seeds=3, images=2000, gain=3, of_seed=8, of_image=0)
        rows, columns = rng.integers(0, 3, (200, 3)), rng.integers(0, 2000, (200, 2000))
        mean_R = 100 * difference[rows[:, :, None], columns[:, None]].mean((1, 2))
        low, high = np.quantile(mean_R, [0.025, 0.975])
        held += low <= truth <= high
    assert held / 200 < 0.85


def literal_draws(tables: list[Gains], resamples: int, seed: int) -> list[float]:
    """Images drawn one by one, all sums written out."""
    rng = random.Random(seed)
    out = []
    for _ in range(resamples):
        total, variance, bottom = 0.0, 0.0, 0.0
        for one in tables:
            rows = one.astype(int).tolist()
            seeds, images = len(rows), len(rows[0])
            mean = sum(map(sum, rows)) / (seeds * images)
            by_image = [sum(row[i] for row in rows) / seeds for i in range(images)]
            by_seed = [sum(row) / images for row in rows]
            image_square = seeds * sum((value - mean) ** 2 for value in by_image) / (images - 1)
            cell_square = sum(
                (rows[s][i] - by_image[i] - by_seed[s] + mean) ** 2 for s in range(seeds) for i in range(images)
            ) / ((seeds - 1) * (images - 1))
            share = math.sqrt(max(0.0, 1 - cell_square / image_square))
            drawn = sum(by_image[rng.randrange(images)] for _ in range(images)) / images
            total += 100 * (mean + share * (drawn - mean))
            part = 100**2 * sum((value - mean) ** 2 for value in by_seed) / (seeds - 1) / seeds
            variance += part
            bottom += part**2 / (seeds - 1)
        freedom = variance**2 / bottom
        student = rng.gauss(0, 1) / math.sqrt(rng.gammavariate(freedom / 2, 2) / freedom)
        out.append((total + math.sqrt(variance) * student) / len(tables))
    return out


@pytest.mark.parametrize("sets", [1, 2])
def test_draws_are_distributed_as_those_of_a_literal_loop(sets: int) -> None:
    rng = np.random.default_rng(3)
    tables = [table(rng, seeds=4, images=40 + 20 * i, gain=5, of_seed=2, of_image=50)[0] for i in range(sets)]
    slow = np.quantile(literal_draws(tables, 3000, 0), [0.025, 0.25, 0.5, 0.75, 0.975])
    fast = np.quantile(draws([paired_test(one) for one in tables]), [0.025, 0.25, 0.5, 0.75, 0.975])
    np.testing.assert_allclose(fast, slow, atol=0.06 * (slow[-1] - slow[0]))


tables_drawn = st.integers(2, 5).flatmap(
    lambda seeds: st.lists(
        st.lists(st.sampled_from([-1, 0, 1]), min_size=seeds, max_size=seeds), min_size=2, max_size=30
    )
)


@given(tables_drawn)
def test_parts_of_any_table_are_those_of_the_plain_formulas(columns: list[list[int]]) -> None:
    difference = np.array(columns, dtype=np.int8).T
    one = paired_test(difference)
    assert one.mean == pytest.approx(100 * difference.astype(float).mean())
    assert float(one.share_K.sum()) == pytest.approx(1)
    assert float(one.share_K @ one.values_K) == pytest.approx(one.mean)
    cells = 100 * difference.astype(float)
    seeds, images = cells.shape
    noise = cells - cells.mean(0) - cells.mean(1, keepdims=True) + cells.mean()
    of_cells = (noise**2).sum() / ((seeds - 1) * (images - 1)) / cells.size
    quantiles = stats.norm.ppf(0.975) / stats.t.ppf(0.975, seeds - 1)
    assert one.seed_variance == pytest.approx(max(cells.mean(1).var(ddof=1) / seeds, of_cells * quantiles**2), abs=1e-9)
    assert 0 <= one.image_share <= 1
    found = estimate([one], resamples=200)
    assert found.low <= found.high
    if not one.seed_variance:
        assert -100 - 1e-9 <= found.low <= found.high <= 100 + 1e-9


@given(tables_drawn)
def test_the_other_way_round_is_the_negative(columns: list[list[int]]) -> None:
    difference = np.array(columns, dtype=np.int8).T
    there, back = estimate([paired_test(difference)]), estimate([paired_test(-difference)])
    assert there.difference == pytest.approx(-back.difference)
    width = there.high - there.low
    assert width == pytest.approx(back.high - back.low, rel=0.3, abs=1)
    if {there.verdict, back.verdict} == {"better", "worse"}:
        assert there.verdict != back.verdict


def test_the_same_answers_are_the_same_and_a_clear_gain_is_better() -> None:
    nothing = np.zeros((3, 100), np.int8)
    assert estimate([paired_test(nothing)]).verdict == "same"
    gain = np.zeros((3, 400), np.int8)
    gain[:, :80] = 1
    found = estimate([paired_test(gain)])
    assert (found.verdict, found.difference) == ("better", pytest.approx(20))
    assert estimate([paired_test(-gain)]).verdict == "worse"


def test_equal_seeds_are_no_proof() -> None:
    """One more right answer of 155 with each of three seeds, on another image each time: a real table, which was called better."""
    difference = np.zeros((3, 155), np.int8)
    for seed in range(3):
        difference[seed, 10 * seed : 10 * seed + 4] = 1
        difference[seed, 50 + 10 * seed : 53 + 10 * seed] = -1
    assert len(set(difference.sum(1))) == 1
    found = estimate([paired_test(difference)], margin=0.0)
    assert found.verdict == "cannot tell"
    assert found.low < -0.5
    assert found.high > 1.5


def test_a_difference_within_the_margin_counts_as_none_even_if_it_is_sure() -> None:
    gain = np.zeros((3, 100_000), np.int8)
    gain[:, :100] = 1
    found = estimate([paired_test(gain)], margin=0.5)
    assert found.low > 0
    assert found.verdict == "same"
    assert estimate([paired_test(gain)], margin=0.0).verdict == "better"


def test_one_seed_tells_nothing_unless_no_seed_is_involved() -> None:
    gain = np.zeros((1, 400), np.int8)
    gain[:, :80] = 1
    found = estimate([paired_test(gain)])
    assert (found.verdict, found.seeds_known, found.seeds_needed) == ("cannot tell", False, None)
    assert found.low > 10, "the interval for this seed is there all the same"
    assert estimate([paired_test(gain, fixed=True)]).verdict == "better"


def test_seeds_needed_are_enough_when_they_are_there() -> None:
    """With as many seeds as were asked for, most tables of the same kind get a verdict; with the three there were, few."""
    rng = np.random.default_rng(5)
    difference, _ = table(rng, seeds=3, images=4000, gain=4, of_seed=3.0, of_image=0)
    first = estimate([paired_test(difference)], resamples=2000)
    assert first.verdict == "cannot tell"
    assert first.seeds_needed is not None
    assert first.seeds_needed > 3

    def decided(seeds: int) -> int:
        made = (table(rng, seeds=seeds, images=4000, gain=4, of_seed=3.0, of_image=0)[0] for _ in range(40))
        return sum(estimate([paired_test(one)], resamples=1000).verdict != "cannot tell" for one in made)

    assert decided(first.seeds_needed) > decided(3)


@pytest.mark.parametrize(
    ("seeds", "mean", "image_variance"), [((3,), 2.0, 0.0), ((5,), 1.0, 0.04), ((3, 5), 1.5, 0.01), ((2,), 0.1, 0.0)]
)
def test_seeds_needed_are_those_of_the_formula(seeds: tuple[int, ...], mean: float, image_variance: float) -> None:
    """The first number of seeds whose interval leaves out zero, or lies within the margin of 0.5, as a plain loop finds it."""
    tests = [made_test(number, mean, image_variance) for number in seeds]
    variance, freedom = seed_part(tests)
    room = max(mean, 0.5 - mean)
    of_images = stats.norm.ppf(0.975) ** 2 * image_variance / len(seeds)

    def width(number: int) -> float:
        quantile = stats.t.ppf(0.975, freedom * (number - 1) / (min(seeds) - 1))
        return float(np.sqrt(quantile**2 * variance * min(seeds) / number + of_images))

    wanted = next(number for number in range(2, 1000) if width(number) < room)
    found = estimate(tests, resamples=10)
    assert found.seeds_needed == wanted
    assert found.images_factor == pytest.approx(of_images / room**2)


def made_test(seeds: int, mean: float, image_variance: float) -> PairedTest:
    """A table taken apart, of 100 images, whose squared error over seeds is 1 for three seeds."""
    half = 10 * image_variance**0.5
    return PairedTest(
        mean=mean,
        num_images=100,
        num_seeds=seeds,
        values_K=np.array([mean - half, mean + half]),
        share_K=np.array([0.5, 0.5]),
        image_share=1.0,
        seed_variance=0.01 if mean < 0.5 else 3.0 / seeds,
        mean_S=np.full(seeds, mean),
    )


def test_too_few_images_are_told_from_too_few_seeds() -> None:
    rng = np.random.default_rng(0)
    row = rng.choice([-1, 0, 1], 60).astype(np.int8)
    found = estimate([paired_test(np.stack([row] * 3))])
    assert found.verdict == "cannot tell"
    assert found.seeds_needed is None
    assert found.images_factor > 1


def test_freedom_is_that_of_the_seeds_and_grows_with_data_sets() -> None:
    rng = np.random.default_rng(0)
    one = paired_test(table(rng, seeds=3, images=500, gain=2, of_seed=3, of_image=0)[0])
    assert seed_part([one])[1] == pytest.approx(2)
    assert seed_part([one] * 4) == (pytest.approx(one.seed_variance / 4), pytest.approx(8))  # type: ignore[operator]


def test_the_same_call_gives_the_same_numbers() -> None:
    rng = np.random.default_rng(0)
    one = paired_test(table(rng, seeds=3, images=50, gain=2, of_seed=3, of_image=30)[0])
    values: NDArray[np.float64] = draws([one])
    assert len(values) == bootstrap.RESAMPLES
    np.testing.assert_array_equal(values, draws([one]))


def test_the_benchmark_of_coverage_prints_a_row_per_case(capsys: pytest.CaptureFixture[str]) -> None:
    from benchmarks import coverage

    coverage.main(["--trials", "2"])
    first, second = capsys.readouterr().out.split("\n\n")
    rows = first.splitlines()[2:]
    assert [row.split(" | ")[0].strip("| ") for row in rows] == [case[0] for case in coverage.CASES]
    assert all(row.count("%") == 2 for row in rows)
    rows = second.splitlines()[2:]
    assert [row.split(" | ")[0].strip("| ") for row in rows] == [case[0] for case in coverage.SHARED]
    assert all(row.count("%") == 4 for row in rows)
