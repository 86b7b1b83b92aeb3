"""The reader: reads handwritten digits offline, and nothing where there is none."""

import importlib.machinery
import importlib.util
import socket
import sys

import pytest
import torch

from recipes.moving_digits import Reader, load_digits


@pytest.fixture(scope="module")
def reader() -> Reader:
    return Reader(frames=3)


def test_a_reader_reads_digits_right_without_the_internet(reader, monkeypatch):
    """Last measured: 38 of 40, and 571 of all 600 test digits."""

    def refuse(*_args, **_kwargs):
        raise AssertionError("a network")

    monkeypatch.setattr(socket, "socket", refuse)
    monkeypatch.setattr(socket, "create_connection", refuse)
    pictures, labels = load_digits("test")
    chosen = torch.arange(0, 600, 15)
    frames = pictures[chosen][..., None].expand(-1, -1, -1, 3)
    right = int((reader.digits(frames) == labels[chosen]).sum())
    print(f"{right} of 40")
    assert right >= 36
    Reader()


def test_a_reader_reads_clips_by_their_majority(reader, asked):
    clips = torch.stack([asked[i].frames for i in range(10)])
    digits = torch.tensor([asked[i].digit for i in range(10)])
    assert int((reader.majority(clips) == digits).sum()) >= 8
    assert reader.majority(clips[:1, :1]).shape == (1,)


def test_a_reader_reads_nothing_where_there_is_nothing(reader):
    draws = torch.Generator().manual_seed(0)
    black = torch.zeros(2, 64, 64, 3, dtype=torch.uint8)
    noise = torch.randint(0, 256, (2, 64, 64, 3), generator=draws).byte()
    square = black.clone()
    square[:, 20:40, 20:40] = 255
    for frames in (black, noise, square):
        assert reader.digits(frames).tolist() == [-1, -1]
        assert reader.majority(frames[None]).tolist() == [-1]


def test_without_its_package_or_its_model_it_says_what_is_missing(monkeypatch, tmp_path):
    with monkeypatch.context() as patch:
        patch.setitem(sys.modules, "onnxruntime", None)
        with pytest.raises(ImportError, match=r'onnxruntime.*pip install "contar\[eval\]"'):
            Reader()
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(ImportError, match=r'pip install "contar\[eval\]"'):
        Reader()
    spec = importlib.machinery.ModuleSpec("rapidocr", None, is_package=True)
    spec.submodule_search_locations = [str(tmp_path)]
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: spec)
    with pytest.raises(FileNotFoundError, match=r"rapidocr: got no .*_rec_.*\.onnx"):
        Reader()


def test_a_reader_refuses_no_frames_and_other_tensors(reader, refuses):
    with refuses("frames", "0"):
        Reader(frames=0)
    with refuses("frames", "torch.float32"):
        reader.digits(torch.zeros(2, 8, 8, 3))
    with refuses("clips", "(2, 8, 8, 3)"):
        reader.majority(torch.zeros(2, 8, 8, 3, dtype=torch.uint8))
