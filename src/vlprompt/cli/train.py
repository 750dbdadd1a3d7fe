"""`vlprompt train`: learn a prompt."""

from __future__ import annotations

import dataclasses
import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from vlprompt.cli import console, options
from vlprompt.cli.options import argument, option
from vlprompt.cli.progress import observing
from vlprompt.errors import UserError
from vlprompt.methods.options import parse_settings

DESCRIPTIONS = "descriptions"
TELLING = 60.0
"""AUROC in percent from which on `train` suggests a threshold for `predict --reject` (project's choice)."""

if TYPE_CHECKING:
    from vlprompt.engine.config import RunConfig
    from vlprompt.records import Record
    from vlprompt.report.judgement import Word

Out = Annotated[Path | None, option("--out DIR", "Directory for the run.", "runs/METHOD-DATA")]
MethodOrRecipes = Annotated[
    str | None,
    option(
        "--method NAME",
        "The method; plpp+METHOD adds the terms of PLPP to one, described+METHOD sentences for each class. `auto` tries a few on your "
        "images and takes one.",
        "auto; the recipe's; coop with --folds, or where options of one method are given",
    ),
]
Init = Annotated[
    Path | None,
    option("--init RUN", "Start from the learned tensors of a run or a saved prompt.", "the method's own start"),
]
Sentences = Annotated[
    str | None,
    option(
        "--sentences FILE",
        "Several sentences for each class (JSON, TOML or CSV), for the methods descriptions (without --method) and described+METHOD.",
        "the template alone",
    ),
]


Folder = Annotated[str | None, argument("DATA", "The same as --data.", False)]
Epochs = Annotated[str | None, option("--epochs N", "As --set epochs=N.", "the recipe's")]
Rate = Annotated[str | None, option("--lr X", "As --set lr=X.", "the recipe's")]
Batch = Annotated[str | None, option("--batch N", "As --set batch=N.", "the recipe's")]


Folds = Annotated[
    int,
    option(
        "--folds K",
        "For few images: learn from all, and ask about each image what the other folds taught.",
        "no folds",
        min=0,
    ),
]
Curve = Annotated[
    bool | None,
    option(
        "--curve/--no-curve",
        "Learn from a quarter and a half of the images too: would more help?",
        "if it takes seconds",
    ),
]


def train(
    folder: Folder = None,
    data: options.Data = options.POCKET_DATA,
    columns: options.Columns = None,
    class_names: options.ClassNames = None,
    model: options.Model = options.DEFAULT_MODEL,
    method: MethodOrRecipes = None,
    shots: options.Shots = 16,
    seeds: options.Seeds = "1",
    out: Out = None,
    settings: options.Settings = None,
    epochs: Epochs = None,
    lr: Rate = None,
    batch: Batch = None,
    recipe: options.Recipe = "auto",
    init: Init = None,
    teacher: options.Teacher = None,
    sentences: Sentences = None,
    subset: options.SubsetOption = "all",
    template: options.Template = None,
    views: options.Views = None,
    max_test: options.MaxTest = None,
    folds: Folds = 0,
    curve: Curve = None,
    device: options.Device = "auto",
    dtype: options.Precision = "float32",
    cache: options.Cache = None,
    max_memory: options.MaxMemory = None,
    replicas: options.Replicas = 1,
    track: options.Track = None,
    strict: options.Strict = False,
    resume: options.Resume = False,
    all_answers: options.AllAnswers = False,
    as_json: options.AsJson = False,
) -> None:
    """Learn a prompt from a few images per class, and compare it with hand-written words.

    Without options it uses the embedded images and the small embedded model.

    Example: `vlprompt train --data my_photos --model openai/clip-vit-base-patch16 --method plpp+coop --shots 16
    --seeds 1,2,3 --out runs/mine`
    """
    _learn(_config(dict(locals())), all_answers=all_answers, as_json=as_json)


def _config(asked: dict[str, Any]) -> RunConfig:
    """The configuration of the options as they were given, by their names."""
    from vlprompt.engine.choose import AUTO, usual
    from vlprompt.engine.config import RunConfig
    from vlprompt.methods.resolve import options as options_of

    folder, data = asked["folder"], asked["data"]
    if folder is not None:
        if data not in (options.POCKET_DATA, folder):
            raise UserError(f"the images are named twice: {folder!r} and --data {data!r}. Name them once.")
        data = folder
    short = [f"{name}={asked[name]}" for name in ("epochs", "lr", "batch") if asked[name] is not None]
    own = [name for name in ("epochs", "lr", "batch", "settings", "init", "teacher") if asked[name] is not None]
    one_method = bool(own) or asked["subset"] != "all" or bool(asked["folds"])
    method = asked["method"] or (DESCRIPTIONS if asked["sentences"] else usual(asked["recipe"], of_one=one_method))
    if method == AUTO and own:
        one = f"--{own[0].replace('settings', 'set')}"
        raise UserError(f"{one} belongs to one method, and --method auto chooses one. Name the method.")
    if asked["sentences"]:
        known = () if method == AUTO else (one.name for one in options_of(method))
        if (name := next((one for one in known if one.rpartition(".")[2] == "sentences"), None)) is None:
            raise UserError(
                f"--sentences is for {DESCRIPTIONS}, which learns nothing, and for described+METHOD; {method!r} does not read it. Use for "
                "example described+tip-adapter, or leave out one of them."
            )
        short.append(f"{name}={asked['sentences']}")
    made = {
        "method": method,
        "data": options.with_columns(data, asked["columns"], asked["class_names"]),
        "out": asked["out"] or default_out(method, data),
        "overrides": parse_settings([*(asked["settings"] or []), *short]),
        "shots": asked["shots"] or None,
        "seeds": options.parse_seeds(asked["seeds"]),
        "subset": options.one_of("--subset", asked["subset"], options.SUBSETS),
        "views": options.parse_views(asked["views"]),
        "track": options.parse_track(asked["track"]),
    }
    return options.config_of(RunConfig, asked, made)


