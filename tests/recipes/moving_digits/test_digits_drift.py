"""How moving digits drift: measured by the judge on any way of making long videos."""

from dataclasses import replace

import pytest
import torch

from recipes import nova
from recipes.moving_digits import BouncingDigits, measure_drift, ways_of
from recipes.moving_digits.evaluation import drift
from recipes.moving_digits.evaluation.drift import scores_of

FAST = {"num_inference_steps": 1, "num_diffusion_steps": 1}


@pytest.fixture(scope="module")
def pipe() -> nova.NovaPipeline:
    return nova.from_pretrained("moving-digits", dtype=torch.float32)


def test_real_clips_show_what_was_asked_and_others_do_not(judge):
    clips = BouncingDigits("test", 12, seed=3)
    samples = [clips[i] for i in range(12)]
    frames = torch.stack([sample.frames for sample in samples])
    scores = scores_of(samples, judge)
    assert scores["digit"](frames).shape == (12, 17)
    assert scores["digit"](frames).mean() > 0.85  # one of the twelve is misread
    assert scores["direction"](frames).mean() == 1
    assert scores["digit"](frames.roll(1, 0)).mean() < 0.5
    back = scores["direction"](frames.flip(1))  # a wall throws back
    assert back.mean() == 1
    sideways = frames.transpose(2, 3)
    level = [i for i, s in enumerate(samples) if s.direction in ("left", "right", "up", "down")]
    assert level
    assert not scores["direction"](sideways)[level].any()


def test_the_ways_are_those_that_a_model_s_positions_allow(pipe):
    model = pipe.transformer
    assert list(ways_of(model)) == ["stretch", "continue", "window", "chunks"]
    rotary = nova.build(replace(model.sizes, positions="rotary"), device="meta")
    assert ways_of(rotary)["window, timed anew"]["times"] == "window"


def test_a_report_has_every_way_and_length_beside_real_clips(pipe, tmp_path):
    ways = {"chunks": {"chunk": 3, "overlap": 1}}
    report = measure_drift(pipe, tmp_path, lengths=(1, 2), count=3, ways=ways, **FAST)
    assert {way: list(by) for way, by in report.rows.items()} == {
        "real clips": [1, 2], "chunks": [1, 2],
    }  # fmt: skip
    assert report.names() == ["digit", "direction", "frechet"]
    assert len(report.rows["chunks"][2]["digit"]) == 3
    assert report.settings["ways"] == ways
    assert (tmp_path / "drift.png").is_file()


@pytest.mark.parametrize(
    ("argument", "options"),
    [
        ("lengths", {"lengths": ()}),
        ("lengths", {"lengths": (2, 1)}),
        ("lengths", {"lengths": (0, 1)}),
        ("count", {"count": 1}),
        ("chunk", {"ways": {"chunks": {"chunk": 2, "overlap": 2}}}),
        ("plan.times", {"ways": {"window": {"times": "window"}}}),
    ],
)
def test_bad_numbers_are_refused_before_work(pipe, argument, options, refuses, tmp_path):
    with refuses(argument):
        measure_drift(pipe, tmp_path, **{"count": 2, "lengths": (1,), **options})
    assert not list(tmp_path.iterdir())


def test_the_command_line_judges_drift_where_lengths_are_given(main, monkeypatch, tmp_path, capsys):
    monkeypatch.setattr(drift, "ways_of", lambda _: {"chunks": {"chunk": 3, "overlap": 1}})
    where = ("--out", str(tmp_path), "--count", "2", "--lengths", "1", "2")
    main("evaluate", "moving-digits", *where)
    printed = capsys.readouterr().out
    assert "| chunks | 2 |" in printed
    assert (tmp_path / "drift.md").read_text() in printed
    with pytest.raises(SystemExit, match="fast: got True"):
        main("evaluate", "moving-digits", *where, "--fast")
    with pytest.raises(SystemExit, match="lengths: got"):
        main("evaluate", "moving-digits", "--lengths", "2", "1")
