"""`vlprompt pretrain`: learn a prompt on very many classes, alone or under torchrun."""

from __future__ import annotations

import dataclasses
import os
import shlex
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich import box
from rich.table import Table
from rich.text import Text

from vlprompt.cli import console, options
from vlprompt.cli.progress import observing
from vlprompt.errors import UserError

if TYPE_CHECKING:
    from vlprompt.losses.sampled import Correction
    from vlprompt.methods.recipes import Recipe as ARecipe
    from vlprompt.pretrain.config import PretrainConfig, Views

Data = Annotated[
    str | None,
    typer.Option(
        "--data",
        metavar="DIR|URL|NAME",
        help="An ImageNet-21K folder, tar shards (a directory, its URL, or shards.json), any folder, table or embedded set, or "
        "`pocket`: the embedded pretraining set.",
        show_default="pocket, or the recipe's",
    ),
]
Model = Annotated[
    str | None,
    typer.Option(
        "--model", metavar="NAME|DIR|ID", help="As in `train`.", show_default=f"{options.POCKET_MODEL}, or the recipe's"
    ),
]
Method = Annotated[
    str | None,
    typer.Option("--method", metavar="NAME", help="As in `train`.", show_default="rpp, or the recipe's"),
]
Names = Annotated[
    Path | None,
    typer.Option(
        "--class-names",
        metavar="FILE",
        help="File that maps folders (or labels) to names.",
        show_default="found near the data",
    ),
]
Seed = Annotated[
    int | None,
    typer.Option(
        "--seed",
        min=0,
        help="Decides sample, order, classes of each step and initial prompt.",
        show_default="42, or the recipe's",
    ),
]
PerStep = Annotated[
    int | None,
    typer.Option(
        "--classes-per-step",
        metavar="K",
        min=2,
        help="Classes an image is compared with.",
        show_default="the recipe's: 1000",
    ),
]
AllClasses = Annotated[bool, typer.Option("--all-classes", help="Use all classes in every step (exact softmax).")]
CorrectionOption = Annotated[
    str | None,
    typer.Option(
        "--correction",
        help="Correction of sampled logits: natural, log10 or none.",
        show_default="the recipe's: natural, and log10 for pomp",
    ),
]
ViewsOption = Annotated[
    str | None,
    typer.Option(
        "--views",
        metavar="published|crops|N|centre",
        help="Fresh crop, flip and two operations; fresh crop and flip; N fixed crops (cached for text prompts); no crop.",
        show_default="the recipe's: published; centre for an embedded model",
    ),
]
Copies = Annotated[
    int | None,
    typer.Option(
        "--copies", min=1, help="Views of an image in its step.", show_default="the recipe's: 4 published views, else 1"
    ),
]
PerRank = Annotated[
    int | None,
    typer.Option(
        "--batch-per-rank", min=1, help="Images of a step on each process, in place of --set batch.", show_default=False
    ),
]
HeldOut = Annotated[
    int, typer.Option("--held-out", min=0, help="Number of held-out images to test (and of training images).")
]
EvaluateEvery = Annotated[
    int | None,
    typer.Option("--evaluate-every", metavar="STEPS", min=1, help="Steps between tests.", show_default="every epoch"),
]
SaveEvery = Annotated[int, typer.Option("--save-every", metavar="STEPS", min=1, help="Steps between checkpoints.")]
SaveMinutes = Annotated[
    float, typer.Option("--save-minutes", metavar="M", help="Minutes between checkpoints, at most.")
]
LogEvery = Annotated[
    int, typer.Option("--log-every", metavar="STEPS", min=1, help="Steps between lines of metrics.jsonl.")
]
MaxSkipped = Annotated[
    int | None,
    typer.Option("--max-skipped", min=0, help="Stop after this many unusable images.", show_default="1 %, at least 10"),
]
Workers = Annotated[int, typer.Option("--workers", min=0, help="Processes that decode images. 0: threads.")]
Shots = Annotated[
    int | None,
    typer.Option(
        "--shots",
        min=0,
        help="Training images per class; 0 takes all (shards: always all).",
        show_default="16, or the recipe's",
    ),
]


