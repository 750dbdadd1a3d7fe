"""`vlprompt serve` and `vlprompt demo`: a learned prompt over HTTP, with a page to try it on."""

from __future__ import annotations

import socket
import webbrowser
from typing import Annotated

from vlprompt.cli import console, options
from vlprompt.cli.options import option
from vlprompt.errors import UserError

LOOPBACK = ("127.0.0.1", "localhost", "::1")
EVERYONE = ("0.0.0.0", "::")
Host = Annotated[str, option("--host NAME", "Where to listen. Others may reach it then.")]
Port = Annotated[int, option("--port", "The port; 0: a free one.", min=0, max=65535)]
Most = Annotated[int, option("--max-mib", "The largest request, in MiB.", min=1)]
MostPixels = Annotated[int, option("--max-megapixels", "The largest picture, in millions of pixels.", min=1)]


def serve(
    run: options.Run,
    host: Host = "127.0.0.1",
    port: Port = 8000,
    max_mib: Most = 20,
    max_megapixels: MostPixels = 50,
    model: options.Backbone = None,
    device: options.Device = "auto",
) -> None:
    """Answer pictures over HTTP, and show a page to drop pictures on. Ctrl-C stops it.

    Example: `vlprompt serve runs/mine`
    """
    demo(run, False, host, port, max_mib, max_megapixels, model, device)


def demo(
    run: options.Run,
    opens: Annotated[bool, option("--open/--no-open", "Open the page in your browser.")] = True,
    host: Host = "127.0.0.1",
    port: Port = 0,
    max_mib: Most = 20,
    max_megapixels: MostPixels = 50,
    model: options.Backbone = None,
    device: options.Device = "auto",
) -> None:
    """Try a learned prompt in your browser: drop pictures, change the classes, see where the model looks. Ctrl-C stops it.

    Example: `vlprompt demo runs/mine`
    """
    try:
        import uvicorn

        from vlprompt.serve import Server, app_of
    except ImportError as error:
        raise UserError(f"this needs {error.name}, which is not installed: pip install 'vlprompt[serve]'.") from None
    from vlprompt.classifier import PromptClassifier
    from vlprompt.engine.several import require_one_label

    if host not in LOOPBACK:
        console.warn(f"--host {host}: everyone who can reach this machine can ask. There is no password.")
    with _listening(host, port) as listener:
        classifier = PromptClassifier.load(run, model=model, device=device)
        require_one_label(classifier.learned, "this page")
        server = Server(classifier=classifier, max_bytes=max_mib * 2**20, max_pixels=max_megapixels * 1_000_000)
        shown = f"[{host}]" if ":" in host else host
        address = f"http://{'localhost' if host in EVERYONE else shown}:{listener.getsockname()[1]}/"
        console.note(f"Open {address} in a browser. Ctrl-C stops.")
        if opens and not webbrowser.open(address):
            console.note("No browser could be opened here.")
        config = uvicorn.Config(app_of(server), log_level="warning", timeout_graceful_shutdown=5)
        uvicorn.Server(config).run(sockets=[listener])


def _listening(host: str, port: int) -> socket.socket:
    """The socket, which holds the port before the model is loaded. UserError: it cannot be had."""
    try:
        family, *_, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)[0]
        return socket.create_server(address[:2], family=family, backlog=128)
    except (OSError, UnicodeError) as problem:
        said = str(getattr(problem, "strerror", None) or problem).partition(" (while")[0]
        raise UserError(
            f"cannot listen at --host {host} --port {port}: {said}. Give another port, or --port 0 for a free one."
        ) from None
