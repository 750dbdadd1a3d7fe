"""A learned prompt on disk: a directory of kilobytes that loads strictly and is never unpickled.

`prompt.safetensors` has the learned float32 tensors (absent where nothing is learned), and a teacher's class features where the prompt
compares images with those. `prompt.json` says what they are and is written last. `README.md` is a model card.
"""

from __future__ import annotations

import hashlib
import warnings
from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, cast

import torch
from safetensors.torch import save as save_tensors
from torch import Tensor, nn

from vlprompt import __version__, disk, plain, reading, records, tensors
from vlprompt.errors import UserError, data_error
from vlprompt.methods.options import options_of
from vlprompt.methods.resolve import resolve
from vlprompt.prompts.start import fill, misfits
from vlprompt.towers import Clip
from vlprompt.towers import load as load_clip
from vlprompt.types import Method, Steps, Taught

SCHEMA = 1
TENSORS: str = "prompt.safetensors"
FACTS: str = "prompt.json"
CARD: str = "README.md"
CARD_MARK = "A prompt learned with vlprompt "
"""What stands in every card: a file without it is of another hand."""
TEACHER: str = "teacher.classes"
"""The tensor with the teacher's class features."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Learned:
    """A learned prompt and all that is needed to use it."""

    method: Method
    prompt: nn.Module
    """Without parameters where nothing is learned (zero-shot)."""
    class_names: tuple[str, ...]
    """The classes it was learned on."""
    template: str
    """The words of the zero-shot classifier next to it."""
    model: str
    """The backbone as it was asked for: a pocket model's name, a directory or a Hub id."""
    weight_hash: str
    """SHA-256 of the backbone's weights."""
    facts: Mapping[str, Any] = field(default_factory=dict)
    """What else is known: dataset, split and training hashes, shots, seed, subset, recipe, metrics."""

    @property
    def temperature(self) -> float:
        """By which logits are divided before the softmax; 1 where none was fitted."""
        return float(self.facts.get("temperature", 1.0))

    @property
    def num_parameters(self) -> int:
        return sum(p.numel() for p in self.prompt.parameters())


@dataclass(frozen=True, slots=True)
class Picked:
    """The artifact that a run directory predicts with."""

    directory: Path
    reason: str
    """One sentence on why this one."""


def save(directory: Path, learned: Learned) -> None:
    """Write a prompt; until `prompt.json` is there, last, the directory holds none. A README.md of another hand is kept.

    UserError: it is not finite (exit 4), or the `prompt.json` there is not vlprompt's.
    """
    _require_ours(directory / FACTS)
    own, taught = _tensors(learned.prompt), learned.method.taught
    if taught is not None:
        own[TEACHER] = taught.features.contiguous()
    tensors.require_usable(own, f"the prompt for {directory}")
    data = save_tensors(own) if own else None
    (directory / FACTS).unlink(missing_ok=True)
    if data is None:
        (directory / TENSORS).unlink(missing_ok=True)
    else:
        disk.write_bytes(directory / TENSORS, data)
    if not (directory / CARD).is_file() or CARD_MARK.encode() in (directory / CARD).read_bytes():
        disk.write_text(directory / CARD, card(learned))
    facts = {
        "schema": SCHEMA,
        "vlprompt": __version__,
        "method": learned.method.name,
        "options": dict(learned.method.options),
        "model": learned.model,
        "weight_hash": learned.weight_hash,
        "class_names": list(learned.class_names),
        "template": learned.template,
        "tensors": {name: list(tensor.shape) for name, tensor in own.items()},
        "tensors_hash": hashlib.sha256(data).hexdigest() if data is not None else None,
        **learned.facts,
        **({"teacher": taught.model, "teacher_hash": taught.hash} if taught is not None else {}),
    }
    disk.write_json(directory / FACTS, facts)


Backbone = Clip | str | None
"""A model that is there, where it is now, or (None) where the prompt says."""


def load(directory: Path, clip: Clip) -> Learned:
    """As `loaded`, for a backbone that is there."""
    return loaded(directory, clip)[0]


