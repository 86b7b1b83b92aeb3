"""The judge: right about digits it never saw, wherever they lie; silent about what shows none."""

import json
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from other_defaults import defaults
from PIL import Image
from torch.nn import functional

from recipes.moving_digits import DigitJudge, MovingDigits, load_digits, majority, train_judge
from recipes.moving_digits.judges.broken import break_strokes, likeness
from recipes.moving_digits.judges.judge import BROKEN
from recipes.moving_digits.judges.training import UNCLEAR, distort, whole_and_broken

HERE = Path(__file__).parent
TEST = load_digits("test")


def placed(picture, top, left, height=64, width=64):
    """Return a frame [1, h, w, 3] with a digit at a place; what lies outside is cut off."""
    sides = (left, width - 28 - left, top, height - 28 - top)
    return functional.pad(picture, sides)[None, ..., None].expand(-1, -1, -1, 3).contiguous()


def accuracy(judge, count):
    """Return the shares of clips by their majority, and of single frames, of the test split."""
    dataset = MovingDigits("test", count)
    clips = [dataset[i] for i in range(count)]
    frames = torch.stack([clip.frames for clip in clips])
    digits = torch.tensor([clip.digit for clip in clips])
    labels = judge.digits(frames.flatten(0, 1)).view(count, -1)
    found = majority(labels)
    assert torch.equal(judge.majority(frames[:20]), found[:20])
    clips, single = found == digits, labels == digits[:, None]
    return float(clips.double().mean()), float(single.double().mean())


def agreement(judge):
    """Return how often it agrees with each of three raters on which ends show their digit.

    The clips are 100 of the first model `moving-digits`, whose digits often melted: ends.png has
    the last four frames of each. It calls an end whole where it sees the digit in all four.
    """
    told = json.loads((HERE / "ends.json").read_text())
    grey = torch.from_numpy(np.asarray(Image.open(HERE / "ends.png")).copy())
    frames = grey.view(20, 64, 20, 64).transpose(1, 2).reshape(400, 64, 64, 1)
    seen = judge.digits(frames.expand(-1, -1, -1, 3).contiguous()).view(100, 4)
    whole = (seen == torch.tensor(told["digits"])[:, None]).all(1)
    raters = [torch.tensor([i in good for i in range(100)]) for good in map(set, told["whole"])]
    return [float((whole == rater).double().mean()) for rater in raters]


def test_the_judge_is_right_about_clips_of_digits_that_it_never_saw(judge):
    clips, frames = accuracy(judge, 300)
    assert clips >= 0.94  # it calls some whole ones broken
    assert frames >= 0.94


def test_the_judge_agrees_with_raters_about_digits_that_melted(judge):
    assert min(agreement(judge)) >= 0.85  # docs/evaluation.md has the figures


def test_a_judge_trained_for_60_steps_names_most_digits_right():
    clips, _ = accuracy(train_judge(steps=60), 100)
    assert clips >= 0.6  # by chance 0.1


