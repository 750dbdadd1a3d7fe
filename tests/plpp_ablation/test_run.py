"""The ablation end to end on a tiny folder: validation only, resumable, and measured as the loop measures."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from benchmarks.plpp_ablation import run as module
from benchmarks.plpp_ablation.records import read
from benchmarks.plpp_ablation.run import run_ablation
from benchmarks.plpp_ablation.sweep import ANCHOR, CENTRE, HOST, PULL, settings

from tests.images import write_squares
from vlprompt.errors import UserError

CLASSES = ("red", "green", "blue", "cat")


def make_folder(root: Path, *, val: bool = True, test: bool = True) -> Path:
    parts = {"train": 3, "val": 2 * val, "test": 2 * test}
    return write_squares(root, dict.fromkeys(CLASSES), parts, size=(32, 32))


@pytest.fixture
def few(monkeypatch: pytest.MonkeyPatch) -> None:
    """Three settings instead of the whole sweep."""

    def some(host: str, centre: dict[str, object]) -> tuple[object, ...]:
        sweep = settings(host, centre)
        return tuple(one for one in sweep if one.name in (HOST, CENTRE, "labels=permuted", PULL, ANCHOR))

    monkeypatch.setattr(module, "settings", some)


OVERRIDES = {"epochs": 2, "n_ctx": 2, "batch": 4, "plpp.k": 5, "plpp.balance": "off"}


def ablate(root: Path, out: Path, clip_dir: Path, **changes: object) -> list[module.AblationCell]:
    arguments = {"shots": 2, "overrides": OVERRIDES, "cache": out / "cache", "device": "cpu", **changes}
    return run_ablation([str(root)], str(clip_dir), [1, 2], out, **arguments)  # type: ignore[arg-type]


@pytest.mark.usefixtures("few")
def test_an_ablation_measures_every_cell_and_is_not_repeated(tmp_path: Path, clip_dir: Path) -> None:
    root, out = make_folder(tmp_path / "data"), tmp_path / "out"
    cells = ablate(root, out, clip_dir)
    assert [(c.setting, c.subset, c.seed) for c in cells] == [
        *((name, subset, seed) for name in (HOST, CENTRE) for subset in ("base", "all") for seed in (1, 2)),
        *(("labels=permuted", "base", seed) for seed in (1, 2)),
    ]
    for cell in cells:
        assert len(cell.by_epoch) == 2
        part = "base" if cell.subset == "base" else "all"
        assert cell.by_epoch[-1] == cell.accuracy[part]
        assert cell.num_val == ({"base": 4, "novel": 4} if part == "base" else {"all": 8})
        assert cell.accuracy.keys() == cell.zero_shot.keys() == cell.num_val.keys()
        assert set(cell.gradient_ratios) == (set() if cell.setting == HOST else {"plpp", "plpp-inverse"})
        assert cell.perplexity > 1
    assert [c.options["plpp.labels_seed"] for c in cells if c.factor == "control"] == [1, 2]
    assert "| plpp |" in (out / module.TABLE).read_text(encoding="utf-8")
    written = (out / "ablation.jsonl").read_bytes()
    assert ablate(root, out, clip_dir) == cells
    assert sorted(read(out), key=lambda one: one.key) == sorted(cells, key=lambda one: one.key)
    assert (out / "ablation.jsonl").read_bytes() == written
    (out / "ablation.jsonl").write_text(
        "".join(f"{line}\n" for line in written.decode().splitlines()[:-1]), encoding="utf-8"
    )
    # The last one is learned alone now, which is the same to 1e-6, not to the bit.
    again = ablate(root, out, clip_dir)
    assert [(c.key, c.accuracy, c.by_epoch) for c in again] == [(c.key, c.accuracy, c.by_epoch) for c in cells]


@pytest.mark.usefixtures("few")
def test_rivals_pull_as_hard_as_the_balance_says(tmp_path: Path, clip_dir: Path) -> None:
    root, out = make_folder(tmp_path / "data"), tmp_path / "out"
    cells = ablate(root, out, clip_dir, overrides={**OVERRIDES, "epochs": 1, "plpp.balance": 0.5})
    rivals = [cell for cell in cells if cell.factor == "rival"]
    assert [(cell.setting, cell.method) for cell in rivals] == [
        *((PULL, "coop") for _ in (1, 2)),
        *((ANCHOR, "coop") for _ in (1, 2)),
    ]
    assert all(cell.gradient_ratios.keys() == {"rival"} for cell in rivals)
    assert {cell.gradient_ratios["rival"] for cell in rivals if cell.setting == PULL} == {
        0.0
    }  # at the start there is no distance
    assert all(cell.gradient_ratios["rival"] > 0 for cell in rivals if cell.setting == ANCHOR)
    assert f"| {PULL} |" in (out / module.TABLE).read_text(encoding="utf-8")


@pytest.mark.usefixtures("few")
def test_test_images_play_no_part(tmp_path: Path, clip_dir: Path) -> None:
    with_test, without = make_folder(tmp_path / "a" / "data"), make_folder(tmp_path / "b" / "data", test=False)
    for name in CLASSES:
        for path in (with_test / "test" / name).iterdir():
            path.write_bytes(b"unreadable")
    one, two = ablate(with_test, tmp_path / "o1", clip_dir), ablate(without, tmp_path / "o2", clip_dir)
    assert [replace(c, seconds=0) for c in one] == [replace(c, seconds=0) for c in two]


@pytest.mark.usefixtures("few")
def test_another_option_is_another_cell(tmp_path: Path, clip_dir: Path) -> None:
    root, out = make_folder(tmp_path / "data"), tmp_path / "out"
    ablate(root, out, clip_dir)
    ablate(root, out, clip_dir, overrides={**OVERRIDES, "epochs": 1})
    assert len(read(out)) == 20


@pytest.mark.usefixtures("few")
def test_a_set_without_validation_images_is_refused(tmp_path: Path, clip_dir: Path) -> None:
    root = make_folder(tmp_path / "data", val=False)
    with pytest.raises(UserError, match="no validation images"):
        ablate(root, tmp_path / "out", clip_dir)


def test_class_specific_contexts_are_refused(tmp_path: Path, clip_dir: Path) -> None:
    with pytest.raises(UserError, match="per_class=false"):
        ablate(tmp_path, tmp_path / "out", clip_dir, overrides={"per_class": True})


def test_a_set_named_twice_is_refused(tmp_path: Path, clip_dir: Path) -> None:
    with pytest.raises(UserError, match="named twice"):
        run_ablation(["a", "a"], str(clip_dir), [1], tmp_path / "out")


def test_only_the_settings_asked_for(tmp_path: Path, clip_dir: Path) -> None:
    root, out = make_folder(tmp_path / "data"), tmp_path / "out"
    overrides = {**OVERRIDES, "epochs": 1}
    cells = ablate(root, out, clip_dir, overrides=overrides, only=["labels=random"])
    assert {cell.setting for cell in cells} == {HOST, "labels=random"}
    with pytest.raises(UserError, match=r"labels=randm.*labels=random"):
        ablate(root, out, clip_dir, overrides=overrides, only=["labels=randm"])


@pytest.mark.usefixtures("few")
def test_a_trial_that_fails_does_not_stop_the_others(
    tmp_path: Path, clip_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    root, out = make_folder(tmp_path / "data"), tmp_path / "out"
    learn_all = module.learn_all

    def fails(work: list[module.Work], means: object) -> list[object]:
        done = learn_all(work, means)  # type: ignore[arg-type]
        return [
            UserError("not finite") if "plpp.k" in one.job.method.options else d
            for one, d in zip(work, done, strict=True)
        ]

    monkeypatch.setattr(module, "learn_all", fails)
    with pytest.raises(UserError, match=r"6 of 10 trials could not be learned.*plpp on data, seed 1: not finite"):
        ablate(root, out, clip_dir, overrides={**OVERRIDES, "epochs": 1})
    assert {cell.setting for cell in read(out)} == {HOST}
    assert "| host |" in (out / module.TABLE).read_text(encoding="utf-8")
