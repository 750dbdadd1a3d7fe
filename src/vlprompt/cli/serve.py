"""`vlprompt serve`: a learned prompt over HTTP, with a page to try it on."""

from __future__ import annotations

from typing import Annotated

from vlprompt.cli import console, options
from vlprompt.cli.options import option
from vlprompt.errors import UserError

LOOPBACK = ("127.0.0.1", "localhost", "::1")


def serve(
    run: options.Run,
    host: Annotated[str, option("--host NAME", "Where to listen. Others may reach it then.")] = "127.0.0.1",
    port: Annotated[int, option("--port", "The port.", min=0, max=65535)] = 8000,
    max_mib: Annotated[int, option("--max-mib", "The largest request, in MiB.", min=1)] = 20,
    model: options.Backbone = None,
    device: options.Device = "auto",
) -> None:
    """Answer pictures over HTTP. Open the address in a browser to drop pictures. Ctrl-C stops it.

    Example: `vlprompt serve runs/mine`
    """
    try:
        import uvicorn

        from vlprompt.serve import Server, app_of
    except ImportError as error:
        raise UserError(f"serve needs {error.name}, which is not installed: pip install 'vlprompt[serve]'.") from None
    from vlprompt.classifier import PromptClassifier

    if host not in LOOPBACK:
        console.warn(f"--host {host}: everyone who can reach this machine can ask. There is no password.")
    server = Server(classifier=PromptClassifier.load(run, model=model, device=device), max_bytes=max_mib * 2**20)
    console.note(f"Open http://{host}:{port}/ in a browser. Ctrl-C stops.")
    uvicorn.run(app_of(server), host=host, port=port, log_level="warning")
