"""A cache gives back what was written, says what made it, and names what is damaged."""

import sys
import tarfile
import time

import numpy as np
import pytest

from contar.data.cache import Cache, Sample, write_cache

MADE = {"tokenizer": "abc", "text_encoder": "def"}


def samples(count: int):
    rng = np.random.default_rng(0)
    for i in range(count):
        arrays = {
            "latents": rng.standard_normal((2, 3)).astype(np.float16),
            "text": rng.standard_normal((i % 4, 5)).astype(np.float16),
        }
        yield Sample(arrays, {"caption": f"clip {i}", "fps": 8.0, "motion_flow": None})


@pytest.fixture
def folder(tmp_path):
    return write_cache(samples(10), tmp_path / "cache", made_with=MADE, shard=4)


def test_what_is_read_is_what_was_written_at_any_place(folder):
    cache = Cache(folder, made_with=MADE)
    assert len(cache) == 10
    written = list(samples(10))
    for index in (9, 0, 4, 3, 9):
        read = cache[index]
        assert read.facts == written[index].facts
        assert read.arrays.keys() == written[index].arrays.keys()
        for name, array in read.arrays.items():
            assert array.dtype == np.float16
            np.testing.assert_array_equal(array, written[index].arrays[name])


def test_shards_are_webdatasets_tar_files_of_the_asked_size(folder):
    counts = []
    for file in sorted(folder.glob("*.tar")):
        with tarfile.open(file) as archive:
            names = archive.getnames()
        counts.append(len({name.split(".")[0] for name in names}))
        assert {name.split(".", 1)[1] for name in names} == {"latents.npy", "text.npy", "json"}
    assert counts == [4, 4, 2]


def test_a_cache_made_with_another_model_is_refused_and_the_difference_named(folder, refuses):
    with refuses("cache", "tokenizer: 'abc' there, 'xyz' here"):
        Cache(folder, made_with={**MADE, "tokenizer": "xyz"})


@pytest.mark.parametrize("damage", ["cut", "flipped", "gone"])
def test_a_damaged_shard_is_named_and_skipped_only_if_asked(damage, folder, refuses):
    shard = folder / "shard-00001.tar"
    content = bytearray(shard.read_bytes())
    if damage == "gone":
        shard.unlink()
    elif damage == "cut":
        shard.write_bytes(content[: len(content) // 2])
    else:
        content[700] ^= 1
        shard.write_bytes(content)
    with refuses("cache", "shard-00001.tar"):
        Cache(folder)
    cache = Cache(folder, skip_corrupted=True)
    assert [str(shard)] == cache.skipped
    assert [cache[i].facts["caption"] for i in range(6)] == [
        f"clip {i}" for i in (0, 1, 2, 3, 8, 9)
    ]


def test_equal_samples_have_one_fingerprint_whenever_they_were_written(
    folder, tmp_path, monkeypatch
):
    def written(name: str, content) -> str:
        return Cache(write_cache(content, tmp_path / name, made_with={}, shard=4)).fingerprint

    monkeypatch.setattr(time, "time", lambda: 1e9)
    assert written("again", samples(10)) == Cache(folder).fingerprint
    assert written("reversed", reversed([*samples(10)])) != Cache(folder).fingerprint
    (folder / "shard-00001.tar").unlink()
    assert Cache(folder, skip_corrupted=True).fingerprint != written("third", samples(10))


def test_a_cache_without_a_whole_shard_is_refused(folder, refuses):
    for shard in folder.glob("*.tar"):
        shard.write_bytes(b"")
    with refuses("cache", "without a whole shard"):
        Cache(folder, skip_corrupted=True)


def test_a_folder_without_a_cache_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"cache\.json"):
        Cache(tmp_path)


def test_what_fails_while_writing_leaves_nothing_behind(tmp_path):
    def broken():
        yield from samples(5)
        raise OSError("No space left on device")

    with pytest.raises(OSError, match="No space"):
        write_cache(broken(), tmp_path / "cache", made_with=MADE, shard=2)
    assert list(tmp_path.iterdir()) == []


def test_what_a_killed_write_left_is_gone_after_the_next(tmp_path):
    left = tmp_path / ".cache.part"
    left.mkdir()
    (left / "shard-00009.tar").write_bytes(b"half")
    write_cache(samples(3), tmp_path / "cache", made_with=MADE)
    assert list(tmp_path.iterdir()) == [tmp_path / "cache"]
    assert len(Cache(tmp_path / "cache")) == 3


def test_without_webdataset_it_says_what_to_install(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "webdataset", None)
    with pytest.raises(ImportError, match=r'pip install "contar\[train\]"'):
        write_cache(samples(1), tmp_path / "cache", made_with=MADE)
    assert not list(tmp_path.iterdir())


def test_bad_arguments_are_refused(folder, tmp_path, refuses):
    with refuses("out"):
        write_cache(samples(1), folder, made_with=MADE)
    with refuses("samples", "none"):
        write_cache([], tmp_path / "empty", made_with=MADE)
    with refuses("shard", "0"):
        write_cache(samples(1), tmp_path / "other", made_with=MADE, shard=0)