def pretrain(
    data: Data = None,
    model: Model = None,
    method: Method = None,
    out: Annotated[
        Path | None,
        typer.Option("--out", metavar="DIR", help="Directory for the run.", show_default="runs/pretrain-METHOD"),
    ] = None,
    teacher: options.Teacher = None,
    class_names: Names = None,
    shots: Shots = None,
    seed: Seed = None,
    settings: options.Settings = None,
    recipe: options.Recipe = "auto",
    classes_per_step: PerStep = None,
    all_classes: AllClasses = False,
    correction: CorrectionOption = None,
    template: options.Template = None,
    views: ViewsOption = None,
    copies: Copies = None,
    batch_per_rank: PerRank = None,
    held_out: HeldOut = 5000,
    evaluate_every: EvaluateEvery = None,
    save_every: SaveEvery = 200,
    save_minutes: SaveMinutes = 10.0,
    log_every: LogEvery = 10,
    max_skipped: MaxSkipped = None,
    workers: Workers = 0,
    max_memory: options.MaxMemory = None,
    device: options.Device = "auto",
    dtype: options.Precision = "float32",
    cache: options.Cache = None,
    resume: options.Resume = False,
    as_json: options.AsJson = False,
) -> None:
    """Pretrain a prompt on very many classes: RPP and POMP on ImageNet-21K, for transfer with `train --init`.

    Under torchrun the processes share images and classes, with the same result. If a process dies, all continue from the last
    checkpoint.

    Example: `torchrun --nproc-per-node 8 -m vlprompt pretrain --recipe pomp-pretraining --data imagenet21k_resized --out runs/pomp21k`
    """
    from vlprompt.pretrain.run import pretrain_run

    config = _config(dict(locals()))
    with observing() as observer:
        summary = pretrain_run(config, observer)
    if os.environ.get("RANK", "0") != "0":
        return
    if as_json:
        console.dump(summary)
    else:
        _show(summary, config.out)


def _config(asked: dict[str, Any]) -> PretrainConfig:
    """The configuration of the options as they were given, by their names."""
    from vlprompt.pretrain.config import PretrainConfig

    if asked["all_classes"] and asked["classes_per_step"] is not None:
        raise UserError("--all-classes and --classes-per-step exclude each other: give one.")
    known = {field.name for field in dataclasses.fields(PretrainConfig)}
    recipe = _recipe(asked["recipe"])
    usual = {"method": "rpp", "model": options.POCKET_MODEL, "data": "pocket", "shots": 16, "seed": 42}
    if recipe is not None:
        train, shots, seeds = recipe.train or ("pocket",), recipe.shots or (0,), recipe.seeds or (42,)
        usual = {"method": recipe.method, "model": recipe.model, "data": train[0], "shots": shots[-1], "seed": seeds[0]}
        if recipe.model == "pocket":
            usual["model"] = options.POCKET_MODEL
    asked |= {name: value for name, value in usual.items() if asked[name] is None}
    made = {
        "out": asked["out"] or Path("runs") / f"pretrain-{asked['method']}",
        "overrides": options.parse_settings(asked["settings"]),
        "shots": asked["shots"] or None,
        "classes_per_step": 0 if asked["all_classes"] else asked["classes_per_step"],
        "correction": _correction(asked["correction"]),
        "views": _views(asked["views"]),
    }
    return PretrainConfig(**{name: value for name, value in asked.items() if name in known} | made)


def _recipe(name: str) -> ARecipe | None:
    """The recipe that is asked for by its name; None for `auto`, `published` and `pocket`. UserError: one of another protocol."""
    from vlprompt.methods.recipes import ANY, read
    from vlprompt.methods.resolve import RECIPES

    if name in RECIPES:
        return None
    found = read(name)
    if found.protocol not in ("pretraining", ANY):
        raise UserError(
            f"--recipe {name} is for {found.protocol}, not for pretraining. Use `vlprompt train --recipe {name}`, or a recipe whose name "
            "ends in pretraining (`vlprompt recipes`)."
        )
    return found


def _correction(text: str | None) -> Correction | None:
    from vlprompt.pretrain.config import CORRECTIONS

    return None if text is None else options.one_of("--correction", text, CORRECTIONS)


def _views(text: str | None) -> Views | None:
    from vlprompt.pretrain.config import WORDS

    if text is None or text.isdecimal():
        return None if text is None else int(text)
    return options.one_of("--views", text, WORDS)


def _show(summary: dict[str, Any], place: Path) -> None:
    table = Table(box=box.SIMPLE_HEAD, title="Pretraining", title_justify="left")
    table.add_column("")
    table.add_column("", justify="right")
    rows = {
        "images, steps": f"{summary['images']:,}, {summary['steps']:,}",
        "classes": f"{summary['classes']:,}",
        f"held-out ({summary['held_out_part']}) top-1, last": _percent(summary["top1"]),
        "best": f"{_percent(summary['best_top1'])} (step {summary['best_step']:,})",
        "kept as best/": "the best on held-out images" if summary["kept"] == "best" else "the last",
        "training images' top-1, last": _percent(summary["train_top1"]),
        "zero-shot": _percent(summary["zero_shot_top1"]),
        "images a second": "-" if summary["images_per_s"] is None else f"{summary['images_per_s']:.1f}",
        "skipped images": f"{summary['skipped']:,}",
    }
    for name, value in rows.items():
        table.add_row(Text(name), value)
    console.show(table)
    best = shlex.quote(str(place / "best"))
    console.commands(
        "Next:",
        [
            f"vlprompt train --init {best} --method {summary['method']} --data YOUR_FOLDER",
            f"vlprompt eval {best} --data OTHER_FOLDER",
            f"vlprompt export class-vectors {best} --names names.txt --out vectors.npy",
        ],
    )


def _percent(value: float | None) -> str:
    return "-" if value is None else f"{value:.2f} %"
