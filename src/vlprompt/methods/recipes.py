"""The settings of methods: one TOML file per method and protocol, and the only place where a number of a paper stands.

The files lie in `vlprompt/recipes`, so wheels carry them. A file may extend another one; a file without a method is there to be
extended; an overlay's file (`plpp.toml`) goes over each recipe of its hosts: `plpp-coop-few-shot` is `plpp.toml` over
`coop-few-shot.toml`. `names` lists all recipes, `read` gives one as a frozen `Recipe`, `named` the one of a method and a protocol.
Knows no torch and no model.
"""

from __future__ import annotations

import functools
import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, get_args, get_origin, get_type_hints

from vlprompt import reading
from vlprompt.data.papers.catalogue import FEW_SHOT, SHIFTED
from vlprompt.errors import DATA, UserError, unknown

if TYPE_CHECKING:
    from vlprompt.types import Views

RecipeProtocol = Literal["few-shot", "base-to-novel", "cross-dataset", "domain", "pretraining", "any"]
Choices = Literal["published", "project"]
Plain = str | int | float | bool
PROTOCOLS: tuple[str, ...] = get_args(RecipeProtocol)
ANY = "any"
"""The protocol of recipes that hold for all of them: those of the small models inside the package."""
POCKET = "pocket"
"""Their model."""
ENDING = ".toml"
FOLDER = resources.files("vlprompt") / "recipes"

GROUPS = {
    "eleven": FEW_SHOT,
    "ten": FEW_SHOT[1:],
    "four": SHIFTED,
    "fourteen": FEW_SHOT[1:] + SHIFTED,
    "papers": FEW_SHOT + SHIFTED,
}
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
class SpecialCase:
    """Settings that hold on some data sets with some numbers of images alone."""

    datasets: tuple[str, ...]
    shots: tuple[int, ...]
    settings: Mapping[str, Plain]


@dataclass(frozen=True, slots=True, kw_only=True)
class Pretraining:
    """What pretraining adds to the method's options and schedule."""

    processes: int = 1
    """Of the published run; the schedule's `batch` is the images of a step on all of them together."""
    views: int | Literal["published", "crops", "centre"] = "published"
    """What an image looks like, as `--views` of `vlprompt pretrain` takes it."""
    copies: int = 1
    """Views of an image in its step."""
    classes: int = 0
    """Classes that an image is compared with, for methods without an option for it; 0: all."""
    correction: Literal["natural", "log10", "none"] = "natural"
    keep: Literal["best", "last"] = "best"
    """The prompt that counts: the best on validation images, or the last one."""
    epochs: int | None = None
    """In place of the schedule's."""
    batch: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Recipe:
    """A method with the settings of one protocol."""

    name: str
    title: str
    method: str
    """As `--method` takes it, overlays included."""
    protocol: RecipeProtocol
    choices: Choices
    """Whose settings: `published` in the code named as source, or the `project`'s own, as `note` says."""
    source: str
    """Where the settings stand: repository and files."""
    note: str = ""
    """Where this differs from the source, or what the source leaves open."""
    model: str
    """The backbone, as `--model` takes it; `pocket`: any of the small models inside the package."""
    shots: tuple[int, ...]
    """Images per class, one run for each; empty: all images."""
    seeds: tuple[int, ...]
    views: Views = "epochs"
    """Crops of training images, as `--views` takes them."""
    train: tuple[str, ...]
    """Data sets that it is learned on, one run for each."""
    test: tuple[str, ...] = ()
    """Other data sets that each run is tested on; empty: the one it was learned on."""
    options: Mapping[str, Plain] = field(default_factory=dict)
    """The method's options, as `--set` names them."""
    schedule: Mapping[str, Plain] = field(default_factory=dict)
    """Epochs, learning rate, batch and so on, as `--set` names them."""
    epochs: Mapping[int, int] = field(default_factory=dict)
    """Shots -> epochs, where they depend on it; another count takes the next larger one's, all images the largest's."""
    datasets: Mapping[str, Mapping[str, Plain]] = field(default_factory=dict)
    """Data set -> settings that hold on it alone, over all others."""
    cases: tuple[SpecialCase, ...] = ()
    """Settings for some data sets and shots alone, over those too."""
    templates: Mapping[str, str] = field(default_factory=dict)
    """Data set -> words of the zero-shot classifier and teacher, where the source has others than the field's list."""
    pretrain: Pretraining = Pretraining()
    published: tuple[Published, ...] = ()
    """Published numbers to compare a run with; none without a source."""
    files: tuple[str, ...] = ()
    """The files that it is made of, its own first."""
    hash: str = ""
    """SHA-256 (hex) of the bytes of those files, one after the other."""

    def settings(self, *, shots: int | None = None, dataset: str = "") -> dict[str, Plain]:
        """Option -> value for one run: options, schedule, epochs by shots, then what holds on this data set, and with these shots."""
        chosen = {**self.options, **self.schedule}
        if self.epochs:
            large = [count for count in sorted(self.epochs) if shots is not None and count >= shots]
            chosen["epochs"] = self.epochs[large[0] if large else max(self.epochs)]
        chosen |= self.datasets.get(same(dataset, self.datasets), {})
        for case in self.cases:
            if shots in case.shots and same(dataset, dict.fromkeys(case.datasets)) in case.datasets:
                chosen |= case.settings
        return chosen

    def template(self, dataset: str) -> str | None:
        """The source's own template for a data set; None: the field's."""
        return self.templates.get(same(dataset, self.templates))

    def is_for(self, dataset: str, shots: int | None) -> bool:
        """Whether the source has a run on this data set with so many images per class (0: nothing is learned)."""
        return same(dataset, dict.fromkeys(self.train)) in self.train and (shots in self.shots or shots == 0)

    @property
    def commands(self) -> tuple[str, ...]:
        """What to type. SET stands for one of `train`, in `vlprompt eval` of another data set for one of `test`."""
        return _commands(self)


