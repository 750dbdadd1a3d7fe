"""Which methods work on which model: what the table says is what happens."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests import siglip
from tests.cli.conftest import Vlprompt
from vlprompt.describe import measure_reach, obstacle
from vlprompt.errors import UserError
from vlprompt.methods.resolve import every, resolve
from vlprompt.towers import Clip, load
from vlprompt.types import Steps

pytest.importorskip("transformers")


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Clip:
    return load(siglip.siglip_dir(tmp_path_factory.mktemp("fits") / "model")[0])


@pytest.mark.parametrize("name", every())
def test_a_method_learns_where_nothing_stands_in_its_way(clip: Clip, name: str) -> None:
    method = resolve(name, facts=clip.facts)
    reason = obstacle(name, clip)
    assert bool(reason) == name.startswith("plpp+")
    if not isinstance(method.learner, Steps):
        return
    if reason:
        with pytest.raises(UserError, match="no causal mask"):
            measure_reach(method, clip)
    else:
        reached = measure_reach(method, clip)[0]
        fixed = {"tip-adapter-f": set(reached), "promptkd": {"mean", "variance"}}.get(
            name.removeprefix("described+"), set()
        )  # its cache is empty yet
        assert all(any(any(rows) for rows in terms.values()) for one, terms in reached.items() if one not in fixed)


def test_the_command_prints_the_table(vlprompt: Vlprompt, tmp_path: Path) -> None:
    path, _ = siglip.siglip_dir(tmp_path / "model")
    rows = {row["name"]: row for row in json.loads(vlprompt("methods", "--model", path, "--json").out)}
    assert rows["maple"] == {"name": "maple", "fits": True, "reason": ""}
    assert "language model" in rows["plpp+coop"]["reason"]
    assert "language model" in vlprompt("methods", "--model", path).out


def test_a_prompt_of_a_tower_without_a_mask_is_learned_and_explained(
    vlprompt: Vlprompt, photos: Path, tmp_path: Path
) -> None:
    path, _ = siglip.siglip_dir(tmp_path / "model")
    options = [
        "--method",
        "coop",
        "--shots",
        1,
        "--set",
        "n_ctx=2",
        "--set",
        "epochs=1",
        "--views",
        1,
        "--device",
        "cpu",
    ]
    done = vlprompt("train", "--data", photos, "--model", path, *options, "--out", tmp_path / "run")
    assert done.code == 0, done.err
    done = vlprompt("explain", tmp_path / "run")
    assert done.code == 0, done.err
    assert "text tower predicts no words" in " ".join(done.out.split())  # a line may be broken there
