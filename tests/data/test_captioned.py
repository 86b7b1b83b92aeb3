"""A folder of captioned files is listed whole, or refused by the file that is wrong."""

import logging
import os
import time
from pathlib import Path

import pytest

from contar.data import captioned_files


def write(folder: Path, **texts: str) -> Path:
    for name, text in texts.items():
        stem, suffix = name.rsplit("_", 1)
        (folder / f"{stem}.{suffix}").write_text(text)
    return folder


def test_files_come_by_name_with_their_texts(tmp_path):
    write(tmp_path, b_mp4="", b_txt="two\n words ", a_PNG="", a_txt="one", c_jpeg="", c_txt="3",
          notes_md="left alone", alone_txt="left alone")  # fmt: skip
    files = captioned_files(tmp_path)
    assert [file.path.name for file in files] == ["a.PNG", "b.mp4", "c.jpeg"]
    assert [file.caption for file in files] == ["one", "two words", "3"]
    assert [file.is_video for file in files] == [False, True, False]


@pytest.mark.parametrize(
    ("words", "texts"),
    [
        ("files of .mp4", {"notes_txt": "none"}),
        ("b.png without a b.txt", {"a_png": "", "a_txt": "one", "b_png": ""}),
        ("an empty a.txt", {"a_png": "", "a_txt": " \n"}),
    ],
)
def test_a_folder_that_is_not_captioned_is_refused(words, texts, tmp_path, refuses):
    with refuses("folder", words):
        captioned_files(write(tmp_path, **texts))


def test_a_byte_order_mark_is_no_part_of_a_caption(tmp_path, refuses):
    write(tmp_path, a_png="", b_png="")
    (tmp_path / "a.txt").write_bytes("red".encode("utf-8-sig"))
    (tmp_path / "b.txt").write_text("blue")
    assert [file.caption for file in captioned_files(tmp_path)] == ["red", "blue"]
    (tmp_path / "b.txt").write_bytes("".encode("utf-8-sig"))
    with refuses("folder", "an empty b.txt"):
        captioned_files(tmp_path)


def test_a_text_of_another_encoding_and_a_missing_folder_are_refused(tmp_path, refuses):
    with pytest.raises(FileNotFoundError, match="folder: no folder"):
        captioned_files(tmp_path / "none")
    write(tmp_path, a_png="")
    (tmp_path / "a.txt").write_bytes(b"\xff\xfe\xfa")
    with refuses("folder", "UTF-8"):
        captioned_files(tmp_path)


def test_dot_files_are_skipped_what_can_be_read_is_taken_and_what_is_left_out_is_named(
    tmp_path, caplog
):
    taken = ["a.mp4", "b.mov", "c.webm", "d.MKV", "e.gif", "f.webp", "g.avi", "h.m4v", "i.tif"]
    for name in taken:
        (tmp_path / name).touch()
        (tmp_path / name).with_suffix(".txt").write_text(name)
    for name in ("._a.mp4", "._a.txt", ".DS_Store", "clip.wmv", "clip.txt", "alone.txt"):
        (tmp_path / name).write_text("x")
    (tmp_path / "more").mkdir()
    with caplog.at_level(logging.WARNING, "contar"):
        files = captioned_files(tmp_path)
    assert [file.path.name for file in files] == taken
    assert [file.caption for file in files] == taken
    assert [file.path.name for file in files if not file.is_video] == ["f.webp", "i.tif"]
    (message,) = caplog.messages
    assert "left out 4" in message
    for name in ("clip.wmv", "clip.txt", "alone.txt", "more"):
        assert repr(name) in message
    assert "._a" not in message
    assert ".DS_Store" not in message


def test_a_folder_of_which_all_is_taken_says_nothing(tmp_path, caplog):
    captioned_files(write(tmp_path, a_mp4="", a_txt="one"))
    assert not caplog.messages


def test_dot_files_alone_are_no_clips(tmp_path, refuses):
    (tmp_path / "._a.mp4").write_text("x")
    with refuses("folder", "files of .mp4"):
        captioned_files(tmp_path)


@pytest.mark.parametrize("kind", ["folder", "pipe", "device", "link to a device"])
def test_a_caption_that_is_no_regular_file_is_refused_unopened(kind, tmp_path, refuses):
    (tmp_path / "a.mp4").touch()
    text = tmp_path / "a.txt"
    if kind == "folder":
        text.mkdir()
    elif kind == "pipe":
        os.mkfifo(text)  # opening it would wait for a writer
    else:
        text.symlink_to("/dev/zero" if kind == "device" else "/dev/stdin")
    with refuses("folder", str(text), "regular file"):
        captioned_files(tmp_path)


def test_a_caption_may_be_a_link_to_a_text_and_a_broken_link_is_none(tmp_path, refuses):
    (tmp_path / "a.mp4").touch()
    (tmp_path / "text").write_text("words")
    (tmp_path / "a.txt").symlink_to(tmp_path / "text")
    assert captioned_files(tmp_path)[0].caption == "words"
    (tmp_path / "text").unlink()
    with refuses("folder", "a.mp4 without a a.txt"):
        captioned_files(tmp_path)


def test_a_caption_of_300_megabytes_is_refused_unread(tmp_path, refuses):
    (tmp_path / "a.mp4").touch()
    with (tmp_path / "a.txt").open("wb") as file:
        file.truncate(300 << 20)
    began = time.process_time()
    with refuses("folder", "a.txt", "65536"):
        captioned_files(tmp_path)
    assert time.process_time() - began < 0.5
    (tmp_path / "a.txt").write_text("x" * 65536)
    assert len(captioned_files(tmp_path)[0].caption) == 65536


def test_half_a_character_in_a_caption_is_refused(tmp_path, refuses):
    (tmp_path / "a.mp4").touch()
    (tmp_path / "a.txt").write_bytes("a \ud800 seven".encode("utf-8", "surrogatepass"))
    with refuses("folder", "a.txt", "UTF-8"):
        captioned_files(tmp_path)
