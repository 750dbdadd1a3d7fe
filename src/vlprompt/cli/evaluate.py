"""`vlprompt eval`: test a learned prompt on other images."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from vlprompt.cli import console, options
from vlprompt.cli.page import write_page
from vlprompt.cli.progress import observing
from vlprompt.errors import UserError


def evaluate(
    run: options.Run,
    data: options.Data,
    columns: options.Columns = None,
    model: options.Backbone = None,
    subset: options.SubsetOption = "all",
    template: options.Template = None,
    out: Annotated[
        Path | None,
        typer.Option(
            "--out", metavar="DIR", help="Write records, predictions and a page there.", show_default="nowhere"
        ),
    ] = None,
    all_answers: options.AllAnswers = False,
    device: options.Device = "auto",
    dtype: options.Precision = "float32",
    cache: options.Cache = None,
    strict: options.Strict = False,
    as_json: options.AsJson = False,
) -> None:
    """Test every seed of a run on the test images of a data set, and compare it with hand-written words.

    The classes are the data set's. The prompt may have been learned on other ones.

    Example: `vlprompt eval runs/mine --data other_photos`
    """
    from vlprompt.engine.test import evaluate_run
    from vlprompt.report.judgement import judge, lines
    from vlprompt.report.tables import accuracy, as_rich

    where = options.with_columns(data, columns)
    if all_answers and out is None:
        raise UserError("--predictions writes a file, so say where: --out DIR.")
    with observing() as observer:
        records = evaluate_run(
            run,
            where,
            model=model,
            subset=options.one_of("--subset", subset, options.SUBSETS),
            template=template,
            device=device,
            dtype=dtype,
            cache=cache,
            strict=strict,
            out=out,
            observer=observer,
        )
    pages = [] if out is None else write_page(out, [one.seed for one in records], where, all_answers=all_answers)
    if as_json:
        options.dump_records(records)
        return
    console.show(as_rich(accuracy(records), console.width()), *lines(judge(records)))
    if pages:
        console.commands("Look at:", map(str, pages))
