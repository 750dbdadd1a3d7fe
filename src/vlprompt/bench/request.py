"""What a grid is asked for, and the cells and courses that it is made of: every choice made, nothing done yet."""

from __future__ import annotations

import functools
import sys
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from vlprompt import artifact, pocket
from vlprompt.bench.cells import Cell, Course, Protocol
from vlprompt.bench.workspace import Desk
from vlprompt.data import Subset, halves, restrict, split_hash
from vlprompt.data.papers.catalogue import SHIFTED
from vlprompt.engine.config import default_views
from vlprompt.engine.job import recipe_template
from vlprompt.errors import UserError, data_error
from vlprompt.methods.options import options_of
from vlprompt.methods.recipes import GROUPS
from vlprompt.methods.resolve import every, ignored, options, recipe_of, resolve, whose
from vlprompt.towers import Clip
from vlprompt.types import Method, Views

DEFAULT_SHOTS: dict[Protocol, tuple[int | None, ...]] = {
    "few-shot": (1, 2, 4, 8, 16),
    "base-to-novel": (16,),
    "cross-dataset": (16,),
    "domain": (16,),
    "transfer": (16,),
}
"""As published."""
QUICK_SHOTS: tuple[int | None, ...] = (1, 4, 16)
DEFAULT_METHODS = (
    *("zero-shot", "linear-probe", "coop", "plpp+coop", "maple", "plpp+maple", "promptsrc", "plpp+promptsrc"),
    *("rpp", "plpp+rpp"),
)
QUICK_METHODS = ("zero-shot", "coop", "plpp+coop")
EVERY = ("all",)
"""In place of methods: each one, and each overlay on each method that it can stand on."""
DEFAULT_SEEDS, QUICK_SEEDS = (1, 2, 3), (1,)
NO_SHOTS = 0
ALL_CLASSES: tuple[Protocol, ...] = ("few-shot", "cross-dataset", "domain")
"""Protocols that learn on all classes of a set: where their settings are the same, they share prompts."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """A grid as it is asked for; what is not given (None) is filled by the protocol's definition, or by `quick`."""

    protocols: tuple[Protocol, ...]
    data: tuple[str, ...]
    model: str
    methods: tuple[str, ...] | None = None
    source: tuple[str, ...] | None = None
    shots: tuple[int | None, ...] | None = None
    """Images per class; None among them: all."""
    seeds: tuple[int, ...] | None = None
    overrides: Mapping[str, str] = field(default_factory=dict)
    """Each goes to the methods that know it; one that none knows is refused."""
    recipe: str = "auto"
    views: Views | None = None
    dtype: str = "float32"
    init: Path | None = None
    """A pretrained prompt (or a run of one), for `transfer`."""
    teacher: str | None = None
    """Another model or run that teaches the methods that compare answers with a teacher's; None: the frozen model itself."""
    quick: bool = False

    @property
    def named(self) -> bool:
        """Whether methods are named: what is impossible with one of them is then refused, and else left out and said."""
        return self.methods not in (None, EVERY)

    @property
    def whole(self) -> bool:
        """Whether several protocols are asked for together: then what is impossible is left out and said, not refused."""
        return len(self.protocols) > 1