def _learn(config: RunConfig, *, all_answers: bool, as_json: bool) -> None:
    from vlprompt.cli.page import write_page
    from vlprompt.engine.run import train_run
    from vlprompt.report.prospect import prospect

    _say_defaults(config)
    with observing() as observer:
        records = train_run(config, observer)
    found = prospect([config.out / f"seed{seed}" for seed in config.seeds])
    ahead = found.lines() if found else []
    pages = write_page(config.out, config.seeds, config.data, all_answers=all_answers)
    if as_json:
        options.dump_records(records)
        return
    _show(config, records, pages, ahead)


def default_out(method: str, data: str) -> Path:
    """`runs/METHOD-DATA`: the name of the set or folder, or of the table without its ending."""
    from vlprompt.data.tables import COMMAS, LINES

    path = Path(data).expanduser()
    name = path.name or path.resolve().name
    return Path("runs") / f"{method}-{Path(name).stem if path.suffix.lower() in COMMAS + LINES else name}"


def _say_defaults(config: RunConfig) -> None:
    used = []
    if config.data == options.POCKET_DATA:
        used.append(f"the embedded images {config.data!r} (your own: --data FOLDER)")
    if config.model == options.DEFAULT_MODEL:
        used.append(f"the embedded model {config.model!r} (a real CLIP: --model DIRECTORY or Hub id)")
    if used:
        console.note(f"Using {' and '.join(used)}.")


def _show(config: RunConfig, records: Sequence[Record], pages: Sequence[Path], ahead: Sequence[str]) -> None:
    from vlprompt.report.judgement import FEW, judge
    from vlprompt.report.tables import accuracy, as_rich

    found = judge(records)
    console.show(as_rich(accuracy(records, seeds=config.seeds), console.width()), *found.lines, *_sure(records), *ahead)
    look = [f"open {shlex.quote(str(pages[0]))} in a browser: mistakes, classes, curves"] if pages else []
    config = dataclasses.replace(config, method=records[0].method)
    few = records[0].num_test < FEW and not config.folds
    learned = any(record.parameters for record in records)
    probe = "linear-probe" if records[0].num_val else "linear-probe --set C=1"  # it chooses C on validation images
    rival = "cocoop" if records[0].mean_ap is not None else probe
    console.commands(
        "Next:",
        [
            *look,
            *([f"{_again(config)} --method coop --shots all --set draw=classes"] if found.macro is not None else []),
            *_next(config, found.word, rival, learned=learned, few=few),
        ],
    )


def _sure(records: Sequence[Record]) -> list[str]:
    """Whether the stated probabilities can be believed, of the first seed."""
    first = records[0]
    if first.ece is None or first.ece_before is None:
        return []
    said = (
        f"calibration error {first.ece_before:.1f} % before, {first.ece:.1f} % after a temperature of {first.temperature:.2f} was fitted "
        f"on {first.num_val} validation images"
    )
    if first.reject_auroc is not None and first.reject_auroc < TELLING:
        said += (
            f"; its probabilities hardly tell images of a class left out from the others (AUROC {first.reject_auroc:.0f} %, 50 is chance), "
            "so do not rely on predict --reject"
        )
    elif first.reject_below is not None:
        said += (
            f"; predict --reject {first.reject_below:.2f} says `none of these` (AUROC {first.reject_auroc:.0f} % on images of a class left "
            "out, 50 is chance)"
        )
    return [f"{said}."]


def _again(config: RunConfig) -> str:
    return f"vlprompt train --data {options.as_typed(config.data)} --model {shlex.quote(config.model)}"


def _next(config: RunConfig, word: Word, rival: str, *, learned: bool, few: bool) -> list[str]:
    """The commands that follow from the judgement; rival: another method to try. few: the test images are few, and every image
    could be one."""
    place, data, again = shlex.quote(str(config.out)), options.as_typed(config.data), _again(config)
    use = [f"vlprompt predict {place} PICTURE.jpg"]
    see = [f"vlprompt explain {place}"] if learned else []
    if word in ("worse", "useless"):
        other = rival if config.method != rival.split()[0] else "coop"
        return [f"{again} --method {other}", f"vlprompt data check {data}", *see]
    if word == "unclear" and few and learned:
        return [f"{again} --method {config.method} --shots all --folds 5", *use, *see]
    if word == "unclear":
        seeds = [f"{again} --method {config.method} --seeds 1,2,3"] if learned else []
        return [*seeds, f"{again} --method {rival}", *use]
    return [*use, *see, f"vlprompt eval {place} --data OTHER_FOLDER"]
