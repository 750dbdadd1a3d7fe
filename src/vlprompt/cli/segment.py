"""`vlprompt segment`: a class for every pixel of pictures."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from vlprompt.cli import console, options
from vlprompt.cli.options import argument, option
from vlprompt.cli.progress import observing
from vlprompt.errors import UserError, data_error

SHOWN = 4
"""Classes of a picture that the table names."""
Short = Annotated[
    int | None,
    option(
        "--short PIXELS",
        "Resize the short edge to it; the model then reads windows of its input size.",
        "the model's size",
    ),
]


def segment(
    run: options.Run,
    images: Annotated[list[str], argument("IMAGE|DIR...", "Pictures, or folders of them.")],
    out: Annotated[Path, option("--out DIR", "Where the maps are written.")] = Path("segments"),
    classes: options.Classes = None,
    short: Short = None,
    model: options.Backbone = None,
    device: options.Device = "auto",
    as_json: options.AsJson = False,
) -> None:
    """Say which class every pixel of a picture belongs to: NAME.png shows it, NAME.npy holds the numbers.

    The prompt learned from whole pictures; here it is asked at every patch. Name every class that is in the picture, the background too.

    Example: `vlprompt segment runs/mine street.jpg --classes "road,car,tree,sky" --out maps`
    """
    from vlprompt.engine.dense import pixel_classifier
    from vlprompt.engine.precision import resolve_device
    from vlprompt.inputs import listed

    names, paths = options.parse_names(classes), [path for name in images for path in listed(Path(name).expanduser())]
    if len({path.stem for path in paths}) < len(paths):
        raise UserError(
            "two pictures have the same name, and so would their maps. Give them one by one, with another --out."
        )
    _require_room(paths, out)
    classifier, _, reason = pixel_classifier(run, names, clip=model, device=str(resolve_device(device)))
    console.note(f"Answering with {reason}.")
    found = {}
    with observing() as observer:
        observer.stage("pictures", len(paths))
        for path in paths:
            found[path] = _one(path, out, classifier, short)
            observer.advance(1, {})
    if as_json:
        console.dump([{"path": str(path), "share": shares} for path, shares in found.items()])
        return
    some = [[f"{name} {100 * share:.0f}" for name, share in list(shares.items())[:SHOWN]] for shares in found.values()]
    rows = zip((path.name for path in found), map(", ".join, some), strict=True)
    console.show(console.table(None, ("~picture", "~classes, percent of the pixels"), rows), f"Maps: {out}")


def _require_room(paths: list[Path], out: Path) -> None:
    """UserError where a map would be written over a picture that is not a map of before."""
    for path in paths:
        shown = out / f"{path.stem}.png"
        if shown.is_file() and (not shown.with_suffix(".npy").is_file() or shown.resolve() == path.resolve()):
            raise UserError(f"{shown} would be lost: the map of {path.name} has its name. Give another --out.")


def _one(path: Path, out: Path, classifier: object, short: int | None) -> dict[str, float]:
    """Write one picture's two files; its classes' shares."""
    import io

    import numpy as np

    from vlprompt import disk
    from vlprompt.data.images import open_image
    from vlprompt.engine.dense import class_map, overlay, picture_logits, share_of
    from vlprompt.engine.evaluate import Classifier

    assert isinstance(classifier, Classifier)
    image = open_image(path)
    label_HW, _ = class_map(picture_logits(classifier, image, short=short), image.size)
    array, shown = io.BytesIO(), io.BytesIO()
    np.save(array, label_HW.astype(np.int32))
    overlay(image, label_HW, classifier.class_names).save(shown, "PNG")
    try:
        out.mkdir(parents=True, exist_ok=True)
        disk.write_bytes(out / f"{path.stem}.npy", array.getvalue())
        disk.write_bytes(out / f"{path.stem}.png", shown.getvalue())
    except OSError as problem:
        raise data_error(f"--out {out}: {problem.strerror}.") from problem
    return share_of(label_HW, classifier.class_names)
