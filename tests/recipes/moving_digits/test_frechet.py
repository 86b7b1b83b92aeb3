"""Fréchet distances of digits: those of the formula, and order where there is no known value."""

import math

import pytest
import torch
from frechet import noisy, oracle

from recipes.moving_digits import MovingDigits, frechet_clips, frechet_frames
from recipes.moving_digits.judges.features import ClipFeatures


def stacked(dataset, count=40):
    return torch.stack([dataset[i].frames for i in range(count)])


def test_equal_sets_have_distance_zero_in_any_order(judge, asked):
    clips = stacked(asked)
    order = torch.randperm(len(clips), generator=torch.Generator().manual_seed(0))
    # 40 clips leave covariances of 35 features nearly singular: roots of the rounding remain.
    assert frechet_clips(judge, clips, clips[order]) == pytest.approx(0, abs=1e-3)
    frames = clips.flatten(0, 1)
    assert frechet_frames(judge, frames, frames.flip(0)) == pytest.approx(0, abs=1e-3)


def test_the_distances_are_those_of_the_formula(judge, asked):
    real, other = stacked(MovingDigits("train", 60), 60), stacked(asked)
    expected = oracle(judge.features(real.flatten(0, 1)), judge.features(other.flatten(0, 1)))
    found = frechet_frames(judge, real.flatten(0, 1), other.flatten(0, 1))
    assert found == pytest.approx(expected, rel=1e-4)
    features = ClipFeatures(judge)
    expected = oracle(*(features(clips.movedim(-1, 1)) for clips in (real, other)))
    assert frechet_clips(judge, real, other) == pytest.approx(expected, rel=1e-3)


def test_distances_grow_with_noise(judge, asked):
    real = stacked(asked, 16)
    worse = [noisy(real, sigma) for sigma in (0, 30, 60, 120)]
    frames = [frechet_frames(judge, real.flatten(0, 1), clips.flatten(0, 1)) for clips in worse]
    clips = [frechet_clips(judge, real, clips) for clips in worse]
    for distances in (frames, clips):
        assert distances[0] == pytest.approx(0, abs=1e-3)
        assert distances == sorted(distances)
        assert distances[1] > 0.01
        assert distances[-1] > 10


def test_only_the_distance_of_clips_sees_that_nothing_moves(judge, asked):
    real, other = stacked(MovingDigits("test", 40, seed=1)), stacked(asked)
    still = other[:, :1].expand(-1, 17, -1, -1, -1)
    assert frechet_clips(judge, real, still) > frechet_clips(judge, real, other) + 2
    frames = [frechet_frames(judge, real.flatten(0, 1), c.flatten(0, 1)) for c in (still, other)]
    assert frames[0] == pytest.approx(frames[1], rel=0.1)


def test_features_of_a_clip_say_how_far_it_goes_and_how_much_it_changes(judge, asked):
    clips = [asked[i] for i in range(40)]
    features = ClipFeatures(judge)(stacked(asked).movedim(-1, 1))
    walked = features[:, -2:].norm(dim=1) * 4
    expected = torch.tensor([16 * clip.speed for clip in clips])
    torch.testing.assert_close(walked, expected, atol=0.2, rtol=0)
    mixed = torch.stack([clips[i % 7].frames[i % 17] for i in range(17)])
    changes = ClipFeatures(judge)(mixed[None].movedim(-1, 1))[0, 32]
    assert changes > 2 * features[:, 32].max()


def test_a_few_clips_suffice_and_what_is_lost_has_no_way(judge, asked):
    black = torch.zeros(3, 17, 64, 64, 3, dtype=torch.uint8)
    assert (ClipFeatures(judge)(black.movedim(-1, 1))[:, -2:] == 0).all()
    assert math.isfinite(frechet_clips(judge, stacked(asked, 2), black))


def test_the_judge_is_left_as_it_was(judge, asked):
    before = judge.fingerprint()
    dtypes = {value.dtype for value in judge.parameters()}
    frechet_clips(judge, stacked(asked, 3), stacked(asked, 3))
    assert judge.fingerprint() == before
    assert {value.dtype for value in judge.parameters()} == dtypes == {torch.float32}
    assert not judge.training


def test_sets_without_a_covariance_are_refused(judge, asked, refuses):
    clips, frames = stacked(asked, 2), asked[0].frames
    with refuses("other", "at least 2"):
        frechet_frames(judge, frames, frames[:1])
    with refuses("real", "at least 2"):
        frechet_clips(judge, clips[:1], clips)
    with refuses("real", "at least 2 frames"):
        frechet_clips(judge, clips[:, :1], clips)
    with refuses("real", "uint8"):
        frechet_frames(judge, frames.float(), frames)
