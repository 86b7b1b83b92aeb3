"""A cache gives back what was written, says what made it, and names what is damaged."""

import gzip
import io
import json
import math
import os
import sys
import tarfile
import time
import zlib
from fractions import Fraction

import numpy as np
import pytest

from contar.data import Cache, Sample, join_shards, write_cache, write_shard

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


def test_a_cache_refuses_a_folder_that_is_there_no_samples_and_bad_numbers(
    folder, tmp_path, refuses
):
    with refuses("out"):
        write_cache(samples(1), folder, made_with=MADE)
    with refuses("samples", "none"):
        write_cache([], tmp_path / "empty", made_with=MADE)
    with refuses("shard", "0"):
        write_cache(samples(1), tmp_path / "other", made_with=MADE, shard=0)


def test_a_tuple_and_numbers_of_numpy_are_what_json_made_of_them(tmp_path, refuses):
    made = {"size": (64, 64), "deep": {"a": [(1, (2,))]}, "steps": np.int64(3), "rate": 0.5}
    folder = write_cache(samples(2), tmp_path / "cache", made_with=made)
    assert len(Cache(folder, made_with=made)) == 2
    same = {"size": [64, 64], "steps": 3, "rate": np.float32(0.5), "deep": {"a": [[1, [2]]]}}
    assert len(Cache(folder, made_with=same)) == 2
    assert len(Cache(folder, made_with={"size": np.array([64, 64])})) == 2
    assert Cache(folder, made_with=Cache(folder).made_with).made_with == Cache(folder).made_with
    with refuses("cache", "size: [64, 64] there, [64, 32] here"):
        Cache(folder, made_with={"size": (64, 32)})


@pytest.mark.parametrize("value", [object(), {1, 2}, math.nan, Fraction(1, 2), b"a"])
def test_what_json_does_not_have_is_refused_before_the_first_sample(tmp_path, refuses, value):
    def unread():
        raise AssertionError
        yield

    with refuses("made_with", "JSON"):
        write_cache(unread(), tmp_path / "cache", made_with={"size": value})
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("words", "arrays", "facts"),
    [
        ("sample 1", {"latents": np.zeros(3)}, {}),
        ("sample 1", {"latents": np.zeros(3), "text": np.zeros(2), "more": np.zeros(2)}, {}),
        ("object", {"latents": np.array([None]), "text": np.zeros(2)}, {}),
        ("[1]", {"latents": np.zeros(3), "text": np.zeros(2)}, {"fps": object()}),
    ],
)
def test_a_sample_unlike_the_first_is_refused_by_its_number(
    tmp_path, refuses, words, arrays, facts
):
    def both():
        yield from samples(1)
        yield Sample(arrays, facts)

    with refuses("samples", words):
        write_cache(both(), tmp_path / "cache", made_with=MADE)
    assert not list(tmp_path.iterdir())


SHARD = "shard-00000.tar"


def npy(array) -> bytes:
    stream = io.BytesIO()
    np.save(stream, array)
    return stream.getvalue()


def header(shape: str, dtype: str = "<f2") -> bytes:
    text = f"{{'descr': '{dtype}', 'fortran_order': False, 'shape': {shape}}}".ljust(117) + "\n"
    return b"\x93NUMPY\x01\x00" + len(text).to_bytes(2, "little") + text.encode()


def hostile(folder, change, *, made=None):
    """Rewrite the first shard, whose checksum is right again; `change` makes members of members."""
    file = folder / SHARD
    with tarfile.open(file) as archive:
        members = [(m, archive.extractfile(m).read()) for m in archive]  # type: ignore[union-attr]
    with tarfile.open(file, "w") as archive:
        for member, content in change(members):
            archive.addfile(member, io.BytesIO(content))
    sign(folder)


def sign(folder):
    index = json.loads((folder / "cache.json").read_text())
    index["shards"][0]["crc32"] = zlib.crc32((folder / SHARD).read_bytes())
    (folder / "cache.json").write_text(json.dumps(index))


def one(name: str, content: bytes):
    """Return a change that puts another content into a member."""

    def change(members):
        for member, old in members:
            if member.name == name:
                old, member.size = content, len(content)
            yield member, old

    return change


def odd(kind: bytes, link: str = ""):
    """Return a change that makes a link, a device or a folder of a member."""

    def change(members):
        for member, content in members:
            if member.name == "00000001.text.npy":
                member.type, member.linkname, member.size, content = kind, link, 0, b""
            yield member, content

    return change


