"""A Hub id -> a directory: the small files first, then the one weight file that their layout needs.

huggingface_hub does the work: it shows progress on stderr, keeps its cache under HF_HOME, and obeys HF_HUB_OFFLINE and HF_TOKEN.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from pathlib import Path

from vlprompt.errors import data_error, reason_of
from vlprompt.towers.formats import huggingface, openclip

_SMALL = (*huggingface.SMALL, openclip.CONFIG)


def download(model: str) -> Path:
    """Fetch a Hub id's files, or take them from the Hub's cache. UserError: no such id, no network, no CLIP weights."""
    folder = _fetch(model, _SMALL)
    for names in _weights(folder):
        folder = _fetch(model, names)
        if all((folder / name).is_file() for name in names):
            return folder
    raise data_error(
        f"the Hub's {model!r} (in {folder}) has no weights that can be read. Allowed: {' or '.join(huggingface.WEIGHTS)} next to a "
        f"CLIPModel's config.json, or {' or '.join(openclip.WEIGHTS)} next to {openclip.CONFIG}. Go online once if the cached copy is "
        f"incomplete, else choose another model."
    )


def _weights(folder: Path) -> Iterator[Sequence[str]]:
    """Sets of weight files, the most wanted first: what the descriptions in the folder make possible."""
    if huggingface.describes_clip(folder):
        for whole, index in huggingface.WEIGHTS.items():
            yield (whole,)
            if (folder / index).is_file():
                yield huggingface.shard_names(folder, index)
    if (folder / openclip.CONFIG).is_file():
        yield from ((name,) for name in openclip.WEIGHTS)


def _fetch(model: str, names: Sequence[str]) -> Path:
    os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import GatedRepoError, HFValidationError, RepositoryNotFoundError

    try:
        return Path(snapshot_download(model, allow_patterns=list(names)))
    except Exception as error:  # the HTTP library, and so its errors, differs between versions of huggingface_hub
        reasons = {
            GatedRepoError: f"the Hub gives {model!r} only to those who accepted its terms. Accept them on the model's page, then log in "
            "with `hf auth login`.",
            RepositoryNotFoundError: f"the Hub has no model {model!r}, or it is private. Check the id (owner/name), or log in with "
            "`hf auth login`.",
            HFValidationError: f"{model!r} is neither a Hub id (owner/name) nor a directory: {error}.",
            Exception: f"cannot fetch {model!r} from the Hub, and it is not in the local cache: {reason_of(error)}. Go online once, or "
            f"copy {', '.join(huggingface.FILES)} into a directory and give its path.",
        }
        raise data_error(next(said for kind, said in reasons.items() if isinstance(error, kind))) from error
