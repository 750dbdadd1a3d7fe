"""Which data sets a grid is about: the pocket's by their roles, and what a plan has to know of each."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeVar

from vlprompt import pocket
from vlprompt.data import Dataset, Subset, halves, restrict, split_hash
from vlprompt.errors import DATA, UserError
from vlprompt.protocols.desk import Desk
from vlprompt.recipes import FOUR, GROUPS

T = TypeVar("T")
POCKET = "pocket"
"""Stands for all of the pocket's sets that are a benchmark."""
QUICK_CLASSES = 20
"""At most so many has a set of a quick grid."""
HALF = 2
"""Classes that each half must have to be a classification."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Known:
    """A data set as a plan knows it: names and counts, no image looked at. What is asked of it is computed once."""

    data: str
    """As `open_dataset` takes it."""
    name: str
    template: str
    material: Dataset
    questions: Dataset
    _memo: dict[tuple[object, ...], Any] = field(default_factory=dict, repr=False)

    @property
    def class_names(self) -> tuple[str, ...]:
        return self.material.class_names

    def names_of(self, subset: Subset) -> tuple[str, ...]:
        """The class names of a half, or of all."""
        return self._once(("names", subset), lambda: tuple(self.class_names[label] for label in self._labels(subset)))

    def data_hash(self) -> str:
        """Of what may be learned from and chosen by."""
        return self._once(("data",), lambda: split_hash(self.material.train, self.material.val, ()))

    def test_hash(self, subset: Subset) -> str:
        """Of what may be asked about a half, or all."""
        return self._once(("test", subset), lambda: split_hash((), (), restrict(self.questions, subset).test))

    def num_train(self, subset: Subset, shots: int | None) -> int:
        """Images that a sample will have."""
        counts: Counter[int] = self._once(("counts",), lambda: Counter(one.label for one in self.material.train))
        own = (counts[label] for label in self._labels(subset))
        return sum(count if shots is None else min(count, shots) for count in own)

    def num_test(self, subset: Subset) -> int:
        """Images that a half, or all, is tested on."""
        return self._once(("tests", subset), lambda: len(restrict(self.questions, subset).test))

    def _labels(self, subset: Subset) -> range:
        return labels_of(len(self.class_names), subset)

    def _once(self, key: tuple[object, ...], compute: Callable[[], T]) -> T:
        if key not in self._memo:
            self._memo[key] = compute()
        found: T = self._memo[key]
        return found


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
        return FOUR
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
    """As `expand`, but `pocket` stands for two of its sets with classes enough to be halved, and few enough to be quick: the one
    with the most classes, and the one with the most that other domains are known of."""
    classes = {name: len(pocket.info(name).class_names) for name in benchmark_sets()}
    fitting = [name for name, number in classes.items() if 2 * HALF <= number <= QUICK_CLASSES] or list(classes)
    own = sorted(fitting, key=lambda name: -classes[name])
    with_domains = [name for name in own if domain_sets(name)][:1]
    two = [*with_domains, *(name for name in own if name not in with_domains)][:2]
    found = dict.fromkeys(one for name in names for one in (two if name == POCKET else (name,)))
    return expand(tuple(found))


def open_sets(names: Sequence[str], desk: Desk) -> tuple[Known, ...]:
    """Look at what each set holds. UserError: a set that cannot be read; two sets of one name."""
    found = tuple(_open(data, desk) for data in names)
    for name, times in Counter(one.name for one in found).items():
        if times > 1:
            both = " and ".join(one.data for one in found if one.name == name)
            raise UserError(
                f"{both} are both called {name!r}, so that their results could not be told apart. Rename one.",
                exit_code=DATA,
            )
    return found


def _open(data: str, desk: Desk) -> Known:
    material, questions = desk.material(data), desk.questions(data)
    return Known(data=data, name=material.name, template=material.template, material=material, questions=questions)
