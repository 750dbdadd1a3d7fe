"""Class vectors in the forms of transformers, open_clip and diffusers, against transformers and diffusers themselves."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors import safe_open
from safetensors.torch import load_file

from vlprompt import PromptClassifier, PromptedCLIP, cli

NAMES = ("cat", "red dog", "bird")


def saved(clip_dir: Path, place: Path, method: str = "coop", **options: object) -> Path:
    PromptedCLIP(clip_dir, method, class_names=NAMES, **{"n_ctx": 3, **options}).save(place / "prompt")
    return place / "prompt"


def exported(run: Path, form: str) -> Path:
    out = run.parent / f"{form}.safetensors"
    assert cli.run(["export", "class-vectors", str(run), "--form", form, "--out", str(out)]) == 0
    return out


def test_transformers_answers_as_the_prompt(clip_dir: Path, tmp_path: Path) -> None:
    transformers = pytest.importorskip("transformers")
    run = saved(clip_dir, tmp_path)
    facts = json.loads((run / "prompt.json").read_text(encoding="utf-8")) | {"temperature": 2.0}
    (run / "prompt.json").write_text(json.dumps(facts), encoding="utf-8")
    form = load_file(out := exported(run, "transformers"))
    with safe_open(out, framework="np") as file:
        assert json.loads(file.metadata()["names"]) == list(NAMES)
    model = transformers.CLIPModel.from_pretrained(clip_dir)
    picture = Image.fromarray(np.random.default_rng(0).integers(0, 255, (32, 32, 3), dtype=np.uint8))
    classifier = PromptClassifier.load(run)
    pixels = classifier.clip.preprocess
    mean, std = (torch.tensor(one).view(3, 1, 1) for one in (pixels.mean, pixels.std))
    view = (torch.from_numpy(np.asarray(picture).copy()).permute(2, 0, 1) / 255 - mean) / std
    with torch.no_grad():
        image = torch.nn.functional.normalize(model.get_image_features(view[None]).pooler_output)
    found = (form["logit_scale"].exp() * image @ form["text_embeds"].T).softmax(-1)
    np.testing.assert_allclose(found.numpy(), classifier.predict_proba(picture), atol=1e-5)
    matrix = load_file(exported(run, "open-clip"))
    torch.testing.assert_close((matrix["logit_scale"].exp() * image @ matrix["classifier"]).softmax(-1), found)


@pytest.mark.parametrize("position", ["end", "front"])
def test_the_learned_tokens_in_transformers_give_the_same_class_features(
    clip_dir: Path, tmp_path: Path, position: str
) -> None:
    """What diffusers' loader does: new tokens in the tokenizer, new rows in the text tower's embedding."""
    transformers = pytest.importorskip("transformers")
    run = saved(clip_dir, tmp_path, position=position)
    out = exported(run, "diffusers")
    ((token, rows),) = load_file(out).items()
    with safe_open(out, framework="np") as file:
        sentence = file.metadata()["sentence"]
    assert (token, tuple(rows.shape)) == ("<prompt>", (3, 64))
    tokenizer = transformers.PreTrainedTokenizerFast(tokenizer_file=str(clip_dir / "tokenizer.json"))
    names = [token, *(f"{token}_{n}" for n in range(1, len(rows)))]
    assert tokenizer.add_tokens(names) == 3
    model = transformers.CLIPTextModelWithProjection.from_pretrained(clip_dir)
    model.resize_token_embeddings(len(tokenizer), mean_resizing=False)
    with torch.no_grad():
        model.get_input_embeddings().weight[-3:] = rows
        for name, wanted in zip(NAMES, load_file(exported(run, "transformers"))["text_embeds"], strict=True):
            text = sentence.replace("{}", name).replace(token, " ".join(names))
            found = model(torch.tensor([tokenizer.encode(text)])).text_embeds
            torch.testing.assert_close(torch.nn.functional.normalize(found)[0], wanted, atol=1e-5, rtol=1e-4)


def test_diffusers_reads_the_file(clip_dir: Path, tmp_path: Path) -> None:
    loaders = pytest.importorskip("diffusers.loaders.textual_inversion")
    transformers = pytest.importorskip("transformers")

    class Pipe(loaders.TextualInversionLoaderMixin):  # type: ignore[misc, name-defined]
        """As much of a pipeline as the loader asks for."""

        tokenizer = transformers.PreTrainedTokenizerFast(tokenizer_file=str(clip_dir / "tokenizer.json"))
        text_encoder = transformers.CLIPTextModel.from_pretrained(clip_dir)
        components: dict[str, object] = {}  # noqa: RUF012
        hf_device_map = None

    pipe = Pipe()
    out = exported(saved(clip_dir, tmp_path), "diffusers")
    pipe.load_textual_inversion(str(out))
    rows = load_file(out)["<prompt>"]
    ids = pipe.tokenizer.convert_tokens_to_ids(["<prompt>", "<prompt>_1", "<prompt>_2"])
    torch.testing.assert_close(pipe.text_encoder.get_input_embeddings().weight[ids], rows)
    said = pipe.maybe_convert_prompt("<prompt> cat.", pipe.tokenizer)
    assert said == "<prompt> <prompt>_1 <prompt>_2 cat."


@pytest.mark.parametrize(
    ("method", "options", "form", "words"),
    [
        ("maple", {}, "open-clip", "does more than compare with class vectors"),
        ("maple", {}, "diffusers", "which is all that diffusers takes"),
        ("coop", {"per_class": True}, "diffusers", "which is all that diffusers takes"),
        ("coop", {"position": "middle", "n_ctx": 4}, "diffusers", "which is all that diffusers takes"),
    ],
)
def test_what_a_form_cannot_hold_is_refused(
    clip_dir: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    method: str,
    options: dict[str, object],
    form: str,
    words: str,
) -> None:
    run, out = saved(clip_dir, tmp_path, method, **options), tmp_path / "out.safetensors"
    assert cli.run(["export", "class-vectors", str(run), "--form", form, "--out", str(out)]) == 2
    assert words in " ".join(capsys.readouterr().err.split())
    assert not out.exists()


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--form", "clip"], "Allowed: diffusers, open-clip, plain, transformers"),
        (["--form", "diffusers", "--names", "x.txt"], "Leave out --names"),
        (["--form", "open-clip", "--unit"], "Leave out --unit"),
        (["--form", "open-clip", "--out", "x.npy"], "Allowed: .safetensors"),
    ],
)
def test_options_that_do_not_go_together(
    clip_dir: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], options: list[str], words: str
) -> None:
    run = saved(clip_dir, tmp_path)
    assert cli.run(["export", "class-vectors", str(run), "--out", str(tmp_path / "a.safetensors"), *options]) == 2
    assert words in " ".join(capsys.readouterr().err.split())
