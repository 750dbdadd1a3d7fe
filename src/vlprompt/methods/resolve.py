"""Every published method as one value: a row of a table, resolved with a recipe and the user's settings.

``plpp+coop`` reads: the overlay `plpp` on the host `coop`. The last name is the host; names before it are overlays.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

from vlprompt.errors import UserError, require, require_least, unknown
from vlprompt.methods import recipes
from vlprompt.methods.options import Option, given, options_of, replaced
from vlprompt.methods.row import Host, Overlay
from vlprompt.methods.table import HOSTS, OVERLAYS
from vlprompt.pocket import model_names
from vlprompt.types import Method, ModelFacts, Schedule, Steps, Term

RECIPES = ("auto", "published", "pocket")
"""Words that stand for a method's own recipes."""
SCHEDULE_FIELDS = tuple(field.name for field in dataclasses.fields(Schedule))


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


def recipe_of(method: str, protocol: str, model: str, wanted: str = "auto") -> str:
    """The name of the recipe of a method on a model by a protocol; "" where there is none, so the row's neutral values hold.

    wanted: `auto` (the small models' for one of those, else the protocol's), `published` (the protocol's), `pocket`, or a name.
    """
    if wanted not in RECIPES:
        return wanted
    small = wanted == "pocket" or (wanted == "auto" and model in model_names())
    return recipes.named(method, protocol, pocket=small)


def resolve(
    name: str,
    overrides: Mapping[str, object] | None = None,
    *,
    recipe: str = "",
    shots: int | None = None,
    dataset: str = "",
    facts: ModelFacts | None = None,
) -> Method:
    """A method with every choice made: the row's neutral values, a recipe's settings over them, the overrides over those.

    overrides: options and schedule fields as ``--set`` gives them; strings are converted by the option's type. recipe: a name of
    `vlprompt recipes` (`recipe_of` has a method's), whose settings may depend on shots (images per class; None: all) and on the
    data set; "": none. facts: of the towers; where a recipe's `depth` is more layers than a tower has, the row's own holds.
    UserError: unknown names, values out of range, impossible pairs.
    """
    overlays, host = parse(name)
    if (first := next((one.name for one in overlays if one.teacher is None), "")) and not takes_steps(host):
        raise UserError(
            f"{name!r}: {host.name!r} learns nothing, so there is no context for {first!r} to work on. "
            f"Use for example '{first}+coop'."
        )
    preset = _preset(name, recipe, shots, dataset)
    depth = preset.get("depth")
    if facts is not None and isinstance(depth, int) and depth > min(facts.text_layers, facts.image_layers):
        del preset["depth"]
    prompt, own, *added, schedule = given(name, _parts(overlays, host), preset, overrides or {})
    _check_schedule(schedule)
    resolved: dict[str, object] = _values(prompt) | _values(own)
    asked = host.asks(own, prompt)
    terms: tuple[Term, ...] = ()
    for overlay, values in zip(overlays, added, strict=True):
        chosen = overlay.decide(values)
        resolved |= _values(chosen, f"{overlay.name}.")
        terms += overlay.build(chosen, prompt)
        if overlay.teacher is not None:
            asked = dataclasses.replace(asked, teacher=overlay.teacher(chosen))
    learner = asked.learner
    if isinstance(learner, Steps):
        learner = dataclasses.replace(learner, terms=learner.terms + terms, schedule=schedule)
        resolved |= schedule.settings
    method = Method(
        name=name,
        prompt=prompt,
        learner=learner,
        teacher=asked.teacher,
        at_test=asked.at_test,
        unlabelled=asked.unlabelled,
        options=resolved,
    )
    if any(one.teacher for one in overlays) and not (learner and method.reads_words):
        raise UserError(
            f"{name!r}: {host.name!r} learns nothing next to class features of the frozen model, so sentences would change nothing. "
            "Use for example 'described+tip-adapter', or 'descriptions', which learns nothing."
        )
    return method


def _parts(overlays: Sequence[Overlay], host: Host) -> list[tuple[str, Any]]:
    """What has options, each with the prefix of their names: the prompt, what is asked of it, the overlays, the schedule."""
    added = ((f"{overlay.name}.", overlay.options) for overlay in overlays)
    return [("", host.prompt), ("", host.options), *added, ("", Schedule())]


