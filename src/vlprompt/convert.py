"""Published checkpoints of prompts -> artifacts: what CoOp's, CoCoOp's and MaPLe's code saves, read without executing anything.

Dassl's trainer saves ``{state_dict, epoch, optimizer, scheduler, val_result}`` with ``torch.save``; the state dict is the prompt
learner's (CoOp, CoCoOp, KgCoOp, ProGrad) or the whole model's (MaPLe, IVLP, PromptSRC, VPT, POMP), the frozen towers included. Names
by the code: KaiyangZhou/CoOp ``trainers/coop.py``, ``cocoop.py``; muzairkhattak/multimodal-prompt-learning ``trainers/maple.py``,
``vpt.py``; muzairkhattak/PromptSRC ``trainers/independentVL.py``, ``promptsrc.py``; amazon-science/prompt-pretraining
``trainers/pomp.py``. Every tensor is used, known to be frozen, or the file is refused by the names of those that are neither.
"""

from __future__ import annotations

import hashlib
import re
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

from vlprompt import artifact
from vlprompt.artifact import Learned
from vlprompt.errors import NUMERICAL, UserError, data_error
from vlprompt.methods.resolve import resolve
from vlprompt.prompts.start import LEARNER, fill, misfits, ours
from vlprompt.towers import Clip
from vlprompt.towers.formats.archive import read_archive
from vlprompt.towers.formats.files import bare_names, read_safetensors, require
from vlprompt.towers.formats.huggingface import INDEX, PICKLED_INDEX, joined, shard_names
from vlprompt.towers.tokens import class_plans
from vlprompt.types import Position, TextLayout

ZERO_SHOT = "ZS_image_encoder."
"""PromptSRC's frozen copy of the image tower, within its prompt learner."""
FIXED = ("token_prefix", "token_suffix")
"""Buffers kept with what is learned: the embeddings of [SOS], and of what stands behind the context (class name, [EOT], padding)."""
PUBLISHED_WORDS = "a photo of a"
"""What MaPLe's context starts from; its words beyond the context's tokens stay fixed behind it."""
PUBLISHED = "what the code of CoOp, CoCoOp, KgCoOp, ProGrad, POMP, MaPLe, IVLP, PromptSRC and VPT saves"
NEAR = 0.01
"""How far a stored embedding may be from the model's, relative to the largest: half precision rounds by 0.0005."""


@dataclass(frozen=True, slots=True, kw_only=True)
class CheckpointLayout:
    """One kind of published checkpoint."""

    name: str
    method: str
    marks: tuple[str, ...]
    """Tensors that it has and the others do not."""
    words: tuple[str, ...]
    """Values of the option `init` whose fixed words may stand behind the context, the likeliest first."""
    like: tuple[str, ...] = ()
    """Methods that save the same tensors."""


LAYOUTS = (
    CheckpointLayout(name="MaPLe", method="maple", marks=("proj.weight",), words=(PUBLISHED_WORDS, "normal")),
    CheckpointLayout(name="CoCoOp", method="cocoop", marks=("meta_net.linear1.weight",), words=("normal",)),
    CheckpointLayout(
        name="IVLP",
        method="ivlp",
        marks=("ctx", "image_encoder.VPT"),
        words=(PUBLISHED_WORDS, "normal"),
        like=("promptsrc",),
    ),
    CheckpointLayout(name="VPT", method="vpt", marks=("image_encoder.VPT",), words=("normal",)),
    CheckpointLayout(name="CoOp", method="coop", marks=("ctx",), words=("normal",), like=("kgcoop", "prograd", "pomp")),
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
    method: str | None = None,
) -> Learned:
    """Write a published checkpoint as an artifact into `out`, and return it.

    file: the checkpoint; of one in several files, their index, any of them (`x-00001-of-00002.safetensors`) or their folder.
    class_names: the classes that it was learned on, in order. model: the backbone as a later command finds it. position: where
    CoOp's class name stands, which its files do not say. method: which one learned it, where several save the same tensors (kgcoop, prograd
    and pomp save CoOp's; promptsrc saves IVLP's). UserError: the file is not such a checkpoint, or holds learned tensors that
    the method has no place for. Also: it asks for anything but tensors and plain values, or was learned on other classes or
    another backbone.
    """
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise UserError(f"{out} is there already and not an empty directory. Give another --out.")
    if len(class_names) < 2 or len(set(class_names)) < len(class_names):
        raise UserError(f"a prompt needs at least two class names, all different; these are {list(class_names)[:5]}.")
    files = _files(file)
    stored, frozen = _parted(_stored(files), clip)
    layout, name = _layout(stored, frozen, method, file)
    fixed = {name: stored.pop(name) for name in FIXED if name in stored}
    tensors = {ours(name): tensor.float().contiguous() for name, tensor in stored.items()}
    _require_finite(tensors, file)
    words = (
        ""
        if layout.method == "vpt"
        else _words(layout, fixed, clip, tuple(class_names), tensors["ctx"], position, file)
    )
    resolved = resolve(name, _options(layout, tensors, words, position))
    prompt = resolved.prompt.build(clip.facts, torch.Generator().manual_seed(0), len(class_names))
    _fill(prompt, tensors, layout, clip, file)
    _compare_frozen(frozen, clip, file)
    learned = Learned(
        method=resolved,
        prompt=prompt.requires_grad_(False),
        class_names=tuple(class_names),
        template=template,
        model=model,
        weight_hash=clip.weight_hash,
        facts={
            "dataset": f"converted from {file.name}",
            "converted": {"layout": layout.name, "sha256": _sha256(files)},
            "recipe": "published",
            "metrics": {},
        },
    )
    out.mkdir(parents=True, exist_ok=True)
    artifact.save(out, learned)
    return learned