class Maker:
    """The sets opened, the methods resolved, the model's weights known: from here on a plan is arithmetic."""

    def __init__(self, request: Request, desk: Desk) -> None:
        """UserError: a set or a model that cannot be opened, an option that no method knows, a pretrained prompt that does not
        fit."""
        self.request, self.desk = request, desk
        self.methods = _asked(request)
        self.seeds = request.seeds or (QUICK_SEEDS if request.quick else DEFAULT_SEEDS)
        self._given = open_sets(quick_sets(request.data) if request.quick else expand(request.data), desk)
        self._known = {one.data: one for one in self._given}
        self._resolved: dict[tuple[str, Protocol, int | None, str], Method] = {}
        clip = desk.clip(request.model, request.dtype)
        self.weight_hash, self._facts = clip.weight_hash, clip.facts
        self.pretrained: dict[str, Any] = _read_pretrained(request.init, clip) if request.init else {}
        names = (*self.methods, self.pretrained["method"]) if request.init else self.methods
        self._settings = {name: _own_settings(name, request.overrides) for name in names}
        _require_known(request.overrides, self._settings)
        self._teacher_hash = self._opened_teacher() if request.teacher else ""

    @property
    def sets(self) -> tuple[Known, ...]:
        """The sets of the grid; in a grid of several protocols those without training images are domains only."""
        if not self.request.whole:
            return self._given
        return tuple(one for one in self._given if one.material.train)

    def sources(self, protocol: Protocol) -> tuple[Known, ...]:
        """The sets that are learned from where others are tested: those asked for, else of a domain grid those that
        have domains, else the one with most classes."""
        if self.request.source is not None:
            return tuple(self._open(name) for name in expand(self.request.source))
        learnable = [one for one in self._given if one.material.train]
        if protocol == "domain" and (found := [one for one in learnable if domain_sets(one.data)]):
            return tuple(found)
        if not learnable:
            raise UserError("none of the sets has training images. Give the one to learn from with --source.")
        return (max(learnable, key=lambda one: len(one.class_names)),)

    def targets(self, source: Known) -> list[Known]:
        """The domains of a source: those that are known, and of the sets given those that have its classes. A set that is named
        next to a source is meant as a domain, whatever its classes."""
        known = [self._open(name) for name in domain_sets(source.data)]
        meant = () if self.request.whole or self.request.source is None else self.request.data
        given = [one for one in self._given if one.data in meant or fits(one, source)]
        return [one for one in dict.fromkeys([*known, *given]) if one.name != source.name]

    def shots(self, protocol: Protocol) -> tuple[int | None, ...]:
        """Images per class. Of a list given for several protocols few-shot takes all, the others the largest."""
        given = self.request.shots or (QUICK_SHOTS if self.request.quick else None)
        if given is None:
            return DEFAULT_SHOTS[protocol]
        if protocol == "few-shot" or not (self.request.whole or self.request.quick):
            return given
        return (None,) if None in given else (max(one for one in given if one is not None),)

    def recipe(self, name: str, protocol: Protocol) -> str:
        """The recipe of a method of the grid by a protocol; "": there is none."""
        return recipe_of(name, protocol, self.request.model, self.request.recipe)

    def method(self, name: str, protocol: Protocol, shots: int | None = None, dataset: str = "") -> Method:
        """A method of the grid with every choice made; for transfer as it goes on from the pretrained prompt."""
        key = (name, protocol, shots, dataset)
        if key not in self._resolved:
            settings, recipe = self._settings_of(name, protocol), self.recipe(name, protocol)
            self._resolved[key] = resolve(
                name, settings, shots=shots, recipe=recipe, dataset=dataset, facts=self._facts
            )
        return self._resolved[key]

    def _opened_teacher(self) -> str:
        """The hash of the teacher. UserError: it cannot be opened, or no method of the grid compares answers with a teacher's."""
        request, methods = self.request, [self.method(name, self.request.protocols[0]) for name in self.methods]
        taught = [one for one in methods if "teacher_logits" in one.needs]
        return self.desk.teacher(str(request.teacher), (taught or methods)[0], request.model, request.dtype).hash

    def _settings_of(self, name: str, protocol: Protocol) -> Mapping[str, str]:
        """What is set of a method: what was asked for, and for transfer the shape of the pretrained prompt."""
        if protocol != "transfer":
            return self._settings[name]
        own, before = resolve(name, self._settings[name]), self.pretrained["options"]
        shape = {one.name: before[one.name] for one in options_of(own.prompt) if one.name in before}
        return {**shape, **self._settings[name]}

    def misfit(self, name: str, known: Known) -> str | None:
        """Why a method cannot go on from the pretrained prompt on a set; None where it can."""
        clip = self.desk.clip(self.request.model, self.request.dtype)

        def start() -> None:
            method = self.method(name, "transfer", dataset=known.name)
            artifact.start_from(self.pretrained["place"], method, clip, len(known.class_names))

        return why_not(start)

    def courses(self, protocol: Protocol, name: str, known: Known, *, subset: Subset = "all") -> Iterator[Course]:
        """One for each count and seed; one altogether of a method that learns nothing. With few images, one for each seed of a method
        that learns from all images without labels, whatever the count."""
        resolved = self.method(name, protocol)
        if resolved.learner is None:
            yield self.course(protocol, name, known, NO_SHOTS, self.seeds[0], subset)
            return
        takes_all = protocol == "few-shot" and resolved.unlabelled is not None
        for number in (None,) if takes_all else self.shots(protocol):
            for seed in self.seeds:
                yield self.course(protocol, name, known, number, seed, subset)

    def cell(self, protocol: Protocol, course: Course, known: Known, *, subset: Subset = "all") -> Cell:
        """The course tested on a set, or a half of it."""
        test_hash, num_test = known.tests(subset)
        return Cell(
            protocol=protocol,
            course=course,
            data=known.data,
            dataset=known.name,
            subset=subset,
            test_hash=test_hash,
            num_test=num_test,
        )

    def _open(self, data: str) -> Known:
        if data not in self._known:
            (self._known[data],) = open_sets([data], self.desk)
        return self._known[data]

    def course(
        self, protocol: Protocol, name: str, known: Known, shots: int | None, seed: int, subset: Subset = "all"
    ) -> Course:
        """A prompt to be learned; for transfer with `NO_SHOTS` the pretrained one as it is."""
        request, transfer = self.request, protocol == "transfer"
        settings = self._settings_of(name, protocol)
        chosen = self.method(name, protocol, shots or None, known.name)
        recipe, usual = self.recipe(name, protocol), self._views(name, protocol, known)
        views = usual if request.views is None else request.views
        options = self.pretrained["options"] if transfer and shots == NO_SHOTS else chosen.options
        taught = bool(self._teacher_hash) and "teacher_logits" in chosen.needs
        return Course(
            method=name,
            options=dict(options),
            overrides=settings,
            recipe=recipe,
            choices=whose(
                chosen, settings, recipe, dataset=known.name, shots=shots, changed=transfer or views != usual
            ),
            model=request.model,
            weight_hash=self.weight_hash,
            dtype=request.dtype,
            views=views,
            data=known.data,
            dataset=known.name,
            data_hash=known.data_hash,
            template=recipe_template(recipe, known.material) or known.template,
            subset=subset,
            shots=shots,
            seed=seed,
            init=str(self.pretrained["place"]) if transfer else "",
            init_hash=str(self.pretrained["tensors_hash"]) if transfer else "",
            teacher=str(request.teacher) if taught else "",
            teacher_hash=self._teacher_hash if taught else "",
            num_train=0 if shots == NO_SHOTS else _num_train(chosen, known, subset, shots),
            variant=self._variant(protocol, name, known, shots),
        )

    def _views(self, name: str, protocol: Protocol, known: Known) -> Views:
        return default_views(self.recipe(name, protocol), known.name, wanted=self.request.recipe)

    def _variant(self, protocol: Protocol, name: str, known: Known, shots: int | None) -> str:
        """The first protocol that learns on all classes with the same settings; "" for few-shot."""

        def decides(one: Protocol) -> tuple[object, ...]:
            template = recipe_template(self.recipe(name, one), known.material)
            return self.method(name, one, shots or None, known.name).options, self._views(name, one, known), template

        if protocol not in ALL_CLASSES:
            return ""
        own = decides(protocol)
        return next(f"{one}" if one != ALL_CLASSES[0] else "" for one in ALL_CLASSES if decides(one) == own)


