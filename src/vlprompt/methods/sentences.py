"""Zero-shot's options: which sentences stand for a class."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from vlprompt import reading
from vlprompt.errors import DATA, UserError
from vlprompt.methods.templates import IMAGENET, SELECTED, SIXTY
from vlprompt.types import Ensemble

LISTS = {
    "own": None,
    "selected": Ensemble(templates=SELECTED, unit=True, own=True),
    "selected-alone": Ensemble(templates=SELECTED, unit=True),
    "imagenet-60": Ensemble(templates=SIXTY, unit=True),
    "imagenet-80": Ensemble(templates=IMAGENET, unit=True),
}
"""Option -> sentences; None: the data set's template alone."""
BETWEEN = " | "
"""Between sentences that are written in one line."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SentenceOptions:
    """What may be chosen about zero-shot classification."""

    templates: str = "own"
    """`own`: the data set's; the mean of several, each feature normalised: `selected` (7 and the data set's; `selected-alone`
    without it, as published for ImageNet), `imagenet-60`, `imagenet-80`; a file with one per line; or the sentences
    themselves, with " | " between them."""

    def __post_init__(self) -> None:
        """A file is read at once: its sentences are what is kept, so that an artifact needs no file beside it."""
        if self.templates not in LISTS and "{}" not in self.templates:
            object.__setattr__(self, "templates", BETWEEN.join(_read(Path(self.templates).expanduser())))
        bad = [one for one in _listed(self.templates) if one.count("{}") != 1]
        if bad:
            raise UserError(f"templates: {bad[0]!r} must have one {{}}, where the class name stands.")

    @property
    def ensemble(self) -> Ensemble | None:
        if self.templates in LISTS:
            return LISTS[self.templates]
        return Ensemble(templates=_listed(self.templates), unit=True)


def _listed(text: str) -> tuple[str, ...]:
    return () if text in LISTS else tuple(one.strip() for one in text.split(BETWEEN.strip()) if one.strip())


def _read(path: Path) -> list[str]:
    """The lines of a file that are not empty. UserError where it cannot be read or has none."""
    try:
        lines = [line.strip() for line in reading.text(path).splitlines() if line.strip()]
    except UserError as problem:
        raise UserError(
            f"templates={path}: it is none of {', '.join(LISTS)} and no file that can be read ({problem}).",
            exit_code=DATA,
        ) from problem
    if not lines:
        raise UserError(
            f"templates={path}: the file has no sentences. Write one per line, each with one {{}}.", exit_code=DATA
        )
    return lines
