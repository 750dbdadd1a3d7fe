"""Published checkpoints of prompts -> artifacts: what CoOp's, CoCoOp's and MaPLe's code saves, read without executing anything.

Dassl's trainer saves ``{state_dict, epoch, optimizer, scheduler, val_result}`` with ``torch.save``; the state dict is the prompt
learner's (CoOp, CoCoOp, and those built on them) or the whole model's (MaPLe). Names by the code: KaiyangZhou/CoOp
``trainers/coop.py``, ``trainers/cocoop.py``; muzairkhattak/multimodal-prompt-learning ``trainers/maple.py``.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

from vlprompt import artifact
from vlprompt.artifact import Learned
from vlprompt.errors import DATA, UserError
from vlprompt.methods.resolve import resolve
from vlprompt.prompts.start import fill, misfits
from vlprompt.towers import Clip
from vlprompt.towers.formats.archive import read_archive
from vlprompt.towers.tokens import class_plans
from vlprompt.types import Position, TextLayout

LEARNER = "prompt_learner."
FIXED = ("token_prefix", "token_suffix")
"""Buffers beside what is learned: the embeddings of [SOS], and of what stands behind the context (class name, [EOT], padding)."""
PUBLISHED_WORDS = "a photo of a"
"""What MaPLe's context starts from; its words that are no tokens of the context stay fixed behind it."""
NEAR = 0.01
"""How far a stored embedding may be from the model's, relative to the largest: half precision rounds by 0.0005."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Layout:
    """One kind of published checkpoint."""

    name: str
    method: str
    marks: tuple[str, ...]
    """Tensors that it has and the others do not."""
    rename: Callable[[str], str]
    """A published tensor's name -> ours."""
    words: tuple[str, ...]
    """Values of the option `init` whose fixed words may stand behind the context, the likeliest first."""


def _same(name: str) -> str:
    return name


def _maple(name: str) -> str:
    """``compound_prompts_text.i`` and ``compound_prompt_projections.i`` are of layer i + 1."""
    kind, _, rest = name.partition(".")
    if kind == "compound_prompts_text":
        return f"text.{int(rest) + 1}"
    if kind == "compound_prompt_projections":
        layer, _, part = rest.partition(".")
        return f"proj.{int(layer) + 1}.{part}"
    return f"proj.0.{rest}" if kind == "proj" else name


LAYOUTS = (
    Layout(name="MaPLe", method="maple", marks=("proj.weight",), rename=_maple, words=(PUBLISHED_WORDS, "normal")),
    Layout(name="CoCoOp", method="cocoop", marks=("meta_net.linear1.weight",), rename=_same, words=("normal",)),
    Layout(name="CoOp", method="coop", marks=(), rename=_same, words=("normal",)),
)


def convert(
    file: Path,
    clip: Clip,
    class_names: Sequence[str],
    out: Path,
    *,
    model: str,
    template: str = "a photo of a {}.",
    position: Position = "end",
) -> Learned:
    """Write a published checkpoint as an artifact into `out`, and return it.

    class_names: the classes that it was learned on, in order. model: the backbone as a later command finds it. position: where CoOp's
    class name stands, which its files do not say. UserError: a file that is no such checkpoint, that asks for anything but tensors and
    plain values, or that was learned on other classes or another backbone.
    """
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise UserError(f"{out} is there already and not an empty directory. Give another --out.")
    if len(class_names) < 2 or len(set(class_names)) < len(class_names):
        raise UserError(f"a prompt needs at least two class names, all different; these are {list(class_names)[:5]}.")
    stored = _learner(file)
    layout = next(one for one in LAYOUTS if all(mark in stored for mark in one.marks))
    fixed = {name: stored.pop(name) for name in FIXED if name in stored}
    tensors = {layout.rename(name): tensor.float().contiguous() for name, tensor in stored.items()}
    words = _words(layout, fixed, clip, tuple(class_names), tensors["ctx"], position, file)
    method = resolve(layout.method, _options(layout, tensors, words, position))
    prompt = method.prompt.build(clip.facts, torch.Generator().manual_seed(0), len(class_names))
    _fill(prompt, tensors, layout, clip, file)
    learned = Learned(
        method=method,
        prompt=prompt.requires_grad_(False),
        class_names=tuple(class_names),
        template=template,
        model=model,
        weight_hash=clip.weight_hash,
        facts={
            "dataset": f"converted from {file.name}",
            "converted": {"layout": layout.name, "sha256": hashlib.sha256(file.read_bytes()).hexdigest()},
            "recipe": "published",
            "metrics": {},
        },
    )
    out.mkdir(parents=True, exist_ok=True)
    artifact.save(out, learned)
    return learned


