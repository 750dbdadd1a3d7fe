"""`vlprompt tune`: choose a method's options on validation images."""

from __future__ import annotations

import shlex
import statistics
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from vlprompt.cli import console, options
from vlprompt.cli.options import argument, option
from vlprompt.cli.progress import observing
from vlprompt.errors import UserError
from vlprompt.methods.options import parse_settings

if TYPE_CHECKING:
    from vlprompt.engine.tune import Trial, Tuned


def tune(
    method: Annotated[str, argument("METHOD", "A method of `vlprompt methods`, for example coop.")],
    data: options.Data = options.POCKET_DATA,
    columns: options.Columns = None,
    class_names: options.ClassNames = None,
    model: options.Model = options.DEFAULT_MODEL,
    shots: options.Shots = 16,
    seeds: options.Seeds = "1",
    settings: options.Settings = None,
    trials: Annotated[int, option("--trials N", "Settings to try, besides the default.", min=1)] = 20,
    out: Annotated[Path | None, option("--out DIR", "Directory for the trials.", "runs/tune-METHOD-DATA")] = None,
    recipe: options.Recipe = "auto",
    template: options.Template = None,
    views: options.Views = None,
    device: options.Device = "auto",
    dtype: options.Precision = "float32",
    cache: options.Cache = None,
    max_memory: options.MaxMemory = None,
    replicas: Annotated[
        int, option("--replicas N", "Trials to learn in the same steps: quicker with small models.", min=1)
    ] = 4,
    as_json: options.AsJson = False,
) -> None:
    """Choose a method's options on VALIDATION images. No test image is read.

    `--set` takes ranges: `lr=0.001..0.1`, or `epochs=10,20,50`; without any, the method's main options are tried. It needs optuna
    (pip install 'vlprompt[tune]'). Call it again and it goes on; with more --trials it tries more.

    Example: `vlprompt tune coop --data my_photos --set 'lr=0.001..0.1' --set 'epochs=10,20,50' --trials 20 --out runs/tune`
    """
    _tune(dict(locals()))


def _tune(asked: dict[str, Any]) -> None:
    """asked: the options as they were given, by their names."""
    try:
        import optuna  # noqa: F401
    except ImportError as error:
        raise UserError(f"tune needs {error.name}, which is not installed: pip install 'vlprompt[tune]'.") from None
    from vlprompt.cli.train import default_out
    from vlprompt.engine.config import RunConfig
    from vlprompt.engine.tune import is_range, tune, usual_ranges
    from vlprompt.methods.resolve import recipe_of, resolve

    method, data, shots = asked["method"], asked["data"], asked["shots"]
    given = parse_settings(asked["settings"])
    fixed = {name: text for name, text in given.items() if not is_range(text)}
    made = {
        "data": options.with_columns(data, asked["columns"], asked["class_names"]),
        "out": asked["out"] or default_out(f"tune-{method}", data),
        "overrides": fixed,
        "shots": shots or None,
        "seeds": options.parse_seeds(asked["seeds"]),
        "views": options.parse_views(asked["views"]),
    }
    config = options.config_of(RunConfig, asked, made)
    named = recipe_of(method, config.protocol, config.model, config.recipe)
    ranges = {name: text for name, text in given.items() if name not in fixed}
    ranges = ranges or usual_ranges(resolve(method, fixed, shots=config.shots, recipe=named), fixed)
    listed = ", ".join(f"{name}={text}" for name, text in ranges.items())
    console.note(f"Tried: {listed}; {asked['trials']} trials and the default.")
    with observing() as observer:
        tuned = tune(config, ranges, asked["trials"], observer)
    same = {f"--{name.replace('_', '-')}": asked[name] for name in ("data", "columns", "class_names", "model")}
    _show(tuned, list(ranges), _same(*same.items(), ("--shots", shots or "all")), as_json=asked["as_json"])


def _same(*given: tuple[str, object]) -> str:
    """Options as they are typed; those that are not given left out."""
    return " ".join(f"{name} {shlex.quote(str(value))}" for name, value in given if value is not None)


def _show(tuned: Tuned, names: list[str], same: str, *, as_json: bool) -> None:
    """same: the options of the next command that are this one's."""
    best, default = tuned.best, tuned.default
    low, high, sentence = _judged(tuned)
    if as_json:
        tried = [
            {"name": one.name, "settings": one.settings, "top1": one.accuracy if one.records else None}
            for one in tuned.trials
        ]
        found = {"settings": best.settings, "top1": best.accuracy, "gain": [low, high], "recipe": str(tuned.recipe)}
        console.dump(
            {"best": found, "default": {"settings": default.settings, "top1": default.accuracy}, "trials": tried}
        )
        return
    console.show(_table(tuned, names), sentence)
    kept, changed = f"--method {default.records[0].method}", f"--recipe {shlex.quote(str(tuned.recipe))}"
    wanted = [one for one, yes in ((kept, low <= 0), (changed, best is not default)) if yes]
    console.commands("Next:", [f"vlprompt train {same} {one}" for one in wanted])


def _judged(tuned: Tuned) -> tuple[float, float, str]:
    """(low, high, the sentence): what the best setting gains over the default, points.

    The best of many looks better than it is. So the interval is the one that holds for all trials at once (Bonferroni).
    """
    from vlprompt.records import read_predictions
    from vlprompt.report.judgement import half_width

    best, default = tuned.best, tuned.default
    if best is default:
        return 0.0, 0.0, "Not better than the default: no setting answered more validation images rightly."
    counts, n = [], best.records[0].num_test
    for record in best.records:
        ours, theirs = (
            read_predictions(tuned.recipe.parent / one.name / f"seed{record.seed}") for one in (best, default)
        )
        assert ours is not None
        assert theirs is not None
        right, before = ours.predicted == ours.label, theirs.predicted == theirs.label
        counts.append((int((right & ~before).sum()), int((before & ~right).sum())))
    tried = sum(bool(one.records) for one in tuned.trials)
    half = half_width(counts, n, statistics.NormalDist().inv_cdf(1 - 0.025 / tried))
    gain = best.accuracy - default.accuracy
    low, high = gain - half, gain + half
    word = "Better than the default" if low > 0 else "Not better than the default, as far as can be told"
    interval = f"{gain:+.1f} points, 95 % interval {low:+.1f} to {high:+.1f} for the best of {tried}"
    return low, high, f"{word}: {best.name} ({interval}, {n:,} validation images)."


def _table(tuned: Tuned, names: list[str]) -> Any:
    from rich.text import Text

    def row(one: Trial) -> list[Text]:
        ended = ["failed", one.problem[:60]]
        if one.records:
            gain = "" if one is tuned.default else f"{one.accuracy - tuned.default.accuracy:+.1f}"
            ended = [f"{one.accuracy:.1f}", gain]
        cells = [one.name, *(str(one.settings[name]) for name in names), *ended]
        return [Text(cell, style="bold" if one is tuned.best else "") for cell in cells]

    ranked = sorted((tuned.default, *tuned.trials), key=lambda one: -one.accuracy if one.records else 1.0)
    columns = ("trial", *names, ">right", ">less default")
    return console.table("Percent right of the validation images", columns, map(row, ranked))
