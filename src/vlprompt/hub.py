"""Learned prompts on the Hub: a few kilobytes and a card, put there and fetched with huggingface_hub.

It obeys HF_ENDPOINT, HF_HOME, HF_TOKEN and HF_HUB_OFFLINE.
"""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NoReturn

from vlprompt import artifact
from vlprompt.errors import UserError, data_error, reason_of

FILES = (artifact.FACTS, artifact.TENSORS, artifact.CARD)


def is_id(name: str | Path) -> bool:
    """Whether a name can only be a Hub id: `owner/name`, where nothing of that name is on the disk."""
    text = str(name)
    return (
        text.count("/") == 1
        and not text.startswith((".", "/", "~"))
        and text.split("/")[1] != ""
        and not Path(text).exists()
    )


def located(name: str | Path) -> Path:
    """The directory of a run or a prompt: on the disk, or the Hub's cached copy."""
    return pull(str(name)) if is_id(name) else Path(name).expanduser()


def pull(repo_id: str, to: Path | None = None) -> Path:
    """Fetch a prompt: into the Hub's cache, or copied to a directory. UserError (exit 3): no such id, no network, no prompt in it."""
    os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")
    from huggingface_hub import snapshot_download

    if Path(repo_id).parts[:1] == ("runs",):  # a run that is not there is not looked for on the Hub
        raise data_error(f"there is no directory {repo_id}. Learn a prompt with vlprompt train.")
    try:
        found = Path(snapshot_download(repo_id, allow_patterns=list(FILES)))
    except Exception as error:  # the HTTP library, and so its errors, differs between versions of huggingface_hub
        _refuse(f"{repo_id} is not a directory here, and it cannot be fetched from the Hub", error)
    artifact.read_facts(found)
    if to is None:
        return found
    if to.exists() and any(to.iterdir()):
        raise UserError(f"{to} is not empty. Choose another --out.")
    to.mkdir(parents=True, exist_ok=True)
    for name in FILES:
        if (found / name).is_file():
            shutil.copyfile(found / name, to / name)
    return to


def push(run: Path, repo_id: str, *, private: bool = False, licence: str = "") -> str:
    """Put a prompt (of a run: the best seed) on the Hub with a card; returns the address of its page.

    The card has metrics, data, licence and usage. Pictures and answers stay here. UserError (exit 3): not logged in, no network.
    """
    os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")
    from huggingface_hub import HfApi

    if repo_id.count("/") != 1:
        raise UserError(f"{repo_id!r} is not a Hub id. Give owner/name, for example alice/my-birds.")
    place = artifact.pick(run).directory
    facts = artifact.read_facts(place)
    api = HfApi()
    with tempfile.TemporaryDirectory() as held:
        for name in FILES[:2]:
            if (place / name).is_file():
                shutil.copyfile(place / name, Path(held) / name)
        (Path(held) / artifact.CARD).write_text(card(place, facts, repo_id, licence), encoding="utf-8")
        try:
            api.create_repo(repo_id, private=private, exist_ok=True)
            api.upload_folder(
                repo_id=repo_id, folder_path=held, commit_message=f"Prompt learned with {facts['method']}"
            )
        except Exception as error:
            _refuse(f"cannot put the prompt on the Hub as {repo_id}", error)
    return f"{api.endpoint}/{repo_id}"


def card(place: Path, facts: Mapping[str, Any], repo_id: str, licence: str) -> str:
    """The card that `save` wrote, with the Hub's metadata before it and the Hub's usage in it."""
    from huggingface_hub import EvalResult, ModelCardData

    data = str(facts.get("dataset") or "images in memory")
    results = [
        EvalResult(
            task_type="image-classification",
            dataset_type=data,
            dataset_name=data,
            metric_type="accuracy",
            metric_name=name.replace("_", " "),
            metric_value=round(value / 100, 4),
        )
        for name, value in dict(facts.get("metrics") or {}).items()
        if value is not None and "top1" in name
    ]
    model = str(facts["model"])
    about = ModelCardData(
        library_name="vlprompt",
        pipeline_tag="image-classification",
        tags=["prompt-learning", "clip", str(facts["method"])],
        license=licence or None,
        base_model=model if is_id(model) else None,
        eval_results=results or None,
        model_name=repo_id if results else None,
    )
    text = (place / artifact.CARD).read_text(encoding="utf-8") if (place / artifact.CARD).is_file() else ""
    text = text.replace(
        'PromptClassifier.load("path/to/this/directory")', f'PromptClassifier.from_pretrained("{repo_id}")'
    )
    terms = licence or "not stated. Ask the owner before you use it. The model named above has its own licence"
    return f"---\n{about.to_yaml()}\n---\n\n{text}\nCommand line: `vlprompt predict {repo_id} picture.jpg`\n\n## Licence\n\n{terms}.\n"


def _refuse(what: str, error: Exception) -> NoReturn:
    hint = "Check the id and the network; a private or gated one needs `hf auth login`."
    if os.environ.get("HF_HUB_OFFLINE", "").upper() in ("1", "TRUE", "YES", "ON"):
        hint = "HF_HUB_OFFLINE is set: unset it to go online."
    raise data_error(f"{what}: {reason_of(error)}. {hint}") from error
