"""The way of a user: train, predict, eval, explain; and what the other commands print."""

from __future__ import annotations

import dataclasses
import inspect
import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from PIL import Image

from tests.cli.conftest import COLORS, Vlprompt, train_arguments, write_photos
from tests.report.made import record
from vlprompt import __version__, cli, pocket
from vlprompt.cli import models, train
from vlprompt.cli.methods import listed
from vlprompt.cli.options import parse_seeds
from vlprompt.engine.config import RunConfig
from vlprompt.errors import UserError
from vlprompt.methods.resolve import resolve
from vlprompt.types import Steps


def test_train_shows_the_learned_beside_zero_shot_and_what_to_do_next(
    vlprompt: Vlprompt, clip_dir: Path, photos: Path
) -> None:
    done = vlprompt(*train_arguments(clip_dir, photos), "--seeds", "1,2", "--out", "run")
    assert done.code == 0, done.err
    header = next(line for line in done.out.splitlines() if "zero-shot" in line and "learned" in line)
    assert header.index("zero-shot") < header.rindex("learned")
    assert "plpp+coop" in done.out
    assert "+-" in done.out
    assert "chance 33.3" in done.out
    assert "Cannot tell" in done.out, "six test images, and a random model"
    assert "--shots all --folds 5" in done.out.split("Next:")[1], "what follows from that"
    assert "seed 2: learning: 2/2" in done.err
    assert Path("run/seed2/result.json").is_file()


def test_train_json_is_the_records_and_nothing_else(vlprompt: Vlprompt, clip_dir: Path, photos: Path) -> None:
    done = vlprompt(*train_arguments(clip_dir, photos), "--out", "run", "--json")
    assert done.code == 0, done.err
    (record,) = json.loads(done.out)
    assert record == json.loads(Path("run/seed1/result.json").read_text(encoding="utf-8"))
    assert (record["method"], record["shots"], record["epochs"]) == ("plpp+coop", 2, 2)
    assert record["options"]["n_ctx"] == 3


def test_a_memory_limit_gives_the_same_prompt(vlprompt: Vlprompt, clip_dir: Path, photos: Path) -> None:
    whole = vlprompt(*train_arguments(clip_dir, photos), "--out", "whole", "--json")
    bounded = vlprompt(*train_arguments(clip_dir, photos), "--out", "bounded", "--json", "--max-memory", "4G")
    assert (whole.code, bounded.code) == (0, 0), bounded.err
    assert json.loads(whole.out)[0]["top1"] == json.loads(bounded.out)[0]["top1"]


def test_where_a_run_goes_by_default(vlprompt: Vlprompt, clip_dir: Path, photos: Path) -> None:
    done = vlprompt(*train_arguments(clip_dir, photos))
    assert done.code == 0, done.err
    assert Path("runs/plpp+coop-photos/seed1/result.json").is_file()


def test_defaults_that_are_the_pockets_are_said(vlprompt: Vlprompt, clip_dir: Path, photos: Path) -> None:
    Path("taken").write_text("a file where the run should go", encoding="utf-8")
    done = vlprompt("train", "--out", "taken")
    assert done.code == 2
    assert "embedded images 'emoji-symbols'" in done.err
    assert "embedded model 'pocket-s'" in done.err
    assert "embedded" not in vlprompt("train", "--out", "taken", "--data", photos, "--model", clip_dir).err


def test_zero_shot_needs_no_steps_and_says_which_settings_it_ignores(
    vlprompt: Vlprompt, clip_dir: Path, photos: Path
) -> None:
    done = vlprompt(
        "train", "--method", "zero-shot", "--data", photos, "--model", clip_dir, "--set", "epochs=3", "--json"
    )
    assert done.code == 0, done.err
    (record,) = json.loads(done.out)
    assert record["top1"] == record["zero_shot_top1"]
    assert record["epochs"] == 0
    assert "epochs is ignored" in done.err


