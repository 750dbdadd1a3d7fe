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
from dataclasses import MISSING, dataclass, field, fields, is_dataclass
from importlib import resources
from pathlib import Path
from typing import Any, Literal, TypeVar, cast, get_args, get_origin, get_type_hints

from vlprompt import reading
from vlprompt.data.papers.catalogue import FEW_SHOT, SHIFTED
from vlprompt.errors import UserError, data_error, unknown
from vlprompt.reading import fits, whole

T = TypeVar("T")
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
    metric: Literal["top1", "base", "novel", "harmonic_mean"]
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
    views: int | Literal["epochs", "centre"] = "epochs"
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
        data = self.train[0] if len(self.train) == 1 else "SET"
        place = f"runs/{self.name}"
        model = "" if self.model == POCKET else f" --model {self.model}"
        if self.protocol == "pretraining":
            start = f"torchrun --nproc-per-node {self.pretrain.processes} -m vlprompt pretrain --recipe {self.name}"
            return (
                f"{start}{model} --data {data} --out {place}",
                f"vlprompt eval {place}/{self.pretrain.keep} --data SET --out {place}-SET",
            )
        shots, seeds = max(self.shots, default=0), ",".join(map(str, self.seeds))
        part = " --subset base" if self.protocol == "base-to-novel" else ""
        run = f"{place}/{data}" + (f"-{shots}" if self.protocol in ("few-shot", ANY) else "")
        train = f"vlprompt train --recipe {self.name}{model} --data {data} --shots {shots} --seeds {seeds}{part} --out {run}"
        if self.protocol == "base-to-novel":
            return train, f"vlprompt eval {run} --data {data} --subset novel --out {run}-novel"
        return (train, f"vlprompt eval {run} --data SET --out {place}/SET") if self.test else (train,)


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
    return name if known(name) else ""


@functools.cache
def names() -> tuple[str, ...]:
    """All of one file, and each overlay over them; overlays over overlays are known too, and not listed."""
    own = [name for name in _files() if "method" in _loaded(name)]
    over = (f"{overlay}-{name}" for overlay in _overlays() for name in own)
    return tuple(sorted([*own, *filter(_parts, over)]))


def _parts(name: str) -> tuple[str, str] | None:
    """The overlay that a recipe's name begins with, and the recipe below it; None where it names no such pair."""
    for overlay, table in _overlays().items():
        below = name.removeprefix(f"{overlay}-")
        if below != name and (below in _files() or _parts(below)):
            *others, host = _raw(below)[0].get("method", "").split("+")
            return (overlay, below) if host in table["hosts"] and overlay not in others else None
    return None


def known(name: str) -> bool:
    """Whether it is the name of a recipe, or means a file: it ends in `.toml`."""
    return name.endswith(ENDING) or name in names() or _parts(name) is not None


def read(name: str) -> Recipe:
    """A recipe by its name, or of a file `....toml`. UserError: an unknown name with the nearest, or a file that is wrong, with what is."""
    if name.endswith(ENDING):
        return parse(name, reading.text(Path(name)))
    if not known(name):
        raise unknown("recipe", name, names())
    return _read(name)


@functools.cache
def _read(name: str) -> Recipe:
    return _recipe(name, *_raw(name))


def _raw(name: str) -> tuple[dict[str, Any], tuple[str, ...]]:
    """A recipe's values, and the files that they come from."""
    if (parts := None if name in _files() else _parts(name)) is None:
        return _gathered(name, _loaded(name), (name,))
    overlay, below = parts
    table, (values, files) = _overlays()[overlay], _raw(below)
    own = {key: table[key] for key in ("choices", "source", "note")}
    own["source"] += f". {values['title']}: {values['source']}"
    changed = {f"{overlay}.{option}": value for option, value in table.get("over", {}).get(below, {}).items()}
    return {
        **{key: value for key, value in values.items() if key != "published"},
        **own,
        "title": f"{table['title']} on {values['title']}",
        "method": f"{overlay}+{values['method']}",
        "options": {**values.get("options", {}), **changed},
    }, (overlay, *files)


def hash_of(name: str) -> str:
    """A recipe's hash; "" for none."""
    return read(name).hash if name else ""


def parse(name: str, text: str) -> Recipe:
    """A recipe from the text of its file. UserError (exit 3) that names the field and what it must be."""
    return _recipe(name, *_gathered(name, reading.toml_value(text, f"recipe {name}"), (name,)))


