"""`--ray`: what it takes, what is said where there is no cluster, and a grid through it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.cli.conftest import Vlprompt
from vlprompt.bench.cluster import Cluster
from vlprompt.cli import clusters
from vlprompt.errors import UserError

QUICK = ("--set", "epochs=2", "--set", "n_ctx=3", "--shots", "1,2", "--views", "1", "--device", "cpu")


@pytest.mark.parametrize(
    ("text", "cluster"),
    [
        ("local", Cluster(address="local", workers=3)),
        ("auto,cpus=4,gpus=0.5", Cluster(address="auto", workers=3, cpus=4, gpus=0.5)),
        ("ray://head:10001,gpus=0", Cluster(address="ray://head:10001", workers=3, gpus=0.0)),
    ],
)
def test_what_is_understood(text: str, cluster: Cluster) -> None:
    assert clusters.parse(text, 3) == cluster


@pytest.mark.parametrize(
    "text", ["", ",cpus=2", "auto,cpus=0", "auto,cpus=1.5", "auto,gpus=-1", "auto,memory=3", "auto,cpus"]
)
def test_what_is_not(text: str) -> None:
    with pytest.raises(UserError, match="Write for example --ray auto"):
        clusters.parse(text, 1)


def test_without_the_extra(vlprompt: Vlprompt, clip_dir: Path, photos: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import sys

    monkeypatch.setitem(sys.modules, "ray", None)
    row = ("bench", "few-shot", "--data", photos, "--model", clip_dir, "--methods", "coop", "--seeds", "1", *QUICK)
    done = vlprompt(*row, "--out", "grid", "--ray", "local")
    assert done.code == 3
    assert "vlprompt[scale]" in done.err


@pytest.mark.slow
def test_a_grid_and_a_cluster_that_is_not_there(vlprompt: Vlprompt, clip_dir: Path, photos: Path) -> None:
    pytest.importorskip("ray", reason="needs the extra scale")
    row = (
        "bench",
        "few-shot",
        "--data",
        photos,
        "--model",
        clip_dir,
        "--methods",
        "zero-shot,coop",
        "--seeds",
        "1",
        *QUICK,
    )
    gone = vlprompt(*row, "--out", "grid", "--ray", "auto")
    assert gone.code == 3
    assert "no Ray cluster at 'auto'" in gone.err
    assert "ray start --head" in gone.err
    done = vlprompt(*row, "--out", "grid", "--ray", "local", "--jobs", "2", "--json")
    assert done.code == 0, done.err
    assert "3 of 3 cells are finished in grid" in done.err
    plain = vlprompt(*row, "--out", "plain", "--json")
    assert [one["top1"] for one in json.loads(done.out)] == [one["top1"] for one in json.loads(plain.out)]
