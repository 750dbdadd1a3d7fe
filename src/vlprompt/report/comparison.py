"""Two sides compared cell by cell, and on average over data sets."""

from __future__ import annotations

import dataclasses
import math
import statistics
from collections.abc import Collection, Sequence
from dataclasses import dataclass

import numpy as np

from vlprompt.errors import UserError, data_error, unknown
from vlprompt.report.bootstrap import MARGIN, Estimate, Gains, PairedTest, estimate, paired_test
from vlprompt.report.sides import FIELDS, Run, SeedRuns, cells, name_of, paired


@dataclass(frozen=True, slots=True, kw_only=True)
class Comparison:
    """What the second side gains over the first: on one data set, or on average over several."""

    first: str
    second: str
    protocol: str
    datasets: tuple[str, ...]
    subset: str
    source: str
    shots: int | None
    first_top1: float
    second_top1: float
    seeds: tuple[int, ...]
    """Those that both sides have; empty where neither depends on one."""
    num_images: int
    estimate: Estimate


def compare(
    first: Sequence[Run], second: Sequence[Run], *, margin: float = MARGIN, although: Collection[str] = ()
) -> tuple[tuple[Comparison, ...], list[str]]:
    """Sets the runs of one method against those of another, on the same images and with the same seeds.

    Gives every comparison, single data sets first, and notes on what was left out. although: names in `FIELDS` that may differ.
    UserError with the reason where the two are not comparable.
    """
    for name in although:
        if name not in FIELDS:
            raise unknown("value of --although", name, FIELDS)
    if not 0 <= margin <= 100:
        raise UserError(f"a margin of {margin} points; it must lie between 0 and 100.")
    fields = [field for field in FIELDS if field not in although]
    pairs, left_out = paired(cells(first, fields), cells(second, fields), fields)
    comparisons, notes = compare_cells(pairs, margin)
    return comparisons, left_out + notes


def compare_cells(
    pairs: Sequence[tuple[SeedRuns, SeedRuns]], margin: float, refused: list[str] | None = None
) -> tuple[tuple[Comparison, ...], list[str]]:
    """As `compare`, for cells that are already paired. refused: takes the reason of each that is not comparable, in place of an error."""
    singles: list[Comparison] = []
    notes: list[str] = []
    groups: dict[tuple[object, ...], list[_Single]] = {}
    for a, b in pairs:
        try:
            table, seeds, lone = paired_table(a, b)
        except UserError as problem:
            if refused is None:
                raise
            refused.append(str(problem))
            continue
        if lone:
            notes.append(f"{a.record.dataset}: seeds {_list(lone)} are on one side only and left out")
        single = _Single(first=a, second=b, table=table, seeds=seeds)
        found = _comparison([single], margin)
        singles.append(found)
        group = (found.protocol, found.subset, found.source, found.shots, a.record.model)
        groups.setdefault(group, []).append(single)
    singles.sort(key=_order)
    averages = []
    for several in (group for group in groups.values() if len(group) > 1):
        if _shares_prompts(several):
            several, left_out = _common_seeds(several)
            notes += left_out
        if several:
            averages.append(_comparison(several, margin))
    return (*singles, *sorted(averages, key=_order)), notes


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class _Single:
    """Two cells on one data set."""

    first: SeedRuns
    second: SeedRuns
    table: Gains
    seeds: tuple[int, ...]
    """Of the table's rows; empty where neither cell depends on one."""

    @property
    def dataset(self) -> str:
        return self.first.record.dataset

    @property
    def test(self) -> PairedTest:
        return paired_test(self.table, fixed=self.first.fixed and self.second.fixed)


def _shares_prompts(group: Sequence[_Single]) -> bool:
    """Whether a seed's prompt, learned on one source, is tested on all data sets of a group."""
    return any(cell.record.source for one in group for cell in (one.first, one.second) if not cell.fixed)