def loaded(
    directory: Path, clip: Backbone = None, *, device: str | torch.device = "cpu", dtype: str = "float32"
) -> tuple[Learned, Clip]:
    """Read a prompt, with its backbone.

    UserError: no artifact, a newer schema, another backbone, tensors that are missing, unexpected or misshapen, damage.
    """
    facts = read_facts(directory)
    if not isinstance(clip, Clip):
        clip = load_clip(clip or facts["model"], device=device, dtype=dtype)
    require_backbone(facts, directory, clip)
    names = tuple(facts["class_names"])
    method = _taught(resolve(facts["method"], facts["options"]), facts, directory)
    prompt = _read_prompt(method, clip, len(names), directory, facts["tensors_hash"])
    prompt = prompt.to(clip.device).requires_grad_(False)
    known = {"schema", "vlprompt", "method", "options", "model", "weight_hash", "class_names", "template"}
    learned = Learned(
        method=method,
        prompt=prompt,
        class_names=names,
        template=facts["template"],
        model=facts["model"],
        weight_hash=facts["weight_hash"],
        facts={name: value for name, value in facts.items() if name not in known | {"tensors", "tensors_hash"}},
    )
    return learned, clip


def require_backbone(facts: Mapping[str, Any], place: Path, clip: Clip) -> None:
    """UserError where a prompt was learned on another model."""
    if clip.weight_hash != facts["weight_hash"]:
        raise UserError(
            f"the prompt in {place} was learned on {facts['model']} (weights {facts['weight_hash'][:12]}), but the model given is "
            f"{clip.name} (weights {clip.weight_hash[:12]}). A prompt works with its own backbone only: give that one with --model, "
            "or learn a prompt for this one."
        )


def _taught(method: Method, facts: Mapping[str, Any], directory: Path) -> Method:
    """The method with the class features that a teacher left, where there are some."""
    if not method.prompt.reach.teachers_text or "teacher_hash" not in facts:
        return method
    features = _checked(directory / TENSORS, facts["tensors_hash"]).get(TEACHER)
    names, spec = tuple(facts["class_names"]), cast(Any, method.prompt)
    if features is None or features.dim() != 2 or len(features) != len(names):
        raise data_error(f"{directory / TENSORS} has no teacher's features of {len(names)} classes.")
    taught = Taught(model=facts.get("teacher", ""), hash=facts["teacher_hash"], names=names, features=features)
    return replace(method, taught=taught, prompt=replace(spec, width=features.shape[1]))


def read_facts(directory: Path) -> dict[str, Any]:
    """`prompt.json`, checked: what an artifact says of itself, without a backbone."""
    path = directory / FACTS
    if not path.is_file():
        raise data_error(f"{directory} holds no learned prompt: there is no {FACTS}. Give a run or artifact directory.")
    facts = reading.json_object(path)
    reading.require_schema(facts, SCHEMA, path)
    reading.typed(_Facts, facts, f"{path} is not a prompt of vlprompt")
    if "{}" not in facts["template"]:
        raise data_error(f"{path}: the template {reading.shown(facts['template'])} has no {{}} in it.")
    if not facts.get("temperature", 1.0) > 0:
        raise data_error(f"{path}: the temperature is {facts['temperature']}. Allowed: above 0.")
    if not facts["class_names"] or not all(name.strip() for name in facts["class_names"]):
        raise data_error(f"{path}: it has no class names, or an empty one.")
    return facts


@dataclass(frozen=True, slots=True, kw_only=True)
class _Facts:
    """The types of what `prompt.json` says; what else it says is passed on as it is."""

    schema: int
    method: str
    options: Mapping[str, str | float | bool | None]
    model: str
    weight_hash: str
    class_names: Sequence[str]
    template: str
    tensors_hash: str | None
    dataset: str = ""
    shots: int | None = None
    seed: int | None = None
    subset: str = ""
    recipe: str = ""
    init: str = ""
    teacher: str = ""
    teacher_hash: str = ""
    temperature: float = 1.0
    reject_below: float | None = None
    metrics: Mapping[str, float | None] = field(default_factory=dict)


def artifacts(run: Path) -> tuple[Path, ...]:
    """The directories of all finished seeds of a run, by seed; a directory that is itself an artifact alone.

    UserError where there is none.
    """
    return (run,) if (run / FACTS).is_file() else tuple(place for _, place in _seeds(run))