POMPS = {f"train_{name}": name for name in FIXED}
"""POMP's buffers of the classes that it was learned on; those of its test classes (``test_...``) are of no interest."""


def _files(file: Path) -> list[Path]:
    """The files of a checkpoint. UserError (exit 3): one of them is not there."""
    if file.is_dir():
        index = next((name for name in (INDEX, PICKLED_INDEX) if (file / name).is_file()), None)
        if index is None:
            inside = sorted(one.name for one in file.iterdir())[:6]
            raise data_error(
                f"{file} is a folder without {INDEX}. Give a checkpoint's file (it holds: {', '.join(inside) or 'nothing'})."
            )
        file = file / index
    if not file.is_file():
        raise data_error(f"{file} is not a file. Give a published checkpoint, such as model.pth.tar-5.")
    holds = "A checkpoint in several files has all of them in one folder"
    if file.name.endswith(".index.json"):
        return [require(file.parent, name, holds) for name in shard_names(file.parent, file.name)]
    if found := re.fullmatch(r"(.+-)(\d{1,9})-of-(\d{1,9})(\.\w+)", file.name):
        start, number, last, end = found.groups()
        return [
            require(file.parent, f"{start}{i:0{len(number)}}-of-{last}{end}", holds) for i in range(1, int(last) + 1)
        ] or [file]
    return [file]


def _stored(files: Sequence[Path]) -> dict[str, Tensor]:
    """A checkpoint's tensors, without what wrappers put before the names. UserError (exit 3) where it cannot be read."""

    def read_one(file: Path) -> Mapping[str, Tensor]:
        return read_safetensors(file) if file.suffix == ".safetensors" else read_archive(file, nested=True)

    return bare_names(joined(files, read_one))


def _sha256(files: Sequence[Path]) -> str:
    """Of the files one after another."""
    total = hashlib.sha256()
    for file in files:
        total.update(file.read_bytes())
    return total.hexdigest()


def _parted(found: Mapping[str, Tensor], clip: Clip) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """(what is learned, and buffers; the frozen towers by our names), by the published names without the prompt learner's own."""
    ours = {f"text_encoder.{name}": one for name, one in clip.text_tower.state_dict().items()}
    ours |= {f"image_encoder.{name}": one for name, one in clip.visual.state_dict().items()}
    stored: dict[str, Tensor] = {}
    frozen: dict[str, Tensor] = {}
    for name, tensor in found.items():
        bare = name.removeprefix(LEARNER)
        tower = f"image_encoder.{bare.removeprefix(ZERO_SHOT)}" if bare.startswith(ZERO_SHOT) else name
        if tower in ours or name == "logit_scale":
            frozen[name] = tensor
        elif not bare.startswith("test_token_"):
            stored[POMPS.get(bare, bare)] = tensor
    return stored, frozen


def _layout(
    stored: Mapping[str, Tensor], frozen: Mapping[str, Tensor], method: str | None, file: Path
) -> tuple[CheckpointLayout, str]:
    """The layout of a file's tensors, and the method. UserError: none, or one that the method does not save."""
    layout = next((one for one in LAYOUTS if all(mark in stored for mark in one.marks)), None)
    if layout is None:
        names = sorted(stored) or sorted(frozen)
        raise data_error(
            f"{file} is not a known checkpoint of a prompt: it has no tensor 'ctx' (its {len(names)} are "
            f"{', '.join(names[:6])}{', ...' if len(names) > 6 else ''}). Allowed: {PUBLISHED}."
        )
    if other := _other(stored):
        raise data_error(f"{file} cannot be converted: {other}. Allowed: {PUBLISHED}.")
    if method is not None and method not in (layout.method, *layout.like):
        raise UserError(
            f"--method {method}: {file} has the tensors of {layout.name}. Allowed: {', '.join((layout.method, *layout.like))}."
        )
    source = any(name.startswith(f"{LEARNER}{ZERO_SHOT}") for name in frozen)
    return layout, method or ("promptsrc" if source and layout.method == "ivlp" else layout.method)


