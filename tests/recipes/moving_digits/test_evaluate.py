"""A perfect model scores as real clips do, wrong ones low; each figure can fail on its own."""

import json
import sys
from dataclasses import replace

import pytest
import torch

from contar.evaluation import Scores
from recipes.moving_digits import (
    DIRECTIONS,
    SPEEDS,
    TASKS,
    Abilities,
    BouncingDigits,
    MovingDigits,
    Reader,
    evaluate,
    load_digits,
    real,
    render,
)

REFERENCE = MovingDigits("test", 40, seed=1)


@pytest.fixture(scope="module")
def perfect(judge, asked):
    return evaluate(real(asked), asked, judge, reference=REFERENCE, batch=16)


def value(scores: Scores, name: str) -> float:
    """Return a figure that must have a value."""
    found = scores.figures[name].value
    assert found is not None
    return found


def wrong_about(asked, indices, *, digit=False, direction=False, speed=False):
    """Return clips as they were asked for, but for some things."""
    train, clips = load_digits("train"), []
    for index in indices:
        sample = asked[index]
        shown = (sample.digit + digit) % 10
        way, pace = sample.direction, sample.speed
        if direction:
            way = DIRECTIONS[(DIRECTIONS.index(way) + 4) % 8] if way else "up"
            pace = pace or 0.7
        if speed and way:
            pace = SPEEDS[-1 - SPEEDS.index(pace)]
        picture = train.pictures[400 * shown + index]
        clips.append(render(picture, way, pace, start=torch.zeros(2)))
    return torch.stack(clips)


def model_of(make):
    """Return abilities that all make the same clips, from the indices of a call."""

    def call(captions, seed):
        return make(range(seed, seed + len(captions)))

    return Abilities(
        text_to_video=lambda captions, seed, motion: call(captions, seed),
        image_to_video=lambda frames, captions, seed: call(captions, seed),
        continuation=lambda frames, captions, seed: call(captions, seed),
    )


def test_the_perfect_model_scores_as_real_clips_do(perfect):
    figures = perfect.figures
    for task in ("text", "image", "continuation"):
        assert value(perfect, f"{task}.digit") >= 0.9  # of 40; the judge misreads some
        assert value(perfect, f"{task}.digit_last") >= 0.85
        assert value(perfect, f"{task}.digit_all") >= 0.85
        assert value(perfect, f"{task}.change") < 2
        assert value(perfect, f"{task}.sharpness") == pytest.approx(1, abs=0.1)
        assert figures[f"{task}.direction"].value == 1
        assert figures[f"{task}.still"].value == 1
    assert figures["continuation.speed"].value == 1
    assert figures["continuation.speed_ratio"].value == pytest.approx(1, abs=0.01)
    assert figures["motion.rank"].value == pytest.approx(1, abs=1e-4)
    assert figures["motion.rank_moving"].value == pytest.approx(1, abs=1e-4)
    assert figures["tokenizer.psnr"].value is None  # infinite
    assert figures["tokenizer.ssim"].value == pytest.approx(1)


def test_counts_and_intervals_are_those_of_the_clips(perfect, asked):
    still = sum(asked[i].direction is None for i in range(40))
    assert perfect.figures["text.digit"].count == 40
    assert perfect.figures["text.still"].count == still
    assert perfect.figures["text.direction"].count == 40 - still
    assert perfect.figures["tokenizer.ssim"].count == 40 * 17
    assert 0.85 < (perfect.figures["text.direction"].low or 0) < 1
    assert len(perfect.outcomes) == 4 * 40
    outcome = perfect.outcomes[0]
    assert (outcome.digit, outcome.direction) == (asked[0].digit, asked[0].direction)


@pytest.mark.parametrize(
    ("wrong", "falls"),
    [
        ({"digit": True}, {"digit"}),
        ({"direction": True}, {"direction", "still"}),
        ({"speed": True}, {"speed"}),
    ],
)
def test_each_mistake_lowers_its_figure_and_no_other(judge, asked, wrong, falls):
    model = model_of(lambda indices: wrong_about(asked, indices, **wrong))
    figures = evaluate(model, asked, judge, tasks=("continuation",)).figures
    values = {name.split(".")[1]: figure.value or 0.0 for name, figure in figures.items()}
    for name in ("digit", "direction", "still", "speed"):
        if name in falls:
            assert values[name] < 0.35, (name, values)  # one in five speeds is its own opposite
        else:
            assert values[name] > 0.85, (name, values)


def test_a_digit_that_breaks_at_the_end_is_right_in_most_frames_and_wrong_in_the_last(judge, asked):
    def spoiled(indices):
        clips = torch.stack([asked[i].frames for i in indices])
        clips[:, -3:, 30:] = 0  # what is left is half a digit
        clips[:, -3:] = clips[:, -3:] // 2 + clips[:, -3:].flip(3) // 2
        return clips

    scores = evaluate(model_of(spoiled), asked, judge, tasks=("text",))
    assert value(scores, "text.digit") >= 0.9
    assert value(scores, "text.digit_last") < 0.4
    assert value(scores, "text.digit_all") < 0.4
    assert value(scores, "text.change") > 4


