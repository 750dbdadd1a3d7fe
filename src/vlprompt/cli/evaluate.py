"""`vlprompt eval`: test a learned prompt on other images."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from vlprompt.cli import console, options
from vlprompt.cli.options import option
from vlprompt.cli.page import write_page
from vlprompt.cli.progress import observing
from vlprompt.cli.segment import Short
from vlprompt.errors import UserError

if TYPE_CHECKING:
    from vlprompt.records import Record

Data = Annotated[
    str | None, option("--data DIR|FILE|NAME", "Images of classes: a folder, a table, a known or embedded data set.")
]
Classes = Annotated[
    str,
    option("--classes own|learned", "Ask among the data set's classes, or among all that the prompt was learned on."),
]
Masks = Annotated[
    Path | None,
    option("--masks DIR", "Pictures with a class for every pixel: VOC, COCO-Stuff, ADE20K, or plain folders."),
]
Out = Annotated[Path | None, option("--out DIR", "Write records, predictions and a page there.", "nowhere")]


def eval(
    run: options.Run,
    data: Data = None,
    masks: Masks = None,
    short: Short = None,
    columns: options.Columns = None,
    class_names: options.ClassNames = None,
    model: options.Backbone = None,
    subset: options.SubsetOption = "all",
    classes: Classes = "own",
    template: options.Template = None,
    max_test: options.MaxTest = None,
    out: Out = None,
    all_answers: options.AllAnswers = False,
    device: options.Device = "auto",
    dtype: options.Precision = "float32",
    cache: options.Cache = None,
    strict: options.Strict = False,
    as_json: options.AsJson = False,
) -> None:
    """Test every seed of a run on the test images of a data set, and compare it with hand-written words.

    The classes are the data set's. The prompt may have been learned on other ones. With `--masks` the best seed is tested on every pixel.

    Example: `vlprompt eval runs/mine --data other_photos`
    """
    if (data is None) == (masks is None):
        raise UserError(
            "eval tests on images of classes or on pictures with masks: give --data DIR or --masks DIR, one of them."
        )
    if masks is not None:
        _on_masks(run, masks, model, short, device, out, as_json=as_json)
        return
    assert data is not None
    if all_answers and out is None:
        raise UserError("--predictions writes a file, so say where: --out DIR.")
    from vlprompt.engine.test import evaluate_run

    where = options.with_columns(data, columns, class_names)
    with observing() as observer:
        records = evaluate_run(
            run,
            where,
            model=model,
            subset=options.one_of("--subset", subset, options.SUBSETS),
            classes=options.one_of("--classes", classes, ("own", "learned")),
            template=template,
            max_test=max_test,
            device=device,
            dtype=dtype,
            cache=cache,
            strict=strict,
            out=out,
            observer=observer,
        )
    pages = [] if out is None else write_page(out, [one.seed for one in records], where, all_answers=all_answers)
    _show(records, pages, as_json=as_json)


def _show(records: list[Record], pages: Sequence[Path], *, as_json: bool) -> None:
    from vlprompt.report.judgement import judge
    from vlprompt.report.tables import accuracy, as_rich

    if as_json:
        options.dump_records(records)
        return
    console.show(as_rich(accuracy(records), console.width()), *judge(records).lines)
    if pages:
        console.commands("Look at:", map(str, pages))


def _on_masks(
    run: Path, masks: Path, model: str | None, short: int | None, device: str, out: Path | None, *, as_json: bool
) -> None:
    """Scores of class maps; written to DIR/masks.json where --out names one."""
    import json

    from vlprompt import disk
    from vlprompt.data.masks import open_masks
    from vlprompt.engine.dense import evaluate_masks
    from vlprompt.engine.precision import resolve_device

    place, masked = str(resolve_device(device)), open_masks(masks)
    with observing() as observer:
        scores = evaluate_masks(run, masked, clip=model, device=place, short=short, observer=observer)
    facts = {"masks": str(masks), "layout": masked.layout, "short": short, **scores.as_dict()}
    if out is not None:
        out.mkdir(parents=True, exist_ok=True)
        disk.write_text(out / "masks.json", json.dumps(facts, indent=1, ensure_ascii=False) + "\n")
    if as_json:
        console.dump(facts)
        return
    means = {
        **{"pixels right": scores.pixel_accuracy, "mIoU": scores.miou},
        **{"seen": scores.seen, "unseen": scores.unseen, "hIoU": scores.hiou},
    }
    known = {f">{name}": f"{value:.1f}" for name, value in means.items() if value is not None}
    console.show(console.table(f"{masks}: {scores.images} pictures, percent", list(known), [known.values()]))
