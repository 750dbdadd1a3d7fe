"""Class vectors of a learned prompt for any list of names, in the files that other programs read.

Letters: C classes, E joint embedding.
"""

from __future__ import annotations

import csv
import io
import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from safetensors.numpy import save
from torch import Tensor

from vlprompt import __version__, artifact, disk, plain, reading
from vlprompt.artifact import Learned
from vlprompt.engine.evaluate import Classifier, check_classes
from vlprompt.errors import UserError, data_error
from vlprompt.types import Reach

Form = Literal["transformers", "open-clip", "diffusers"]
TOKEN = "<prompt>"
"""The learned context in the diffusers form."""


def class_vectors(
    run: Path,
    names: Sequence[str],
    *,
    clip: artifact.Backbone = None,
    unit: bool = False,
    device: str = "cpu",
) -> tuple[Tensor, Learned]:
    """((C, E) float32 class features in the order of the names, un-normalised or of length 1; the prompt that they are from).

    UserError: the prompt has no class features (it answers from image features alone, or its text depends on the image). Also:
    it knows only its own classes and is asked about others.
    """
    classifier, rows, learned = _classifier(run, names, clip, device)
    assert classifier.text is not None
    features = classifier.text.unit if unit else classifier.text.pooled
    return features.float().cpu()[rows], learned


def _classifier(
    run: Path, names: Sequence[str], clip: artifact.Backbone, device: str
) -> tuple[Classifier, list[int], Learned]:
    """(the prompt with every name once, the place of each name there, what was learned)."""
    learned, clip = artifact.loaded(artifact.pick(run).directory, clip, device=device)
    method = learned.method
    if not method.prompt.reach.reads_text:
        raise UserError(f"{method.name!r} has no class vectors: it answers from image features alone.")
    if method.taught is not None:
        raise UserError(
            f"{method.name!r} has no class vectors for this model: they are its teacher's, {method.taught.model}."
        )
    if "image" in method.prompt.reach.sees:
        raise UserError(f"{method.name!r} has no class vectors: its text depends on the image.")
    once = tuple(dict.fromkeys(names))  # vocabularies name some classes twice
    check_classes(method.prompt, tuple(dict.fromkeys(learned.class_names)), once)
    place = {name: number for number, name in enumerate(once)}
    return Classifier(clip, method, learned.prompt, once, learned.template), [place[name] for name in names], learned


def form_of(
    form: Form, run: Path, names: Sequence[str], clip: artifact.Backbone = None, device: str = "cpu"
) -> tuple[dict[str, Tensor], Learned]:
    """The tensors that another program takes, and the prompt that they are from.

    `transformers`: `text_embeds` (C, E) of length 1, as `CLIPModel` gives them, and `logit_scale`, whose exponential multiplies cosines
    (the prompt's temperature is in it). `open-clip`: `classifier` (E, C), as `build_zero_shot_classifier` gives it, and `logit_scale`.
    `diffusers`: the learned context (M, D) as the token `TOKEN`, which `load_textual_inversion` reads. UserError: as `class_vectors`;
    a prompt that does more than these tensors say.
    """
    if form == "diffusers":
        return _context(run, clip, device)
    classifier, rows, learned = _classifier(run, names, clip, device)
    prompted = classifier.prompted
    beyond = (prompted.after_image, prompted.score, classifier.method.at_test)
    if prompted.image or prompted.weights or any(one is not None for one in beyond):
        raise UserError(
            f"{learned.method.name!r} does more than compare with class vectors, which alone answer differently. Use vlprompt export "
            f"onnx, or learn coop."
        )
    assert classifier.text is not None
    unit_CE = classifier.text.unit.float().cpu()[rows]
    scale = torch.tensor(classifier.clip.logit_scale / learned.temperature).log()
    if form == "transformers":
        return {"text_embeds": unit_CE, "logit_scale": scale}, learned
    return {"classifier": unit_CE.T.contiguous(), "logit_scale": scale}, learned


def _context(run: Path, clip: artifact.Backbone, device: str) -> tuple[dict[str, Tensor], Learned]:
    learned, clip = artifact.loaded(artifact.pick(run).directory, clip, device=device)
    spec = learned.method.prompt
    if spec.reach == Reach() and spec.layout is not None and spec.layout.shared and spec.layout.position != "middle":
        with torch.no_grad():
            text = learned.prompt().text
        if set(text) == {0} and text[0].k is None:
            return {TOKEN: text[0].q.float().cpu().contiguous()}, learned
    raise UserError(
        f"{learned.method.name!r} is not one row of tokens before or behind every class name, which is all that diffusers takes. "
        f"Learn coop with position end or front."
    )


