"""`vlprompt eval`: test a learned prompt on other images."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from vlprompt.cli import console, options
from vlprompt.cli.progress import observing


def evaluate(
    run: options.Run,
    data: options.Data,
    columns: options.Columns = None,
    model: options.Backbone = None,
    subset: options.SubsetOption = "all",
    template: options.Template = None,
    out: Annotated[
        Path | None,
        typer.Option("--out", metavar="DIR", help="Write records and predictions there.", show_default="nowhere"),
    ] = None,
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

    with observing() as observer:
        records = evaluate_run(
            run,
            options.with_columns(data, columns),
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
    if as_json:
        options.dump_records(records)
        return
    console.show(as_rich(accuracy(records), console.width()), *lines(judge(records)))