def _seeds(run: Path) -> list[tuple[records.Record, Path]]:
    """The records of a run's finished seeds, by seed, and their directories. UserError where there is none."""
    found = [(records.read(path), path.parent) for path in run.glob(f"seed*/{records.RESULT}")]
    if not found:
        unfinished = any(run.glob("seed*"))
        resume, learn = "its seeds are unfinished: run the same command with --resume", "learn one with vlprompt train"
        raise data_error(f"{run} holds no learned prompt; {resume if unfinished else learn}.")
    return sorted(found, key=lambda one: one[0].seed)


def pick(run: Path) -> Picked:
    """Which seed of a run directory predicts: the best on validation images, else the lowest; an artifact is itself.

    Test accuracy plays no part.
    """
    if (run / FACTS).is_file():
        return Picked(run, "the prompt in this directory")
    found = _seeds(run)
    record, place = found[0]
    if len(found) == 1:
        return Picked(place, f"seed {record.seed}, the only one")
    if any(one.val_top1 is None for one, _ in found):
        reason = "the lowest (there are no validation images to choose by)"
    else:
        record, place = max(found, key=lambda one: one[0].val_top1 or 0.0)
        reason = f"the best on validation images ({record.val_top1:.1f} %)"
    return Picked(place, f"seed {record.seed} of {len(found)}, {reason}")


def _require_ours(path: Path) -> None:
    """UserError where a file holds JSON that is not of a prompt: it would be lost. A damaged file is not kept."""
    try:
        found = reading.json_value(path.read_bytes(), str(path)) if path.is_file() else {"weight_hash": ""}
    except ValueError:
        return
    if not isinstance(found, dict) or "weight_hash" not in found:
        raise UserError(f"{path} is not of vlprompt and would be lost. Give another folder.")


def card(learned: Learned) -> str:
    """The model card, Markdown."""
    facts, metrics = learned.facts, learned.facts.get("metrics", {})
    shots = "all images" if facts.get("shots") is None else f"{facts['shots']} images per class"
    rows = [
        ("Backbone", f"{learned.model}, weights {learned.weight_hash[:12]}"),
        ("Learned on", f"{facts.get('dataset', 'images in memory')}, {shots}, seed {facts.get('seed', '-')}"),
        (
            "Classes",
            f"{len(learned.class_names)}: {', '.join(learned.class_names[:8])}{', ...' if len(learned.class_names) > 8 else ''}",
        ),
        ("Learned numbers", f"{learned.num_parameters:,}"),
        *((name.replace("_", " "), f"{value:.2f} %") for name, value in metrics.items() if value is not None),
    ]
    options = ", ".join(f"`{name}={value}`" for name, value in learned.method.options.items())
    table = "\n".join(f"| {plain.markdown(name)} | {plain.markdown(value)} |" for name, value in rows)
    own = learned.method.prompt.reach.own_classes
    other = "" if own else 'print(classifier.predict(["picture.jpg"], class_names=["cat", "dog"]))\n'
    names = "these class names alone" if own else "these class names or for any others"
    return (
        f"# {learned.method.name}\n\n"
        f"{CARD_MARK}{__version__}. It is not a model: it works "
        f"with the frozen CLIP named below, for {names}.\n\n"
        f"| | |\n|---|---|\n{table}\n\n"
        f"Options: {options or 'none'}.\n\n"
        f"## Usage\n\n"
        f"```python\n"
        f"from vlprompt import PromptClassifier\n"
        f'classifier = PromptClassifier.load("path/to/this/directory")\n'
        f'print(classifier.predict(["picture.jpg"]))\n'
        f"{other}"
        f"```\n"
    )


def _tensors(prompt: nn.Module) -> dict[str, Tensor]:
    """The learned tensors, float32 on the CPU."""
    tensors = {name: p.detach().cpu().contiguous() for name, p in prompt.named_parameters()}
    assert all(one.dtype == torch.float32 for one in tensors.values()), "learned tensors are float32"
    return tensors


