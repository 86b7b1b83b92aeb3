"""Files by name, from folders and lists; what is wrong with a list is said by its line."""

import json

import pytest

from contar.preparation import SourceFile, find_files


def test_a_folder_gives_its_videos_and_pictures_by_name(tmp_path):
    for name in ("b.mp4", "a/c.PNG", "a/.d.mp4", ".e/f.mp4", "b.txt", "a/g.csv"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    assert find_files(tmp_path) == (tmp_path, [SourceFile("a/c.PNG"), SourceFile("b.mp4")])


def test_lists_start_from_their_folder_and_may_say_captions(tmp_path):
    (tmp_path / "l.txt").write_text("\ufeffb.mp4\n\n  a b.jpg \n/x/c.webm\n", encoding="utf-8")
    names = ["/x/c.webm", "a b.jpg", "b.mp4"]
    assert find_files(tmp_path / "l.txt") == (tmp_path, [SourceFile(name) for name in names])
    lines = [{"path": "b.mp4", "caption": " two\n words "}, {"path": "a.mp4", "caption": None}]
    (tmp_path / "l.jsonl").write_text("\n".join(map(json.dumps, lines)))
    _, files = find_files(tmp_path / "l.jsonl")
    assert files == [SourceFile("a.mp4"), SourceFile("b.mp4", "two words")]


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("l.csv", "a.mp4", "a list that ends in .txt or .jsonl"),
        ("l.txt", "", "without a file"),
        ("l.txt", "a.mp4\nb.doc", "'b.doc' in .*l.txt, line 2"),
        ("l.txt", "a.mp4\nb.mp4\na.mp4", "a.mp4 twice"),
        ("l.txt", b"\xff\xfe", "a list in UTF-8"),
        ("l.jsonl", '{"path": "a.mp4"}\n{"path": ', "line 2.*an object with"),
        ("l.jsonl", "[1]", "line 1.*an object with"),
        ("l.jsonl", '{"path": 1}', "line 1.*an object with"),
        ("l.jsonl", '{"path": "a.mp4", "caption": 2}', "line 1.*an object with"),
        ("l.jsonl", '{"path": "a.mp4", "text": "b"}', "line 1: path, text.*an object with"),
        ("l.jsonl", '{"path": "\\ud800.mp4"}', "UTF-8 can write"),
        ("l.jsonl", "[" * 5000, "line 1.*an object with"),
    ],
)
def test_what_is_wrong_with_a_list_is_said(tmp_path, name, content, said):
    place = tmp_path / name
    place.write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(ValueError, match=f"(?s)(source|caption): got .*{said}"):
        find_files(place)


def test_no_folder_and_an_empty_one_are_refused(tmp_path):
    with pytest.raises(FileNotFoundError, match="source: no folder and no list"):
        find_files(tmp_path / "none")
    with pytest.raises(ValueError, match=r"without a file.*\.mp4"):
        find_files(tmp_path)
