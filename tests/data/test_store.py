"""The feature cache: what is computed, what is shared, and what happens to damaged files."""

from __future__ import annotations

import dataclasses
import json
import shutil
import threading
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from tests.data.make import PLAIN, noise, sample
from vlprompt.data import FeatureStore, Sample, load_pixels, store, views
from vlprompt.disk import default_root
from vlprompt.errors import DATA, NUMERICAL, UserError

MIXER = torch.from_numpy(np.random.default_rng(0).normal(size=(3 * 8 * 8, 5)).astype(np.float32))


class Tower:
    """An encoder that counts."""

    def __init__(self) -> None:
        self.batches: list[int] = []

    def __call__(self, pixels: Tensor) -> Tensor:
        self.batches.append(len(pixels))
        return pixels.flatten(1) @ MIXER

    @property
    def images(self) -> int:
        return sum(self.batches)


def ask(
    cache: FeatureStore,
    samples: Sequence[Sample],
    tower: Tower,
    *,
    view: int | None = None,
    key: str = "m",
    batch: int = 4,
) -> Tensor:
    return cache.features(samples, view=view, model_key=key, preprocess=PLAIN, encode=tower, batch=batch)


def expected(samples: Sequence[Sample], view: int | None = None) -> Tensor:
    return load_pixels(samples, PLAIN, view).flatten(1) @ MIXER


@pytest.fixture
def samples() -> list[Sample]:
    return [sample(f"image {number}") for number in range(10)]


@pytest.fixture(params=["disk", "memory"])
def cache(request: pytest.FixtureRequest, tmp_path: Path) -> FeatureStore:
    return FeatureStore(tmp_path / "cache" if request.param == "disk" else None)


@pytest.mark.parametrize("view", [None, 0, 3])
def test_features_in_order_and_computed_once(cache: FeatureStore, samples: list[Sample], view: int | None) -> None:
    tower = Tower()
    first = ask(cache, samples, tower, view=view)
    assert first.dtype == torch.float32
    torch.testing.assert_close(first, expected(samples, view))
    assert tower.batches == [4, 4, 2]
    assert torch.equal(ask(cache, samples[::-1], tower, view=view), first.flip(0))
    assert tower.images == 10
    assert (cache.stats.hits, cache.stats.computed) == (10, 10)
    assert cache.stats.seconds > 0


def test_only_what_is_missing_is_computed(cache: FeatureStore, samples: list[Sample]) -> None:
    tower = Tower()
    ask(cache, samples[:6], tower)
    all_ten = ask(cache, samples, tower)
    assert tower.images == 10
    torch.testing.assert_close(all_ten, expected(samples))


def test_copies_are_computed_once(cache: FeatureStore) -> None:
    tower = Tower()
    content = sample("x").read()
    twins = [sample("a", 0, content), sample("other"), sample("b", 1, content)]
    features = ask(cache, twins, tower)
    assert tower.images == 2
    assert torch.equal(features[0], features[2])


def test_views_models_and_preprocessing_are_kept_apart(cache: FeatureStore, samples: list[Sample]) -> None:
    tower = Tower()
    found = [ask(cache, samples, tower, view=view) for view in (None, 0, 1)]
    ask(cache, samples, tower, key="another")
    other = replace(PLAIN, mean=(0.5, 0.5, 0.5))
    shifted = cache.features(samples, view=None, model_key="m", preprocess=other, encode=tower)
    assert tower.images == 50
    for one in range(3):
        for two in range(one):
            assert not torch.equal(found[one], found[two])
    torch.testing.assert_close(shifted, found[0] - (0.5 * MIXER).sum(0), atol=1e-4, rtol=1e-4)
    assert torch.equal(ask(cache, samples, tower, view=1), found[2])
    assert tower.images == 50


def test_another_augmentation_is_another_space_but_not_for_the_test_view(
    cache: FeatureStore, samples: list[Sample], monkeypatch: pytest.MonkeyPatch
) -> None:
    tower = Tower()
    before = [ask(cache, samples, tower, view=view) for view in (None, 0)]
    monkeypatch.setattr(views, "AUGMENTATION_VERSION", 99)
    monkeypatch.setattr(store, "AUGMENTATION_VERSION", 99)
    after = [ask(cache, samples, tower, view=view) for view in (None, 0)]
    assert tower.images == 30
    assert torch.equal(before[0], after[0])
    assert not torch.equal(before[1], after[1])


def test_progress_counts_every_image_once(cache: FeatureStore, samples: list[Sample]) -> None:
    for _ in range(2):
        done: list[int] = []
        cache.features(
            samples, view=None, model_key="m", preprocess=PLAIN, encode=Tower(), batch=4, progress=done.append
        )
        assert sum(done) == 10