def why_not(check: Callable[..., object], *asked: object, **more: object) -> str | None:
    """Why a check refuses something; None where it does not."""
    try:
        check(*asked, **more)
    except UserError as problem:
        return str(problem)
    return None


def _asked(request: Request) -> tuple[str, ...]:
    if request.methods == EVERY:
        return every()
    return request.methods or (QUICK_METHODS if request.quick else DEFAULT_METHODS)


def _read_pretrained(path: Path, clip: Clip) -> dict[str, Any]:
    """What a pretrained prompt says of itself, and where it is. UserError: none there, or another model's."""
    place = artifact.pick(path).directory
    facts = artifact.read_facts(place)
    artifact.require_backbone(facts, place, clip)
    if facts["tensors_hash"] is None:
        raise UserError(f"the {facts['method']!r} in {place} has learned nothing that could be transferred.")
    return {**facts, "place": place}


def _num_train(method: Method, known: Known, subset: Subset, shots: int | None) -> int:
    """Images that a method learns from."""
    if method.unlabelled is None:
        return known.num_train(subset, shots)
    return min(known.num_train("all", None), method.unlabelled or sys.maxsize)


def _own_settings(name: str, overrides: Mapping[str, str]) -> dict[str, str]:
    """The settings that a method knows."""
    known = {known for option in options(name) for known in (option.name, option.alias)}
    silent = set(ignored(name, overrides))
    return {key: value for key, value in overrides.items() if key in known and key not in silent}