def _learner(file: Path) -> dict[str, Tensor]:
    """The prompt learner's tensors. UserError (exit 3) where the file has none that are known."""
    if not file.is_file():
        raise UserError(f"{file} is no file. Give a published checkpoint, such as model.pth.tar-5.", exit_code=DATA)
    found = read_archive(file, nested=True)
    inner = {name.removeprefix(LEARNER): one for name, one in found.items() if name.startswith(LEARNER)}
    stored = inner or found
    if "ctx" not in stored:
        raise UserError(
            f"{file} is no checkpoint of a prompt that is known: it has no tensor 'ctx' (its first are "
            f"{', '.join(sorted(stored)[:5])}). Allowed: what the code of CoOp, CoCoOp and MaPLe saves.",
            exit_code=DATA,
        )
    return dict(stored)


def _options(layout: Layout, tensors: Mapping[str, Tensor], words: str, position: Position) -> dict[str, object]:
    """The method's options, as the shapes say them."""
    ctx = tensors["ctx"]
    options: dict[str, object] = {"n_ctx": ctx.shape[-2], "init": words}
    if layout.method == "coop":
        options |= {"position": position, "per_class": ctx.dim() == 3}
    if layout.method == "maple":
        options["depth"] = sum(name.startswith("proj.") and name.endswith(".weight") for name in tensors)
    return options


def _fill(prompt: nn.Module, tensors: Mapping[str, Tensor], layout: Layout, clip: Clip, file: Path) -> None:
    problems = misfits(tensors, prompt)
    if problems:
        raise UserError(
            f"{file} looks like {layout.name}'s but does not fit {clip.name}: {'; '.join(problems)}. Give the backbone and the "
            "classes that it was learned on.",
            exit_code=DATA,
        )
    fill(prompt, tensors)


def _words(
    layout: Layout,
    fixed: Mapping[str, Tensor],
    clip: Clip,
    class_names: tuple[str, ...],
    ctx: Tensor,
    position: Position,
    file: Path,
) -> str:
    """The option `init` whose fixed words and class names give the stored embeddings; the likeliest where none are stored.

    UserError (exit 3) where none does: other classes, another order, or another backbone.
    """
    if position != "end" and layout.method != "coop":
        raise UserError(f"--position {position}: in {layout.name}'s sentences the class name stands at the end.")
    if any(name not in fixed for name in FIXED):
        return layout.words[0]
    prefix, suffix = (fixed[name].float() for name in FIXED)
    if len(suffix) != len(class_names):
        raise UserError(
            f"{file} was learned on {len(suffix)} classes, but {len(class_names)} are given. Give their names in its order.",
            exit_code=DATA,
        )
    table = clip.vocabulary.weight_VD.cpu()
    if prefix.shape[-1] != table.shape[1] or not _near(prefix[0, 0], table[clip.tokenizer.start_id]):
        raise UserError(
            f"{file} was learned on another backbone than {clip.name}: its [SOS] has another embedding. Give its own with --model.",
            exit_code=DATA,
        )
    wrong = ""
    for words in layout.words:
        number = ctx.shape[-2]
        kept = "" if words == "normal" else " ".join(words.split()[number:])
        plans = class_plans(clip.tokenizer, class_names, TextLayout(num_tokens=number, words=kept))
        other = _first_other(plans, suffix, table, skip=1 + number)
        if other is None:
            return words
        wrong = wrong or class_names[other]
    raise UserError(
        f"{file} was learned on other classes, or in another order: what stands behind its context is not {wrong!r}. Give the names "
        "as they were then, in that order.",
        exit_code=DATA,
    )


def _first_other(plans: Sequence[Sequence[int]], suffix: Tensor, table: Tensor, *, skip: int) -> int | None:
    """The first class whose stored rows behind the context are not those of its words; None: all are."""
    for number, plan in enumerate(plans):
        ids = torch.tensor(plan[skip:])
        if len(ids) > suffix.shape[1] or not _near(suffix[number, : len(ids)], table[ids]):
            return number
    return None


def _near(given: Tensor, wanted: Tensor) -> bool:
    return bool((given - wanted).abs().max() <= NEAR * wanted.abs().max())
