"""`vlprompt push` and `vlprompt pull`: learned prompts on the Hub."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from vlprompt.cli import console, options
from vlprompt.cli.options import argument, option


def push(
    run: options.Run,
    repo_id: Annotated[str, argument("ID", "Where to, as owner/name.")],
    licence: Annotated[str, option("--licence NAME", "For example mit. It stands on the card.", "not stated")] = "",
    private: Annotated[bool, option("--private", "Only you can see it.")] = False,
) -> None:
    """Put a learned prompt on the Hub, with a card: metrics, data, licence, usage. No picture leaves this machine.

    Log in once with `hf auth login`.

    Example: `vlprompt push runs/mine alice/my-birds --licence mit`
    """
    from vlprompt.hub import push as put

    console.show(put(run, repo_id, private=private, licence=licence))
    console.commands("Anyone can now type:", [f"vlprompt predict {repo_id} PICTURE.jpg"])


def pull(
    repo_id: Annotated[str, argument("ID", "A prompt on the Hub, as owner/name.")],
    out: Annotated[Path | None, option("--out DIR", "Where to.", "the name, in this folder")] = None,
) -> None:
    """Fetch a learned prompt from the Hub into a folder. `predict` takes the id too.

    Example: `vlprompt pull alice/my-birds --out my-birds`
    """
    from vlprompt.hub import pull as fetch

    place = fetch(repo_id, out or Path(repo_id.rpartition("/")[2]))
    console.show(f"{place}")
    console.commands("Next:", [f"vlprompt predict {place} PICTURE.jpg"])