def _require_known(overrides: Mapping[str, str], settings: Mapping[str, Mapping[str, str]]) -> None:
    """UserError for a setting that no method of the grid knows: the first method's own message."""
    for key, value in overrides.items():
        if not any(key in own for own in settings.values()):
            for name in settings:
                resolve(name, {key: value})


POCKET = "pocket"
"""Stands for all of the pocket's sets that are a benchmark."""
QUICK_CLASSES = 20
"""At most so many has a set of a quick grid."""
HALF = 2
"""Classes that each half must have to be a classification."""


class Known:
    """A data set as a plan knows it: names and counts, no image looked at. What is asked of it is computed once."""

    def __init__(self, data: str, desk: Desk) -> None:
        """data: as `open_dataset` takes it."""
        self.data, self.material, self.questions = data, desk.material(data), desk.questions(data)
        self.name, self.template, self.class_names = (
            self.material.name,
            self.material.template,
            self.material.class_names,
        )
        self._tests: dict[Subset, tuple[str, int]] = {}

    @functools.cached_property
    def data_hash(self) -> str:
        """Of what may be learned from and chosen by."""
        return split_hash(self.material.train, self.material.val, ())

    @functools.cached_property
    def _counts(self) -> Counter[int]:
        """Label -> training images."""
        return Counter(one.label for one in self.material.train)

    def names_of(self, subset: Subset) -> tuple[str, ...]:
        """The class names of a half, or of all."""
        return tuple(self.class_names[label] for label in labels_of(len(self.class_names), subset))

    def num_train(self, subset: Subset, shots: int | None) -> int:
        """Images that a sample will have."""
        own = (self._counts[label] for label in labels_of(len(self.class_names), subset))
        return sum(count if shots is None else min(count, shots) for count in own)

    def tests(self, subset: Subset) -> tuple[str, int]:
        """Of what may be asked about a half, or all: its hash, and the number of images."""
        if subset not in self._tests:
            test = restrict(self.questions, subset).test
            self._tests[subset] = split_hash((), (), test), len(test)
        return self._tests[subset]


def labels_of(num_classes: int, subset: Subset) -> range:
    """The labels of a half of the classes, or of all."""
    base, novel = halves(num_classes)
    return {"all": range(num_classes), "base": base, "novel": novel}[subset]


def benchmark_sets() -> tuple[str, ...]:
    """The pocket's sets to learn and to test on."""
    return tuple(pocket.names("benchmark"))


def domain_sets(source: str) -> tuple[str, ...]:
    """The sets of a source's classes from elsewhere that are known: the pocket's, and ImageNet's four."""
    if source == "imagenet":
        return SHIFTED
    return tuple(name for name in pocket.names() if pocket.info(name).domain_of == source)


def fits(one: Known, source: Known) -> bool:
    """Whether a set's classes are the source's or some of them."""
    return set(one.class_names) <= set(source.class_names)


def expand(names: Sequence[str]) -> tuple[str, ...]:
    """`pocket` -> its benchmark sets, `eleven`, `ten` and `four` -> the papers'; others as they are, each once."""
    groups = {POCKET: benchmark_sets(), **GROUPS}
    found = dict.fromkeys(one for name in names for one in groups.get(name, (name,)))
    if not found:
        raise UserError("no data set is given. Use --data pocket, or folders, tables or names with commas between.")
    return tuple(found)


def quick_sets(names: Sequence[str]) -> tuple[str, ...]:
    """As `expand`, but `pocket` is two sets with 4 to 20 classes: the one with most, and the one with most that has known domains."""
    classes = {name: len(pocket.info(name).class_names) for name in benchmark_sets()}
    fitting = [name for name, number in classes.items() if 2 * HALF <= number <= QUICK_CLASSES] or list(classes)
    own = sorted(fitting, key=lambda name: -classes[name])
    with_domains = [name for name in own if domain_sets(name)][:1]
    two = [*with_domains, *(name for name in own if name not in with_domains)][:2]
    found = dict.fromkeys(one for name in names for one in (two if name == POCKET else (name,)))
    return expand(tuple(found))


def open_sets(names: Sequence[str], desk: Desk) -> tuple[Known, ...]:
    """Look at what each set holds. UserError: a set that cannot be read; two sets of one name."""
    found = tuple(Known(data, desk) for data in names)
    for name, times in Counter(one.name for one in found).items():
        if times > 1:
            both = " and ".join(one.data for one in found if one.name == name)
            raise data_error(f"{both} are both called {name!r}, and their results could not be told apart. Rename one.")
    return found