def test_of_longer_clips_the_last_frames_are_judged_and_whether_they_go_back(judge):
    clips = BouncingDigits("test", 30, seed=3)
    longer = BouncingDigits("test", 30, seed=3, frames=49)
    scores = evaluate(real(clips, longer=longer), clips, judge, tasks=("longer",))
    assert value(scores, "longer.digit") >= 0.9
    assert value(scores, "longer.bounced") == 1
    assert 10 < scores.figures["longer.bounced"].count < 30
    assert {len(outcome.frames) for outcome in scores.outcomes} == {17}

    def through(captions, seed):  # the wall
        frames = torch.stack([longer[seed + i].frames for i in range(len(captions))])
        return torch.cat([frames[:, :17], frames[:, 16:17].expand(-1, 32, -1, -1, -1)], dim=1)

    stuck = evaluate(Abilities(longer=through), clips, judge)
    assert value(stuck, "longer.bounced") == 0


def test_reversed_clips_go_the_wrong_way(judge, asked):
    model = model_of(lambda indices: torch.stack([asked[i].frames.flip(0) for i in indices]))
    scores = evaluate(model, asked, judge, tasks=("text", "image"))
    assert value(scores, "text.direction") == value(scores, "image.direction") == 0
    assert value(scores, "text.still") == 1
    assert value(scores, "text.digit") >= 0.9


def test_clips_of_other_prompts_score_by_chance_and_keep_the_distances(judge, asked, perfect):
    model = model_of(lambda indices: torch.stack([REFERENCE[39 - i].frames for i in indices]))
    other = MovingDigits("test", 40, seed=2)
    scores = evaluate(model, asked, judge, reference=other, tasks=("text", "motion"))
    assert value(scores, "text.digit") < 0.4
    assert value(scores, "text.direction") < 0.4
    assert abs(value(scores, "motion.rank")) < 0.5
    for name in ("text.frechet_frames", "text.frechet_clips"):
        assert value(scores, name) < 2 * value(perfect, name)


def test_noise_shows_no_digit_does_not_stand_still_and_is_far_away(judge, asked, perfect):
    draws = torch.Generator().manual_seed(0)
    shape = (17, 64, 64, 3)
    model = model_of(lambda i: torch.randint(0, 256, (len(i), *shape), generator=draws).byte())
    scores = evaluate(model, asked, judge, reference=REFERENCE, tasks=("text", "image"))
    for name in ("text.digit", "text.direction", "text.still", "image.digit"):
        assert value(scores, name) == 0, name
    for name in ("text.frechet_frames", "text.frechet_clips"):
        assert value(scores, name) > 3 * value(perfect, name)


def test_only_what_was_generated_is_judged(judge, asked):
    """The frames that were given, put in front of black ones, win nothing."""

    def kept(frames, given):
        return torch.cat(
            [frames, torch.zeros_like(frames[:, :1]).expand(-1, 17 - given, -1, -1, -1)], 1
        )

    model = Abilities(
        image_to_video=lambda frames, captions, seed: kept(frames[:, None], 1),
        continuation=lambda frames, captions, seed: kept(frames, 9),
    )
    figures = evaluate(model, asked, judge, count=10).figures
    assert {name.split(".")[0] for name in figures} == {"image", "continuation"}
    assert {figure.value for figure in figures.values()} == {0, None}


def test_each_call_gets_its_captions_seed_frames_and_score(judge, asked):
    calls = []

    def make(task, captions, seed, extra):
        calls.append((task, captions, seed, extra))
        return torch.stack([asked[seed - 100 + i].frames for i in range(len(captions))])

    model = Abilities(
        text_to_video=lambda captions, seed, motion: make("text", captions, seed, motion),
        image_to_video=lambda frames, captions, seed: make("image", captions, seed, frames),
        continuation=lambda frames, captions, seed: make("on", captions, seed, frames),
    )
    evaluate(model, asked, judge, count=5, batch=3, seed=100)
    assert [(task, seed, len(captions)) for task, captions, seed, _ in calls] == [
        (task, seed, size)
        for task in ("text", "text", "image", "on")
        for seed, size in ((100, 3), (103, 2))
    ]
    captions = [asked[i].caption for i in range(5)]
    assert all(call[1] == captions[call[2] - 100 :][: len(call[1])] for call in calls)
    assert calls[0][3] is calls[1][3] is None
    scores = calls[2][3] + calls[3][3]
    assert len(scores) == 5
    assert min(scores) >= 0
    assert torch.equal(calls[4][3], torch.stack([asked[i].frames[0] for i in range(3)]))
    assert torch.equal(calls[6][3], torch.stack([asked[i].frames[:9] for i in range(3)]))


def test_scores_do_not_depend_on_the_batch(judge, asked):
    scores = [evaluate(real(asked, seed=7), asked, judge, count=9, batch=b, seed=7) for b in (2, 9)]
    few, many = (score.outcomes for score in scores)
    # Features are sums in another order: float32 over 576 products.
    assert [o.change for o in few] == pytest.approx([o.change for o in many], abs=1e-4)
    assert [replace(o, change=None) for o in few] == [replace(o, change=None) for o in many]
    for name, figure in scores[0].figures.items():
        assert figure.value == pytest.approx(scores[1].figures[name].value, abs=1e-4), name