def test_resume_reads_back_what_is_finished(vlprompt: Vlprompt, clip_dir: Path, photos: Path) -> None:
    command = [*train_arguments(clip_dir, photos), "--out", "run", "--json"]
    first = vlprompt(*command)
    again = vlprompt(*command, "--resume")
    assert (first.code, again.code) == (0, 0), again.err
    assert json.loads(first.out) == json.loads(again.out)
    assert "learning" in first.err
    assert "learning" not in again.err


def test_predict_json_lists_path_class_probability_and_top(vlprompt: Vlprompt, trained: Path, photos: Path) -> None:
    image = photos / "red" / "0.png"
    done = vlprompt("predict", trained, image, "--json", "--top", 2)
    assert done.code == 0, done.err
    (answer,) = json.loads(done.out)
    assert list(answer) == ["path", "class", "probability", "top"]
    assert answer["path"] == str(image)
    assert [list(one) for one in answer["top"]] == [["class", "probability"]] * 2
    assert answer["top"][0] == {"class": answer["class"], "probability": answer["probability"]}
    assert answer["top"][0]["probability"] >= answer["top"][1]["probability"]
    assert answer["class"] in {name.replace("_", " ") for name in COLORS}


def test_predict_takes_folders_and_other_classes(vlprompt: Vlprompt, trained: Path, photos: Path) -> None:
    done = vlprompt("predict", trained, photos / "red", photos / "green" / "1.png", "--classes", "cat, dog", "--json")
    assert done.code == 0, done.err
    answers = json.loads(done.out)
    assert [Path(one["path"]).name for one in answers] == [f"{n}.png" for n in range(8)] + ["1.png"]
    for answer in answers:
        assert {one["class"] for one in answer["top"]} == {"cat", "dog"}
        assert sum(one["probability"] for one in answer["top"]) == pytest.approx(1, abs=1e-5)


def test_predict_says_which_seed_and_why(vlprompt: Vlprompt, trained: Path, photos: Path) -> None:
    done = vlprompt("predict", trained, photos / "red" / "0.png")
    assert "of 2, the best on validation images" in done.err
    done = vlprompt("predict", trained / "seed2", photos / "red" / "0.png")
    assert done.code == 0
    assert "of 2" not in done.err


def test_predict_agrees_with_the_predictions_of_the_run(
    vlprompt: Vlprompt, clip_dir: Path, photos: Path, tmp_path: Path
) -> None:
    """The command sees a test image as the run's own test did."""
    for part, numbers in (("train", range(4)), ("test", range(4, 8))):
        for name in COLORS:
            (tmp_path / "split" / part / name).mkdir(parents=True)
            for number in numbers:
                shutil.copy(photos / name / f"{number}.png", tmp_path / "split" / part / name)
    done = vlprompt(*train_arguments(clip_dir, tmp_path / "split"), "--out", "run", "--json")
    (record,) = json.loads(done.out)
    answers = json.loads(vlprompt("predict", "run", tmp_path / "split" / "test", "--json").out)
    right = [answer["class"] == Path(answer["path"]).parent.name.replace("_", " ") for answer in answers]
    assert len(right) == record["num_test"] == 12
    assert 100 * sum(right) / len(right) == pytest.approx(record["top1"])


def test_eval_tests_every_seed_on_other_images(vlprompt: Vlprompt, trained: Path, tmp_path: Path) -> None:
    own_photos = write_photos(tmp_path / "photos", seed=1)
    (own_photos / "red").rename(own_photos / "truck")
    done = vlprompt("eval", trained, "--data", own_photos, "--json")
    assert done.code == 0, done.err
    records = json.loads(done.out)
    assert [record["seed"] for record in records] == [1, 2]
    assert all(set(record["per_class"]) == {"blue bird", "green", "truck"} for record in records)
    assert "plpp+coop" in vlprompt("eval", trained, "--data", own_photos).out


