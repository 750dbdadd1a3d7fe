"""How finely a base-to-novel comparison of two methods can tell: its standard errors, from finished runs.

    python -m benchmarks.standard_error RUNS [RUNS ...] --methods coop,plpp+coop [--markdown]

The error of one data set joins what other test images and other seeds would change, as `vlprompt compare` does (its paired table of
images and seeds). The mean over data sets takes them as given, so its error is the root of the sum of squares, over their number.
"""

from __future__ import annotations

import argparse
import math
import statistics
from collections.abc import Sequence
from itertools import combinations
from pathlib import Path

from vlprompt.report.bootstrap import paired_test
from vlprompt.report.comparison import paired_table
from vlprompt.report.sides import FIELDS, Run, cells, paired, read_side

SUBSETS = ("base", "novel")
Errors = dict[str, dict[str, tuple[float, int, int]]]


def errors_of(first: Sequence[Run], second: Sequence[Run]) -> Errors:
    """Data set -> subset -> standard error in points, test images, seeds."""
    found: Errors = {}
    for a, b in paired(cells(first, list(FIELDS)), cells(second, list(FIELDS)), list(FIELDS))[0]:
        record = (b if a.fixed else a).runs[0].record
        if record.protocol != "base-to-novel" or record.subset not in SUBSETS:
            continue
        test = paired_test(paired_table(a, b)[0], fixed=a.fixed and b.fixed)
        error = math.sqrt(test.image_variance + (test.seed_variance or 0.0))
        found.setdefault(record.dataset, {})[record.subset] = (error, test.num_images, test.num_seeds)
    return found


def of_the_mean(errors: Sequence[float]) -> float:
    """Standard error of the plain mean over data sets."""
    return math.sqrt(sum(error**2 for error in errors)) / len(errors)


def joined(roots: Sequence[Path], first: str, second: str) -> Errors:
    """The errors of all directories of runs together."""
    return {
        name: one for root in roots for name, one in errors_of(read_side(root, first), read_side(root, second)).items()
    }


def table(found: Errors) -> str:
    """A row for each data set, and the mean's."""
    rows = [
        "| set | base: images | standard error | novel: images | standard error |",
        "| --- | ---: | ---: | ---: | ---: |",
    ]
    for name in sorted(found):
        cellwise = [f"{found[name][subset][1]:,} | {found[name][subset][0]:.2f}" for subset in SUBSETS]
        rows.append(f"| {name} | {' | '.join(cellwise)} |")
    means = [of_the_mean([one[subset][0] for one in found.values()]) for subset in SUBSETS]
    images = [sum(one[subset][1] for one in found.values()) for subset in SUBSETS]
    rows.append(f"| mean of the {len(found)} | {images[0]:,} | {means[0]:.2f} | {images[1]:,} | {means[1]:.2f} |")
    return "\n".join(rows)


def main() -> None:
    """Print the table of two methods, or for more methods the mean over all pairs of them."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("runs", nargs="+", type=Path)
    parser.add_argument("--methods", required=True)
    given = parser.parse_args()
    pairs = list(combinations(given.methods.split(","), 2))
    every = {pair: joined(given.runs, *pair) for pair in pairs}
    for (first, second), found in every.items():
        print(f"{second} against {first}, points\n\n{table(found)}\n")
    whole = [of_the_mean([one[subset][0] for one in found.values()]) for found in every.values() for subset in SUBSETS]
    print(f"mean over {len(pairs)} comparisons, base and novel: {statistics.fmean(whole):.2f} points")


if __name__ == "__main__":
    main()
