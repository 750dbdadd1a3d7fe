"""A tiny CLIP and a small folder in the ImageNet-21K layout, one image of it damaged."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests import tiny
from tests.pretrain.made import write_imagenet

DAMAGED = "imagenet21k_train/n00000004/n00000004_2.png"


@pytest.fixture(scope="session")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """30 training images of 6 classes, of which one does not decode; read it, never write into it."""
    place = tmp_path_factory.mktemp("pretrain")
    write_imagenet(place / "data")
    (place / "data" / DAMAGED).write_bytes(b"no image")
    tiny.clip_dir(place / "clip")
    other = {"image_size": 48, "image_width": 96, "text_width": 32, "image_layers": 4, "embed_dim": 24}
    tiny.clip_dir(place / "teacher", seed=5, heads=4, **other)
    return place