def test_explain_shows_tensors_words_and_perplexity(vlprompt: Vlprompt, trained: Path) -> None:
    done = vlprompt("explain", trained)
    assert done.code == 0, done.err
    for text in ("ctx", "3 x 64", "192", "before the class name", "a random vector", "perplexity", "before learning"):
        assert text in done.out
    facts = json.loads(vlprompt("explain", trained, "--json", "--top", 4).out)
    assert facts["tensors"][0]["shape"] == [3, 64]
    assert all(line.split(".")[0] in " ".join(done.out.split()) for line in facts["conclusion"])
    assert "What follows" in done.out
    assert len(facts["alike"]["pairs"]) == 3
    assert facts["alike"]["pairs"][0][3] == max(pair[3] for pair in facts["alike"]["pairs"])
    words = facts["words"]
    assert [len(one["words"]) for one in words["by_cosine"]] == [4, 4, 4]
    for one in words["by_cosine"]:
        assert one["cosine"] == sorted(one["cosine"], reverse=True)
    for one in words["by_distance"]:
        assert one["distance"] == sorted(one["distance"])
    assert words["perplexity"] >= 1


def test_explain_draws_where_it_looks(vlprompt: Vlprompt, trained: Path, photos: Path) -> None:
    picture = next(
        (photos / "test" / "green").iterdir() if (photos / "test").is_dir() else (photos / "green").iterdir()
    )
    done = vlprompt("explain", trained, "--image", picture, "--out", "looks.png", "--json")
    assert done.code == 0, done.err
    found = json.loads(done.out)
    with Image.open("looks.png") as drawing:
        assert drawing.width > 900
    (answer,) = json.loads(vlprompt("predict", trained, picture, "--json").out)
    top = {one["class"]: one["probability"] for one in answer["top"][:2]}
    assert found["learned"] == pytest.approx(top, rel=1e-4)
    assert found["hand_written"].keys() == top.keys()
    other = vlprompt("explain", trained, "--image", picture, "--class", "gren", "--out", "looks.png")
    assert other.code == 2
    assert "green" in other.err
    assert "--image" in vlprompt("explain", trained, "--class", "green").err


def test_explain_of_zero_shot_says_that_nothing_is_learned(vlprompt: Vlprompt, clip_dir: Path, photos: Path) -> None:
    assert vlprompt("train", "--method", "zero-shot", "--data", photos, "--model", clip_dir, "--out", "run").code == 0
    done = vlprompt("explain", "run")
    assert done.code == 0, done.err
    assert "Nothing is learned" in done.out


def test_methods_lists_all_and_explains_one(vlprompt: Vlprompt, clip_dir: Path) -> None:
    rows = json.loads(vlprompt("methods", "--json").out)
    assert [row["name"] for row in rows] == [row["name"] for row in listed()]
    done = vlprompt("methods", "plpp+coop", "--model", clip_dir)
    assert done.code == 0, done.err
    for text in ("L_CE", "plpp.tau", "rows 1-15 of 16", "epochs", "CoOp, arXiv 2109.01134"):
        assert text in done.out
    facts = json.loads(vlprompt("methods", "plpp+coop", "--model", clip_dir, "--json").out)
    assert {"tensors", "terms", "choices"} <= set(facts)


def test_models_checks_a_directory(vlprompt: Vlprompt, clip_dir: Path) -> None:
    (row,) = json.loads(vlprompt("models", clip_dir, "--json").out)
    assert (row["image tower"], row["pixels"], row["text width"], row["embedding"]) == ("ViT, patch 8", 32, 64, 32)
    assert len(row["weight_hash"]) == 64


def test_embedded_models_are_listed_as_they_are_when_loaded() -> None:
    for name in pocket.model_names():
        loaded = models._facts(name)
        assert models._read(name) == {key: value for key, value in loaded.items() if key != "weight_hash"}


def test_data_list_and_check(vlprompt: Vlprompt, photos: Path) -> None:
    rows = [row for row in json.loads(vlprompt("data", "list", "--json").out) if row["kind"] == "embedded"]
    assert [row["name"] for row in rows] == pocket.names()
    assert all(sum(row["images"].values()) > 100 for row in rows)
    done = vlprompt("data", "check", photos)
    assert done.code == 0
    assert "3 classes" in done.out
    assert json.loads(vlprompt("data", "check", photos, "--json").out)["ok"] is True