@pytest.mark.parametrize(
    "content",
    [
        b"", b"PK\x03\x04 an npz", b"\x80\x04 a pickle", header("(1000000000000,)"),
        header("(10, 10)") + b"\0" * 199, header("(10, 10)") + b"\0" * 201,
        header("(-1, -2)", "<f4"),
        header("(1000000000000,)", "|V0"), header("(1,)", "|O") + b"\0" * 8, header("(1,"),
        header("(1.5,)"), b"\x93NUMPY\x07\x00" + b"\0" * 200, npy(np.array(["words"])),
        header("(" * 1000 + ")" * 1000),
    ],
)  # fmt: skip
def test_an_array_that_is_none_is_named_when_it_is_read(folder, refuses, content):
    hostile(folder, one("00000001.text.npy", content))
    cache = Cache(folder)
    assert cache[0].facts["caption"] == "clip 0"
    with refuses("cache", SHARD, "00000001.text.npy"):
        cache[1]


def test_an_npz_in_an_arrays_place_is_refused_by_name(folder, refuses):
    stream = io.BytesIO()
    np.savez(stream, a=np.zeros(3))
    hostile(folder, one("00000001.text.npy", stream.getvalue()))
    with refuses("cache", SHARD, "00000001.text.npy"):
        Cache(folder)[1]


@pytest.mark.parametrize("content", [b"", b"[1]", b"{", b"\xff", b"[" * 100000])
def test_facts_that_are_none_are_named_when_they_are_read(folder, refuses, content):
    hostile(folder, one("00000002.json", content))
    with refuses("cache", SHARD, "00000002.json"):
        Cache(folder)[2]


def renamed(old: str, new: str):
    def change(members):
        for member, content in members:
            member.name = member.name.replace(old, new)
            yield member, content

    return change


def without(name: str):
    return lambda members: [pair for pair in members if name not in pair[0].name]


@pytest.mark.parametrize(
    ("words", "change"),
    [
        ("00000001.text.npy", odd(tarfile.SYMTYPE, "/etc/hostname")),
        ("00000001.text.npy", odd(tarfile.LNKTYPE, "00000000.text.npy")),
        ("00000001.text.npy", odd(tarfile.CHRTYPE)),
        ("00000001.text.npy", odd(tarfile.FIFOTYPE)),
        ("00000001.text.npy", odd(tarfile.DIRTYPE)),
        ("../00000001.json", renamed("00000001.json", "../00000001.json")),
        ("/00000001.json", renamed("00000001.json", "/tmp/00000001.json")),
        ("00000001.text.npz", renamed("00000001.text.npy", "00000001.text.npz")),
        ("00000000.json", renamed("00000001.json", "00000000.json")),  # twice
        ("00000002.json", without("00000002.json")),
        ("00000002.latents.npy", without("00000002.latents.npy")),
        ("3 samples", without("00000002.")),
        ("0 samples", lambda members: []),
        ("without an array", without(".npy")),
    ],
)
def test_members_that_write_cache_does_not_write_are_named(folder, refuses, words, change):
    hostile(folder, change)
    with refuses("cache", SHARD, words):
        Cache(folder)
    cache = Cache(folder, skip_corrupted=True)
    assert cache.skipped == [str(folder / SHARD)]
    assert len(cache) == 6


def test_a_shard_of_other_arrays_than_the_first_is_named(folder, refuses):
    hostile(folder, without("text.npy"))
    with refuses("cache", "shard-00001.tar", "latents.npy"):
        Cache(folder)


@pytest.mark.parametrize("change", ["empty", "cut", "compressed", "words", "huge", "negative"])
def test_a_shard_that_is_no_plain_tar_file_is_named(folder, refuses, change):
    file = folder / SHARD
    content = bytearray(file.read_bytes())
    if change == "cut":  # within the last member, with the right checksum
        content = content[: content.rindex(b"clip 3")]
    elif change in ("huge", "negative"):  # what the second member says of its size
        with tarfile.open(file) as archive:
            member = archive.getmembers()[1]
        size = -512 if change == "negative" else 10**12
        number = size.to_bytes(12, "big", signed=True)
        number = (b"\x80" if size > 0 else b"\xff") + number[1:]
        head = content[member.offset : member.offset + 512]
        head[124:136], head[148:156] = number, b" " * 8
        head[148:156] = b"%06o\0 " % sum(head)
        content[member.offset : member.offset + 512] = head
    else:
        made = {"empty": b"", "compressed": gzip.compress(bytes(content)), "words": b"words" * 999}
        content = made[change]
    file.write_bytes(content)
    sign(folder)
    began = time.process_time()
    with refuses("cache", SHARD):
        Cache(folder)
    assert time.process_time() - began < 1
    assert len(Cache(folder, skip_corrupted=True)) == 6


