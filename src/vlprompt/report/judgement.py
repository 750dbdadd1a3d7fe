"""Is the learned prompt any good: the gain over hand-written words with its interval, chance, and one sentence. Reads records only."""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from vlprompt.records import Record
from vlprompt.report.tables import in_words

Z = 1.959964
"""Of a 95 % interval."""
FEW = 50
"""Test images: with fewer nothing is called useless, and folds are advised where the judgement is unclear (project's choice)."""
UNEVEN = 3
"""Times as many test images as another class has on average, from which on the largest class hides the others (project's choice)."""
Word = Literal["better", "worse", "unclear", "useless", "untested"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Judgement:
    """What can be said of one method on one set of test images. All accuracies and gains are percent, or points."""

    word: Word
    sentence: str
    levels: tuple[str, ...] = ()
    """What the sentence rests on, in lines: accuracies, and how well several labels or small classes are found."""
    gain: float | None = None
    low: float | None = None
    high: float | None = None
    macro: float | None = None
    """The learned prompt's mean recall over classes, percent, where test images are so unbalanced that it matters; else None."""
    accuracy: tuple[float, float] | None = None
    """95 % interval of the learned prompt's accuracy, percent (Agresti and Coull 1998); None: answers on test images, where the gain's
    interval says what matters."""

    @property
    def lines(self) -> list[str]:
        """For a person: the levels, then the sentence."""
        return [*self.levels, self.sentence]


def judge(records: Sequence[Record]) -> Judgement:
    """All seeds of one method on one set of test images.

    The interval is `half_width`'s.
    """
    if records and all(one.by_hand for one in records):
        return Judgement(word="untested", sentence="Nothing is learned here: the words alone answer.")
    tested = [one for one in records if one.top1 is not None and one.gained is not None and one.lost is not None]
    if not tested:
        return Judgement(
            word="untested",
            sentence="There are no test images, so nobody knows how good this is. Put some images of every class into DATA/test.",
        )
    first = tested[0]
    n, majority = first.num_test, first.majority_top1 or 0.0
    half = half_width([(one.gained or 0, one.lost or 0) for one in tested], n)
    learned = statistics.fmean(one.top1 or 0.0 for one in tested)
    by_hand = statistics.fmean(one.by_hand_top1 or 0.0 for one in tested)
    gain = (learned - by_hand, learned - by_hand - half, learned - by_hand + half)
    # With several labels, drawing a class is right more often than one over their number.
    chance = 100 / first.num_classes if first.mean_ap is None else majority
    precision, macro = _precision(tested), _macro(tested, majority)
    unit = "points of mean average precision" if precision else "points"
    judged = precision or gain
    word = _word(learned, n, max(chance, majority), *judged[1:])
    sentence = _sentence(word, judged, unit, first, majority, chance)
    if word == "useless" and macro is not None and _word(learned, n, chance, *gain[1:]) != "useless":
        word = "unclear"
        sentence = (
            f"It depends: always answering the most frequent class is right for {majority:.1f} % of the images, and this for "
            f"{learned:.1f}. Where every class counts the same, that is right for {chance:.1f} %, and this for {macro:.1f}: use it if "
            "small classes matter."
        )
    accuracy = _interval(learned, n) if first.folds else None
    between = f", 95 % interval {accuracy[0]:.1f} to {accuracy[1]:.1f}" if accuracy else ""
    levels = [
        f"{'' if first.mean_ap is not None else f'chance {chance:.1f}, '}always the most frequent class {majority:.1f}, hand-written "
        f"words {by_hand:.1f}, {'learned' if first.parameters else first.method} {learned:.1f}{between} (percent; hand-written: "
        f"{in_words(first.hand_written or first.template)})"
    ]
    if first.mean_ap is not None:
        levels.append(_several(first))
    if macro is not None:
        levels.append(f"macro accuracy, where every class counts the same: {macro:.1f}")
    return Judgement(
        word=word,
        sentence=sentence,
        levels=tuple(levels),
        gain=gain[0],
        low=gain[1],
        high=gain[2],
        macro=macro,
        accuracy=accuracy,
    )


def _several(record: Record) -> str:
    words = f", hand-written words {record.hand_written_ap:.1f}" if record.hand_written_ap is not None else ""
    return (
        f"mean average precision {record.mean_ap:.1f}{words}; F1 at each class's threshold {record.macro_f1:.1f} (percent, seed "
        f"{record.seed}). Images have several labels; in all other numbers the surest class counts as right if it is one of them."
    )


def _precision(tested: Sequence[Record]) -> tuple[float, float, float] | None:
    """(gain, low, high) of mean average precision over hand-written words, points: over images, and over seeds as `half_width`."""
    found = [
        (one.mean_ap - one.hand_written_ap, one.ap_gain_error)
        for one in tested
        if one.mean_ap is not None and one.hand_written_ap is not None and one.ap_gain_error is not None
    ]
    if not found:
        return None
    gains = [gain for gain, _ in found]
    between = statistics.variance(gains) / len(gains) if len(gains) > 1 else 0.0
    gain = statistics.fmean(gains)
    half = Z * math.sqrt(statistics.fmean(error**2 for _, error in found) + between)
    return gain, gain - half, gain + half


def _macro(tested: Sequence[Record], majority: float) -> float | None:
    others = (100 - majority) / max(1, tested[0].num_classes - 1)
    values = [one.balanced_accuracy for one in tested if one.balanced_accuracy is not None]
    return statistics.fmean(values) if values and majority >= UNEVEN * others else None


def half_width(counts: Sequence[tuple[int, int]], n: int, z: float = Z) -> float:
    """Half of the interval of a difference in accuracy on n images, points.

    counts: of each seed, the images that only the one answers rightly, and those that only the other does. The interval is over images,
    paired: Agresti and Min's adjusted Wald interval (2005). Seeds share the test images, so they do not make it narrower; their own
    spread makes it wider.
    """
    gains, variances = [], []
    for gained, lost in counts:
        gain = (gained - lost) / (n + 2)
        gains.append(gain)
        variances.append(((gained + lost + 1) / (n + 2) - gain**2) / (n + 2))
    between = statistics.variance(gains) / len(gains) if len(gains) > 1 else 0.0
    return 100 * z * math.sqrt(statistics.fmean(variances) + between)


def _interval(learned: float, n: int) -> tuple[float, float]:
    near = (learned / 100 * n + Z**2 / 2) / (n + Z**2)
    half = Z * math.sqrt(near * (1 - near) / (n + Z**2))
    return 100 * max(0.0, near - half), 100 * min(1.0, near + half)


def _word(learned: float, n: int, floor: float, low: float, high: float) -> Word:
    if learned - 100 * Z * math.sqrt(max(learned / 100 * (1 - learned / 100), 1 / (4 * n)) / n) <= floor:
        return "useless" if n >= FEW else "worse" if high < 0 else "unclear"
    if low > 0:
        return "better"
    return "worse" if high < 0 else "unclear"


def _sentence(
    word: Word, shown: tuple[float, float, float], unit: str, first: Record, majority: float, chance: float
) -> str:
    gain, low, high = shown
    asked = f"images in {first.folds} folds" if first.folds else "test images"
    interval = f"{gain:+.1f} {unit}, 95 % interval {low:+.1f} to {high:+.1f}, {first.num_test:,} {asked}"
    subject = "the learned prompt" if first.parameters else f"the method {first.method}"
    if word == "useless":
        return (
            f"Do not use it: it cannot be told from always giving one answer, which is right for {majority:.1f} % of the images "
            f"({chance:.1f} % by chance). Against hand-written words: {interval}."
        )
    if word == "better":
        return f"Worth using: {subject} is better than hand-written words ({interval})."
    if word == "worse":
        return f"Do not use it: {subject} is worse than hand-written words ({interval})."
    return f"Cannot tell: with these test images {subject} may be better or worse than hand-written words ({interval})."