def test_env_names_versions_and_places(vlprompt: Vlprompt) -> None:
    facts = json.loads(vlprompt("env", "--json").out)
    assert facts["vlprompt"] == __version__
    assert set(facts) > {
        "torch",
        "python",
        "processor",
        "processors",
        "accelerators",
        "feature cache",
        "embedded models",
    }
    assert "cache" in facts["feature cache"]


def test_quickstart_learns_draws_and_can_be_called_again(vlprompt: Vlprompt, clip_dir: Path) -> None:
    command = ["quickstart", "--model", clip_dir, "--data", "clipart-living", "--shots", 1, "--seeds", "1,2"]
    command += ["--set", "epochs=1", "--device", "cpu", "--out", "first"]
    done = vlprompt(*command)
    assert done.code == 0, done.err
    for text in (
        "zero-shot",
        "coop",
        "plpp+coop",
        "rpp",
        "new classes",
        "+-",
        "Nearest words",
        "perplexity",
        "first/quickstart.png",
        "first/report.html",
        "train FOLDER",
    ):
        assert text in done.out
    with Image.open("first/quickstart.png") as image:
        assert image.width > 1000
    assert Path("first/quickstart.md").read_text(encoding="utf-8").count("\n| ") == 6
    again = vlprompt(*command, "--markdown")
    assert again.code == 0
    assert again.out == Path("first/quickstart.md").read_text(encoding="utf-8")
    assert "learning" in done.err
    assert "learning" not in again.err


def test_defaults_name_what_is_in_the_package() -> None:
    from vlprompt.cli import options
    from vlprompt.cli.quickstart import quickstart

    first = inspect.signature(quickstart).parameters
    assert {options.POCKET_DATA, first["data"].default} <= set(pocket.names())
    assert first["model"].default in pocket.model_names()
    assert options.DEFAULT_MODEL in pocket.model_names()