LARGE = 1 << 28
"""Bytes of a tensor that every class has its own rows of."""


def _read_prompt(method: Method, clip: Clip, num_classes: int, directory: Path, digest: str | None) -> nn.Module:
    """The method's module with the file's tensors in it, strictly: their names, shapes and types, and the file's hash.

    A module that may be large is first built without memory for its tensors and compared with the file. Memory is allocated
    only if the file holds as much as the options ask for. (Small ones are not: torch loads its compiler for that, which takes seconds.)
    """

    def build() -> nn.Module:
        return method.prompt.build(clip.facts, torch.Generator().manual_seed(0), num_classes)

    layout, path = method.prompt.layout, directory / TENSORS
    if layout is not None and not 0 < layout.num_tokens < clip.config.context_length:
        raise data_error(
            f"{directory / FACTS}: n_ctx={layout.num_tokens}; the text tower of {clip.name} has {clip.config.context_length} places."
        )
    rows = num_classes * (layout.num_tokens if layout is not None else 1)
    large = 4 * rows * max(clip.facts.text_width, clip.facts.embed_dim) > LARGE
    with torch.device("meta") if large else nullcontext():
        outline = build()
    if digest is None and next(outline.parameters(), None) is None:
        return build() if large else outline
    found = _checked(path, digest, outline)
    found.pop(TEACHER, None)
    prompt = build() if large else outline
    fill(prompt, found)
    return prompt


def _checked(path: Path, digest: str | None, wanted: nn.Module | None = None) -> dict[str, Tensor]:
    """The tensors of a file: those that are wanted, as `prompt.json` describes them, and finite."""
    if not path.is_file():
        raise data_error(f"{path} is missing; the prompt is incomplete. Copy the whole directory.")
    data = path.read_bytes()
    found = tensors.unpacked(data, str(path))
    learned = {name: one for name, one in found.items() if name != TEACHER}
    problems = misfits(learned, wanted) if wanted is not None else []
    if problems:
        raise data_error(f"the tensors in {path} do not fit the method: {'; '.join(problems)}.")
    if hashlib.sha256(data).hexdigest() != digest:
        raise data_error(
            f"{path} is not the file that {FACTS} next to it describes (the SHA-256 differs). Copy the whole directory again."
        )
    tensors.require_usable(found, path)
    return found


def start_from(directory: Path, method: Method, clip: Clip, num_classes: int) -> tuple[Method, str]:
    """The method with a prompt that begins with the learned tensors of an artifact, and their SHA-256 (hex).

    directory: an artifact, or a run, whose seed is chosen as `pick` does. The artifact's method may be another one: its tensors
    must have the names and shapes of this one's, and its backbone the same weights. UserError that names what differs.
    """
    place = pick(directory).directory
    facts = read_facts(place)
    if not isinstance(method.learner, Steps):
        raise UserError(
            f"{method.name!r} takes no gradient steps, so it cannot start from the prompt in {place}. Leave out --init."
        )
    if facts["tensors_hash"] is None:
        raise UserError(f"the {facts['method']!r} in {place} has learned nothing to start from. Leave out --init.")
    require_backbone(facts, place, clip)
    found = _checked(place / TENSORS, facts["tensors_hash"])
    found.pop(TEACHER, None)
    with warnings.catch_warnings(action="ignore"):  # learning builds it again, and warns then
        module = method.prompt.build(clip.facts, torch.Generator().manual_seed(0), num_classes)
    if problems := misfits(found, module):
        raise UserError(
            f"the learned tensors of {place} ({facts['method']}) do not fit this method: {'; '.join(problems)}."
            f"{_hint(facts['options'], method)}"
        )
    return replace(method, start=found), str(facts["tensors_hash"])


def _hint(before: Mapping[str, object], method: Method) -> str:
    """Which options of the prompt differ from those that the tensors were learned with."""
    own = [option.name for option in options_of(method.prompt) if option.name != "init"]
    changed = [f"{name}={before[name]}" for name in own if name in before and before[name] != method.options[name]]
    if not changed:
        return " Give a prompt of a method with the same tensors (vlprompt methods NAME)."
    return f" They were learned with {', '.join(changed)}: give these with --set."
