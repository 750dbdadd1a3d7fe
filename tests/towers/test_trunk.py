"""A model with a trunk: towers against the code that trains them, the layout's refusals, and the cache of the trunk's cells."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import pytest
import torch
from torch import Tensor

from tests import tiny
from tests.engine import made
from vlprompt.data import FeatureStore, open_dataset
from vlprompt.engine.images import Images
from vlprompt.errors import UserError
from vlprompt.towers import Clip, load
from vlprompt.types import Prompted, Splice, TextLayout

TOOLS = Path(__file__).parents[2] / "tools/pocket/medium"


@pytest.fixture(scope="module")
def trained() -> Iterator[tuple[ModuleType, ModuleType, ModuleType]]:
    """The training code: its towers, its trunk, its export."""
    names = ("tower", "trunk", "write_model")
    sys.path.insert(0, str(TOOLS))
    try:
        yield tuple(__import__(name) for name in names)  # type: ignore[misc]
    finally:
        sys.path.remove(str(TOOLS))
        for name in names:
            sys.modules.pop(name, None)


def lite0_state(trunk: ModuleType) -> dict[str, Tensor]:
    """Random weights under the names of the package that the trunk comes from."""
    generator = torch.Generator().manual_seed(1)
    state: dict[str, Tensor] = {}

    def draw(*shape: int) -> Tensor:
        return torch.randn(shape, generator=generator)

    def add(conv: str, norm: str, out: int, channels: int, kernel: int) -> None:
        state[f"{conv}.weight"] = draw(out, channels, kernel, kernel) * (2 / (channels * kernel**2)) ** 0.5
        state.update({f"{norm}.weight": 1 + 0.1 * draw(out), f"{norm}.bias": 0.1 * draw(out)})
        state.update({f"{norm}.running_mean": 0.1 * draw(out), f"{norm}.running_var": 1 + 0.1 * draw(out).abs()})

    add("_conv_stem", "_bn0", 32, 3, 3)
    channels, number = 32, 0
    for expansion, out, count, _, kernel in trunk.STAGES:
        for _ in range(count):
            block, inside = f"_blocks.{number}.", channels * expansion
            if expansion > 1:
                add(block + "_expand_conv", block + "_bn0", inside, channels, 1)
            add(block + "_depthwise_conv", block + "_bn1", inside, 1, kernel)
            add(block + "_project_conv", block + "_bn2", out, inside, 1)
            channels, number = out, number + 1
    add("_conv_head", "_bn1", 1280, channels, 1)
    return state | {"_fc.weight": draw(1000, 1280), "_fc.bias": draw(1000)}


@pytest.fixture(scope="module")
def both(
    trained: tuple[ModuleType, ...], tmp_path_factory: pytest.TempPathFactory
) -> tuple[Path, torch.nn.Module, torch.nn.Module, object]:
    """A directory, and the training code's towers and trunk with the same random weights."""
    tower, trunk, write_model = trained
    torch.manual_seed(0)
    folder = tmp_path_factory.mktemp("trunk")
    tiny.tokenizer().save(str(folder / "words.json"))
    lite0 = trunk.Lite0(lite0_state(trunk))
    image = tower.ImageTower(lite0.head.weight[:, :, 0, 0], lite0.head.bias, trunk.TOKENS)
    text = tower.TextTower(tiny.tokenizer().get_vocab_size())
    write_model.export(
        lite0, image.state_dict(), text.state_dict(), 3.0, folder / "words.json", folder / "model", torch.float32
    )
    return folder / "model", image, text, lite0


def pictures(count: int) -> Tensor:
    return torch.rand(count, 3, 128, 128, generator=torch.Generator().manual_seed(5))


def normalised(clip: Clip, pixels: Tensor) -> Tensor:
    mean, std = (torch.tensor(v)[:, None, None] for v in (clip.preprocess.mean, clip.preprocess.std))
    return (pixels - mean) / std


def close(ours: Tensor, theirs: Tensor) -> bool:
    return bool((ours - theirs).abs().max() <= 1e-5 * theirs.abs().max())


