"""The ablation's tables in Markdown, from its records alone."""

from __future__ import annotations

import math
import statistics
from collections.abc import Callable, Iterable, Mapping, Sequence

from scipy.special import stdtrit

from benchmarks.plpp_ablation.records import AblationCell
from benchmarks.plpp_ablation.sweep import CENTRE, HOST, ONE_WAY
from vlprompt.errors import data_error
from vlprompt.records import harmonic
from vlprompt.report.tables import spread

SHARE = 0.95
MISSING = "missing"

SetSeed = tuple[str, int]
"""A data set and a seed: what settings are compared on."""


def render(cells: Sequence[AblationCell]) -> str:
    """All tables. UserError without cells."""
    if not cells:
        raise data_error("there are no records to make a table of. Run `vlprompt ablate plpp` first.")
    return "\n".join([head(cells), *halves(cells), *_per_set(cells), *speed(cells)]) + "\n"


MEASURES: tuple[Callable[[AblationCell], float], ...] = (
    lambda cell: cell.accuracy["base"],
    lambda cell: cell.accuracy["novel"],
    lambda cell: harmonic(cell.accuracy["base"], cell.accuracy["novel"]),
)
"""Base, novel and H, in percent."""


def epochs_until(by_epoch: Sequence[float], accuracy: float) -> int | None:
    """The first epoch (from 1) with at least that accuracy; None: never."""
    return next((epoch for epoch, value in enumerate(by_epoch, 1) if value >= accuracy), None)


def head(cells: Sequence[AblationCell]) -> str:
    datasets = {cell.dataset: cell for cell in cells if cell.subset == "base"}
    images = "; ".join(
        f"{name}: {cell.num_val['base']} base and {cell.num_val['novel']} novel" for name, cell in datasets.items()
    )
    models, shots = _listed(cell.model for cell in cells), _listed(str(cell.shots) for cell in cells)
    seeds = _listed(str(seed) for seed in sorted({cell.seed for cell in cells}))
    epochs = _listed(str(len(cell.by_epoch)) for cell in cells)
    return (
        f"Model {models}; {shots} shots; seeds {seeds}; {epochs} epochs. Measured on **validation** images ({images}); test "
        f"images were not read.{head_line(cells[-1].head)}"
    )


def head_line(head: Mapping[str, float]) -> str:
    """What the last cell says of the model's head; nothing where it is an older record."""
    if not head:
        return ""
    natural, shuffled, random = (f"{math.exp(head[name]):,.0f}" for name in ("natural", "shuffled", "random"))
    warning = "" if head["natural"] < min(head["shuffled"], head["random"]) else " **It is not a language model.**"
    return (
        f" The head's perplexity is {natural} on plain captions, {shuffled} on the same words shuffled, {random} on random tokens; it "
        f"finds {100 * head['above']:.0f} % of all words likelier than the true next one.{warning}"
    )


def halves(cells: Sequence[AblationCell]) -> list[str]:
    """Every setting, learned on base classes."""
    table = by_setting(cells, "base")
    if not table:
        return []
    pairs = sorted({pair for found in table.values() for pair in found})
    host = table.get(HOST, {})
    lines = [
        "",
        "### Learned on base classes, one factor at a time",
        "",
        "Mean over sets and seeds +- standard deviation over seeds (of the mean over sets). H: harmonic mean of base and "
        "novel, per set and seed. Less the host: the mean difference on the same set and seed, and its 95 % interval over these "
        "pairs (Student's t; bold where it leaves 0 out). Gradient: length of the term's weighted gradient over "
        "cross-entropy's, on what the term labels (a rival's stands under L_ppl). Perplexity: geometric mean.",
        "",
        "| setting | base | novel | H | base less host | novel less host | H less host | gradient L_ppl | gradient L_inv | perplexity |",
        "|---|---:|---:|---:|---:|---:|---:|---:|---:|---:|",
        _zero_shot_row(table),
    ]
    for setting, found in table.items():
        lack = [pair for pair in pairs if pair not in found]
        if lack:
            lines.append(f"| {setting} | {MISSING}: {len(lack)} of {len(pairs)} cells |" + " |" * 8)
            continue
        shared = [pair for pair in pairs if pair in host and setting != HOST]
        columns = [
            setting,
            *(over_seeds(found, value) for value in MEASURES),
            *(difference([value(found[pair]) - value(host[pair]) for pair in shared]) for value in MEASURES),
            _ratio(found, "rival" if any("rival" in cell.gradient_ratios for cell in found.values()) else "plpp"),
            _ratio(found, "plpp-inverse"),
            f"{statistics.geometric_mean(cell.perplexity for cell in found.values()):,.0f}",
        ]
        lines.append(f"| {' | '.join(columns)} |")
    return lines


