"""Which settings are compared: the host, PLPP as it stands, one factor at a time around that, and the controls."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from vlprompt.methods.resolve import resolve

HOST, CENTRE, ONE_WAY = "host", "plpp", "mutual=ppl"

LEVELS: Mapping[str, tuple[object, ...]] = {
    "plpp.lambda": (0.01, 0.1, 0.5, 1.0),
    "plpp.tau": (0.01, 0.05, 0.1, 1.0),
    "plpp.k": (5, 10, 50, 100, "all"),
    "plpp.shift": (0, 1),
    "plpp.label": ("soft", "hard"),
    "plpp.mutual": ("both", "ppl", "inverse"),
    "plpp.student": ("same", "all"),
    "plpp.tau_scale": ("none", "inverse"),
}
"""Factor -> levels; the level of the centre is left out of the sweep. k = 1 is the hard label."""

CONTROLS: Mapping[str, Mapping[str, object]] = {
    "labels=permuted": {"plpp.labels": "permuted"},
    "labels=random": {"plpp.labels": "random"},
    "labels=uniform": {"plpp.labels": "uniform", "plpp.mutual": "ppl"},
}
"""Labels without the words' meaning: a gain that survives them is not the words'. Uniform labels have no inverse term."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Setting:
    """One row of the ablation."""

    name: str
    factor: str
    """What is varied: `host`, `centre`, an option's name, or `control`."""
    method: str
    overrides: Mapping[str, object] = field(default_factory=dict)
    halves_only: bool = True
    """False: also trained and measured on all classes, for the convergence table."""


def settings(host: str, centre: Mapping[str, object]) -> tuple[Setting, ...]:
    """The whole sweep on a host; centre: PLPP options that replace the defaults everywhere."""
    method = f"plpp+{host}"
    at_centre = resolve(method, centre).options
    rows = [
        Setting(name=HOST, factor="host", method=host, halves_only=False),
        Setting(name=CENTRE, factor="centre", method=method, overrides=centre, halves_only=False),
    ]
    for factor, levels in LEVELS.items():
        here = at_centre[factor.replace("lambda", "weight")]
        for level in levels:
            if level == here or _meaningless(factor, level, at_centre):
                continue
            name = f"{factor.removeprefix('plpp.')}={level}"
            changed = _replaced(centre, {factor: level})
            rows.append(
                Setting(name=name, factor=factor, method=method, overrides=changed, halves_only=name != ONE_WAY)
            )
    rows += [
        Setting(name=name, factor="control", method=method, overrides=_replaced(centre, changes))
        for name, changes in CONTROLS.items()
    ]
    return tuple(rows)


def _replaced(centre: Mapping[str, object], changes: Mapping[str, object]) -> dict[str, object]:
    """The centre with changes; ``lambda`` and ``weight`` are one option."""
    names = {name.replace("plpp.lambda", "plpp.weight") for name in changes}
    kept = {name: value for name, value in centre.items() if name.replace("plpp.lambda", "plpp.weight") not in names}
    return {**kept, **changes}


def _meaningless(factor: str, level: object, at_centre: Mapping[str, object]) -> bool:
    """Whether a level changes nothing at this centre."""
    one_word = at_centre["plpp.label"] == "hard" or at_centre["plpp.k"] == 1
    return (factor == "plpp.student" and (one_word or at_centre["plpp.k"] == "all")) or (
        factor == "plpp.k" and at_centre["plpp.label"] == "hard"
    )