def sentence_of(learned: Learned) -> str:
    """How the diffusers form is used: the words to type, `{}` for the class."""
    layout = learned.method.prompt.layout
    assert layout is not None
    return f"{{}} {TOKEN}." if layout.position == "front" else " ".join(f"{TOKEN} {layout.words} {{}}.".split())


def write_vectors(path: Path, tensors: dict[str, Tensor], names: Sequence[str], learned: Learned) -> None:
    """Write the tensors of a form, or `vectors`, with names and where they come from: ``.safetensors``, for vectors ``.npy`` too.

    The ``.npy`` (one (C, E) float32 array, a row per class) is what Detic reads for a vocabulary (`reset_cls_test`: it transposes,
    appends the background's zeros and normalises by itself), rows in the order of its categories. Names stand next to it in
    ``.names.txt``. UserError: another ending.
    """
    allowed = (".npy", ".safetensors") if "vectors" in tensors else (".safetensors",)
    if path.suffix not in allowed:
        raise UserError(f"--out {path} ends in {path.suffix or 'nothing'}. Allowed: {', '.join(allowed)}.")
    if path.suffix == ".npy":
        file = io.BytesIO()
        np.save(file, tensors["vectors"].numpy())
        disk.write_bytes(path, file.getvalue())
        disk.write_text(path.with_suffix(".names.txt"), "".join(f"{name}\n" for name in names))
        return
    facts = facts_of(learned) | {"names": json.dumps([] if TOKEN in tensors else list(names), ensure_ascii=False)}
    facts |= {"sentence": sentence_of(learned)} if TOKEN in tensors else {}
    disk.write_bytes(path, save({name: one.numpy() for name, one in tensors.items()}, metadata=facts))


def facts_of(learned: Learned) -> dict[str, str]:
    """Where an exported file comes from."""
    facts = {"method": learned.method.name, "model": learned.model, "weight_hash": learned.weight_hash}
    return facts | {"vlprompt": __version__}


def read_names(path: Path) -> tuple[str, ...]:
    """Names of a file: one per line; a JSON list of names; or annotations in COCO's or LVIS's form, by category id.

    Lines that begin with `# ` are passed over. UserError: no such file, another form, no names, lines that hold more than a name.
    """
    try:
        if path.suffix == ".json":
            names = _from_json(reading.json_file(path))
        else:
            lines = [line.strip() for line in reading.text(path).splitlines()]
            names = _from_lines([line for line in lines if line and not line.startswith("# ")], path.suffix.lower())
        if odd := [name for name in names if plain.terminal(name) != name]:
            raise ValueError(f"{plain.terminal(odd[0])[:60]!r} holds a control code")
    except (ValueError, KeyError, TypeError) as error:
        raise data_error(
            f"{path}: no list of names ({error}). Allowed: lines of a name each, a JSON list of names, or annotations with `categories`."
        ) from error
    names = [name for name in names if name]
    if not names:
        raise data_error(f"{path} holds no name.")
    return tuple(names)


MORE = re.compile(r"\d+\s*[:.,;\t].*|n\d{8}\s.*|.*[\t;]\s*\S.*")
"""A line with a number or an id in front of the name, or with several cells."""
LABELLED = re.compile(r".*,\s*\d+")


def _from_lines(lines: list[str], ending: str) -> list[str]:
    """The names of lines: in quotes or not, with a comma at the end or not. ValueError where lines have more than a name."""
    if ending not in (".txt", ".csv", ".names", ".lst", ""):
        raise ValueError(f"a file of the kind {ending} is not read")
    numbers = [line.split(None, 1)[0] for line in lines]
    counted = len(lines) > 1 and numbers in ([str(first + n) for n in range(len(lines))] for first in (0, 1))
    odd = [line for line in lines if MORE.fullmatch(line) or (ending == ".csv" and len(next(csv.reader([line]))) > 1)]
    labelled = bool(lines) and all(LABELLED.fullmatch(line) for line in lines)
    if odd or labelled or (counted and all(" " in line for line in lines)):
        raise ValueError(f"{(odd or lines)[0][:60]!r} is more than a name")
    if lines and all(line.endswith(",") for line in lines):
        lines = [line[:-1].rstrip() for line in lines]
    quoted = bool(lines) and all(len(line) > 2 and line[0] == line[-1] and line[0] in "\"'" for line in lines)
    return [line[1:-1].strip() for line in lines] if quoted else lines


def _from_json(value: object) -> list[str]:
    if isinstance(value, dict):
        value = [category["name"] for category in sorted(value["categories"], key=lambda one: one["id"])]
    if not isinstance(value, list) or not all(isinstance(name, str) for name in value):
        raise ValueError("it is neither a list of names nor annotations")
    if not all(name.strip() for name in value):
        raise ValueError("a name is empty")
    return [str(name).strip() for name in value]
