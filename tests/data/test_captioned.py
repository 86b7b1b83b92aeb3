"""A folder of captioned files is listed whole, or refused by the file that is wrong."""

from pathlib import Path

import pytest

from contar.data.captioned import captioned_files


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