def test_no_samples(cache: FeatureStore) -> None:
    assert ask(cache, [], Tower()).shape[0] == 0


def test_gradients_and_half_precision_do_not_reach_the_cache(cache: FeatureStore, samples: list[Sample]) -> None:
    weight = MIXER.clone().requires_grad_()
    half = cache.features(
        samples, view=None, model_key="h", preprocess=PLAIN, encode=lambda x: (x.flatten(1) @ weight).bfloat16()
    )
    assert half.dtype == torch.float32
    assert not half.requires_grad
    torch.testing.assert_close(half, expected(samples).bfloat16().float())


def test_a_new_process_finds_what_is_on_disk(tmp_path: Path, samples: list[Sample]) -> None:
    first = ask(FeatureStore(tmp_path), samples, Tower())
    tower = Tower()
    assert torch.equal(ask(FeatureStore(tmp_path), samples, tower), first)
    assert tower.images == 0


def test_a_running_process_finds_what_another_wrote_meanwhile(tmp_path: Path, samples: list[Sample]) -> None:
    one, two, tower = FeatureStore(tmp_path), FeatureStore(tmp_path), Tower()
    ask(one, samples[:2], tower)
    ask(two, samples, tower)
    ask(one, samples, tower)
    assert tower.images == 10


def test_one_content_that_is_decoded_in_two_ways_is_two_pictures(tmp_path: Path, samples: list[Sample]) -> None:
    store, tower = FeatureStore(tmp_path), Tower()
    ask(store, samples, tower)
    published = [dataclasses.replace(sample, decoding="published") for sample in samples]
    assert [one.content_hash for one in published] == [one.content_hash for one in samples]
    ask(store, published, tower)
    assert tower.images == 2 * len(samples)
    known = store.known(model_key="m", preprocess=PLAIN, view=None)
    assert {one.picture_hash for one in (*samples, *published)} == known
    ask(FeatureStore(tmp_path), [*samples, *published], tower)
    assert tower.images == 2 * len(samples)


