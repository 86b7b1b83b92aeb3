"""Caches of clips of many shards: the same bytes by any tasks and kills, failures by name."""

import gc
import io
import itertools
import json
import random
import re
import signal
import tarfile
import time
import tracemalloc
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from forks import begin, end, kill_in

from contar.data import Cache, CaptionedFile, Entry, Sample, clip_of, read_entries, shard_files
from contar.training import (
    clip_shards,
    encode_shards,
    failed_clips,
    join_cache,
    plan_cache,
    shards_left,
)

MADE = {"tokenizer": "abc", "text_encoder": "def"}


def write_tar(file: Path, members: Mapping[str, bytes]) -> None:
    with tarfile.open(file, "w") as archive:
        for name, content in members.items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))


def write_shards(folder: Path, shards: int = 5, clips: int = 4) -> Path:
    folder.mkdir()
    for shard in range(shards):
        members = {}
        for clip in range(clips):
            key = f"at/{shard}-{clip}"
            members[f"{key}.mp4"] = bytes([shard, clip]) * 1000
            facts = {"caption": f"clip {clip} of {shard}", "motion": clip / 2, "name": "x"}
            members[f"{key}.json"] = json.dumps(facts).encode()
        write_tar(folder / f"{shard:03d}.tar", members)
    return folder


def encode(file: CaptionedFile) -> Iterator[Sample]:
    """Two samples of a file, of its bytes alone."""
    content = np.frombuffer(file.path.read_bytes(), np.uint8).astype(np.float16)
    for part in np.split(content, 2):
        yield Sample({"latents": part}, {"caption": file.caption})


def but(*words: str) -> Callable[[CaptionedFile], Iterator[Sample]]:
    """The same, which fails at some captions."""

    def encoding(file: CaptionedFile) -> Iterator[Sample]:
        if file.caption in words:
            raise ValueError(f"{file.path}: no such video")
        return encode(file)

    return encoding


def planned(folder: Path, out: Path, tasks: int = 1, **other: Any) -> None:
    given: dict[str, Any] = {"made_with": MADE, "settings": {"frames": 5}, **other}
    plan_cache(shard_files(folder), out, tasks=tasks, **given)


def run(folder: Path, out: Path, tasks: int = 1, *, by: Any = encode, **options: Any) -> None:
    planned(folder, out, tasks)
    for rank in range(tasks):
        encode_shards(folder, out, by, rank=rank, tasks=tasks, **options)


def contents(out: Path) -> dict[str, bytes]:
    return {file.name: file.read_bytes() for file in out.iterdir() if file.is_file()}


@pytest.fixture
def folder(tmp_path):
    return write_shards(tmp_path / "shards")


@pytest.fixture
def whole(folder, tmp_path):
    """What an undisturbed run makes."""
    run(folder, tmp_path / "whole")
    join_cache(tmp_path / "whole")
    return contents(tmp_path / "whole")


def test_the_cache_has_every_clip_with_its_scores_and_says_what_made_it(folder, tmp_path, whole):
    assert sorted(whole) == ["cache.json", *(f"shard-{n:05d}.tar" for n in range(5))]
    cache = Cache(tmp_path / "whole", made_with=MADE)
    assert len(cache) == 5 * 4 * 2
    assert cache[11].facts == {
        "caption": "clip 1 of 1", "key": "at/1-1", "scores": {"motion": 0.5}
    }  # fmt: skip
    np.testing.assert_array_equal(cache[11].arrays["latents"], [1, 1] * 500)


def test_bytes_are_the_same_in_any_number_of_tasks_and_order(folder, tmp_path, whole):
    for tasks in (2, 3, 7):
        out = tmp_path / f"of{tasks}"
        planned(folder, out, tasks)
        for rank in reversed(range(tasks)):
            encode_shards(folder, out, encode, rank=rank, tasks=tasks)
        assert join_cache(out) == 40
        assert contents(out) == whole


