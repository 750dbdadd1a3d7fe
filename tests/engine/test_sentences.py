"""Zero-shot of several sentences: their lists, the mean of normalised features, and sentences from a file."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import pytest
import torch

from tests.engine.made import config
from vlprompt import artifact, pocket
from vlprompt.data import open_dataset
from vlprompt.engine.config import RunConfig
from vlprompt.engine.evaluate import Classifier
from vlprompt.engine.forward import Forward, zero_shot_text
from vlprompt.engine.run import train_run
from vlprompt.errors import UserError
from vlprompt.methods import recipes
from vlprompt.methods.resolve import resolve
from vlprompt.methods.sentences import read_sentences
from vlprompt.pocket import descriptions
from vlprompt.prompts import Bare
from vlprompt.towers import Clip, load
from vlprompt.types import plain_name

NAMES, OWN = ("cat", "a red dog", "bird"), "a {}, a type of pet."


@pytest.mark.parametrize(
    ("option", "number", "own"),
    [("selected", 7, True), ("selected-alone", 7, False), ("imagenet-60", 60, False), ("imagenet-80", 80, False)],
)
def test_the_published_lists(option: str, number: int, own: bool) -> None:
    ensemble = resolve("zero-shot", {"templates": option}).teacher
    assert ensemble is not None
    assert len(set(ensemble.templates)) == number
    assert (ensemble.unit, ensemble.own) == (True, own)
    assert all(template.count("{}") == 1 for template in ensemble.templates)


def test_by_default_it_is_the_data_sets_own_template(clip: Clip) -> None:
    method = resolve("zero-shot")
    assert method.teacher is None
    found = Classifier(clip, method, Bare(), NAMES, OWN).text
    assert found is not None
    assert torch.equal(found.pooled, zero_shot_text(clip, NAMES, OWN).pooled)


def test_features_are_normalised_before_the_mean_and_the_own_template_is_one_more(clip: Clip) -> None:
    """Written out, sentence by sentence."""
    method = resolve("zero-shot", {"templates": "selected"})
    assert method.teacher is not None
    text = Classifier(clip, method, Bare(), NAMES, OWN).text
    assert text is not None
    for c, name in enumerate(NAMES):
        total = torch.zeros(clip.facts.embed_dim)
        for template in (*method.teacher.templates, OWN):
            feature = clip.encode_text(clip.sentence_tokens([template.replace("{}", name)])).pooled[0]
            total += feature / feature.norm()
        torch.testing.assert_close(text.unit[c], total / total.norm(), rtol=1e-4, atol=1e-5)


def test_sentences_from_a_file_are_kept_in_the_options(tmp_path: Path) -> None:
    path = tmp_path / "mine.txt"
    path.write_text("a drawing of a {}.\n\n  the {} in the tree.\n", encoding="utf-8")
    method = resolve("zero-shot", {"templates": str(path)})
    assert method.options == {"templates": "a drawing of a {}. | the {} in the tree."}
    path.unlink()
    again = resolve("zero-shot", method.options)
    assert again.teacher == method.teacher
    assert method.teacher is not None
    assert method.teacher.templates == ("a drawing of a {}.", "the {} in the tree.")


@pytest.mark.parametrize(("text", "message"), [("a cat\n", r"one \{\}"), ("\n", "no sentences"), (None, "selected")])
def test_files_that_cannot_be_used_are_refused(tmp_path: Path, text: str | None, message: str) -> None:
    path = tmp_path / "mine.txt"
    if text is not None:
        path.write_text(text, encoding="utf-8")
    with pytest.raises(UserError, match=message):
        resolve("zero-shot", {"templates": str(path)})


def test_a_sentence_with_two_places_is_refused() -> None:
    with pytest.raises(UserError, match=r"one \{\}"):
        resolve("zero-shot", {"templates": "a {} of {}."})


def test_a_run_and_its_artifact_use_the_ensemble(clip_dir: Path, clip: Clip, folder: Path, tmp_path: Path) -> None:
    base = config(clip_dir, folder, tmp_path / "run", method="zero-shot")
    (record,) = train_run(dataclasses.replace(base, overrides={"templates": "imagenet-60"}))
    assert record.options == {"templates": "imagenet-60"}
    learned = artifact.load(tmp_path / "run" / "seed1", clip)
    made = Classifier(clip, learned.method, learned.prompt, NAMES, OWN)
    plain = Classifier(clip, resolve("zero-shot"), Bare(), NAMES, OWN)
    assert made.text is not None
    assert plain.text is not None
    assert not torch.allclose(made.text.unit, plain.text.unit, atol=1e-3)


DESCRIBED = {
    "cat": ["a small pet with whiskers", "a {} in the tree"],
    "A_red dog": ["a red animal"],
    "bird": "it sings",
}


def write(path: Path, kind: str) -> Path:
    """The sentences as a file."""
    file = path / f"sentences.{kind}"
    rows = [(name, one) for name, some in DESCRIBED.items() for one in ([some] if isinstance(some, str) else some)]
    match kind:
        case "json":
            text = json.dumps(DESCRIBED)
        case "toml":
            text = "".join(f"{json.dumps(name)} = {json.dumps(some)}\n" for name, some in DESCRIBED.items())
        case _:
            text = "class,sentence\n" + "".join(f"{name},{one}\n" for name, one in rows)
    file.write_text(text, encoding="utf-8")
    return file


@pytest.mark.parametrize("kind", ["json", "toml", "csv"])
def test_a_class_is_the_mean_of_its_own_sentences(clip: Clip, tmp_path: Path, kind: str) -> None:
    method = resolve("descriptions", {"sentences": str(write(tmp_path, kind))})
    method = resolve("descriptions", method.options)  # as an artifact keeps it, without the file
    text = Classifier(clip, method, Bare(), NAMES, OWN).text
    assert text is not None
    plain = [["a small pet with whiskers", "a cat in the tree"], ["a red animal"], ["it sings"]]
    for c, sentences in enumerate(plain):
        features = [clip.encode_text(clip.sentence_tokens([one])).pooled[0] for one in sentences]
        mean = torch.stack([one / one.norm() for one in features]).mean(dim=0)
        torch.testing.assert_close(text.pooled[c], mean, rtol=1e-4, atol=1e-5)
    with pytest.raises(UserError, match="1 of 2 classes have no sentence: 'house'"):
        Classifier(clip, method, Bare(), ("cat", "house"), OWN)


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("a.json", "[1]", "no table of sentences"),
        ("a.json", '{"cat": [""]}', "not a list of sentences"),
        ("a.json", '{"cat": ["x"], "Cat": ["y"]}', "twice"),
        ("a.toml", "cat = 3", "not a list of sentences"),
        ("a.csv", "name,text\ncat,x\n", "the columns class and sentence"),
        ("a.csv", "class,sentence\ncat\n", "not a list of sentences"),
        ("a.txt", "a cat", "allowed are pocket .* and a file that ends in .json, .toml, .csv"),
    ],
)
def test_other_files_of_sentences_are_refused(tmp_path: Path, name: str, text: str, message: str) -> None:
    (tmp_path / name).write_text(text, encoding="utf-8")
    with pytest.raises(UserError, match=message):
        resolve("descriptions", {"sentences": str(tmp_path / name)})


def test_a_file_by_class_is_no_list_of_templates(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="--method descriptions --sentences"):
        resolve("zero-shot", {"templates": str(write(tmp_path, "json"))})


@pytest.mark.parametrize(
    "host", ["tip-adapter", "clip-adapter", "vpt", "lp-plus-plus", "kgcoop", "promptsrc", "tcp", "rpp"]
)
def test_under_a_method_sentences_stand_for_the_template(clip: Clip, tmp_path: Path, host: str) -> None:
    """What the method learns next to, or reads at a test, are the described classes."""
    alone = resolve("descriptions", {"sentences": str(write(tmp_path, "json"))})
    method = resolve(f"described+{host}", {"described.sentences": str(write(tmp_path, "json"))})
    method = resolve(f"described+{host}", method.options)
    assert {name: value for name, value in method.options.items() if "described" not in name} == resolve(host).options
    wanted = Classifier(clip, alone, Bare(), NAMES, OWN).text
    assert wanted is not None
    seen = Forward(clip, method, NAMES, OWN).frozen_text
    assert seen is not None
    assert torch.equal(seen.pooled, wanted.pooled)
    template = Forward(clip, resolve(host), NAMES, OWN).frozen_text
    assert template is not None
    assert not torch.equal(seen.pooled, template.pooled)


@pytest.mark.parametrize("host", ["zero-shot", "descriptions", "linear-probe", "coop", "maple", "clip-lora", "tpt"])
def test_a_method_that_reads_no_class_features_is_not_described(host: str) -> None:
    with pytest.raises(UserError, match=r"sentences would change nothing.*'described\+tip-adapter', or 'descriptions'"):
        resolve(f"described+{host}")


def test_overlays_stand_together() -> None:
    method = resolve("plpp+described+kgcoop")
    assert [term.name for term in method.terms] == ["cross-entropy", "text-anchor", "plpp", "plpp-inverse"]
    assert method.teacher == resolve("descriptions").teacher
    name = recipes.named("plpp+described+kgcoop", "few-shot")
    stacked, own = recipes.read(name), recipes.read("kgcoop-few-shot")
    assert (stacked.method, stacked.schedule) == ("plpp+described+kgcoop", own.schedule)
    assert stacked.files[:2] == ("plpp.toml", "described.toml")
    assert not recipes.named("plpp+plpp+kgcoop", "few-shot")
    assert not recipes.known("plpp-described-coop-few-shot"), "described+coop is none"


def test_a_described_cache_is_learned_tested_and_loaded(tmp_path: Path) -> None:
    same = {
        "model": "pocket-s",
        "data": "emoji-food",
        "shots": 2,
        "cache": tmp_path / "cache",
        "device": "cpu",
        "curve": False,
    }
    (record,) = train_run(RunConfig(method="described+tip-adapter", out=tmp_path / "run", **same))
    (other,) = train_run(RunConfig(method="tip-adapter", out=tmp_path / "alone", **same))
    assert record.recipe == "described-tip-adapter-pocket"
    assert record.options["described.sentences"] == "pocket"
    assert record.zero_shot_top1 == other.zero_shot_top1, "the template's, in both"
    model = load("pocket-s")
    learned = artifact.load(tmp_path / "run" / "seed1", model)
    classifier = Classifier(model, learned.method, learned.prompt, learned.class_names, learned.template)
    bare = Classifier(model, resolve("descriptions"), Bare(), learned.class_names, learned.template)
    assert classifier.frozen_text is not None
    assert bare.text is not None
    assert torch.equal(classifier.frozen_text.pooled, bare.text.pooled)


def test_every_class_of_the_embedded_sets_is_described() -> None:
    known = read_sentences(descriptions())
    sets = [name for name in pocket.names() if pocket.info(name).role != "pretraining"]
    assert {plain_name(name) for one in sets for name in open_dataset(one).class_names} == set(known)
    assert {len(some) for some in known.values()} == {3}
