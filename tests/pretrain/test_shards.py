"""Tar shards: written once, read by number from disk and over http, and what is broken in them is one sample's error."""

from __future__ import annotations

import dataclasses
import io
import json
import tarfile
from pathlib import Path

import pytest
from PIL import Image

from tests.pretrain.made import USED, serving, write_imagenet
from vlprompt.data import Corpus, Listed, Spool, is_shards, open_imagenet21k, open_shards, write_shards
from vlprompt.errors import DATA, UserError


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Corpus:
    return open_imagenet21k(write_imagenet(tmp_path_factory.mktemp("data") / "small"))


@pytest.fixture(scope="module")
def shards(corpus: Corpus, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """30 training images in tars of 7, 12 held out."""
    out = tmp_path_factory.mktemp("shards")
    assert write_shards(corpus, out, per_shard=7) == ()
    return out


def contents(pool: object) -> list[tuple[int, bytes]]:
    return [(one.label, one.read()) for one in (pool.sample(i) for i in range(len(pool)))]  # type: ignore[attr-defined, arg-type]


def test_what_is_written_is_read(corpus: Corpus, shards: Path, tmp_path: Path) -> None:
    again = open_shards(str(shards), spool=Spool(tmp_path))
    assert is_shards(str(shards))
    assert again.class_names == corpus.class_names
    assert again.train.runs == (7, 7, 7, 7, 2)
    read, given = contents(again.train), contents(corpus.train)
    assert sorted(read) == sorted(given)
    assert read != given, "the order is shuffled, so that neighbours are of several classes"
    assert sorted(contents(again.held_out)) == sorted(contents(corpus.held_out))
    assert not any(tmp_path.iterdir()), "files on disk are read where they lie"


def test_the_layout_is_webdataset(shards: Path) -> None:
    with tarfile.open(shards / "train-00000.tar") as archive:
        names = archive.getnames()
    assert len(names) == 14
    assert [name.partition(".")[0] for name in names[::2]] == [name.partition(".")[0] for name in names[1::2]]
    assert {name.partition(".")[2] for name in names} == {"png", "cls"}


def test_writing_again_gives_the_same_bytes_and_keeps_finished_tars(
    corpus: Corpus, shards: Path, tmp_path: Path
) -> None:
    write_shards(corpus, tmp_path, per_shard=7)
    for path in shards.glob("*.tar"):
        assert path.read_bytes() == (tmp_path / path.name).read_bytes()
    kept = (tmp_path / "train-00001.tar").stat().st_mtime_ns
    (tmp_path / "train-00002.tar").unlink()
    (tmp_path / "shards.json").unlink()
    write_shards(corpus, tmp_path, per_shard=7)
    assert (tmp_path / "train-00001.tar").stat().st_mtime_ns == kept
    assert (tmp_path / "shards.json").read_text(encoding="utf-8") == (shards / "shards.json").read_text(
        encoding="utf-8"
    )
    with pytest.raises(UserError, match="other samples"):
        write_shards(corpus, tmp_path, per_shard=8)


def test_shards_keep_how_their_pictures_are_decoded(corpus: Corpus, shards: Path, tmp_path: Path) -> None:
    assert corpus.train.sample(0).decoding == "published"
    assert open_shards(str(shards), spool=Spool(tmp_path)).train.sample(0).decoding == "published"
    own = dataclasses.replace(corpus.train.sample(0), decoding="upright")
    write_shards(dataclasses.replace(corpus, train=Listed((own,))), tmp_path / "again")
    assert open_shards(str(tmp_path / "again"), spool=Spool(tmp_path)).train.sample(0).decoding == "upright"


def test_over_http_each_tar_is_fetched_once_and_checked(corpus: Corpus, shards: Path, tmp_path: Path) -> None:
    with serving(shards) as (url, asked):
        remote = open_shards(url, spool=Spool(tmp_path / "spool"))
        assert sorted(contents(remote.train)) == sorted(contents(corpus.train))
        other = open_shards(f"{url}/shards.json", spool=Spool(tmp_path / "spool"))
        assert sorted(contents(other.train)) == sorted(contents(corpus.train))
    assert sorted(path for path in asked if path.endswith(".tar")) == [f"/train-0000{i}.tar" for i in range(5)]
    assert remote.train.identity == open_shards(str(shards), spool=Spool(tmp_path)).train.identity


def test_the_spool_has_a_limit(shards: Path, tmp_path: Path) -> None:
    size = (shards / "train-00000.tar").stat().st_size
    with serving(shards) as (url, asked):
        remote = open_shards(url, spool=Spool(tmp_path, limit=2 * size))
        first = contents(remote.train)
        assert sum(one.stat().st_size for one in tmp_path.glob("*.tar")) <= 2 * size
        fresh = open_shards(url, spool=Spool(tmp_path, limit=2 * size))
        assert contents(fresh.train) == first
    assert len([path for path in asked if path.endswith("00000.tar")]) == 2


def test_a_damaged_download_is_no_data(shards: Path, tmp_path: Path) -> None:
    facts = json.loads((shards / "shards.json").read_text(encoding="utf-8"))
    facts["parts"]["train"][0]["sha256"] = "0" * 64
    place = tmp_path / "site"
    place.mkdir()
    for path in shards.glob("*.tar"):
        (place / path.name).write_bytes(path.read_bytes())
    (place / "shards.json").write_text(json.dumps(facts), encoding="utf-8")
    with serving(place) as (url, asked):
        remote = open_shards(url, spool=Spool(tmp_path / "spool"))
        with pytest.raises(UserError, match="has sha256"):
            remote.train.sample(0)
        tries = len(asked)
        with pytest.raises(UserError, match="has sha256"):
            remote.train.sample(1)
        assert len(asked) == tries, "a lost tar is not fetched again for every sample"
        assert remote.train.sample(7).read()
    with pytest.raises(UserError, match="cannot be fetched"), serving(tmp_path) as (url, _):
        open_shards(f"{url}/nothing", spool=Spool(tmp_path / "spool"))


def picture(kind: str = "PNG") -> bytes:
    file = io.BytesIO()
    Image.new("RGB", (20, 20), (200, 20, 20)).save(file, kind)
    return file.getvalue()


def write_tar(path: Path, files: dict[str, bytes]) -> None:
    with tarfile.open(path, "w") as archive:
        for name, data in files.items():
            facts = tarfile.TarInfo(name)
            facts.size = len(data)
            archive.addfile(facts, io.BytesIO(data))


def test_foreign_shards_with_names_in_a_file(tmp_path: Path) -> None:
    """As the webdataset package writes them: folders in keys, several suffixes, labels as .cls or in JSON."""
    write_tar(
        tmp_path / "a.tar",
        {
            "x/0001.jpg": picture("JPEG"),
            "x/0001.cls": b"1\n",
            "x/0001.txt": b"a cat",
            "x/0002.json": b'{"label": 0}',
            "x/0002.png": picture(),
            "x/0003.png": picture(),
            "x/0004.png": picture(),
            "x/0004.cls": b"seven",
            "x/0005.png": picture(),
            "x/0005.cls": b"7",
            "x/0006.cls": b"0",
        },
    )
    opened = open_shards(str(tmp_path), names={"0": "dog", "1": "cat, pussy"}, spool=Spool(tmp_path))
    pool = opened.train
    assert opened.class_names == ("dog", "cat")
    assert len(pool) == 6
    assert [pool.sample(i).label for i in (0, 1)] == [1, 0]
    for index, reason in ((2, "no label"), (3, "not a whole number"), (4, "label 7 is none of 2"), (5, "no image")):
        with pytest.raises(UserError, match=reason):
            pool.sample(index)
    with pytest.raises(UserError, match="--class-names"):
        open_shards(str(tmp_path), spool=Spool(tmp_path))


def test_a_tar_that_was_cut_off_keeps_what_stands_before(shards: Path, tmp_path: Path) -> None:
    for path in shards.iterdir():
        (tmp_path / path.name).write_bytes(path.read_bytes())
    cut = tmp_path / "train-00000.tar"
    cut.write_bytes(cut.read_bytes()[: cut.stat().st_size // 2])
    (tmp_path / "train-00001.tar").write_bytes(b"")
    pool = open_shards(str(tmp_path), spool=Spool(tmp_path)).train
    good = [i for i in range(14) if readable(pool, i)]
    assert good == list(range(len(good)))
    assert 0 < len(good) < 7
    assert readable(pool, 14)


def readable(pool: object, index: int) -> bool:
    try:
        return bool(pool.sample(index).read())  # type: ignore[attr-defined]
    except UserError:
        return False


def test_what_does_not_decode_is_left_out_when_shards_are_written(corpus: Corpus, tmp_path: Path) -> None:
    samples = [corpus.train.sample(i) for i in range(4)]
    import dataclasses

    samples[2] = dataclasses.replace(samples[2], source=lambda: b"no image")
    spoiled = dataclasses.replace(corpus, train=Listed(samples), held_out=Listed(()))
    skipped = write_shards(spoiled, tmp_path, per_shard=2)
    assert [skip.id for skip in skipped] == [samples[2].id]
    assert sum(open_shards(str(tmp_path), spool=Spool(tmp_path)).train.runs or ()) == 3


def test_errors_say_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="neither") as error:
        open_shards(str(tmp_path), spool=Spool(tmp_path))
    assert error.value.exit_code == DATA
    (tmp_path / "shards.json").write_text('{"schema": 99}', encoding="utf-8")
    with pytest.raises(UserError, match="schema 99"):
        open_shards(str(tmp_path), spool=Spool(tmp_path))
    assert len(open_imagenet21k(write_imagenet(tmp_path / "x", train=1, val=0)).train) == USED