def test_module_and_command_are_one() -> None:
    done = subprocess.run([sys.executable, "-m", "vlprompt", "--version"], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (0, f"vlprompt {__version__}\n")


@pytest.mark.parametrize(
    "command",
    [
        "quickstart",
        "train",
        "tune",
        "eval",
        "predict",
        "explain",
        "head",
        "methods",
        "models",
        "env",
        "data list",
        "data status",
        "data get",
        "data check",
        "compare",
        "report",
        "reproduce",
        "pretrain",
        "bench",
        "recipes",
        "convert",
        "verify",
        "data show",
        "data shards",
        "export class-vectors",
    ],
)
def test_every_command_has_help_with_an_example(vlprompt: Vlprompt, command: str) -> None:
    done = vlprompt(*command.split(), "--help")
    assert done.code == 0
    example = " ".join(done.out.split()).partition("Example: ")[2]
    assert f"vlprompt {command}" in example
    assert cli.run([*command.split(), "-h"]) == 0
    assert "--data-root DIR" in " ".join(done.out.split()), "what may stand anywhere is said everywhere"


def test_every_command_and_option_is_in_the_manual(vlprompt: Vlprompt) -> None:
    import typer.main

    manual = (Path(__file__).parents[2] / "docs" / "cli.md").read_text(encoding="utf-8")
    group = typer.main.get_command(cli.app)
    missing = []
    leaves = []
    for name, command in group.commands.items():  # type: ignore[attr-defined]
        inner = getattr(command, "commands", None)
        leaves += [(f"{name} {sub}", one) for sub, one in inner.items()] if inner else [(name, command)]
    for name, command in leaves:
        section = manual.partition(f"## vlprompt {name}\n")[2].partition("\n## ")[0]
        options = [
            one for parameter in command.params for one in parameter.opts if one.startswith("--") and one != "--help"
        ]
        missing += [f"{name} {option}" for option in options if f"`{option}" not in section]
        assert section, name
    assert not missing


def test_what_people_type_works_or_is_asked_about(vlprompt: Vlprompt, clip_dir: Path, photos: Path) -> None:
    row = ("--model", clip_dir, "--device", "cpu", "--views", "1", "--method", "coop", "--set", "n_ctx=3")
    done = vlprompt("train", photos, *row, "--shots", "all", "--epochs", "2", "--lr", "0.01", "--batch", "8", "--json")
    assert done.code == 0, done.err
    (record,) = json.loads(done.out)
    assert record["shots"] is None
    assert [record["options"][name] for name in ("epochs", "lr", "batch")] == [2, 0.01, 8]
    twice = vlprompt("train", photos, "--data", "emoji-food", *row)
    assert (twice.code, "named twice" in twice.err) == (2, True)
    given = vlprompt("train", photos, *row, "--epochs", "2", "--set", "epochs=3")
    assert (given.code, "epochs is given twice" in given.err) == (2, True)
    few = vlprompt("train", photos, *row, "--shots", "few")
    assert (few.code, "--shots 16 or --shots all" in few.err) == (2, True)
    seeds = vlprompt("train", photos, *row, "--seeds", "3")
    assert seeds.code == 2
    assert "--seeds 1-3 for 3 seeds, or --seeds 3, (with the comma)" in " ".join(seeds.err.split())


def test_one_seed_is_named_with_a_comma() -> None:
    assert parse_seeds("3,") == (3,)
    assert parse_seeds("1") == (1,)
    assert parse_seeds("1-3") == (1, 2, 3)


def test_options_of_one_method_and_auto_do_not_go_together(clip_dir: Path, photos: Path, vlprompt: Vlprompt) -> None:
    done = vlprompt("train", photos, "--model", clip_dir, "--method", "auto", "--epochs", "2")
    assert done.code == 2
    assert "--epochs belongs to one method" in done.err


def test_the_guide_says_what_the_methods_are(vlprompt: Vlprompt) -> None:
    rows = {row["method"]: row for row in json.loads(vlprompt("methods", "--guide", "--json").out)}
    assert {name for name in rows if "+" not in name} == {
        row["name"] for row in listed() if row["kind"] == "method"
    } - {
        "vpt",
        "vpt-deep",
        "ivlp",
        "rpp-shared3x",
    }
    for name, row in rows.items():
        method = resolve(name)
        reach, text = method.prompt.reach, method.prompt.layout is not None or method.prompt.reach.text_tower
        towers = [tower for tower, runs in (("text tower", text), ("image tower", reach.image_tower)) if runs]
        cost = "nothing" if method.learner is None else "features alone"
        assert row["new classes"] == ("no" if reach.own_classes else "yes")
        assert row["needs validation"] == ("yes" if method.chooses else "no")
        runs = " and ".join(towers if isinstance(method.learner, Steps) else [])
        assert row["learning runs"] == (runs or ("each test image" if method.at_test else cost))
    assert "Which method for whom" in vlprompt("methods", "--guide").out
    assert vlprompt("methods", "coop", "--guide").code == 2


def test_words_for_folders_and_a_part_of_the_test_images(
    vlprompt: Vlprompt, clip_dir: Path, photos: Path, tmp_path: Path
) -> None:
    words = tmp_path / "words.csv"
    words.write_text("red,crimson\nblue_bird,jay\n", encoding="utf-8")
    options = ("--class-names", words, "--max-test", 3, "--cache", tmp_path / "cache")
    done = vlprompt(*train_arguments(clip_dir, photos), *options, "--out", "run")
    assert done.code == 0, done.err
    assert "3 of 6 test images, drawn evenly" in done.out
    assert "words.csv has no words for green" in done.err
    (record,) = json.loads(vlprompt(*train_arguments(clip_dir, photos), *options, "--out", "run", "--json").out)
    assert (record["num_test"], record["test_of"], record["top5"]) == (3, 6, None)
    assert sorted(record["per_class"]) == ["crimson", "green", "jay"]
    (tested,) = json.loads(vlprompt("eval", "run", "--data", photos, *options, "--json").out)
    assert (tested["num_test"], tested["test_of"], tested["top1"]) == (3, 6, record["top1"])
    words.write_text("red,scarlet\n", encoding="utf-8")  # other words are another run
    assert "class_names" in vlprompt(*train_arguments(clip_dir, photos), *options, "--out", "run").err


def test_folds_without_a_method_are_of_coop(
    vlprompt: Vlprompt, clip_dir: Path, photos: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(config: RunConfig, observer: object) -> None:
        raise UserError(f"{config.method} in {config.folds} folds")

    monkeypatch.setattr("vlprompt.engine.run.train_run", refuse)
    assert "coop in 2 folds" in vlprompt("train", photos, "--model", clip_dir, "--folds", 2).err
    assert "Name the method" in vlprompt("train", photos, "--model", clip_dir, "--folds", 2, "--method", "auto").err


def test_few_test_images_and_no_judgement_lead_to_folds(tmp_path: Path) -> None:
    config = RunConfig(method="coop", model="m", data="my photos", out=tmp_path)
    first, *_ = train._next(config, "unclear", "linear-probe", learned=True, few=True)
    assert first == "vlprompt train --data 'my photos' --model m --method coop --shots all --folds 5"
    assert not any("--folds" in one for one in train._next(config, "unclear", "linear-probe", learned=True, few=False))


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ("train {photos} --shots 1 --shots x", "--shots is given twice. The last one counts."),
        ("train {photos} --method=coop --shots=1 --method cop", "--method is given twice. The last one counts."),
        ("predict {photos} {photos} --top 1 --top=2", "--top is given twice. The last one counts."),
        ("predict {photos} {photos} --csv --json", "Give one of them"),
        ("data check {photos}/x --columns a=b --columns a=b", "--columns is given twice. The last one counts."),
    ],
)
def test_of_an_option_that_is_given_twice_the_last_counts(
    vlprompt: Vlprompt, photos: Path, words: str, said: str
) -> None:
    done = vlprompt(*words.format(photos=photos).split())
    assert done.code in (2, 3)
    assert said in done.err
    assert "--set is" not in vlprompt("train", photos / "x", "--set", "a=1", "--set", "b=2").err