def takes_steps(host: Host) -> bool:
    """Whether a method learns by gradient steps."""
    return isinstance(host.asks(host.options, host.prompt).learner, Steps)


def whose(
    method: Method,
    overrides: Mapping[str, object],
    recipe: str,
    *,
    dataset: str,
    shots: int | None,
    changed: bool = False,
) -> str:
    """Whose choices a resolved method's settings are: `published`, `project`, or `changed` by whoever asked for the run.

    They are published where the recipe's source has a run of this method on this data set with so many images per class, and nothing
    differs from it. changed: whether anything else was (views, template, the learned start).
    """
    plain = resolve(method.name, recipe=recipe, shots=shots or None, dataset=dataset)
    if changed or (overrides and plain.options != method.options):
        return "changed"
    known = recipes.read(recipe) if recipe else None
    if known is None or known.method != method.name or plain.options != method.options:
        return "project"
    return known.choices if known.is_for(dataset, shots) else "project"


def _preset(name: str, recipe: str, shots: int | None, dataset: str) -> dict[str, Any]:
    """What a recipe sets. UserError: an unknown one, or another method's."""
    if not recipe:
        return {}
    if not recipes.known(recipe):
        raise unknown("recipe", recipe, [*RECIPES, *recipes.names()], always=RECIPES)
    chosen = recipes.read(recipe)
    (own, host), (given, asked) = parse(chosen.method), parse(name)
    if host.name != asked.name or not {one.name for one in own} <= {one.name for one in given}:
        raise UserError(
            f"the recipe {recipe!r} is for {chosen.method!r}, not for {name!r}. Leave out --method, or add an overlay to it, as in "
            f"'plpp+{host.name}'."
        )
    return chosen.settings(shots=shots, dataset=dataset)


def options(name: str, *, recipe: str = "") -> tuple[Option, ...]:
    """Every option that ``--set`` takes for a method, with its default (the recipe's, where one is named), allowed values and help."""
    overlays, host = parse(name)
    found = [option for prefix, values in _parts(overlays, host) for option in options_of(values, prefix)]
    defaults = resolve(name, recipe=recipe).options
    return tuple(dataclasses.replace(one, default=defaults.get(one.name, one.default)) for one in found)


def overlay_costs(method: Method, *, width: int, words: int, classes: int) -> tuple[str, ...]:
    """What each overlay of a resolved method adds to a step, on a text tower of this width and vocabulary."""
    overlays, _ = parse(method.name)
    return tuple(
        overlay.cost(_chosen(overlay, method), method.prompt, width=width, words=words, classes=classes)
        for overlay in overlays
    )


def overlay_notes(method: Method) -> tuple[str, ...]:
    """What each overlay of a resolved method reads and labels on its host, in words."""
    notes: list[str] = []
    for overlay in parse(method.name)[0]:
        notes += overlay.notes(_chosen(overlay, method), method.prompt)
    return tuple(notes)


def _chosen(overlay: Overlay, method: Method) -> Any:
    """An overlay's options as a method was resolved with them."""
    prefix = f"{overlay.name}."
    own = {key.removeprefix(prefix): value for key, value in method.options.items() if key.startswith(prefix)}
    return replaced(overlay.options, own, prefix)


def ignored(name: str, overrides: Mapping[str, object]) -> tuple[str, ...]:
    """The settings that are accepted but do nothing: schedule fields of a method without gradient steps."""
    _, host = parse(name)
    return () if takes_steps(host) else tuple(key for key in overrides if key in SCHEDULE_FIELDS)


def _values(instance: Any, prefix: str = "") -> dict[str, object]:
    return {option.name: option.default for option in options_of(instance, prefix)}


MOST = 1_000_000
"""Epochs, and images of a step."""


def _check_schedule(schedule: Schedule) -> None:
    for name, least in (("epochs", 1), ("batch", 1), ("warmup_epochs", 0)):
        value = getattr(schedule, name)
        require(least <= value <= MOST, f"{name}={value}", f"a whole number from {least} to {MOST:,}")
    require_least(schedule, 0, "lr", "weight_decay", "warmup_lr", "least_lr")
    require(schedule.eps > 0, f"eps={schedule.eps}", "a number above 0")
    require(0 <= schedule.momentum < 1, f"momentum={schedule.momentum}", "a number from 0 to below 1")
