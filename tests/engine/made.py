"""Images, lessons and configurations for the engine's tests."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from torch import nn

from tests.images import write_squares
from vlprompt.data import FeatureStore, Sample, open_dataset
from vlprompt.engine.config import RunConfig
from vlprompt.engine.images import Images
from vlprompt.engine.learn import learn_all
from vlprompt.engine.observer import SILENT, Observer
from vlprompt.engine.train import Lesson, Task
from vlprompt.errors import UserError
from vlprompt.methods.resolve import resolve
from vlprompt.towers import Clip
from vlprompt.types import Method

COLOURS = {"blue bird": (40, 40, 200), "cat": (200, 40, 40), "dog": (40, 200, 40)}
PARTS = {"train": 6, "val": 2, "test": 4}


def write_images(root: Path, *, parts: Mapping[str, int] = PARTS, seed: int = 0) -> Path:
    """Noisy squares in the colour of their class, in a folder of class folders."""
    return write_squares(root, COLOURS, parts, seed=seed)


def method(name: str = "coop", **options: object) -> Method:
    """A method with few, small steps."""
    return resolve(name, {"n_ctx": 4, "epochs": 5, "batch": 8, "lr": 0.005, **options})


def lesson(folder: Path, *, seed: int = 1, views: Any = 2) -> Lesson:
    """All training images of a folder."""
    data = open_dataset(folder)
    return Lesson(samples=data.train, class_names=data.class_names, template="a photo of a {}.", seed=seed, views=views)


def taught(
    clip: Clip,
    method: Method,
    lesson: Lesson,
    val: Sequence[Sample],
    images: Images,
    observer: Observer = SILENT,
    **more: Any,
) -> nn.Module:
    """One prompt, learned as a job learns it."""
    (prompt,) = learn_all(clip, [Task(method=method, feed=lesson, val=val, **more)], images, observer)
    if isinstance(prompt, UserError):
        raise prompt
    return prompt


def images(clip: Clip) -> Images:
    """With a cache in memory."""
    return Images(clip, FeatureStore(None))


def config(clip_dir: Path, folder: Path, out: Path, **changes: Any) -> RunConfig:
    """A run of some milliseconds."""
    changed = {"n_ctx": 4, "epochs": 4, "batch": 8, "lr": 0.005, **changes.pop("overrides", {})}
    base: dict[str, Any] = {
        "method": "coop",
        "model": str(clip_dir),
        "data": str(folder),
        "out": out,
        "shots": 4,
        "views": 2,
        "cache": folder.parent / "cache",
        "device": "cpu",
        "curve": False,
    }
    return RunConfig(**{**base, "overrides": changed, **changes})