def test_the_settings_tell_all_that_it_takes_to_repeat(judge, asked):
    notes = {"commit": "abc", "steps": 3}
    scores = evaluate(
        real(asked), asked, judge, reference=REFERENCE, tasks=["text"], count=4, notes=notes
    )
    told = json.loads(json.dumps(dict(scores.settings)))
    assert told["dataset"] == {"kind": "MovingDigits", "count": 40, "split": "test", "seed": 0}
    assert told["reference"]["seed"] == 1
    assert (told["tasks"], told["count"], told["batch"], told["seed"]) == (["text"], 4, 20, 0)
    assert told["judge"] == judge.fingerprint()
    assert told["reader"] is None
    assert told["notes"] == notes


def test_a_reader_reads_the_digits_of_real_clips_as_a_second_judge(judge, asked):
    scores = evaluate(real(asked), asked, judge, reader=Reader(frames=1), tasks=["text"], count=10)
    assert value(scores, "text.digit_read") >= 0.7
    assert scores.settings["reader"]["frames"] == 1
    assert {outcome.read for outcome in scores.outcomes} <= set(range(-1, 10))


def test_the_frames_of_the_data_set_are_safe_from_the_model(judge, asked):
    samples = [asked[i] for i in range(3)]
    before = [sample.frames.clone() for sample in samples]

    def spoil(frames, *_):
        frames.zero_()
        return torch.zeros(3, 17, 64, 64, 3, dtype=torch.uint8)

    model = Abilities(image_to_video=spoil, continuation=spoil, reconstruct=spoil)
    evaluate(model, samples, judge)
    assert all(torch.equal(s.frames, b) for s, b in zip(samples, before, strict=True))


def clips_of(shape, dtype=torch.uint8):
    return Abilities(text_to_video=lambda *_: torch.zeros(shape, dtype=dtype))


@pytest.mark.parametrize(
    ("model", "words"),
    [
        (clips_of((2, 17, 64, 64, 3), torch.float32), "torch.float32"),
        (clips_of((2, 3, 17, 64, 64)), "(2, 3, 17, 64, 64)"),
        (clips_of((1, 17, 64, 64, 3)), "2 clips"),
        (clips_of((2, 1, 64, 64, 3)), "at least 2 frames"),
        (Abilities(text_to_video=lambda *_: None), "NoneType"),  # type: ignore[arg-type]
    ],
)
def test_a_model_that_returns_no_clips_is_named(judge, asked, refuses, model, words):
    with refuses("text_to_video", words):
        evaluate(model, asked, judge, count=2)


def test_a_tokenizer_that_returns_other_sizes_is_named(judge, asked, refuses):
    with refuses("reconstruct", "as given"):
        evaluate(Abilities(reconstruct=lambda clips: clips[:, :9]), asked, judge, count=2)


@pytest.mark.parametrize(
    ("name", "changes"),
    [
        ("abilities", {"abilities": None}),
        ("judge", {"judge": None}),
        ("tasks", {"abilities": Abilities()}),
        ("tasks", {"tasks": []}),
        ("tasks", {"tasks": ["text", "text"]}),
        ("tasks", {"tasks": ["image"]}),
        ("count", {"count": 41}),
        ("count", {"count": 0}),
        ("batch", {"batch": 0}),
        ("seed", {"seed": -1}),
        ("notes", {"notes": {"a": torch.zeros(1)}}),
        ("notes", {"notes": {"a": float("nan")}}),
    ],
)
def test_evaluate_refuses_bad_arguments_by_name(judge, asked, refuses, name, changes):
    arguments = {"abilities": clips_of((2, 17, 64, 64, 3)), "dataset": asked, "judge": judge}
    with refuses(name):
        evaluate(**(arguments | changes))


def test_a_set_too_small_for_a_distance_is_refused_before_any_work(judge, asked, refuses):
    with refuses("reference", "1 clips for 40"):
        evaluate(clips_of(()), asked, judge, reference=MovingDigits("test", 1))
    with refuses("reference", "40 clips for 1"):
        evaluate(clips_of(()), asked, judge, reference=asked, count=1)


@pytest.mark.parametrize(
    ("module", "extra", "arguments"),
    [
        ("cv2", "video", {"tasks": ["text", "motion"]}),
        ("torchmetrics", "eval", {"tasks": ["text", "motion"]}),
        ("torchmetrics", "eval", {"tasks": ["text"], "reference": REFERENCE}),
    ],
)
def test_what_is_not_installed_is_missed_before_any_work(
    judge, asked, monkeypatch, module, extra, arguments
):
    monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(ImportError, match=rf'pip install "contar\[{extra}\]"'):
        evaluate(clips_of(()), asked, judge, **arguments)


def test_an_ability_that_cannot_be_called_is_refused(refuses):
    with refuses("continuation", "str"):
        Abilities(continuation="mp4")  # type: ignore[arg-type]
    assert set(TASKS.values()) == set(Abilities.__dataclass_fields__)
