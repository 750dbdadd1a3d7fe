"""The options that several commands share: one name, one meaning, one help text."""

from __future__ import annotations

import csv
import dataclasses
import json
import os
import shlex
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, TypeVar, cast
from urllib.parse import parse_qsl, urlencode

import typer

from vlprompt import pocket
from vlprompt.cli import console, failures
from vlprompt.errors import UserError, unknown

if TYPE_CHECKING:
    from vlprompt.records import Record


SubsetName = Literal["all", "base", "novel"]
SUBSETS: tuple[SubsetName, ...] = ("all", "base", "novel")
Choice = TypeVar("Choice", bound=str)

MAX_SEEDS, MAX_DIGITS = 10_000, 9
POCKET_DATA = "emoji-symbols"
DEFAULT_MODEL = pocket.MODEL


def option(flag: str, help: str, default: str | bool = True, **more: Any) -> Any:
    """An option; flag: its name and, after a space, what stands for its value; default: what help shows as the default."""
    name, _, metavar = flag.partition(" ")
    return typer.Option(name, metavar=metavar or None, help=help, show_default=default, **more)


def argument(metavar: str, help: str, default: str | bool = True) -> Any:
    return typer.Argument(metavar=metavar, help=help, show_default=default)


ANYWHERE = "Anywhere in a command: --data-root DIR, where the papers' data sets lie, and --debug."
"""Stands below the options of every command."""