def test_cells_and_embeddings_are_those_of_the_training_code(both: tuple) -> None:
    path, image, text, lite0 = both
    clip = load(path)
    cells = lite0.cells(pictures(3))
    assert close(clip.read_images(normalised(clip, pictures(3))), cells)
    with torch.no_grad():
        assert close(clip.encode_images(normalised(clip, pictures(3))).pooled, image(cells)[0])
        sentence = "a photo of a red truck"
        ids = torch.tensor([tiny.tokenizer().encode(sentence).ids])
        theirs = text(ids, torch.tensor([ids.shape[1] - 1]))
    assert close(clip.encode_text(clip.sentence_tokens([sentence])).pooled, theirs)


def test_gradients_of_prompts_are_those_of_the_training_code(both: tuple) -> None:
    path, image, text, lite0 = both
    clip, cells = load(path), lite0.cells(pictures(2))
    rows, context = (torch.randn(2, 256, generator=torch.Generator().manual_seed(n)) for n in (2, 3))
    mine, theirs = ([rows.clone().requires_grad_(), context.clone().requires_grad_()] for _ in range(2))
    layout = TextLayout(num_tokens=2)
    prompted = Prompted(image={0: Splice(q=mine[0])}, text={0: Splice(q=mine[1])}, layout=layout)
    ours = (
        clip.encode_images(cells, prompted).pooled
        @ clip.encode_text(clip.class_tokens(["cat"], layout), prompted).pooled.T
    )
    ids = torch.tensor([tiny.tokenizer().encode("x x cat .").ids])
    embedded = text.token_embedding(ids)
    embedded = torch.cat([embedded[:, :1], theirs[1][None], embedded[:, 3:]], 1)
    end = text.states(embedded)[:, -1] @ text.text_projection
    other = image(cells, theirs[0])[0] @ end.T
    assert close(ours, other)
    ours.sum().backward()
    other.sum().backward()
    for one, two in zip(mine, theirs, strict=True):
        assert close(one.grad, two.grad)


def test_cells_do_not_depend_on_the_other_images(both: tuple) -> None:
    clip = load(both[0])
    pixels = normalised(clip, pictures(3))
    assert torch.equal(clip.read_images(pixels)[1:2], clip.read_images(pixels[1:2]))
    assert torch.equal(clip.encode_images(pixels).pooled, clip.encode_images(clip.read_images(pixels)).pooled)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"format": 2}, "format 2"),
        ({"patch_size": 16}, "stride is 32"),
        ({"trunk": {}}, "KeyError 'stages'"),
        ({"mean": [0.5]}, "does not describe"),
        ({"text": {"width": 256}}, "does not describe"),
    ],
)
def test_a_configuration_that_does_not_fit_is_refused(both: tuple, tmp_path: Path, change: dict, said: str) -> None:
    for file in both[0].iterdir():
        (tmp_path / file.name).symlink_to(file)
    config = json.loads((both[0] / "config.json").read_text(encoding="utf-8"))
    (tmp_path / "config.json").unlink()
    (tmp_path / "config.json").write_text(json.dumps(config | change), encoding="utf-8")
    with pytest.raises(UserError, match=said):
        load(tmp_path)


@pytest.mark.parametrize("gone", ["trunk.safetensors", "tokenizer.json"])
def test_a_missing_file_is_named(both: tuple, tmp_path: Path, gone: str) -> None:
    for file in both[0].iterdir():
        if file.name != gone:
            (tmp_path / file.name).symlink_to(file)
    with pytest.raises(UserError, match=gone):
        load(tmp_path)


def test_a_prompted_tower_reads_cells_from_the_cache(both: tuple, tmp_path: Path) -> None:
    clip, samples = load(both[0]), open_dataset(made.write_images(tmp_path / "data")).train
    store = FeatureStore(tmp_path / "cache")
    first, second = (Images(clip, one).pixels(samples, 0) for one in (store, FeatureStore(tmp_path / "cache")))
    assert torch.equal(first, second)
    assert store.stats.computed == len(samples)
    pixels = Images(clip, None).pixels(samples, 0)
    assert torch.equal(first, clip.read_images(pixels))
    rows = Prompted(image={0: Splice(q=torch.ones(2, 256))})
    assert torch.equal(clip.encode_images(first, rows).pooled, clip.encode_images(pixels, rows).pooled)
