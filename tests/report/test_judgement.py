"""What is said of a learned prompt: better, worse, unclear, useless, untested; and tables that fit the terminal."""

from __future__ import annotations

import dataclasses
import math
import statistics

import pytest

from tests.report.made import record
from vlprompt.records import Record
from vlprompt.report.judgement import Z, judge
from vlprompt.report.tables import Table, accuracy, as_rich, fitting


def measured(
    gained: int, lost: int, *, top1: float, seed: int = 1, majority: float = 25.0, n: int = 400, **fields: object
) -> Record:
    return dataclasses.replace(
        record(seed=seed),
        top1=top1,
        zero_shot_top1=top1 - 100 * (gained - lost) / n,
        gained=gained,
        lost=lost,
        num_test=n,
        num_classes=4,
        majority_top1=majority,
        parameters=10,
        **fields,  # type: ignore[arg-type]
    )


@pytest.mark.parametrize(
    ("gained", "lost", "top1", "word", "said"),
    [
        (60, 20, 60.0, "better", "Worth using"),
        (20, 60, 50.0, "worse", "worse than hand-written"),
        (22, 20, 50.0, "unclear", "Cannot tell"),
        (60, 20, 27.0, "useless", "always giving one answer, which is right for 25.0 %"),
        (0, 0, 50.0, "unclear", "Cannot tell"),
    ],
)
def test_the_word_follows_from_the_images(gained: int, lost: int, top1: float, word: str, said: str) -> None:
    found = judge([measured(gained, lost, top1=top1)])
    assert found.word == word
    assert said in found.sentence
    assert found.gain == pytest.approx((gained - lost) / 4)
    assert found.low is not None
    assert found.high is not None
    assert found.low < found.gain < found.high
    assert "chance 25.0" in found.lines[0]


def test_every_class_counts_the_same_where_one_hides_the_others() -> None:
    many = [measured(60, 20, top1=80.0, majority=50.0, seed=seed, balanced_accuracy=40.0 + seed) for seed in (1, 2)]
    assert judge(many).macro == 41.5
    assert "macro accuracy, where every class counts the same: 41.5" in judge(many).lines[1]
    assert judge([dataclasses.replace(one, majority_top1=49.9) for one in many]).macro is None, (
        "16.7 % are three times less"
    )
    assert len(judge([measured(60, 20, top1=80.0, balanced_accuracy=50.0)]).lines) == 2


def test_the_interval_is_agresti_and_mins() -> None:
    found = judge([measured(60, 20, top1=60.0)])
    share = (60.5 - 20.5) / 402
    half = 100 * Z * math.sqrt(((60.5 + 20.5) / 402 - share**2) / 402)
    assert found.low == pytest.approx(10 - half)
    assert found.high == pytest.approx(10 + half)


@pytest.mark.parametrize(("right", "n"), [(60.0, 20), (0.0, 20), (100.0, 8)])
def test_the_accuracy_of_folds_has_agresti_and_coulls_interval(right: float, n: int) -> None:
    """The share with z^2 / 2 answers more of either kind: (X + z^2 / 2) / (n + z^2), which few images draw towards a half."""
    assert judge([measured(0, 0, top1=right, n=n)]).accuracy is None, "test images: the gain has an interval"
    found = judge([measured(0, 0, top1=right, n=n, folds=4)])
    answers, count = right * n / 100 + Z**2 / 2, n + Z**2
    share = answers / count
    half = Z * math.sqrt(share * (1 - share) / count)
    wanted = (max(0.0, 100 * (share - half)), min(100.0, 100 * (share + half)))
    assert found.accuracy == pytest.approx(wanted)
    assert f"{n} images in 4 folds" in found.sentence
    assert f"{n} test images" in judge([measured(0, 0, top1=right, n=n)]).sentence


def test_two_seeds_that_differ_widen_the_interval_by_the_variance_of_their_mean() -> None:
    found = judge([measured(40, 20, top1=60.0, seed=1), measured(80, 20, top1=60.0, seed=2)])
    gains = [20 / 402, 60 / 402]
    within = statistics.fmean(((a + 20 + 1) / 402 - gain**2) / 402 for a, gain in zip((40, 80), gains))
    half = 100 * Z * math.sqrt(within + statistics.variance(gains) / 2)
    assert found.low == pytest.approx(10 - half)
    assert found.high == pytest.approx(10 + half)