def test_memory_only_writes_nothing(tmp_path: Path, samples: list[Sample], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("VLPROMPT_CACHE", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    ask(FeatureStore(None), samples, Tower())
    assert list(tmp_path.iterdir()) == []


def blocks(root: Path, suffix: str) -> list[Path]:
    return sorted(path for path in root.rglob(f"*{suffix}") if path.name != "space.json")


def test_what_lies_on_disk(tmp_path: Path, samples: list[Sample]) -> None:
    features = ask(FeatureStore(tmp_path), samples, Tower(), view=2)
    (array,), (index,) = blocks(tmp_path, ".npy"), blocks(tmp_path, ".json")
    assert np.array_equal(np.load(array), features.numpy())
    assert json.loads(index.read_text(encoding="utf-8"))["hashes"] == [s.content_hash for s in samples]
    facts = json.loads((index.parent / "space.json").read_text(encoding="utf-8"))
    assert (facts["model"], facts["view"], facts["augmentation"]) == ("m", 2, views.AUGMENTATION_VERSION)
    assert not list(tmp_path.rglob("*.part"))


def tear(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-7])


def scramble(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[-3] ^= 0xFF
    path.write_bytes(bytes(data))


@pytest.mark.parametrize("suffix", [".npy", ".json"])
@pytest.mark.parametrize("harm", [tear, scramble, Path.unlink, lambda path: path.write_bytes(b"")])
def test_damaged_blocks_are_computed_again(tmp_path: Path, samples: list[Sample], suffix: str, harm: object) -> None:
    first = ask(FeatureStore(tmp_path), samples[:5], Tower())
    second = ask(FeatureStore(tmp_path), samples[5:], Tower())
    harm(blocks(tmp_path, suffix)[0])  # type: ignore[operator]
    tower = Tower()
    again = ask(FeatureStore(tmp_path), samples, tower)
    torch.testing.assert_close(again, torch.cat([first, second]))
    assert tower.images == 5
    assert torch.equal(ask(FeatureStore(tmp_path), samples, Tower()), again)


def test_files_of_another_space_are_not_taken(tmp_path: Path, samples: list[Sample]) -> None:
    ask(FeatureStore(tmp_path), samples, Tower(), key="one")
    source = blocks(tmp_path, ".npy")[0].parent
    ask(FeatureStore(tmp_path), samples[:1], Tower(), key="two")
    target = next(path for path in (tmp_path / "features").iterdir() if path != source)
    for path in (*blocks(source, ".npy"), *blocks(source, ".json")):
        shutil.copy(path, target / path.name)
    (target / "foreign.json").write_text('{"schema": 1}', encoding="utf-8")
    (target / "list.json").write_text("[]", encoding="utf-8")
    tower = Tower()
    ask(FeatureStore(tmp_path), samples, tower, key="two")
    assert tower.images == 9


def test_an_interrupt_keeps_what_was_done(
    tmp_path: Path, samples: list[Sample], monkeypatch: pytest.MonkeyPatch
) -> None:
    tower = Tower()

    def interrupted(pixels: Tensor) -> Tensor:
        if tower.images == 8:
            raise KeyboardInterrupt
        return tower(pixels)

    with pytest.raises(KeyboardInterrupt):
        FeatureStore(tmp_path).features(
            samples, view=None, model_key="m", preprocess=PLAIN, encode=interrupted, batch=4
        )
    rest = Tower()
    resumed = ask(FeatureStore(tmp_path), samples, rest)
    assert rest.batches == [2]
    assert torch.equal(resumed, ask(FeatureStore(None), samples, Tower()))


def test_blocks_are_written_on_the_way(tmp_path: Path, samples: list[Sample], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(store, "ROWS_PER_BLOCK", 4)
    features = ask(FeatureStore(tmp_path), samples, Tower(), batch=2)
    assert len(blocks(tmp_path, ".npy")) == 3
    assert torch.equal(ask(FeatureStore(tmp_path), samples, Tower()), features)


def test_several_at_once_do_not_disturb_each_other(tmp_path: Path, samples: list[Sample]) -> None:
    """Stores of their own, as processes have, on one root, with overlapping and equal requests."""
    requests = [samples, samples, samples[3:], samples[::-1], samples[:7], samples]
    found: dict[int, Tensor] = {}
    start = threading.Barrier(len(requests))

    def work(number: int) -> None:
        cache = FeatureStore(tmp_path)
        start.wait()
        found[number] = ask(cache, requests[number], Tower(), batch=2)

    threads = [threading.Thread(target=work, args=(number,)) for number in range(len(requests))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for number, request in enumerate(requests):
        torch.testing.assert_close(found[number], expected(request))
    tower = Tower()
    ask(FeatureStore(tmp_path), samples, tower)
    assert tower.images == 0
    assert not list(tmp_path.rglob("*.part"))


def test_known_images(tmp_path: Path, samples: list[Sample]) -> None:
    ask(FeatureStore(tmp_path), samples[:4], Tower())
    cache = FeatureStore(tmp_path)
    assert cache.known(model_key="m", preprocess=PLAIN, view=None) == {s.content_hash for s in samples[:4]}
    assert not cache.known(model_key="m", preprocess=PLAIN, view=0)
    ask(cache, samples, Tower())
    assert len(cache.known(model_key="m", preprocess=PLAIN, view=None)) == 10


def test_features_that_are_not_finite_are_refused_and_not_kept(tmp_path: Path, samples: list[Sample]) -> None:
    def broken(pixels: Tensor) -> Tensor:
        features = pixels.flatten(1) @ MIXER
        features[1, 2] = torch.nan
        return features

    cache = FeatureStore(tmp_path)
    with pytest.raises(UserError, match="not finite, first for image 1") as caught:
        cache.features(samples, view=None, model_key="m", preprocess=PLAIN, encode=broken)
    assert caught.value.exit_code == NUMERICAL
    assert blocks(tmp_path, ".npy") == []


def test_an_image_that_cannot_be_read_is_named_and_the_rest_is_kept(tmp_path: Path, samples: list[Sample]) -> None:
    with pytest.raises(UserError, match=r"bad\.png: not an image that can be read") as caught:
        ask(FeatureStore(tmp_path), [*samples[:8], sample("bad.png", data=b"x")], Tower())
    assert caught.value.exit_code == DATA
    tower = Tower()
    ask(FeatureStore(tmp_path), samples[:8], tower)
    assert tower.images == 0


def test_a_cache_that_cannot_be_written(tmp_path: Path, samples: list[Sample]) -> None:
    (tmp_path / "file").write_text("not a folder", encoding="utf-8")
    cache, tower = FeatureStore(tmp_path / "file"), Tower()
    with pytest.warns(UserWarning, match="kept in memory.*VLPROMPT_CACHE"):
        first = ask(cache, samples, tower)
    ask(cache, samples, tower, view=1)  # another space: nothing is said again
    before = tower.images
    assert torch.equal(ask(cache, samples, tower), first)
    assert tower.images == before


def test_the_default_root(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "/home/ada")
    monkeypatch.delenv("VLPROMPT_CACHE", raising=False)
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    assert default_root() == Path("/home/ada/.cache/vlprompt")
    monkeypatch.setenv("XDG_CACHE_HOME", "/var/cache")
    assert default_root() == Path("/var/cache/vlprompt")
    monkeypatch.setenv("VLPROMPT_CACHE", "~/mine")
    assert default_root() == Path("/home/ada/mine")


def test_the_noise_pictures_differ() -> None:
    assert noise("image 1").tobytes() != noise("image 2").tobytes()
