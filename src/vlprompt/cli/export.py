"""`vlprompt export`: what a learned prompt makes of class names, for other programs."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from vlprompt.cli import console, options
from vlprompt.cli.options import option
from vlprompt.errors import UserError

if TYPE_CHECKING:
    from vlprompt.engine.class_vectors import Form
    from vlprompt.engine.deploy import Deployable

app = typer.Typer(help="Files for other programs: a model that answers, class vectors.", no_args_is_help=True)
Classes = Annotated[
    Path | None,
    option(
        "--names FILE", "A name per line, a JSON list, or COCO / LVIS annotations.", "the classes it was learned on"
    ),
]
FORMS: tuple[Literal["plain"] | Form, ...] = ("plain", "transformers", "open-clip", "diffusers")


@options.command(app, "class-vectors")
def class_vectors(
    run: options.Run,
    out: Annotated[Path, option("--out FILE", "vectors.npy or vectors.safetensors.")],
    names: Classes = None,
    unit: Annotated[bool, option("--unit", "Vectors of length 1 (Detic normalises by itself).")] = False,
    form: Annotated[
        str, option("--form NAME", "For whom: plain (detectors), transformers, open-clip or diffusers.")
    ] = "plain",
    model: options.Backbone = None,
    device: options.Device = "auto",
) -> None:
    """Write the class features of a learned prompt, one row per name: open-vocabulary detectors take them as a classifier.

    The other forms are one .safetensors file each. diffusers takes the learned tokens themselves, for any class.

    Example: `vlprompt export class-vectors runs/rpp21k/best --names lvis_v1_val.json --out lvis_rpp.npy`
    """
    from vlprompt.artifact import pick, read_facts
    from vlprompt.engine.class_vectors import TOKEN, form_of, read_names, sentence_of, write_vectors
    from vlprompt.engine.class_vectors import class_vectors as vectors_of
    from vlprompt.engine.precision import resolve_device

    kind = options.one_of("--form", form, FORMS)
    if kind == "diffusers" and names is not None:
        raise UserError("--form diffusers is the same for all class names. Leave out --names.")
    if kind != "plain" and unit:
        raise UserError(f"--unit: the vectors of --form {form} have the length that it takes. Leave out --unit.")
    place = str(resolve_device(device))
    chosen = read_names(names) if names is not None else tuple(read_facts(pick(run).directory)["class_names"])
    if kind != "plain":
        tensors, learned = form_of(kind, run, chosen, model, place)
        write_vectors(out, tensors, chosen, learned)
        sizes = ", ".join(f"{name} {tuple(one.shape)}" for name, one in tensors.items())
        use = f" Write: {sentence_of(learned)}" if TOKEN in tensors else ""
        console.show(f"{out}: {sizes} float32, of {learned.method.name} on {learned.model}.{use}")
        return
    vectors_CE, learned = vectors_of(run, chosen, clip=model, unit=unit, device=place)
    write_vectors(out, {"vectors": vectors_CE}, chosen, learned)
    console.show(
        f"{out}: {vectors_CE.shape[0]} x {vectors_CE.shape[1]} float32, of {learned.method.name} on {learned.model}"
    )


@options.command(app, "onnx")
def onnx(
    run: options.Run,
    out: Annotated[Path, option("--out FILE", "For example model.onnx.")],
    names: Classes = None,
    half: Annotated[bool, option("--half", "Weights in float16: half the size.")] = False,
    model: options.Backbone = None,
) -> None:
    """Write one ONNX file that answers without vlprompt: pixels in, class probabilities out.

    Class names and preprocessing are in its metadata. `examples/onnx_only.py` uses it. Needs: pip install 'vlprompt[onnx]'.

    Example: `vlprompt export onnx runs/mine --out mine.onnx`
    """
    _write(run, out, names, model, "onnx", half=half)


@options.command(app, "torch")
def torch_export(
    run: options.Run,
    out: Annotated[Path, option("--out FILE", "For example model.pt2.")],
    names: Classes = None,
    model: options.Backbone = None,
) -> None:
    """Write a torch.export program: pixels in, class probabilities out. `torch.export.load` reads it.

    Example: `vlprompt export torch runs/mine --out mine.pt2`
    """
    _write(run, out, names, model, "torch-export", half=False)


def _write(run: Path, out: Path, names: Path | None, model: str | None, kind: Deployable, *, half: bool) -> None:
    from vlprompt.engine.class_vectors import read_names
    from vlprompt.engine.deploy import deployed, write

    chosen = read_names(names) if names is not None else None
    module, facts = deployed(run, chosen, model)
    write(out, kind, module, facts, half=half)
    side = facts["crop"]
    console.show(
        f"{out}: {out.stat().st_size / 2**20:.1f} MiB, of {facts['method']} on {facts['model']}. Input `pixels`: any number of images, "
        f"(N, 3, {side}, {side}), RGB from 0 to 1. Outputs: `probability` and `logits`, (N, classes)."
    )
