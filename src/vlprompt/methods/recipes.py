"""Published rows as recipes: one TOML file per method and protocol, with its hyperparameters, its source and its commands.

The files lie beside this module, so that wheels carry them. `names` lists them, `read` gives one as a frozen `Recipe`,
`settings` what `--set` would say for a number of shots and a data set. Knows no torch and no model.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping
from dataclasses import dataclass, field
from importlib import resources
from typing import Any, Literal, get_args

from vlprompt import reading
from vlprompt.errors import DATA, UserError, unknown

Protocol = Literal["few-shot", "base-to-novel", "cross-dataset", "domain", "pretraining"]
Choices = Literal["published", "project"]
Views = int | Literal["epochs", "centre"]
Value = str | int | float | bool
PROTOCOLS: tuple[str, ...] = get_args(Protocol)
ENDING = ".toml"

ELEVEN = (
    "imagenet",
    "caltech101",
    "oxford_pets",
    "stanford_cars",
    "oxford_flowers",
    "food101",
    "fgvc_aircraft",
    "sun397",
    "dtd",
    "eurosat",
    "ucf101",
)
"""The data sets of few-shot and base-to-novel tables, by CoOp's names for them; the last ten are cross-dataset's targets."""
FOUR = ("imagenetv2", "imagenet_sketch", "imagenet_a", "imagenet_r")
"""Domain generalisation's targets."""
GROUPS = {"eleven": ELEVEN, "ten": ELEVEN[1:], "four": FOUR, "fourteen": ELEVEN[1:] + FOUR, "papers": ELEVEN + FOUR}
"""Words that a recipe may use for a list of data sets."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Published:
    """One published number, percent."""

    value: float
    metric: str
    """`top1`, `base`, `novel` or `harmonic_mean`."""
    dataset: str
    """One data set, or in words what was averaged: `mean of 11`."""
    shots: int | None = None
    """Images per class; None: the recipe's only count."""
    source: str
    """Where the number stands: repository and file, or a page."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Recipe:
    """A method with the hyperparameters of one protocol."""

    name: str
    title: str
    method: str
    """As `--method` takes it, overlays included."""
    protocol: Protocol
    choices: Choices
    """Whose hyperparameters: `published` in the code named as source, or the `project`'s own, as `note` says."""
    source: str
    """Where the hyperparameters stand: repository and files."""
    note: str = ""
    """Where this differs from the source, or what the source leaves open."""
    model: str
    """The backbone, as `--model` takes it."""
    shots: tuple[int, ...]
    """Images per class, one run for each; empty: all images."""
    seeds: tuple[int, ...]
    views: Views
    """Crops of training images, as `--views` takes them."""
    train: tuple[str, ...]
    """Data sets that it is learned on, one run for each."""
    test: tuple[str, ...] = ()
    """Other data sets that each run is tested on; empty: the one it was learned on."""
    options: Mapping[str, Value] = field(default_factory=dict)
    """The method's options, as `--set` names them."""
    schedule: Mapping[str, Value] = field(default_factory=dict)
    """Epochs, learning rate, batch and so on, as `--set` names them."""
    epochs: Mapping[int, int] = field(default_factory=dict)
    """Shots -> epochs, where they depend on it; another count takes the next larger one's, all images the largest's."""
    datasets: Mapping[str, Mapping[str, Value]] = field(default_factory=dict)
    """Data set -> settings that hold on it alone, over all others."""
    templates: Mapping[str, str] = field(default_factory=dict)
    """Data set -> words of the zero-shot classifier and teacher, where the source has others than the field's list."""
    published: tuple[Published, ...] = ()
    """Published numbers beside which a run may be put; none without a source."""
    commands: tuple[str, ...]
    """What to type; SET stands for one of `train`, in `vlprompt eval` of another data set for one of `test`."""

    def settings(self, *, shots: int | None = None, dataset: str = "") -> dict[str, Value]:
        """Option -> value for one run: the options, the schedule, epochs by shots, and what holds on this data set alone."""
        chosen = {**self.options, **self.schedule}
        if self.epochs:
            large = [count for count in sorted(self.epochs) if shots is not None and count >= shots]
            chosen["epochs"] = self.epochs[large[0] if large else max(self.epochs)]
        return chosen | dict(self.datasets.get(same(dataset, self.datasets), {}))

    def template(self, dataset: str) -> str | None:
        """The source's own template for a data set; None: the field's."""
        return self.templates.get(same(dataset, self.templates))


def same(dataset: str, known: Mapping[str, object]) -> str:
    """The key that means this data set, however it is spelt (`Food-101`, `food101`); the name itself where there is none."""
    plain = _plain(dataset)
    return next((key for key in known if _plain(key) == plain), dataset)


def _plain(name: str) -> str:
    return "".join(sign for sign in name.lower() if sign.isalnum())


@functools.cache
def names() -> tuple[str, ...]:
    """All recipes, in alphabetical order."""
    files = resources.files("vlprompt").joinpath("recipes").iterdir()
    return tuple(sorted(one.name.removesuffix(ENDING) for one in files if one.name.endswith(ENDING)))


