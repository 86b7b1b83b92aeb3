"""Drift: scores by segment of the learned length, and the last minus the first."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from torch import nn

from contar.evaluation import DriftReport, Figure, cut_segments, drift


def fading(count: int = 3, frames: int = 13) -> torch.Tensor:
    """Clips whose grey falls by 5 a frame, from 100 + 10 i."""
    greys = 100 + 10 * torch.arange(count)[:, None] - 5 * torch.arange(frames)
    return greys.byte()[:, :, None, None, None].expand(-1, -1, 4, 4, 3).contiguous()


def grey(frames: torch.Tensor) -> torch.Tensor:
    return frames.double().mean((2, 3, 4))


class Colours(nn.Module):
    num_features = 3

    def __init__(self) -> None:
        super().__init__()
        self.unit = nn.Parameter(torch.ones(()))

    def forward(self, frames: torch.Tensor) -> torch.Tensor:
        return frames.float().mean((2, 3)) * self.unit


@given(st.integers(1, 5), st.integers(2, 5))
def test_segments_are_the_frames_in_order_and_none_twice(segments, length):
    frames = segments * (length - 1) + 1
    clips = torch.randint(0, 256, (2, frames, 4, 4, 3), dtype=torch.uint8)
    parts = cut_segments(clips, length)
    assert [part.shape[1] for part in parts] == [length, *[length - 1] * (segments - 1)]
    assert torch.equal(torch.cat(parts, dim=1), clips)


def test_scores_are_means_by_segment_and_the_change_is_taken_clip_by_clip():
    found = drift(fading(), 5, {"grey": grey, "first": lambda frames: grey(frames)[:, 0]})
    assert [figure.value for figure in found["grey"]] == pytest.approx([100, 77.5, 57.5, -42.5])
    assert [figure.value for figure in found["first"]] == pytest.approx([110, 85, 65, -45])
    first, *_, change = found["grey"]
    assert first.low is not None
    assert first.value is not None
    assert first.low < first.value  # clips differ, and all fade alike
    assert change.low == change.high == pytest.approx(-42.5)
    assert {figure.count for figure in found["grey"]} == {3}
    (one, nothing) = drift(fading(frames=5), 5, {"grey": grey})["grey"]
    assert (one.value, nothing.value) == (100, 0)


def test_the_frechet_distance_is_that_of_the_same_segment_of_real_clips():
    draws = torch.Generator().manual_seed(0)
    real = torch.randint(90, 160, (4, 9, 4, 4, 3), dtype=torch.uint8, generator=draws)
    made = real.clone()
    made[:, 5:] += 20
    same, off, change = drift(made, 5, {}, features=Colours(), real=real)["frechet"]
    assert same.value == pytest.approx(0, abs=1e-2)
    assert off.value == pytest.approx(3 * 20**2, rel=1e-3)
    assert same.value is not None
    assert off.value is not None
    assert change.value == pytest.approx(off.value - same.value)


@pytest.mark.parametrize(
    ("argument", "came", "options"),
    [
        ("clips", "12 frames", {"clips": fading(frames=12)}),
        ("clips", "3 frames", {"clips": fading(frames=3)}),
        ("length", "1", {"length": 1}),
        ("real", "alone", {"real": fading()}),
        ("real", "alone", {"features": Colours()}),
        ("real", "(3, 9, 4, 4, 3)", {"features": Colours(), "real": fading(frames=9)}),
    ],
)
def test_what_makes_no_segments_is_refused(argument, came, options, refuses):
    with refuses(argument, came):
        drift(**{"clips": fading(), "length": 5, "scores": {"grey": grey}, **options})


def report() -> DriftReport:
    by_length = {k: drift(fading(frames=4 * k + 1), 5, {"grey": grey}) for k in (1, 3)}
    lost = {1: {"grey": [Figure(None, 0), Figure(None, 0)]}}
    return DriftReport({"fading": by_length, "lost": lost}, {"seed": 1})


def test_a_report_has_a_line_for_each_way_and_length():
    lines = report().table().splitlines()
    assert lines[0] == "| grey | length | segment 1 | segment 2 | segment 3 | last - first |"
    assert lines[2] == "| fading | 1 | 100.000 |  |  |  |"
    tail = "100.000 | 77.500 | 57.500 | -42.500 (-42.500 to -42.500) |"
    assert lines[3] == f"| fading | 3 | {tail}"
    assert lines[4] == "| lost | 1 | – |  |  |  |"


def test_a_report_is_saved_as_numbers_a_table_and_a_picture(tmp_path, refuses):
    file, picture = report().save(tmp_path / "new")
    assert DriftReport.load(file) == report()
    assert (tmp_path / "new" / "drift.md").read_text() == report().table()
    with Image.open(picture) as image:
        assert image.size[0] > 300
    with refuses("rows"):
        DriftReport({}, {})
    file.write_text('{"rows": [1], "settings": {}}')
    with refuses("path", "drift.json"):
        DriftReport.load(file)