def test_a_path_may_begin_at_home(
    vlprompt: Vlprompt, clip_dir: Path, own_photos: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(own_photos.parent))
    asked = ("--model", clip_dir, "--method", "zero-shot", "--shots", 1, "--out=~/my run")
    assert vlprompt("train", "--data=~/photos", *asked).code == 0
    assert (own_photos.parent / "my run" / "seed1").is_dir()
    assert vlprompt("predict", "~/my run", "~/photos/red/0.png").code == 0


@pytest.mark.parametrize(("auroc", "advised"), [(41.0, False), (59.9, False), (60.0, True), (94.0, True)])
def test_a_threshold_is_advised_where_it_tells_pictures_apart(auroc: float, advised: bool) -> None:
    fields = {
        "ece": 9.0,
        "ece_before": 18.0,
        "temperature": 2.0,
        "num_val": 40,
        "reject_below": 0.9,
        "reject_auroc": auroc,
    }
    (said,) = train._sure([dataclasses.replace(record(), **fields)])
    assert ("predict --reject 0.90" in said) == advised
    assert ("do not rely on predict --reject" in said) != advised
    assert f"AUROC {auroc:.0f} %" in said


def test_sentences_are_for_the_methods_that_read_them(vlprompt: Vlprompt, photos: Path, tmp_path: Path) -> None:
    file = tmp_path / "sentences.json"
    names = [path.name for path in photos.iterdir()]
    file.write_text(json.dumps({name: [f"the colour of {name}", "a {} picture"] for name in names}), encoding="utf-8")
    given = (
        "--data",
        photos,
        "--model",
        "pocket-s",
        "--shots",
        2,
        "--sentences",
        file,
        "--device",
        "cpu",
        "--no-curve",
    )
    done = vlprompt("train", *given, "--method", "described+tip-adapter", "--out", "run")
    assert done.code == 0, done.err
    kept = json.loads(Path("run/seed1/result.json").read_text(encoding="utf-8"))["options"]["described.sentences"]
    assert "a {} picture" in kept
    refused = vlprompt("train", *given, "--method", "tip-adapter", "--out", "other")
    assert refused.code == 2
    assert "Use for example described+tip-adapter" in " ".join(refused.err.split())
    assert not Path("other").exists()