@functools.cache
def read(name: str) -> Recipe:
    """A recipe by its name. UserError: an unknown name with the nearest, or a file that is wrong, with what is."""
    if name not in names():
        raise unknown("recipe", name, names())
    return parse(
        name, (resources.files("vlprompt").joinpath("recipes") / f"{name}{ENDING}").read_text(encoding="utf-8")
    )


def parse(name: str, text: str) -> Recipe:
    """A recipe from the text of its file. UserError (exit 3) that names the field and what it must be."""
    values = reading.toml_value(text, f"recipe {name}")
    fields = _Fields(name, values)
    recipe = Recipe(
        name=name,
        title=fields.text("title"),
        method=fields.text("method"),
        protocol=fields.one_of("protocol", PROTOCOLS),
        choices=fields.one_of("choices", get_args(Choices)),
        source=fields.text("source"),
        note=fields.text("note", ""),
        model=fields.text("model"),
        shots=fields.numbers("shots"),
        seeds=fields.numbers("seeds"),
        views=fields.views(),
        train=fields.sets("train"),
        test=fields.sets("test", optional=True),
        options=fields.settings("options"),
        schedule=fields.settings("schedule"),
        epochs={int(shots): count for shots, count in fields.table("epochs").items()},
        datasets={one: fields.settings_of(f"datasets.{one}", part) for one, part in fields.table("datasets").items()},
        templates={one: str(words) for one, words in fields.table("templates").items()},
        published=tuple(_published(name, part) for part in values.get("published", ())),
        commands=fields.texts("commands"),
    )
    unexpected = sorted(values.keys() - Recipe.__dataclass_fields__.keys())
    if unexpected:
        raise fields.wrong(unexpected[0], f"no field of a recipe; allowed: {', '.join(Recipe.__dataclass_fields__)}")
    return recipe


def _published(name: str, part: Mapping[str, Any]) -> Published:
    fields = _Fields(f"{name}, published", part)
    value, shots = part.get("value"), part.get("shots")
    if not isinstance(value, int | float) or not 0 < value < 100:
        raise fields.wrong("value", "a number in percent")
    return Published(
        value=float(value),
        metric=fields.one_of("metric", ("top1", "base", "novel", "harmonic_mean")),
        dataset=fields.text("dataset"),
        shots=shots,
        source=fields.text("source"),
    )


class _Fields:
    """The fields of one table of a file, each checked as it is read."""

    def __init__(self, name: str, values: Mapping[str, Any]) -> None:
        self.name, self.values = name, values

    def wrong(self, key: str, allowed: str) -> UserError:
        return UserError(
            f"recipe {self.name}: {key} is {self.values.get(key)!r}; it must be {allowed}.", exit_code=DATA
        )

    def text(self, key: str, default: str | None = None) -> str:
        value = self.values.get(key, default)
        if not isinstance(value, str) or (default is None and not value):
            raise self.wrong(key, "text")
        return " ".join(value.split())

    def texts(self, key: str) -> tuple[str, ...]:
        value = self.values.get(key)
        if not isinstance(value, list) or not value or not all(isinstance(one, str) and one for one in value):
            raise self.wrong(key, "a list of texts")
        return tuple(value)

    def one_of(self, key: str, allowed: tuple[str, ...]) -> Any:
        value = self.values.get(key)
        if value not in allowed:
            raise self.wrong(key, f"one of {', '.join(allowed)}")
        return value

    def numbers(self, key: str) -> tuple[int, ...]:
        value = self.values.get(key)
        if not isinstance(value, list) or not all(type(one) is int and one >= 0 for one in value):
            raise self.wrong(key, "a list of whole numbers")
        return tuple(value)

    def views(self) -> Views:
        value = self.values.get("views")
        if value in ("epochs", "centre") or (type(value) is int and value > 0):
            return value
        raise self.wrong("views", "a number from 1, 'epochs' or 'centre'")

    def sets(self, key: str, *, optional: bool = False) -> tuple[str, ...]:
        value = self.values.get(key)
        if isinstance(value, str) and value in GROUPS:
            return GROUPS[value]
        if value is None and optional:
            return ()
        if not isinstance(value, list) or not all(isinstance(one, str) for one in value):
            raise self.wrong(key, f"a list of data sets, or one of {', '.join(GROUPS)}")
        return tuple(value)

    def table(self, key: str) -> Mapping[str, Any]:
        value = self.values.get(key, {})
        if not isinstance(value, dict):
            raise self.wrong(key, "a table")
        return value

    def settings(self, key: str) -> dict[str, Value]:
        return self.settings_of(key, self.table(key))

    def settings_of(self, key: str, part: Any) -> dict[str, Value]:
        """Option -> plain value; an overlay's options are a table within: `[options.plpp]`."""
        if not isinstance(part, dict):
            raise self.wrong(key, "a table")
        flat: dict[str, Value] = {}
        for option, value in part.items():
            inner = self.settings_of(f"{key}.{option}", value) if isinstance(value, dict) else None
            flat |= {option: value} if inner is None else {f"{option}.{one}": each for one, each in inner.items()}
        return flat