def _commands(recipe: Recipe) -> tuple[str, ...]:
    data = recipe.train[0] if len(recipe.train) == 1 else "SET"
    place = f"runs/{recipe.name}"
    model = "" if recipe.model == POCKET else f" --model {recipe.model}"
    if recipe.protocol == "pretraining":
        start = f"torchrun --nproc-per-node {recipe.pretrain.processes} -m vlprompt pretrain --recipe {recipe.name}"
        return (
            f"{start}{model} --data {data} --out {place}",
            f"vlprompt eval {place}/{recipe.pretrain.keep} --data SET --out {place}-SET",
        )
    shots, seeds = max(recipe.shots, default=0), ",".join(map(str, recipe.seeds))
    part = " --subset base" if recipe.protocol == "base-to-novel" else ""
    run = f"{place}/{data}" + (f"-{shots}" if recipe.protocol in ("few-shot", ANY) else "")
    train = (
        f"vlprompt train --recipe {recipe.name}{model} --data {data} --shots {shots} --seeds {seeds}{part} --out {run}"
    )
    if recipe.protocol == "base-to-novel":
        return train, f"vlprompt eval {run} --data {data} --subset novel --out {run}-novel"
    return (train, f"vlprompt eval {run} --data SET --out {place}/SET") if recipe.test else (train,)


def same(dataset: str, known: Mapping[str, object]) -> str:
    """The key that means this data set, however it is spelt (`Food-101`, `food101`); the name itself where there is none."""
    plain = _plain(dataset)
    return next((key for key in known if _plain(key) == plain), dataset)


def _plain(name: str) -> str:
    return "".join(sign for sign in name.lower() if sign.isalnum())


def named(method: str, protocol: str, *, pocket: bool = False) -> str:
    """The recipe of a method and a protocol; "" where there is none. `transfer` learns as `few-shot` does."""
    part = POCKET if pocket else "few-shot" if protocol == "transfer" else protocol
    name = f"{method.replace('+', '-')}-{part}"
    return name if name in names() else ""


@functools.cache
def names() -> tuple[str, ...]:
    own = [name for name in _files() if "method" in _loaded(name)]
    over = [
        f"{overlay}-{name}"
        for overlay, table in _overlays().items()
        for name in own
        if _loaded(name)["method"] in table["hosts"]
    ]
    return tuple(sorted([*own, *over]))