def test_more_seeds_on_the_same_images_make_it_no_narrower() -> None:
    one = judge([measured(60, 20, top1=60.0)])
    equal = judge([measured(60, 20, top1=60.0, seed=seed) for seed in (1, 2, 3)])
    apart = judge([measured(60 + 20 * seed, 20, top1=60.0, seed=seed) for seed in (0, 1, 2)])
    assert (equal.low, equal.high) == pytest.approx((one.low, one.high))
    assert apart.high is not None
    assert apart.low is not None
    assert one.high is not None
    assert one.low is not None
    assert apart.high - apart.low > one.high - one.low


def test_without_test_images_or_anything_learned_there_is_no_gain() -> None:
    assert judge([dataclasses.replace(record(), top1=None, parameters=10)]).word == "untested"
    nothing = judge([dataclasses.replace(record(), method="zero-shot", parameters=0, gained=0, lost=0)])
    assert (nothing.word, nothing.gain) == ("untested", None)
    described = judge([dataclasses.replace(record(), method="descriptions", parameters=0, gained=40, lost=2)])
    assert "the method descriptions is better than hand-written words" in described.sentence
    assert "descriptions " in described.lines[0]
    assert "Nothing is learned" in nothing.lines[0]


def test_the_best_words_stand_for_hand_written_ones() -> None:
    better = measured(10, 10, top1=50.0, hand_written="{}", hand_written_top1=50.0)
    assert better.by_hand_top1 == 50.0
    assert "hand-written: '{}' (the bare name)" in judge([better]).lines[0]
    table = accuracy([better])
    assert "'{}' (the bare name), the best of several" in table.remark
    assert table.cells[0][table.header.index("gain")] == "+0.0"


@pytest.mark.parametrize("width", [40, 60, 80, 120])
def test_the_first_column_is_never_lost(width: int) -> None:
    table = accuracy([measured(60, 20, top1=60.0)])
    kept = fitting(table, width)
    assert kept.header[0] == "method"
    assert {"zero-shot", "learned", "gain"} <= set(kept.header)
    gone = [name for name in table.header if name not in kept.header]
    assert gone == [] if width == 120 else all(name in kept.remark for name in gone)
    assert as_rich(table, width).row_count == 1


def test_a_table_without_optional_columns_stays_whole() -> None:
    table = Table(title="t", header=("a" * 40, "b" * 40), cells=(("1", "2"),))
    assert fitting(table, 20) is table


@pytest.mark.parametrize(("top1", "word"), [(29.5, "unclear"), (29.4, "useless")])
def test_useless_is_what_a_share_of_images_cannot_tell_from_one_answer(top1: float, word: str) -> None:
    """The lower end of the interval of a share, p - z sqrt(p (1 - p) / n), lies below what one answer gets, or above it."""
    share = top1 / 100
    low = 100 * (share - Z * math.sqrt(share * (1 - share) / 400))
    assert (low > 25) == (word != "useless")
    assert judge([measured(0, 0, top1=top1)]).word == word


def test_several_labels_are_judged_by_their_precision() -> None:
    known = {"mean_ap": 50.0, "hand_written_ap": 46.0, "macro_f1": 40.0}
    found = judge([measured(20, 60, top1=60.0, ap_gain_error=1.0, **known)])
    assert found.word == "better", "though the surest class is right less often"
    assert "+4.0 points of mean average precision, 95 % interval +2.0 to +6.0" in found.sentence
    assert judge([measured(60, 20, top1=60.0, ap_gain_error=3.0, **known)]).word == "unclear"
    two = [measured(20, 60, top1=60.0, seed=s, ap_gain_error=1.0, **known | {"mean_ap": 46.0 + 8 * s}) for s in (0, 1)]
    assert judge(two).word == "unclear", "seeds that disagree make the interval wider"


def test_few_test_images_call_nothing_useless() -> None:
    assert judge([measured(1, 0, top1=30.0, n=10)]).word == "unclear"
    assert judge([measured(1, 0, top1=30.0, n=50)]).word == "useless"
    assert judge([measured(0, 20, top1=5.0, n=49)]).word == "worse"


def test_a_class_that_hides_the_others_does_not_decide_alone() -> None:
    found = judge([measured(60, 20, top1=75.0, majority=85.0, balanced_accuracy=70.0)])
    assert found.word == "unclear"
    assert "It depends: always answering the most frequent class is right for 85.0 %" in found.sentence
    assert "70.0" in found.sentence
    assert judge([measured(60, 20, top1=27.0, majority=85.0, balanced_accuracy=27.0)]).word == "useless"