def dying(clip: int, seconds: float) -> Callable[[CaptionedFile], Iterator[Sample]]:
    """The same, slowly, in a process that ends some seconds after so many clips."""
    begun = itertools.count(1)

    def encoding(file: CaptionedFile) -> Iterator[Sample]:
        if next(begun) == clip:
            kill_in(seconds)
        time.sleep(0.002)
        return encode(file)

    return encoding


@pytest.mark.filterwarnings("ignore:.*multi-threaded:DeprecationWarning")
@pytest.mark.parametrize(("tasks", "kills"), [(1, 4), (3, 6)])
def test_a_run_that_is_killed_at_any_moment_ends_with_the_same_bytes(tasks, kills, tmp_path):
    folder = write_shards(tmp_path / "shards", shards=24, clips=2)
    run(folder, tmp_path / "whole", tasks)
    join_cache(tmp_path / "whole")
    whole = contents(tmp_path / "whole")

    out, draws = tmp_path / "killed", random.Random(tasks)
    for _ in range(kills):  # each after one shard more, or up to three
        by = dying(draws.randint(3, 4), draws.uniform(0, 0.005))
        child = begin(lambda by=by: run(folder, out, tasks, by=by))
        assert end(child) == -signal.SIGALRM
        made = {file.name: file.read_bytes() for file in out.glob("*.tar")}
        assert made.items() <= whole.items()
        assert 0 < len(made) < 24
    run(folder, out, tasks)
    join_cache(out)
    assert contents(out) == whole


def test_a_clip_that_fails_is_recorded_and_tried_again_alone(folder, tmp_path, whole):
    out, bad = tmp_path / "out", ("clip 2 of 1", "clip 0 of 3")
    run(folder, out, 3, by=but(*bad))
    assert [failure.file for failure in failed_clips(out)] == ["001.tar: at/1-2", "003.tar: at/3-0"]
    errors = {failure.error for failure in failed_clips(out)}
    assert errors == {"ValueError: clip.mp4: no such video"}
    assert join_cache(out) == 40 - 4
    run(folder, out, 3, by=but())  # of which nothing is left
    assert join_cache(out) == 36

    asked = []

    def by(file: CaptionedFile) -> Iterator[Sample]:
        asked.append(file.caption)
        return encode(file)

    run(folder, out, 3, by=by, retry=True)
    assert sorted(asked) == sorted(bad)
    assert not (out / "cache.json").exists()  # which would not fit
    join_cache(out)
    assert contents(out) == whole
    assert list(failed_clips(out)) == []


@pytest.mark.parametrize(("change", "words"), [
    (lambda content: content[:2048], "cut off"),  # two members, whole
    (lambda content: content[:512] + bytes(1024), "unexpected end of data"),
    (lambda content: b"no tar" * 300, "cut off, or none"),
    (lambda content: b"no tar" * 300 + bytes(1024), "ReadError"),
    (None, "No such file"),
])  # fmt: skip
def test_a_shard_that_fails_is_recorded_and_the_others_are_made(
    change, words, folder, tmp_path, whole
):
    out, broken = tmp_path / "out", folder / "002.tar"
    content = broken.read_bytes()
    planned(folder, out)
    broken.unlink() if change is None else broken.write_bytes(change(content))
    encode_shards(folder, out, encode)
    (failure,) = failed_clips(out)
    assert failure.file == "002.tar"
    assert re.search(rf"ValueError: shards: got .*({words})", failure.error)
    assert join_cache(out) == 32
    broken.write_bytes(content)
    encode_shards(folder, out, encode, retry=True)
    assert join_cache(out) == 40
    assert contents(out) == whole