def _common_seeds(group: Sequence[_Single]) -> tuple[list[_Single], list[str]]:
    """The group with the seeds that all of its data sets have, and a note on the others."""
    common = sorted(set.intersection(*(set(one.seeds) for one in group)))
    lone = sorted({seed for one in group for seed in one.seeds} - set(common))
    names = ", ".join(one.dataset for one in group)
    notes = [f"average of {names}: seeds {_list(lone)} are not on all of them and left out"] if lone else []
    if not common:
        return [], notes
    rows = [[one.seeds.index(seed) for seed in common] for one in group]
    kept = [
        dataclasses.replace(one, table=one.table[of], seeds=tuple(common)) for one, of in zip(group, rows, strict=True)
    ]
    return kept, notes


def _order(one: Comparison) -> tuple[object, ...]:
    shots = math.inf if one.shots is None else one.shots
    return (one.protocol, one.source, one.subset, one.datasets, shots)


def paired_table(first: SeedRuns, second: SeedRuns) -> tuple[Gains, tuple[int, ...], tuple[int, ...]]:
    """(S, N) of what the second got right minus what the first did; the seeds S, and those that one side only has.

    UserError where images, labels or seeds differ, or predictions are missing.
    """
    if first.fixed and second.fixed:
        return _table([(first.runs[0], second.runs[0])]), (), ()
    if first.fixed:
        return _table([(first.runs[0], run) for run in second.runs]), second.seeds, ()
    if second.fixed:
        return _table([(run, second.runs[0]) for run in first.runs]), first.seeds, ()
    by_seed = {run.record.seed: run for run in second.runs}
    rows = [(run, by_seed[run.record.seed]) for run in first.runs if run.record.seed in by_seed]
    if not rows:
        raise data_error(
            f"not comparable: no seed in common on {first.record.dataset} "
            f"({_list(first.seeds)} against {_list(second.seeds)}). The seed draws the training images; learn both with the same."
        )
    lone = sorted(set(first.seeds) ^ set(second.seeds))
    return _table(rows), tuple(run.record.seed for run, _ in rows), tuple(lone)


def _table(rows: Sequence[tuple[Run, Run]]) -> Gains:
    """(S, N): what the second got right minus what the first did."""
    hashes, labels, _ = rows[0][0].sorted_images
    out = []
    for pair in rows:
        for run in pair:
            other_hashes, other_labels, _ = run.sorted_images
            where = f"{rows[0][0].directory} and {run.directory}"
            if not np.array_equal(hashes, other_hashes):
                common = len(np.intersect1d(hashes, other_hashes))
                raise data_error(
                    f"not comparable: other test images in {where} ({len(hashes)} and {len(other_hashes)}, {common} in common)."
                )
            # Of several labels the answered one is kept, if it is one of the image's.
            if run.record.mean_ap is None and not np.array_equal(labels, other_labels):
                wrong = int((labels != other_labels).sum())
                raise data_error(f"not comparable: {wrong} images have other labels in {where}.")
        out.append(pair[1].sorted_images[2].astype(np.int8) - pair[0].sorted_images[2].astype(np.int8))
    if not len(hashes):
        raise data_error(f"not comparable: {rows[0][0].directory} has no test images.")
    return np.stack(out)


def _comparison(group: Sequence[_Single], margin: float) -> Comparison:
    """On one data set, or the plain mean over several; data sets are given, not drawn."""
    a, b = group[0].first.record, group[0].second.record
    learned = b if group[0].first.fixed else a
    return Comparison(
        first=name_of(a),
        second=name_of(b),
        protocol=learned.protocol,
        datasets=tuple(one.dataset for one in group),
        subset=learned.subset,
        source=learned.source,
        shots=learned.shots,
        first_top1=statistics.fmean(_accuracy(one.first, one.seeds) for one in group),
        second_top1=statistics.fmean(_accuracy(one.second, one.seeds) for one in group),
        seeds=tuple(sorted({seed for one in group for seed in one.seeds})),
        num_images=sum(one.table.shape[1] for one in group),
        estimate=estimate([one.test for one in group], shared=_shares_prompts(group), margin=margin),
    )


def _accuracy(cell: SeedRuns, seeds: tuple[int, ...]) -> float:
    """Percent, over the seeds that are compared."""
    runs = cell.runs[:1] if cell.fixed else [run for run in cell.runs if run.record.seed in seeds]
    return statistics.fmean(100 * float(run.sorted_images[2].mean()) for run in runs)


def _list(seeds: Sequence[int]) -> str:
    return ", ".join(map(str, seeds))
