"""Which settings are compared: the host, PLPP as it stands, one factor at a time around that, and the controls."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from vlprompt.data import Subset
from vlprompt.losses.plpp import PlppOptions
from vlprompt.methods.resolve import resolve

HOST, CENTRE, ONE_WAY = "host", "plpp", "mutual=ppl"

LEVELS: Mapping[str, tuple[object, ...]] = {
    "plpp.balance": ("off", 0.1, 0.3, 1.0),
    "plpp.lambda": (0.01, 0.1, 1.0),
    "plpp.tau": (0.01, 0.1, 1.0),
    "plpp.k": (10, 100, "all"),
    "plpp.shift": (0, 1),
    "plpp.label": ("soft", "hard"),
    "plpp.mutual": ("both", "ppl", "inverse"),
    "plpp.student": ("same", "all"),
    "plpp.centre": (False, True),
    "plpp.length": ("bounded", "free"),
}
"""Factor -> levels; the level of the centre is left out of the sweep. k = 1 is the hard label."""

CONTROLS: Mapping[str, Mapping[str, object]] = {
    "labels=permuted": {"plpp.labels": "permuted"},
    "labels=random": {"plpp.labels": "random"},
    "labels=uniform": {"plpp.labels": "uniform", "plpp.mutual": "ppl"},
}
"""Labels without the words' meaning: a gain that survives them is not the words'. Uniform labels have no inverse term."""

PULL, ANCHOR = "pull to the start", "text anchor (KgCoOp, weight 8)"
"""Other regularisers on the host. A gain that they give as well is not PLPP's own. The distance of the context from its start, whose
gradient has one length everywhere, has the balance of the centre, and is left out without one. KgCoOp's term has its published weight:
in the first epoch, which finds balances, the prompt is still at that term's minimum."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Setting:
    """One row of the ablation."""

    name: str
    factor: str
    """What is varied: `host`, `centre`, an option's name, or `control`."""
    method: str
    overrides: Mapping[str, object] = field(default_factory=dict)
    subsets: tuple[Subset, ...] = ("base",)
    """Classes learned on; also all of them for the convergence table."""
    rival: str = ""
    """`PULL` or `ANCHOR`: added to the host in place of PLPP."""
    balance: float = 0.0
    """R of `PULL`; 0 for `ANCHOR`, whose weight is published."""


def settings(host: str, centre: Mapping[str, object]) -> tuple[Setting, ...]:
    """The whole sweep on a host; centre: PLPP options that replace the defaults everywhere."""
    method = f"plpp+{host}"
    resolved = resolve(method, centre)
    at_centre, layout = resolved.options, resolved.prompt.layout
    assert layout is not None
    both: tuple[Subset, ...] = ("base", "all")
    rows = [
        Setting(name=HOST, factor="host", method=host, subsets=both),
        Setting(name=CENTRE, factor="centre", method=method, overrides=centre, subsets=both),
    ]
    for factor, levels in LEVELS.items():
        here = at_centre[factor.replace("lambda", "weight")]
        for level in levels:
            if level == here or _meaningless(factor, level, at_centre, layout.num_tokens):
                continue
            name, changed = f"{factor.removeprefix('plpp.')}={level}", _replaced(centre, {factor: level})
            on = both if name == ONE_WAY else both[:1]
            rows.append(Setting(name=name, factor=factor, method=method, overrides=changed, subsets=on))
    rows += [
        Setting(name=name, factor="control", method=method, overrides=_replaced(centre, changes))
        for name, changes in CONTROLS.items()
    ]
    balance = at_centre["plpp.balance"]
    if isinstance(balance, float):
        rows += [
            Setting(name=name, factor="rival", method=host, rival=name, balance=strength)
            for name, strength in ((PULL, balance), (ANCHOR, 0.0))
        ]
    return tuple(rows)


def _replaced(centre: Mapping[str, object], changes: Mapping[str, object]) -> dict[str, object]:
    """The centre with changes; ``lambda`` and ``weight`` are one option."""
    names = {name.replace("plpp.lambda", "plpp.weight") for name in changes}
    kept = {name: value for name, value in centre.items() if name.replace("plpp.lambda", "plpp.weight") not in names}
    return {**kept, **changes}


def _meaningless(factor: str, level: object, at_centre: Mapping[str, object], tokens: int) -> bool:
    """Whether a level changes nothing at this centre, on a context of so many tokens."""
    if factor == "plpp.shift" and at_centre["plpp.shift"] == "auto":
        return level == PlppOptions().shift_of(tokens)
    if factor == "plpp.lambda":
        return at_centre["plpp.balance"] != "off"
    one_word = at_centre["plpp.label"] == "hard" or at_centre["plpp.k"] == 1
    return (factor == "plpp.student" and (one_word or at_centre["plpp.k"] == "all")) or (
        factor == "plpp.k" and at_centre["plpp.label"] == "hard"
    )
