"""The command line, as a person runs it."""

import subprocess
import sys

import pytest
from PIL import Image

from contar import cli


def contar(*arguments: str) -> subprocess.CompletedProcess:
    command = [sys.executable, "-m", "contar.cli", *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=300)


def test_demo_writes_a_sheet_and_an_animation_and_says_where(tmp_path, capsys):
    cli.demo(tmp_path / "new", steps=3)
    printed = capsys.readouterr().out
    with Image.open(tmp_path / "new" / "dots.gif") as gif:
        assert getattr(gif, "n_frames", 1) == 4
    with Image.open(tmp_path / "new" / "dots.png") as sheet:
        assert len(set(sheet.convert("L").tobytes())) > 10
    assert str(tmp_path / "new" / "dots.png") in printed
    assert str(tmp_path / "new" / "dots.gif") in printed


def test_info_counts_the_parameters_of_a_preset(capsys):
    cli.info("nova-d48w1024-osp480")
    assert "644,194,320" in capsys.readouterr().out


@pytest.mark.parametrize("arguments", [("info", "nova-9000"), ("demo", "--steps", "0")])
def test_a_bad_argument_ends_with_the_message_and_no_traceback(arguments, tmp_path):
    out = ("--out", str(tmp_path)) if arguments[0] == "demo" else ()
    result = contar(*arguments, *out)
    assert result.returncode == 1
    assert "got" in result.stderr
    assert "allowed" in result.stderr
    assert "Traceback" not in result.stderr