def known(name: str) -> bool:
    """Whether it is the name of a recipe, or means a file: it ends in `.toml`."""
    return name.endswith(ENDING) or name in names()


def read(name: str) -> Recipe:
    """A recipe by its name, or of a file `....toml`. UserError: an unknown name with the nearest, or a file that is wrong, with what is."""
    if name.endswith(ENDING):
        return parse(name, reading.text(Path(name)))
    if name not in names():
        raise unknown("recipe", name, names())
    return _read(name)


@functools.cache
def _read(name: str) -> Recipe:
    if name in _files():
        return _recipe(name, *_gathered(name, _loaded(name), (name,)))
    overlay = next(one for one in _overlays() if name.startswith(f"{one}-"))
    table, host = _overlays()[overlay], name.removeprefix(f"{overlay}-")
    values, files = _gathered(host, _loaded(host), (host,))
    below, own = _recipe(host, dict(values), files), {key: table[key] for key in ("choices", "source", "note")}
    own["source"] += f". {below.title}: {below.source}"
    changed = {f"{overlay}.{option}": value for option, value in table.get("over", {}).get(host, {}).items()}
    values = {
        **{key: value for key, value in values.items() if key != "published"},
        **own,
        "title": f"{table['title']} on {below.title}",
        "method": f"{overlay}+{below.method}",
        "options": {**values.get("options", {}), **changed},
    }
    return _recipe(name, values, (overlay, *files))


def hash_of(name: str) -> str:
    """A recipe's hash; "" for none."""
    return read(name).hash if name else ""


def parse(name: str, text: str) -> Recipe:
    """A recipe from the text of its file. UserError (exit 3) that names the field and what it must be."""
    return _recipe(name, *_gathered(name, _toml(name, text), (name,)))


def _toml(name: str, text: str) -> dict[str, Any]:
    return reading.toml_value(text, f"recipe {name}")


@functools.cache
def _files() -> tuple[str, ...]:
    return tuple(sorted(one.name.removesuffix(ENDING) for one in FOLDER.iterdir() if one.name.endswith(ENDING)))


@functools.cache
def _loaded(name: str) -> Mapping[str, Any]:
    return _toml(name, (FOLDER / f"{name}{ENDING}").read_text(encoding="utf-8"))


@functools.cache
def _overlays() -> Mapping[str, Mapping[str, Any]]:
    tables = (_loaded(name) for name in _files())
    return {table["overlay"]: table for table in tables if "overlay" in table}


OWN = ("title", "choices", "source", "note", "published")
"""What a recipe does not take from one that it extends; of a file without a method it takes all."""


def _gathered(name: str, values: Mapping[str, Any], chain: tuple[str, ...]) -> tuple[dict[str, Any], tuple[str, ...]]:
    """A file's values over those that it extends, and the names of the files. UserError: an unknown one, or a circle."""
    own, files = dict(values), chain[-1:]
    for key in ("options_from", "extends"):
        other = own.pop(key, None)
        if other is None:
            continue
        if other not in _files() or other in chain:
            why = "which extends this one" if other in chain else "and no file has that name"
            raise UserError(f"recipe {name}: {key} is {other!r}, {why}.", exit_code=DATA)
        below, more = _gathered(other, _loaded(other), (*chain, other))
        files += more
        if key == "options_from":
            own["options"] = {**below.get("options", {}), **own.get("options", {})}
        else:
            base = {one: part for one, part in below.items() if "method" not in below or one not in OWN}
            if "options_from" in values:
                base = {one: part for one, part in base.items() if one not in ("options", "datasets", "cases")}
            own = _over(own, base)
    return own, tuple(dict.fromkeys(files))


def _over(own: Mapping[str, Any], base: Mapping[str, Any]) -> dict[str, Any]:
    """Own values over a base's; tables by their keys, cases after the base's."""
    found = {**base, **own}
    for key in ("options", "schedule", "epochs", "templates", "pretrain", "datasets"):
        if key in base and key in own:
            found[key] = {**base[key], **own[key]}
    if "epochs" in own.get("schedule", {}):
        found.pop("epochs", None)
    found["cases"] = [*base.get("cases", ()), *own.get("cases", ())]
    return found