@functools.cache
def _files() -> tuple[str, ...]:
    return tuple(sorted(one.name.removesuffix(ENDING) for one in FOLDER.iterdir() if one.name.endswith(ENDING)))


@functools.cache
def _loaded(name: str) -> Mapping[str, Any]:
    return reading.toml_value((FOLDER / f"{name}{ENDING}").read_text(encoding="utf-8"), f"recipe {name}")


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
            raise data_error(f"recipe {name}: {key} is {other!r}, {why}.")
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
    own = {one: FOLDER / f"{one}{ENDING}" for one in files if one in _files()}
    own |= {one: Path(one) for one in files if one.endswith(ENDING)}
    return _made(
        Recipe,
        name,
        values,
        name=name,
        files=tuple(place.name for place in own.values()),
        hash=hashlib.sha256(b"".join(place.read_bytes() for place in own.values())).hexdigest(),
    )


def _made(kind: type[T], where: str, values: Any, **known: Any) -> T:
    """A recipe or a table of it; each value is checked by its field's type. known: the fields that are not in the file."""
    parts = {one.name: one for one in fields(cast(Any, kind)) if one.name not in known}
    if not isinstance(values, dict):
        raise _wrong(where, "it", values, "a table")
    for key in sorted(values.keys() - parts.keys()):
        also = ["extends", "options_from"] if kind is Recipe else []
        raise _wrong(where, key, values[key], f"left out: allowed are {', '.join([*parts, *also])}")
    hints = get_type_hints(kind)
    for key, one in parts.items():
        needed = (one.default, one.default_factory) == (MISSING, MISSING)
        if needed or key in values:
            known[key] = _value(where, key, values.get(key), hints[key])
            if needed and known[key] == "":
                raise _wrong(where, key, "", ALLOWED[str])
    return kind(**known)


ALLOWED = {
    str: "text",
    int: "a whole number of at least 0",
    float: "a number in percent",
    tuple[int, ...]: "a list of whole numbers",
    tuple[str, ...]: f"a list of data sets, or one of {', '.join(GROUPS)}",
}
"""Type of a field -> what it must be, in words; other types are tables."""


def _value(where: str, key: str, value: Any, hint: Any) -> Any:
    """A value of a file as a field of this type. UserError: another one, a negative number, no percentage."""
    inner = get_args(hint)
    if is_dataclass(hint):
        return _made(cast(Any, hint), f"{where}, {key}", value)
    if get_origin(hint) is tuple and is_dataclass(inner[0]) and isinstance(value, list):
        return tuple(_made(cast(Any, inner[0]), f"{where}, {key}", one) for one in value)
    if hint == Mapping[str, Mapping[str, Plain]] and isinstance(value, dict):
        return {one: _value(where, f"{key}.{one}", part, inner[1]) for one, part in value.items()}
    made = _spelt_out(value, hint)
    least = 1 if key == "views" else 0
    low = any(type(one) is int and one < least for one in (made if isinstance(made, tuple) else [made]))
    if low or not fits(made, hint) or (hint is float and not 0 < made < 100):
        known = next((ALLOWED[one] for one in (hint, *inner) if one in ALLOWED), "a table")
        words = next((get_args(one) for one in (hint, *inner) if get_origin(one) is Literal), ())
        listed = [f"one of {', '.join(map(str, words))}"] if words else []
        raise _wrong(where, key, value, " or ".join([*listed, known] if int in inner else listed or [known]))
    return made


def _spelt_out(value: Any, hint: Any) -> Any:
    """Text in one line, names of groups as their data sets, numbers for the words of a table, options within tables with a prefix."""
    if hint is str and isinstance(value, str):
        return " ".join(value.split())
    if hint == tuple[str, ...] and isinstance(value, str):
        return GROUPS.get(value, value)
    if hint == Mapping[int, int] and isinstance(value, dict):
        return {whole(shots): number for shots, number in value.items()}
    if hint == Mapping[str, Plain] and isinstance(value, dict):
        return _flat(value)
    return tuple(value) if isinstance(value, list) else value


def _flat(table: Mapping[str, Any]) -> dict[str, Any]:
    """Option -> value; an overlay's options are a table within: `[options.plpp]`."""
    flat: dict[str, Any] = {}
    for option, value in table.items():
        inner = _flat(value) if isinstance(value, dict) else None
        flat |= {option: value} if inner is None else {f"{option}.{one}": each for one, each in inner.items()}
    return flat


def _wrong(where: str, key: str, value: object, allowed: str) -> UserError:
    return data_error(f"recipe {where}: {key} is {value!r}; it must be {allowed}.")
