"""A file is written whole or stays as it was."""

import pytest

from contar._files import write_whole


def test_a_write_that_fails_leaves_the_file_as_it_was(tmp_path, largest_file):
    file = tmp_path / "log.csv"
    write_whole(file, "größer\n")
    with largest_file(100), pytest.raises(OSError, match="too large"):
        write_whole(file, b"x" * 1000)
    assert file.read_text(encoding="utf-8") == "größer\n"
    assert list(tmp_path.iterdir()) == [file]