@given(
    row=st.integers(0, 599),
    height=st.integers(40, 130),
    width=st.integers(40, 130),
    data=st.data(),
)
def test_the_judge_sees_the_same_wherever_the_digit_lies_in_frames_of_any_size(
    judge, row, height, width, data
):
    top = data.draw(st.integers(0, height - 28))
    left = data.draw(st.integers(0, width - 28))
    frame = placed(TEST.pictures[row], top, left, height, width)
    middle = placed(TEST.pictures[row], 18, 18)
    torch.testing.assert_close(judge.features(frame), judge.features(middle), atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("size", [(1, 1), (5, 90), (28, 28), (300, 200)])
def test_the_judge_looks_at_frames_of_any_size(judge, size):
    white = torch.full((2, *size, 3), 255, dtype=torch.uint8)
    assert judge.digits(white).shape == (2,)
    assert judge.features(white).isfinite().all()


def test_a_black_frame_shows_no_digit_nor_do_faint_noise_and_noise_all_over(judge):
    draws = torch.Generator().manual_seed(0)
    black = torch.zeros(3, 64, 64, 3, dtype=torch.uint8)
    faint = torch.randint(0, 40, (3, 64, 64, 3), generator=draws).byte()
    loud = torch.randint(0, 256, (3, 64, 64, 3), generator=draws).byte()
    for frames in (black, faint, loud):
        assert judge.digits(frames).tolist() == [-1] * 3
        assert judge.features(frames).isfinite().all()
        assert judge.majority(frames[None]).tolist() == [-1]


def test_no_frames_have_no_digits(judge):
    nothing = torch.zeros(0, 64, 64, 3, dtype=torch.uint8)
    assert judge.digits(nothing).shape == (0,)
    assert judge.features(nothing).shape == (0, 32)


def test_features_do_not_depend_on_the_other_frames(judge, asked):
    frames = torch.cat([asked[i].frames for i in range(4)])
    alone = torch.cat([judge.features(frame[None]) for frame in frames])
    # Sums in another order: float32 over 576 products.
    torch.testing.assert_close(judge.features(frames), alone, atol=1e-4, rtol=1e-4)


def test_features_tell_digits_apart(judge):
    frames = torch.cat([placed(picture, 18, 18) for picture in TEST.pictures])
    means = judge.features(frames).view(10, 60, -1).mean(1)
    distances = torch.cdist(means, means) + 1e9 * torch.eye(10)
    assert distances.min() > 1.0  # their variance is about 1


@given(st.lists(st.integers(-1, 3), min_size=1, max_size=9))
def test_the_majority_is_what_more_than_half_say(labels):
    label, votes = Counter(labels).most_common(1)[0]
    expected = label if 2 * votes > len(labels) else -1
    assert majority(torch.tensor([labels])).tolist() == [expected]


def test_training_follows_from_its_seed_and_leaves_the_random_state_alone():
    state = torch.random.get_rng_state()
    one, again, other = (train_judge(seed=seed, steps=2) for seed in (3, 3, 4))
    assert one.fingerprint() == again.fingerprint() != other.fingerprint()
    assert torch.equal(torch.random.get_rng_state(), state)


def test_training_pictures_are_distorted_and_still_digits(judge):
    draws = torch.Generator().manual_seed(0)
    pictures = distort(TEST.pictures, draws)
    assert pictures.shape == (600, 28, 28)
    assert 0 <= pictures.min() < pictures.max() <= 1
    assert (pictures - TEST.pictures / 255).abs().mean() > 0.05
    assert (judge(pictures).argmax(1) == TEST.labels).double().mean() > 0.9


def test_the_judge_sees_that_broken_strokes_show_no_digit(judge):
    draws = torch.Generator().manual_seed(0)
    whole = TEST.pictures.float()
    broken = break_strokes(whole, whole[torch.randperm(600, generator=draws)], draws).clamp(0, 255)
    far = likeness(whole, broken) < 0.7
    assert far.sum() > 200
    said = [
        judge.digits(torch.cat([placed(picture.byte(), 18, 18) for picture in pictures[far]]))
        for pictures in (whole, broken)
    ]
    assert (said[0] == -1).double().mean() < 0.1
    assert (said[1] == -1).double().mean() > 0.7


def test_half_of_what_it_learns_from_is_broken_and_classed_by_what_is_left():
    draws = torch.Generator().manual_seed(0)
    shown, classes = whole_and_broken(TEST.pictures, TEST.labels, TEST.pictures, draws)
    assert torch.equal(classes[300:], TEST.labels[300:])
    kept = (classes[:300] != BROKEN) & (classes[:300] != UNCLEAR)
    assert torch.equal(classes[:300][kept], TEST.labels[:300][kept])
    alike = likeness(TEST.pictures.float(), shown.float())
    assert alike[:300][classes[:300] == BROKEN].max() < 0.79  # whole grey levels
    assert alike[:300][kept].min() > 0.87
    assert (classes == BROKEN).sum() > 100


def test_the_change_of_a_writing_is_none_to_itself_small_when_it_moves_large_to_others(judge):
    frames = torch.cat([placed(picture, 18, 18) for picture in TEST.pictures[:20]])
    moved = torch.cat([placed(picture, 3, 30) for picture in TEST.pictures[:20]])
    assert judge.change(frames, frames).max() < 1e-3
    assert judge.change(frames, moved).max() < 1e-2
    assert judge.change(frames, frames.roll(1, 0)).mean() > 3
    assert judge.change(frames[:1], torch.zeros_like(frames[:1])).isnan().all()


def test_a_saved_judge_judges_as_before_and_is_small(judge, asked, tmp_path):
    path = judge.save(tmp_path / "judge.safetensors")
    assert [file.name for file in tmp_path.iterdir()] == ["judge.safetensors"]
    assert path.stat().st_size < 500_000
    state = torch.random.get_rng_state()
    with defaults(torch.bfloat16, "meta"):
        loaded = DigitJudge.load(str(path))
    assert torch.equal(torch.random.get_rng_state(), state)
    assert loaded.fingerprint() == judge.fingerprint()
    assert torch.equal(loaded.features(asked[0].frames), judge.features(asked[0].frames))


def test_what_is_no_saved_judge_is_refused(judge, tmp_path, refuses):
    from safetensors.torch import save_file

    with pytest.raises(FileNotFoundError, match="missing"):
        DigitJudge.load(tmp_path / "missing.safetensors")
    with pytest.raises(FileNotFoundError, match="nowhere"):
        judge.save(tmp_path / "nowhere" / "judge.safetensors")
    whole = judge.save(tmp_path / "judge.safetensors").read_bytes()
    (tmp_path / "cut.safetensors").write_bytes(whole[:-100])
    with refuses(f"{tmp_path.name}/cut.safetensors", "cut off"):
        DigitJudge.load(tmp_path / "cut.safetensors")
    save_file({"weight": torch.zeros(1)}, tmp_path / "other.safetensors")
    with refuses("other.safetensors", "unexpected weight"):
        DigitJudge.load(tmp_path / "other.safetensors")


@pytest.mark.parametrize(
    ("came", "frames"),
    [
        ("NoneType", None),
        ("torch.float32", torch.zeros(2, 8, 8, 3)),
        ("(8, 8, 3)", torch.zeros(8, 8, 3, dtype=torch.uint8)),
        ("(2, 3, 8, 8)", torch.zeros(2, 3, 8, 8, dtype=torch.uint8)),
        ("(2, 0, 8, 3)", torch.zeros(2, 0, 8, 3, dtype=torch.uint8)),
    ],
)
def test_frames_that_are_no_pixels_are_refused(judge, refuses, came, frames):
    with refuses("frames", came):
        judge.digits(frames)
    with refuses("clips"):
        judge.majority(frames)


def test_a_judge_in_training_is_refused(refuses, asked):
    with refuses("judge", "training mode"):
        DigitJudge().digits(asked[0].frames)


@pytest.mark.parametrize(("name", "seed", "steps"), [("seed", -1, 1), ("steps", 0, 0)])
def test_the_training_of_a_judge_refuses_numbers_out_of_range(name, seed, steps, refuses):
    with refuses(name):
        train_judge(seed=seed, steps=steps)