def _recipe(name: str, values: Mapping[str, Any], files: tuple[str, ...]) -> Recipe:
    parts = Fields(name, values)
    allowed = [one.name for one in fields(Recipe) if one.name not in ("name", "files", "hash")]
    for key in sorted(values.keys() - set(allowed)):
        raise parts.wrong(key, f"left out: a recipe has {', '.join(allowed)}, extends and options_from")
    own = {one: FOLDER / f"{one}{ENDING}" for one in files if one in _files()}
    own |= {one: Path(one) for one in files if one.endswith(ENDING)}
    return Recipe(
        name=name,
        title=parts.text("title"),
        method=parts.text("method"),
        protocol=parts.one_of("protocol", PROTOCOLS),
        choices=parts.one_of("choices", get_args(Choices)),
        source=parts.text("source"),
        note=parts.text("note", ""),
        model=parts.text("model"),
        shots=parts.numbers("shots"),
        seeds=parts.numbers("seeds"),
        views=parts.views(),
        train=parts.sets("train"),
        test=parts.sets("test", optional=True),
        options=parts.settings("options"),
        schedule=parts.settings("schedule"),
        epochs={int(shots): count for shots, count in parts.table("epochs").items()},
        datasets={one: parts.settings_of(f"datasets.{one}", part) for one, part in parts.table("datasets").items()},
        cases=tuple(_case(name, part) for part in values.get("cases", ())),
        templates={one: str(words) for one, words in parts.table("templates").items()},
        pretrain=_pretraining(name, parts.table("pretrain")),
        published=tuple(_published(name, part) for part in values.get("published", ())),
        files=tuple(place.name for place in own.values()),
        hash=hashlib.sha256(b"".join(place.read_bytes() for place in own.values())).hexdigest(),
    )


def _case(name: str, part: Mapping[str, Any]) -> SpecialCase:
    parts = Fields(f"{name}, cases", part)
    return SpecialCase(
        datasets=parts.sets("datasets"), shots=parts.numbers("shots"), settings=parts.settings("settings")
    )


def _pretraining(name: str, part: Mapping[str, Any]) -> Pretraining:
    parts = Fields(f"{name}, pretrain", part)
    hints = get_type_hints(Pretraining)
    for key, value in part.items():
        if key not in hints:
            raise parts.wrong(key, f"left out: [pretrain] has {', '.join(hints)}")
        kinds = (one for one in (hints[key], *get_args(hints[key])) if get_origin(one) is Literal)
        words = [word for kind in kinds for word in get_args(kind)]
        if not reading.fits(value, hints[key]) or (type(value) is int and value < 0):
            raise parts.wrong(key, f"one of {', '.join(words)}" if words else "a whole number of at least 0")
    return Pretraining(**part)


def _published(name: str, part: Mapping[str, Any]) -> Published:
    parts = Fields(f"{name}, published", part)
    value, shots = part.get("value"), part.get("shots")
    if not isinstance(value, int | float) or not 0 < value < 100:
        raise parts.wrong("value", "a number in percent")
    return Published(
        value=float(value),
        metric=parts.one_of("metric", ("top1", "base", "novel", "harmonic_mean")),
        dataset=parts.text("dataset"),
        shots=shots,
        source=parts.text("source"),
    )


class Fields:
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
        value = self.values.get("views", "epochs")
        if value in ("epochs", "centre") or (type(value) is int and value > 0):
            return value  # type: ignore[no-any-return]
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

    def settings(self, key: str) -> dict[str, Plain]:
        return self.settings_of(key, self.table(key))

    def settings_of(self, key: str, part: Any) -> dict[str, Plain]:
        """Option -> plain value; an overlay's options are a table within: `[options.plpp]`."""
        if not isinstance(part, dict):
            raise self.wrong(key, "a table")
        flat: dict[str, Plain] = {}
        for option, value in part.items():
            inner = self.settings_of(f"{key}.{option}", value) if isinstance(value, dict) else None
            flat |= {option: value} if inner is None else {f"{option}.{one}": each for one, each in inner.items()}
        return flat
