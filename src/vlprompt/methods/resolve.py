"""Every published method as one value: a row of a table, resolved with a recipe and the user's settings.

``plpp+coop`` reads: the overlay `plpp` on the host `coop`. The last name is the host; names before it are overlays.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from vlprompt.errors import UserError, unknown
from vlprompt.methods import recipes
from vlprompt.methods.options import Option, options_of, replaced
from vlprompt.methods.row import Host, Overlay, Recipe
from vlprompt.methods.table import HOSTS
from vlprompt.methods.text import OVERLAYS
from vlprompt.types import Method, Schedule

RECIPES = ("published", "pocket")
SCHEDULE_FIELDS = tuple(field.name for field in dataclasses.fields(Schedule))


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One line of `vlprompt methods`."""

    name: str
    kind: str
    """``method``, or ``overlay`` (written before a method: ``plpp+coop``)."""
    summary: str
    learns: str
    source: str


def table() -> tuple[Row, ...]:
    """All methods, then all overlays."""
    return tuple(
        Row(name=row.name, kind=kind, summary=row.summary, learns=row.learns, source=row.source)
        for kind, rows in (("method", HOSTS), ("overlay", OVERLAYS))
        for row in rows
    )


def every() -> tuple[str, ...]:
    """All methods, then each overlay on each method that it can stand on."""
    pairs = (f"{overlay.name}+{host.name}" for overlay in OVERLAYS for host in HOSTS)
    return (*(host.name for host in HOSTS), *(name for name in pairs if _stands(name)))


def _stands(name: str) -> bool:
    try:
        resolve(name)
    except UserError:
        return False
    return True


def parse(name: str) -> tuple[tuple[Overlay, ...], Host]:
    """``plpp+coop`` -> its overlays and its host. UserError: an unknown name, the wrong order, an overlay twice."""
    hosts, overlays = {row.name: row for row in HOSTS}, {row.name: row for row in OVERLAYS}
    *before, last = name.split("+")
    if last in overlays:
        methods = [part for part in before if part in hosts]
        advice = f" Write {'+'.join([last, *methods])!r}." if methods else f" Write for example '{name}+coop'."
        raise UserError(f"{name!r} ends in an overlay: the method comes last.{advice}{_tables()}")
    if last not in hosts:
        raise unknown("method", last, [*hosts, *(f"{overlay}+METHOD" for overlay in overlays)])
    for part in before:
        if part in hosts:
            raise UserError(
                f"{name!r} names two methods, {part!r} and {last!r}: only overlays can be added.{_tables()}"
            )
        if part not in overlays:
            raise unknown("overlay", part, overlays)
        if before.count(part) > 1:
            raise UserError(f"{name!r} names the overlay {part!r} twice. Name it once.")
    return tuple(overlays[part] for part in before), hosts[last]


def _tables() -> str:
    hosts, overlays = ", ".join(row.name for row in HOSTS), ", ".join(row.name for row in OVERLAYS)
    return f" Methods: {hosts}. Overlays, written before a method: {overlays}."


def resolve(
    name: str,
    overrides: Mapping[str, object] | None = None,
    *,
    shots: int | None = None,
    recipe: str = "published",
    dataset: str = "",
) -> Method:
    """A method with every choice made.

    overrides: options and schedule fields as ``--set`` gives them; strings are converted by the option's type. shots:
    images per class, for schedules that depend on it (None: the largest count). recipe: whose defaults: `published` or
    `pocket` (a method that has none of that name takes its published one), or a recipe by name (`vlprompt recipes`), whose
    settings may depend on the data set. UserError: unknown names, values out of range, impossible pairs.
    """
    overlays, host = parse(name)
    preset = _preset(name, recipe, shots, dataset)
    if not host.recipes and overlays:
        raise UserError(
            f"{name!r}: {host.name!r} learns nothing, so there is no context for {overlays[0].name!r} to work on. "
            f"Use for example '{overlays[0].name}+coop'."
        )
    settings = _checked(name, preset, overlays, host)
    for part, changed in _checked(name, overrides or {}, overlays, host).items():
        settings[part] = settings.get(part, {}) | changed
    if not host.recipes:
        return _without_steps(host, settings.get("asks", {}))
    chosen = host.recipes.get(recipe, host.recipes["published"])
    prompt = replaced(chosen.prompt, settings.get("", {}))
    schedule = replaced(chosen.schedule_for(shots), settings.get("schedule", {}))
    _check_schedule(schedule)
    resolved: dict[str, object] = _values(prompt)
    own = chosen.options
    if own is not None:
        own = replaced(own, settings.get("asks", {}))
        resolved |= _values(own)
    asked = host.asks(own, prompt)
    terms = asked.terms
    for overlay in overlays:
        prefix = f"{overlay.name}."
        options = replaced(_defaults(overlay, chosen), settings.get(overlay.name, {}), prefix)
        resolved |= _values(options, prefix)
        terms += overlay.build(options, prompt)
    return Method(
        name=name,
        prompt=prompt,
        terms=terms,
        rule=asked.rule,
        average=asked.average,
        teacher=asked.teacher,
        classes=asked.classes,
        schedule=schedule,
        options=resolved | dataclasses.asdict(schedule),
    )