def test_a_shard_that_is_gone_when_it_is_tried_again_keeps_its_clips(folder, tmp_path, whole):
    out = tmp_path / "out"
    run(folder, out, by=but("clip 1 of 0"))
    content = (folder / "000.tar").read_bytes()
    (folder / "000.tar").write_bytes(b"")
    encode_shards(folder, out, encode, retry=True)
    assert [failure.file for failure in failed_clips(out)] == ["000.tar: at/0-1", "000.tar"]
    assert join_cache(out) == 38
    (folder / "000.tar").write_bytes(content)
    encode_shards(folder, out, encode, retry=True)
    join_cache(out)
    assert contents(out) == whole


@pytest.mark.parametrize(("members", "words"), [
    ({"a.mp4": b"x"}, "no caption"),
    ({"a.txt": b"a cat"}, "a video or a picture"),
    ({"a.mp4": b"x", "a.png": b"x", "a.txt": b"a cat"}, "one video or picture"),
    ({"a.mp4": b"x", "a.txt": b"\xff\xfe\xff"}, "UTF-8"),
    ({"a.mp4": b"x", "a.txt": b"w" * (1 << 16) + b"w"}, "65536 bytes"),
    ({"a.mp4": b"x", "a.json": b'{"caption": "c", "motion": NaN}'}, "NaN"),
    ({"a.mp4": b"x", "a.json": b"[]"}, "a JSON object"),
    ({"a.file.npy": b"x", "a.json": b'{"caption": "c", "suffix": ".mp4"}'}, "no array"),
])  # fmt: skip
def test_what_is_no_clip_with_a_caption_is_named(members, words, tmp_path):
    (tmp_path / "shards").mkdir()
    good = {"b.mp4": b"abab", "b.txt": b"a  dog\n"}
    write_tar(tmp_path / "shards" / "0.tar", {**members, **good})
    run(tmp_path / "shards", tmp_path / "out")
    (failure,) = failed_clips(tmp_path / "out")
    assert failure.file == "0.tar: a"
    assert words in failure.error
    assert join_cache(tmp_path / "out") == 2
    assert Cache(tmp_path / "out")[0].facts["caption"] == "a dog"


def test_a_folder_without_shards_is_refused(tmp_path, refuses):
    with pytest.raises(FileNotFoundError, match="folder: no folder"):
        shard_files(tmp_path / "none")
    (tmp_path / ".hidden.tar").touch()
    with refuses("folder", "one with .tar files"):
        shard_files(tmp_path)


def test_an_array_of_other_values_than_bytes_is_no_file():
    content = io.BytesIO()
    np.save(content, np.zeros(3))
    facts = b'{"caption": "c", "suffix": ".mp4"}'
    with pytest.raises(ValueError, match=r"clip: got .*other values than bytes"):
        clip_of(Entry("a", {"file.npy": content.getvalue(), "json": facts}))


def test_a_key_in_two_places_is_refused(tmp_path, refuses):
    write_tar(tmp_path / "0.tar", {"a.mp4": b"x", "b.mp4": b"x", "a.txt": b"a cat"})
    with refuses("shards", "'a' in two places"):
        list(read_entries(tmp_path / "0.tar"))


def test_another_beginning_is_refused(folder, tmp_path, refuses):
    out = tmp_path / "out"
    run(folder, out, 2)
    with refuses("out", "tasks: 3 (was 2)"):
        planned(folder, out, 3)
    with refuses("tasks", "3", "2, as begun with"):
        encode_shards(folder, out, encode, tasks=3)
    with refuses("rank", "2", "below the number of tasks, 2"):
        encode_shards(folder, out, encode, rank=2, tasks=2)
    with refuses("out", "begun otherwise: frames: 9"):
        planned(folder, out, 2, settings={"frames": 9})
    with refuses("out", "begun otherwise: made_with: {}"):
        planned(folder, out, 2, made_with={})
    (folder / "000.tar").unlink()
    with refuses("out", "begun otherwise: shards: ["):
        planned(folder, out, 2)
    with refuses("out", "in which 001.tar is"):
        planned(folder, folder)


