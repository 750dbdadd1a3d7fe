"""Class vectors of a learned prompt for any list of names, in the files that other programs read.

Letters: C classes, E joint embedding.
"""

from __future__ import annotations

import io
import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from safetensors.numpy import save
from torch import Tensor

from vlprompt import __version__, artifact, disk, reading
from vlprompt.engine.evaluate import check_classes, classifier_of
from vlprompt.errors import DATA, UserError
from vlprompt.towers import Clip

SUFFIXES = (".npy", ".safetensors")


def class_vectors(
    run: Path,
    names: Sequence[str],
    *,
    clip: Clip | None = None,
    unit: bool = False,
    device: str = "cpu",
) -> tuple[Tensor, artifact.Learned]:
    """((C, E) float32 class features in the order of the names, un-normalised or of length 1; the prompt that they are from).

    UserError: the prompt has no class features (it answers from image features alone, or its text depends on the image). Also:
    it knows only its own classes and is asked about others.
    """
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
    classifier = classifier_of(clip, method, learned.prompt, once, learned.template)
    assert classifier.text is not None
    features = classifier.text.unit if unit else classifier.text.pooled
    place = {name: number for number, name in enumerate(once)}
    return features.float().cpu()[[place[name] for name in names]], learned


def write_vectors(path: Path, vectors_CE: Tensor, names: Sequence[str], learned: artifact.Learned) -> None:
    """Write ``.npy`` (one (C, E) float32 array, a row per class) or ``.safetensors`` (`vectors`, names in its metadata).

    The ``.npy`` is what Detic reads for a vocabulary (`reset_cls_test`: it transposes, appends the background's zeros and
    normalises by itself), rows in the order of its categories. Names stand next to it in ``.names.txt``. UserError: another ending.
    """
    array = vectors_CE.numpy()
    if path.suffix == ".npy":
        file = io.BytesIO()
        np.save(file, array)
        disk.write_bytes(path, file.getvalue())
        disk.write_text(path.with_suffix(".names.txt"), "".join(f"{name}\n" for name in names))
    elif path.suffix == ".safetensors":
        facts = {
            "names": json.dumps(list(names), ensure_ascii=False),
            "method": learned.method.name,
            "model": learned.model,
            "weight_hash": learned.weight_hash,
            "vlprompt": __version__,
        }
        disk.write_bytes(path, save({"vectors": array}, metadata=facts))
    else:
        raise UserError(f"--out {path} ends in {path.suffix or 'nothing'}. Allowed: {', '.join(SUFFIXES)}.")


def read_names(path: Path) -> tuple[str, ...]:
    """Names of a file: one per line; a JSON list of names; or annotations in COCO's or LVIS's form, by category id.

    UserError: no such file, another form, no names.
    """
    try:
        if path.suffix == ".json":
            names = _from_json(reading.json_file(path))
        else:
            names = [line.strip() for line in reading.text(path).splitlines()]
    except (ValueError, KeyError, TypeError) as error:
        raise UserError(
            f"{path}: no list of names ({error}). Allowed: lines of text, a JSON list of names, or annotations with `categories`.",
            exit_code=DATA,
        ) from error
    names = [name for name in names if name]
    if not names:
        raise UserError(f"{path}: there is no name in it.", exit_code=DATA)
    return tuple(names)


def _from_json(value: object) -> list[str]:
    if isinstance(value, dict):
        value = [category["name"] for category in sorted(value["categories"], key=lambda one: one["id"])]
    if not isinstance(value, list) or not all(isinstance(name, str) for name in value):
        raise ValueError("it is neither a list of names nor annotations")
    return [str(name).strip() for name in value]