def command(app: typer.Typer, name: str) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Makes a function a command whose errors become messages."""
    return lambda function: app.command(name, epilog=ANYWHERE)(failures.guarded(function))


Data = Annotated[
    str,
    option(
        "--data DIR|FILE|NAME",
        "A folder of class folders (with or without train / val / test), a CSV or JSONL of (path, label[, split]), "
        "the name of an embedded set or of one of the papers' (see `vlprompt data list`), or hub:OWNER/NAME.",
    ),
]
Columns = Annotated[
    str | None,
    option(
        "--columns path=NAME,label=NAME",
        "Names of a table's columns, if they are not path, label and split. separator=; reads several labels in one cell.",
        "by their names",
    ),
]
ClassNames = Annotated[
    str | None,
    option(
        "--class-names FILE",
        "What the class folders are called in words: lines of `folder: words`, CSV or JSON.",
        "the folders' names",
    ),
]
MaxTest = Annotated[
    int | None, option("--max-test N", "Test on N images, as many of each class.", "all of them", min=1)
]
MODEL = option(
    "--model NAME|DIR|ID",
    "An embedded model, a CLIP directory (Hugging Face, open_clip), OpenAI's .pt file, or a Hub id.",
)
Model = Annotated[str, MODEL]
Backbone = Annotated[
    str | None, option("--model NAME|DIR|ID", "Where the model is now, if it has moved.", "where it was")
]
Classes = Annotated[
    list[str] | None,
    option(
        "--classes FILE|A,B,C",
        "Other class names, or a file with one per line. Repeatable.",
        "those it was learned on",
    ),
]
AllAnswers = Annotated[bool, option("--predictions", "Write predictions.csv too: every test image with its answer.")]


def parse_shots(text: str | int) -> int:
    """`16` -> 16; `all` and `0` -> 0, which takes all. UserError for anything else."""
    if str(text).lower() == "all":
        return 0
    if not str(text).isdecimal() or len(str(text)) > MAX_DIGITS:
        raise UserError(f"--shots {text} is neither a whole number nor `all`. Write --shots 16 or --shots all.")
    return int(text)


Shots = Annotated[int, option("--shots N|all", "Training images per class.", parser=parse_shots)]
Seeds = Annotated[str, option("--seeds 1,2,3", "One run per seed.")]
Settings = Annotated[
    list[str] | None, option("--set NAME=VALUE", "Any option of the method or its schedule. Repeatable.")
]
Teacher = Annotated[
    str | None,
    option(
        "--teacher NAME|DIR|ID",
        "Another model or run that teaches, for methods with a teacher (rpp, promptkd, prograd).",
        "the frozen model itself",
    ),
]
Device = Annotated[str, option("--device", "auto, cpu, cuda, cuda:1 or mps.")]
Precision = Annotated[str, option("--dtype", "Type of the frozen weights: float32, bfloat16 or float16.")]
Cache = Annotated[
    Path | None,
    option("--cache DIR", "Directory of the image features (each image encoded once).", "see `vlprompt env`"),
]
SubsetOption = Annotated[str, option("--subset", "Classes: all, base (the first half) or novel.")]
Template = Annotated[
    str | None, option("--template", "Words of the zero-shot classifier, {} for the name.", "the data set's")
]
Replicas = Annotated[
    int,
    option(
        "--replicas N",
        "Learn N prompts that differ in their seed alone in the same steps: quicker with small models, equal to about 1e-6.",
        min=1,
    ),
]
Track = Annotated[str | None, option("--track tensorboard", "Learning curves, in addition to metrics.jsonl.")]
Strict = Annotated[bool, option("--strict", "Stop at an unusable image, instead of skipping it.")]
AsJson = Annotated[bool, option("--json", "Print JSON on stdout, and nothing else.")]
Recipe = Annotated[
    str,
    option(
        "--recipe NAME",
        "Whose settings: a name of `vlprompt recipes`, a recipe in a .toml file, or the method's own: published, pocket (for the "
        "small embedded models), or auto: by the model.",
    ),
]
Views = Annotated[
    str | None,
    option(
        "--views N|epochs|centre",
        "Fixed random crops per image; `epochs`: a fresh one each epoch, as published; `centre`: no crop.",
        "8; a recipe's own on its data sets; centre for an embedded model",
    ),
]
Jobs = Annotated[int, option("--jobs", "Processes that work at the same time.", min=1)]
Resume = Annotated[bool, option("--resume", "Continue unfinished work in --out.")]


def parse_bytes(text: str | int) -> int:
    """`4G` -> bytes. UserError for other text."""
    from vlprompt.engine.memory import parse_bytes as parsed

    return parsed(str(text))


MaxMemory = Annotated[
    int | None,
    option(
        "--max-memory 4G",
        "Stay below it: class names run a part at a time, with the same gradient.",
        "no limit; pretraining runs 4096 rows at a time",
        parser=parse_bytes,
    ),
]
Run = Annotated[Path, argument("RUN", "A run directory, one seed of it, or a saved prompt.")]


def one_of(option: str, value: str, allowed: Sequence[Choice]) -> Choice:
    """The value if it is allowed; else a UserError with the nearest."""
    for choice in allowed:
        if choice == value:
            return choice
    raise unknown(f"value of {option}", value, allowed)


def parse_seeds(text: str) -> tuple[int, ...]:
    """`1,2,3` or `1-3` -> (1, 2, 3). UserError for anything else, and for a seed given twice.

    One number above 1 is asked about: people write `--seeds 3` for three seeds as well as for seed 3, which is `3,`.
    """
    seeds: list[int] = []
    plain = text.replace(" ", "")
    if plain.isdecimal() and len(plain) <= MAX_DIGITS and int(plain) > 1:
        raise UserError(
            f"--seeds {text}: {plain} seeds, or the one seed {plain}? Write --seeds 1-{plain} for {plain} seeds, or --seeds {plain}, "
            f"(with the comma) for that one."
        )
    for part in plain.removesuffix(",").split(","):
        first, dash, last = part.partition("-")
        numbers = (first, last if dash else first)
        if not all(one.isdecimal() and len(one) <= MAX_DIGITS for one in numbers) or int(numbers[1]) < int(numbers[0]):
            raise UserError(
                f"--seeds {text!r} is not a list of whole numbers from 0. Write --seeds 1,2,3 or --seeds 1-3."
            )
        if int(numbers[1]) - int(numbers[0]) >= MAX_SEEDS:
            raise UserError(f"--seeds {text!r} names more than {MAX_SEEDS:,} seeds. Write fewer.")
        seeds += range(int(numbers[0]), int(numbers[1]) + 1)
    if len(set(seeds)) < len(seeds):
        raise UserError(f"--seeds {text!r} names a seed twice. Write every seed once.")
    return tuple(seeds)


def with_columns(data: str, columns: str | None, class_names: str | None = None) -> str:
    """The data with the columns and the class names that are meant: ``t.csv?path=file_name&names=words.csv``."""
    if columns is None and class_names is None:
        return data
    names = [("names", class_names)] if class_names else []
    pairs = [one.partition("=") for one in columns.split(",")] if columns is not None else []
    if not all(name.strip() and equals for name, equals, _ in pairs):
        raise UserError(
            f"--columns {columns!r} is not a list of NAME=COLUMN. Write for example --columns path=file_name,label=category."
        )
    return f"{data}?{urlencode([*((name.strip(), column.strip()) for name, _, column in pairs), *names], safe='/')}"


def as_typed(data: str) -> str:
    """What `with_columns` made, as people type it, for a command to copy: ``t.csv --columns path=file_name --class-names words.csv``."""
    place, _, query = data.rpartition("?")
    if not place or not Path(place).exists():
        return shlex.quote(data)
    pairs = dict(parse_qsl(query))
    names = pairs.pop("names", None)
    columns = ",".join(f"{name}={column}" for name, column in pairs.items())
    asked = (("--columns", columns), ("--class-names", names))
    return " ".join([shlex.quote(place), *(f"{option} {shlex.quote(value)}" for option, value in asked if value)])


Config = TypeVar("Config")


def config_of(kind: type[Config], asked: Mapping[str, Any], made: Mapping[str, Any]) -> Config:
    """A configuration of a command's options by their names; made: what is read from their text, and goes before it."""
    known = {field.name for field in dataclasses.fields(cast(Any, kind))}
    return kind(**{name: value for name, value in {**asked, **made}.items() if name in known})