def _other(stored: Mapping[str, Tensor]) -> str:
    """What a checkpoint is that has the names of a layout's tensors and other shapes; an empty string: nothing of that kind."""
    ctx, suffix, made = (stored.get(name) for name in ("ctx", "token_suffix", "meta_net.linear2.weight"))
    if ctx is not None and suffix is not None and ctx.dim() == 3 and len(ctx) != len(suffix):
        return (
            f"its ctx {tuple(ctx.shape)} is {len(ctx)} contexts for every class, with {len(suffix)} sentences in token_suffix, as PLOT "
            "and ProDA learn them, and prompts here have one context for a class"
        )
    if ctx is not None and made is not None and len(made) != ctx.shape[-1]:
        return (
            f"its meta_net makes {len(made)} numbers where CoCoOp's makes {ctx.shape[-1]}, as TCP's does, whose sentences of the classes "
            "are not in the file"
        )
    return ""


def _require_finite(tensors: Mapping[str, Tensor], file: Path) -> None:
    for name, tensor in tensors.items():
        if not bool(torch.isfinite(tensor).all()):
            raise UserError(
                f"{file}: {name} holds numbers that are not finite (NaN or infinity), so it answers nothing. Its training failed: take "
                "an earlier checkpoint.",
                exit_code=NUMERICAL,
            )


def _compare_frozen(frozen: Mapping[str, Tensor], clip: Clip, file: Path) -> None:
    """Warns where the towers in a file are not the backbone's: they would have been learned too, and are not taken."""
    towers = {"text_encoder": clip.text_tower.state_dict(), "image_encoder": clip.visual.state_dict()}
    other = []
    for name, tensor in frozen.items():
        tower, _, rest = name.replace(f"{LEARNER}{ZERO_SHOT}", "image_encoder.").partition(".")
        ours = towers.get(tower, {}).get(rest)
        if ours is not None and (ours.shape != tensor.shape or not _near(tensor.float(), ours.float().cpu())):
            other.append(name)
    if other:
        warnings.warn(
            f"{file} holds towers that are not those of {clip.name}: {len(other)} tensors differ, the first: {other[0]}. Its prompt alone "
            "is taken. If it was learned on another backbone, or its towers were learned too, give that backbone.",
            UserWarning,
            stacklevel=3,
        )


def _options(
    layout: CheckpointLayout, tensors: Mapping[str, Tensor], words: str, position: Position
) -> dict[str, object]:
    """The method's options, as the shapes say them."""
    deep = {tower: [name for name in tensors if re.fullmatch(rf"{tower}\.\d+", name)] for tower in ("text", "image")}
    if layout.method == "vpt":
        return {"n_image": tensors["image.0"].shape[-2], "depth": len(deep["image"])}
    ctx = tensors["ctx"]
    options: dict[str, object] = {"n_ctx": ctx.shape[-2], "init": words}
    if layout.method == "coop":
        options |= {"position": position, "per_class": ctx.dim() == 3}
    if layout.method == "maple":
        options["depth"] = sum(name.startswith("proj.") and name.endswith(".weight") for name in tensors)
    if layout.method == "ivlp":
        options |= {"n_image": tensors["image.0"].shape[-2], "depth": max(1 + len(deep["text"]), len(deep["image"]))}
    return options


def _fill(prompt: nn.Module, tensors: Mapping[str, Tensor], layout: CheckpointLayout, clip: Clip, file: Path) -> None:
    wanted = dict(prompt.named_parameters()) | dict(prompt.named_buffers())
    more = [name for name in tensors if name not in wanted]
    if more:
        raise data_error(
            f"{file} has learned tensors that {layout.name}'s method has no place for: {', '.join(more[:6])}"
            f"{f' and {len(more) - 6} more' if len(more) > 6 else ''}. Nothing is converted, since without them answers would be others. "
            "Allowed: the tensors of one method alone (no adapters, LoRA, or a student's projection)."
        )
    problems = misfits(tensors, prompt)
    if problems:
        raise data_error(
            f"{file} looks like {layout.name}'s but does not fit {clip.name}: {'; '.join(problems)}. Give the backbone and the "
            "classes that it was learned on."
        )
    fill(prompt, tensors)


def _words(
    layout: CheckpointLayout,
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
        raise data_error(
            f"{file} was learned on {len(suffix)} classes, but {len(class_names)} are given. Give their names in its order."
        )
    table = clip.vocabulary.weight_VD.cpu()
    if prefix.shape[-1] != table.shape[1] or not _near(prefix[0, 0], table[clip.tokenizer.start_id]):
        raise data_error(
            f"{file} was learned on another backbone than {clip.name}: its [SOS] has another embedding. Give its own with --model."
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
    raise data_error(
        f"{file} was learned on other classes, or in another order: what stands behind its context is not {wrong!r}. Give the names "
        "as they were then, in that order."
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