def _defaults(overlay: Overlay, chosen: Recipe) -> Any:
    """An overlay's options as a recipe has them."""
    return replaced(overlay.options, chosen.overlays.get(overlay.name, {}))


def _preset(name: str, recipe: str, shots: int | None, dataset: str) -> Mapping[str, object]:
    """What a named recipe sets. UserError: an unknown one, or another method's."""
    if recipe in RECIPES:
        return {}
    if recipe not in recipes.names():
        raise unknown("recipe", recipe, [*RECIPES, *recipes.names()])
    chosen = recipes.read(recipe)
    (own, host), (given, asked) = parse(chosen.method), parse(name)
    if host.name != asked.name or not {one.name for one in own} <= {one.name for one in given}:
        raise UserError(
            f"the recipe {recipe!r} is for {chosen.method!r}, not for {name!r}. Leave --method away, or add an overlay to it, as in "
            f"'plpp+{host.name}'."
        )
    return chosen.settings(shots=shots, dataset=dataset)


def _without_steps(host: Host, settings: Mapping[str, object]) -> Method:
    """A method that learns nothing by gradient."""
    own = replaced(host.options, settings) if host.options is not None else None
    asked = host.asks(own, None)
    return Method(
        name=host.name,
        prompt=None,
        teacher=asked.teacher,
        solver=asked.solver,
        options=_values(own) if own is not None else {},
    )


def options(name: str, *, shots: int | None = None, recipe: str = "published") -> tuple[Option, ...]:
    """Every option that ``--set`` takes for a method, with its default, allowed values and help."""
    overlays, host = parse(name)
    if not host.recipes:
        return (options_of(host.options) if host.options is not None else ()) + options_of(Schedule())
    chosen = host.recipes.get(recipe, host.recipes["published"])
    own = options_of(chosen.prompt) + (options_of(chosen.options) if chosen.options is not None else ())
    added = tuple(
        option for overlay in overlays for option in options_of(_defaults(overlay, chosen), f"{overlay.name}.")
    )
    return own + added + options_of(chosen.schedule_for(shots))


def overlay_costs(method: Method, *, width: int, words: int, classes: int) -> tuple[str, ...]:
    """What each overlay of a resolved method adds to a step, on a text tower of this width and vocabulary."""
    overlays, _ = parse(method.name)
    costs = []
    for overlay in overlays:
        prefix = f"{overlay.name}."
        own = {key.removeprefix(prefix): value for key, value in method.options.items() if key.startswith(prefix)}
        chosen = replaced(overlay.options, own, prefix)
        costs.append(overlay.cost(chosen, method.prompt, width=width, words=words, classes=classes))
    return tuple(costs)


def ignored(name: str, overrides: Mapping[str, object]) -> tuple[str, ...]:
    """The settings that are accepted but do nothing: schedule fields of a method without gradient steps."""
    _, host = parse(name)
    return () if host.recipes else tuple(key for key in overrides if key in SCHEDULE_FIELDS)


def _checked(
    name: str, overrides: Mapping[str, object], overlays: tuple[Overlay, ...], host: Host
) -> dict[str, dict[str, object]]:
    """The settings by owner: "" the prompt's, "asks", "schedule", and each overlay's by its name."""
    owners: dict[str, tuple[str, str]] = {field: ("schedule", field) for field in SCHEDULE_FIELDS}
    recipe = host.recipes.get("published")
    parts = {"": recipe.prompt, "asks": recipe.options} if recipe else {"asks": host.options}
    for part, values in parts.items():
        for option in options_of(values) if values is not None else ():
            owners |= {known: (part, option.name) for known in (option.name, option.alias) if known}
    for overlay in overlays:
        prefix = f"{overlay.name}."
        for option in options_of(overlay.options, prefix):
            owner = (overlay.name, option.name.removeprefix(prefix))
            owners |= {known: owner for known in (option.name, option.alias) if known}
    found: dict[str, dict[str, object]] = {}
    for key, value in overrides.items():
        if key not in owners:
            meant = [known for known in owners if known.endswith(f".{key}")]
            if meant:
                raise UserError(f"unknown option {key!r} of {name!r}: write an overlay's with its name, {meant[0]}=...")
            raise unknown(f"option of {name!r}:", key, owners)
        part, field_name = owners[key]
        values = found.setdefault(part, {})
        if field_name in values:
            raise UserError(f"{key}={value}: {field_name!r} is given twice, under two names. Give one of them.")
        values[field_name] = value
    return found


def _values(instance: Any, prefix: str = "") -> dict[str, object]:
    return {option.name: option.default for option in options_of(instance, prefix)}


MOST = 1_000_000
"""Epochs, and images of a step."""


def _check_schedule(schedule: Schedule) -> None:
    for name, least in (("epochs", 1), ("batch", 1), ("warmup_epochs", 0)):
        if not least <= getattr(schedule, name) <= MOST:
            raise UserError(f"{name}={getattr(schedule, name)}: it must be a whole number from {least} to {MOST:,}.")
    for name in ("lr", "weight_decay", "warmup_lr"):
        if getattr(schedule, name) < 0:
            raise UserError(f"{name}={getattr(schedule, name)}: it must be a number of at least 0.")
    if not 0 <= schedule.momentum < 1:
        raise UserError(f"momentum={schedule.momentum}: it must be a number from 0 to below 1.")