def dump_records(records: Iterable[Record]) -> None:
    console.dump([dataclasses.asdict(record) for record in records])


def parse_names(texts: Sequence[str] | None) -> tuple[str, ...] | None:
    """The names of all --classes together: ``cat, dog``, ``"pepper, bell",fox``, ``["cat", "dog"]`` or a file of names; None stays None.

    UserError: a file that is not there, an empty or repeated name, or one name alone.
    """
    if texts is None:
        return None
    from vlprompt.types import plain_name

    names = tuple(name for text in texts for name in _names(text))
    if not names or not all(map(plain_name, names)) or len(set(map(plain_name, names))) < len(names):
        raise UserError(
            f"--classes {', '.join(texts)!r} has an empty or a repeated name. Write for example --classes 'cat,dog'."
        )
    if len(names) < 2:
        raise UserError(
            f"--classes names one class ({names[0]!r}), which every picture would get with probability 1. Name two or more, or a file with "
            "a name on each line."
        )
    return names


def _names(text: str) -> list[str]:
    path = Path(text).expanduser()
    if os.path.isfile(path):
        from vlprompt.engine.class_vectors import read_names

        return list(read_names(path))
    if Path(text).suffix.lower() in (".txt", ".json", ".csv") or "/" in text:
        raise UserError(
            f"--classes {text!r}: there is no such file. Give a file with a name on each line, or the names: 'cat,dog'."
        )
    if text.lstrip().startswith(("[", "{")):
        try:
            listed = json.loads(text)
        except ValueError as problem:
            raise UserError(f"--classes {text!r} is not a JSON list of names ({problem}).") from problem
        if not isinstance(listed, list) or not all(isinstance(name, str) for name in listed):
            raise UserError(f"--classes {text!r} is not a JSON list of names.")
        return [name.strip() for name in listed]
    lines = [line for line in text.splitlines() if line.strip()]
    if "\0" in text:
        raise UserError(f"--classes {text!r} holds a byte of zero. Write for example --classes 'cat,dog'.")
    return [name.strip() for line in lines for name in next(csv.reader([line], skipinitialspace=True), [])]


def parse_track(text: str | None) -> Literal["tensorboard"] | None:
    """The name if it is known; None stays. UserError for anything else."""
    known: tuple[Literal["tensorboard"], ...] = ("tensorboard",)
    return None if text is None else one_of("--track", text, known)


def parse_views(text: str | None) -> int | Literal["epochs", "centre"] | None:
    """`8` -> 8; `epochs`, `centre` and None stay. UserError for anything else."""
    if text is None:
        return None
    words: tuple[Literal["epochs"], Literal["centre"]] = ("epochs", "centre")
    for word in words:
        if text == word:
            return word
    if not text.isdecimal():
        raise UserError(f"--views {text!r} is not a number, 'epochs' or 'centre'. Write for example --views 8.")
    return int(text)


VARIABLE = "VLPROMPT_DATA"
"""As `vlprompt.data.papers.catalogue.ROOT_VARIABLE`; not read from there, so `--help` imports nothing heavy."""


@contextmanager
def known(root: str) -> Iterator[None]:
    """The data root of a command line in the environment; what was there before afterwards."""
    before = os.environ.get(VARIABLE)
    os.environ[VARIABLE] = str(Path(root).expanduser().absolute())
    try:
        yield
    finally:
        if before is None:
            del os.environ[VARIABLE]
        else:
            os.environ[VARIABLE] = before
