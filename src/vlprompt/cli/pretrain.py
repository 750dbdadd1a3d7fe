"""`vlprompt pretrain`: learn a prompt on very many classes, alone or under torchrun."""

from __future__ import annotations

import os
import shlex
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from vlprompt.cli import console, options
from vlprompt.cli.options import option
from vlprompt.cli.progress import observing
from vlprompt.errors import UserError
from vlprompt.methods.options import parse_settings

if TYPE_CHECKING:
    from vlprompt.methods.recipes import Recipe as ARecipe
    from vlprompt.pretrain.config import PretrainConfig, PretrainViews

Data = Annotated[
    str | None,
    option(
        "--data DIR|URL|NAME",
        "An ImageNet-21K folder, tar shards (a directory, its URL, or shards.json), any folder, table or embedded set, or "
        "`pocket`: the embedded pretraining set.",
        "pocket, or the recipe's",
    ),
]
Model = Annotated[
    str | None, option("--model NAME|DIR|ID", "As in `train`.", f"{options.DEFAULT_MODEL}, or the recipe's")
]
Method = Annotated[str | None, option("--method NAME", "As in `train`.", "rpp, or the recipe's")]
Names = Annotated[
    Path | None, option("--class-names FILE", "File that maps folders (or labels) to names.", "found near the data")
]
Seed = Annotated[
    int | None,
    option("--seed", "Decides sample, order, classes of each step and initial prompt.", "42, or the recipe's", min=0),
]
PerStep = Annotated[
    int | None, option("--classes-per-step K", "Classes an image is compared with.", "the recipe's: 1000", min=2)
]
AllClasses = Annotated[bool, option("--all-classes", "Use all classes in every step (exact softmax).")]
CorrectionOption = Annotated[
    str | None,
    option(
        "--correction",
        "Correction of sampled logits: natural, log10 or none.",
        "the recipe's: natural, and log10 for pomp",
    ),
]
ViewsOption = Annotated[
    str | None,
    option(
        "--views published|crops|N|centre",
        "Fresh crop, flip and two operations; fresh crop and flip; N fixed crops (cached for text prompts); no crop.",
        "the recipe's: published; centre for an embedded model",
    ),
]
Copies = Annotated[
    int | None, option("--copies", "Views of an image in its step.", "the recipe's: 4 published views, else 1", min=1)
]
PerRank = Annotated[
    int | None, option("--batch-per-rank", "Images of a step on each process, in place of --set batch.", False, min=1)
]
HeldOut = Annotated[int, option("--held-out", "Number of held-out images to test (and of training images).", min=0)]
EvaluateEvery = Annotated[int | None, option("--evaluate-every STEPS", "Steps between tests.", "every epoch", min=1)]
SaveEvery = Annotated[int, option("--save-every STEPS", "Steps between checkpoints.", min=1)]
SaveMinutes = Annotated[float, option("--save-minutes M", "Minutes between checkpoints, at most.")]
LogEvery = Annotated[int, option("--log-every STEPS", "Steps between lines of metrics.jsonl.", min=1)]
MaxSkipped = Annotated[
    int | None, option("--max-skipped", "Stop after this many unusable images.", "1 %, at least 10", min=0)
]
Workers = Annotated[int, option("--workers", "Processes that decode images. 0: threads.", min=0)]
Shots = Annotated[
    int | None,
    option("--shots", "Training images per class; 0 takes all (shards: always all).", "16, or the recipe's", min=0),
]


def pretrain(
    data: Data = None,
    model: Model = None,
    method: Method = None,
    out: Annotated[Path | None, option("--out DIR", "Directory for the run.", "runs/pretrain-METHOD")] = None,
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
    from vlprompt.pretrain.config import CORRECTIONS, PretrainConfig

    if asked["all_classes"] and asked["classes_per_step"] is not None:
        raise UserError("--all-classes and --classes-per-step exclude each other: give one.")
    recipe = _recipe(asked["recipe"])
    usual = {"method": "rpp", "model": options.DEFAULT_MODEL, "data": "pocket", "shots": 16, "seed": 42}
    if recipe is not None:
        train, shots, seeds = recipe.train or ("pocket",), recipe.shots or (0,), recipe.seeds or (42,)
        usual = {"method": recipe.method, "model": recipe.model, "data": train[0], "shots": shots[-1], "seed": seeds[0]}
        if recipe.model == "pocket":
            usual["model"] = options.DEFAULT_MODEL
    asked |= {name: value for name, value in usual.items() if asked[name] is None}
    made = {
        "out": asked["out"] or Path("runs") / f"pretrain-{asked['method']}",
        "overrides": parse_settings(asked["settings"]),
        "shots": asked["shots"] or None,
        "classes_per_step": 0 if asked["all_classes"] else asked["classes_per_step"],
        "correction": asked["correction"] and options.one_of("--correction", asked["correction"], CORRECTIONS),
        "views": _views(asked["views"]),
    }
    return options.config_of(PretrainConfig, asked, made)


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


def _views(text: str | None) -> PretrainViews | None:
    from vlprompt.pretrain.config import WORDS

    if text is None or text.isdecimal():
        return None if text is None else int(text)
    return options.one_of("--views", text, WORDS)


def _show(summary: dict[str, Any], place: Path) -> None:
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
    console.show(console.table("Pretraining", ("", ">"), rows.items()))
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