def test_a_shard_that_is_a_pipe_or_a_device_is_not_opened(folder, refuses):
    for make in (os.mkfifo, lambda file: file.symlink_to("/dev/zero")):
        (folder / SHARD).unlink()
        make(folder / SHARD)
        with refuses("cache", SHARD):
            Cache(folder)


@pytest.mark.parametrize(
    "change",
    [
        {"shards": None}, {"shards": {}}, {"shards": []}, {"shards": [3]}, {"shards": ["a.tar"]},
        {"made_with": None}, {"made_with": [1]},
        {"shards": [{"file": "shard-00000.tar"}]},
        {"shards": [{"file": 3, "samples": 4, "crc32": 5}]},
        {"shards": [{"file": "../cache/shard-00000.tar", "samples": 4, "crc32": 5}]},
        {"shards": [{"file": "/etc/shard-00000.tar", "samples": 4, "crc32": 5}]},
        {"shards": [{"file": "shard-00000.tar", "samples": "4", "crc32": 5}]},
        {"shards": [{"file": "shard-00000.tar", "samples": True, "crc32": 5}]},
        {"shards": [{"file": "shard-00000.tar", "samples": -4, "crc32": 5}]},
        {"shards": [{"file": "shard-00000.tar", "samples": 4, "crc32": None}]},
    ],
)  # fmt: skip
def test_an_index_that_write_cache_does_not_write_is_refused(folder, refuses, change):
    file = folder / "cache.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), **change}))
    for skip in (False, True):
        with refuses("cache.json"):
            Cache(folder, skip_corrupted=skip)


@pytest.mark.parametrize("content", ["", "[]", "3", "{", '{"shards": []}', "[" * 100000])
def test_an_index_that_is_no_object_is_refused(folder, refuses, content):
    (folder / "cache.json").write_text(content)
    with refuses("cache.json"):
        Cache(folder)


def test_a_shard_listed_twice_or_with_another_count_is_refused(folder, refuses):
    file = folder / "cache.json"
    index = json.loads(file.read_text())
    twice = {**index, "shards": [*index["shards"], index["shards"][0]]}
    file.write_text(json.dumps(twice))
    with refuses("cache.json", "shard-00000.tar twice"):
        Cache(folder)
    index["shards"][0]["samples"] = 5
    file.write_text(json.dumps(index))
    with refuses("cache", SHARD, "4 samples", "5"):
        Cache(folder)


def test_a_shard_that_shrinks_while_it_is_read_is_named(folder, refuses):
    cache = Cache(folder)
    (folder / SHARD).write_bytes((folder / SHARD).read_bytes()[:3000])
    with refuses("cache", SHARD, "cut off"):
        cache[3]


def test_shards_that_are_written_apart_make_the_cache_that_one_call_writes(tmp_path):
    made = [Sample({"a": np.full(3, number)}, {"number": number}) for number in range(5)]
    whole = write_cache(made, tmp_path / "whole", made_with={"by": 1}, shard=2)
    apart = tmp_path / "apart"
    apart.mkdir()
    facts = {
        shard: write_shard(list(enumerate(made))[2 * shard : 2 * shard + 2], apart, shard)
        for shard in (2, 0, 1)
    }
    join_shards(apart, [facts[shard] for shard in range(3)], {"by": 1})
    assert {file.name: file.read_bytes() for file in apart.iterdir()} == {
        file.name: file.read_bytes() for file in whole.iterdir()
    }
    with pytest.raises(ValueError, match=r"samples: got .none."):
        write_shard([], apart, 3)
    assert not (apart / "shard-00003.tar").exists()
    with pytest.raises(ValueError, match=r"facts: got .none."):
        join_shards(apart, [], {})


def test_processes_that_open_a_cache_in_turns_find_damage_each_in_its_own_shards(folder, refuses):
    shard = folder / "shard-00001.tar"
    content = bytearray(shard.read_bytes())
    content[700] ^= 1
    shard.write_bytes(content)
    with refuses("cache", "shard-00001.tar"):
        Cache(folder, turn=(1, 2))
    assert len(Cache(folder, turn=(0, 2))) == 10
    for turn, skip in (((2, 2), False), ((-1, 2), False), ((0, 2), True)):
        with refuses("turn", str(turn)):
            Cache(folder, turn=turn, skip_corrupted=skip)