def test_another_shard_of_the_same_name_is_refused_once_it_is_encoded(folder, tmp_path, refuses):
    out, changed = tmp_path / "out", folder / "001.tar"
    run(folder, out, 2, by=but("clip 0 of 2"))
    before = changed.read_bytes()
    changed.write_bytes(before.replace(b"clip", b"clap"))
    assert len(changed.read_bytes()) == len(before)
    with refuses("shards", "001.tar, which was another file when it was encoded"):
        planned(folder, out, 2)
    changed.write_bytes(before)
    planned(folder, out, 2)


def test_facts_of_an_older_run_without_a_shards_digest_are_refused(folder, tmp_path, refuses):
    out = tmp_path / "out"
    run(folder, out)
    facts = clip_shards._facts_file(out, 1)
    content = {**json.loads(facts.read_text()), "source": None}
    facts.write_text(json.dumps({k: v for k, v in content.items() if v is not None}))
    with refuses("shards", "001.tar, which was another file when it was encoded"):
        planned(folder, out)


def test_a_shard_with_failures_may_be_mended_and_is_encoded_anew(folder, tmp_path, refuses):
    out, other = tmp_path / "out", tmp_path / "other"
    run(folder, out, by=but("clip 0 of 2"))
    mended = folder / "002.tar"
    mended.write_bytes(mended.read_bytes().replace(b"clip", b"clap"))
    with refuses("shards", "002.tar, which was another file when it was encoded"):
        planned(folder, out)
    planned(folder, out, retry=True)
    encode_shards(folder, out, encode, retry=True)
    join_cache(out)
    run(folder, other)
    join_cache(other)
    assert contents(out) == contents(other)


def test_shards_that_are_not_done_make_no_cache(folder, tmp_path, refuses):
    planned(folder, tmp_path / "out", 2)
    encode_shards(folder, tmp_path / "out", encode, rank=1, tasks=2)
    assert shards_left(tmp_path / "out") == [0, 2, 4]
    with refuses("out", "3 shards are not done"):
        join_cache(tmp_path / "out")
    run(write_shards(tmp_path / "none", 1, 1), tmp_path / "failed", by=but("clip 0 of 0"))
    with refuses("shards", "all failed, 000.tar by ValueError"):
        join_cache(tmp_path / "failed")


def test_a_full_disk_and_an_end_of_the_run_stop_it_without_a_record(folder, tmp_path):
    out = tmp_path / "out"
    planned(folder, out)

    def full(file: CaptionedFile) -> Iterator[Sample]:
        raise OSError(28, "no space")

    with pytest.raises(OSError, match="no space"):
        encode_shards(folder, out, full)
    asked: list[None] = []

    def ended() -> bool:
        asked.append(None)
        return len(asked) > 7

    assert encode_shards(folder, out, encode, ended=ended) == []
    assert shards_left(out) == [1, 2, 3, 4]
    assert list(failed_clips(out)) == []
    assert list((out / "run" / "parts").iterdir()) == []


def test_the_memory_of_a_task_does_not_grow_with_its_shards(tmp_path):
    folder, held, peaks = write_shards(tmp_path / "shards", shards=40, clips=1), [], []

    def large(file: CaptionedFile) -> Iterator[Sample]:
        yield Sample({"latents": np.zeros(100_000, np.float16)}, {"caption": file.caption})

    def report(line: str) -> None:
        gc.collect(1)
        now, peak = tracemalloc.get_traced_memory()
        held.append(now)
        peaks.append(peak)
        tracemalloc.reset_peak()

    planned(folder, tmp_path / "out")
    tracemalloc.start()
    try:
        encode_shards(folder, tmp_path / "out", large, report=report)
    finally:
        tracemalloc.stop()
    assert len(held) == 40
    assert max(peaks) > 400_000  # a clip has 200,000 bytes, and those of the file as many
    for measured in (held, peaks):  # Python's own caches hold some hundred bytes a shard, to an end
        assert max(measured[20:]) - max(measured[10:20]) < 20_000