def _zero_shot_row(table: Mapping[str, Mapping[SetSeed, AblationCell]]) -> str:
    cells = {cell.dataset: cell for found in table.values() for cell in found.values()}.values()
    base, novel = ([cell.zero_shot[part] for cell in cells] for part in ("base", "novel"))
    both = [*map(harmonic, base, novel)]
    means = " | ".join(f"{statistics.fmean(values):.1f}" for values in (base, novel, both))
    return f"| zero-shot | {means} |" + " - |" * 6


def _per_set(cells: Sequence[AblationCell]) -> list[str]:
    """Base / novel of every setting on every set."""
    table = by_setting(cells, "base")
    if not table:
        return []
    names = list(dict.fromkeys(cell.dataset for cell in cells))
    lines = [
        "",
        "### The same, set by set: base / novel",
        "",
        f"| setting | {' | '.join(names)} |",
        "|---|" + "---:|" * len(names),
    ]
    for setting, found in table.items():
        columns = []
        for name in names:
            here = [cell for cell in found.values() if cell.dataset == name]
            base, novel = ([cell.accuracy[part] for cell in here] for part in ("base", "novel"))
            columns.append(f"{spread(base)} / {spread(novel)}" if here else MISSING)
        lines.append(f"| {setting} | {' | '.join(columns)} |")
    return lines


def speed(cells: Sequence[AblationCell]) -> list[str]:
    """The claim of faster convergence: host, one-way, mutual."""
    lines = [
        "",
        "### Accuracy per epoch, and epochs until 95 % of the final accuracy",
        "",
        "Epochs until 95 % of the run's last accuracy, and of the host's last on the same set and seed; mean +- standard "
        "deviation over sets and seeds. Then the mean accuracy after some epochs, on the classes learned on.",
    ]
    for subset, title in (("base", "learned on base classes"), ("all", "learned on all classes")):
        table = {name: found for name, found in by_setting(cells, subset).items() if name in (HOST, ONE_WAY, CENTRE)}
        if not table:
            continue
        epochs = min(len(cell.by_epoch) for found in table.values() for cell in found.values())
        shown = [epoch for epoch in (1, 2, 3, 5, 8, 12, 20, 30, 50, 100, 150) if epoch < epochs] + [epochs]
        lines += [
            "",
            f"| {title} | until 95 % of the last | of the host's last | {' | '.join(f'epoch {epoch}' for epoch in shown)} |",
            "|---|---:|---:|" + "---:|" * len(shown),
        ]
        for setting, found in table.items():
            own = [epochs_until(cell.by_epoch, SHARE * cell.by_epoch[-1]) for cell in found.values()]
            hosts = table.get(HOST, {})
            theirs = [
                epochs_until(cell.by_epoch, SHARE * hosts[pair].by_epoch[-1])
                for pair, cell in found.items()
                if pair in hosts
            ]
            curve = [f"{statistics.fmean(cell.by_epoch[epoch - 1] for cell in found.values()):.1f}" for epoch in shown]
            lines.append(f"| {' | '.join([setting, _reached(own), _reached(theirs), *curve])} |")
    return lines


def by_setting(cells: Iterable[AblationCell], subset: str) -> dict[str, dict[SetSeed, AblationCell]]:
    table: dict[str, dict[SetSeed, AblationCell]] = {}
    for cell in cells:
        if cell.subset == subset:
            table.setdefault(cell.setting, {})[cell.dataset, cell.seed] = cell
    return table


def over_seeds(found: Mapping[SetSeed, AblationCell], value: Callable[[AblationCell], float]) -> str:
    """Mean and standard deviation over seeds of the mean over sets."""
    seeds = sorted({seed for _, seed in found})
    return str(
        spread([statistics.fmean(value(cell) for pair, cell in found.items() if pair[1] == seed) for seed in seeds])
    )


def difference(values: Sequence[float]) -> str:
    """Mean and 95 % interval, bold where the interval leaves 0 out; "-" without values."""
    if not values:
        return "-"
    mean = statistics.fmean(values)
    if len(values) == 1:
        return f"{mean:+.1f}"
    half = float(stdtrit(len(values) - 1, 0.975)) * statistics.stdev(values) / math.sqrt(len(values))
    text = f"{mean:+.1f} ({mean - half:+.1f} to {mean + half:+.1f})"
    return f"**{text}**" if abs(mean) > half else text


def _ratio(found: Mapping[SetSeed, AblationCell], term: str) -> str:
    values = [cell.gradient_ratios[term] for cell in found.values() if term in cell.gradient_ratios]
    return f"{statistics.fmean(values):.2g}" if values else "-"


def _reached(epochs: Sequence[int | None]) -> str:
    reached = [epoch for epoch in epochs if epoch is not None]
    if not reached:
        return "never" if epochs else MISSING
    never = len(epochs) - len(reached)
    return str(spread([float(epoch) for epoch in reached])) + (f" ({never} of {len(epochs)} never)" if never else "")


def _listed(values: Iterable[str]) -> str:
    return ", ".join(dict.fromkeys(values))
