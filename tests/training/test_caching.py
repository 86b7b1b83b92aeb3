"""Files of captioned videos and pictures become clips of one size, length and rate."""

import os
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from films import film, greys, seconds
from PIL import Image

from contar.data import Cache, Sample, captioned_files, write_cache
from contar.media import Video, decoding, open_video, write_video
from contar.tokenizers import CausalVAE, VAETokenizer
from contar.training import Clip, caching, check_samples, encode_clips, fingerprint, read_clips
from recipes.moving_digits import load_text


def video(frames: int) -> torch.Tensor:
    """Return frames whose grey tells their number."""
    return torch.arange(frames, dtype=torch.uint8)[:, None, None, None].mul(4).expand(-1, 16, 24, 3)


@pytest.fixture
def folder(tmp_path):
    write_video(video(40), tmp_path / "long.mp4", fps=24)
    (tmp_path / "long.txt").write_text("a grey that grows")
    return tmp_path


def test_a_long_video_is_cut_into_clips_at_the_asked_rate(folder):
    clips = list(read_clips(captioned_files(folder), frames=5, fps=8, height=16, width=16))
    assert [clip.caption for clip in clips] == ["a grey that grows"] * 2
    assert {tuple(clip.frames.shape) for clip in clips} == {(5, 16, 16, 3)}
    greys = torch.cat([clip.frames for clip in clips])[:, 8, 8, 0].float()
    expected = torch.arange(10) * 3 * 4.0  # every third frame
    assert (greys - expected).abs().max() <= 2  # of H.264


def test_a_slow_video_gives_every_frame_and_says_its_own_rate(tmp_path):
    write_video(video(6), tmp_path / "slow.mp4", fps=2)
    (tmp_path / "slow.txt").write_text("slow")
    (clip,) = read_clips(captioned_files(tmp_path), frames=5, fps=8, height=16, width=16)
    assert clip.fps == pytest.approx(2)


def test_pictures_are_clips_of_one_frame_and_a_video_gives_its_first(folder):
    Image.new("RGB", (20, 16), "red").save(folder / "red.png")
    (folder / "red.txt").write_text("red")
    clips = list(read_clips(captioned_files(folder), frames=1, fps=8, height=16, width=16))
    assert [clip.caption for clip in clips] == ["a grey that grows", "red"]
    assert clips[0].frames.float().mean() < 3
    assert clips[1].frames[0, 0, 0].tolist() == [255, 0, 0]


def test_what_cannot_be_a_clip_is_refused_by_the_name_of_its_file(folder, refuses):
    size = {"fps": 8.0, "height": 16, "width": 16}
    with refuses(str(folder / "long.mp4"), "14 frames at 8 per second", "at least 17"):
        list(read_clips(captioned_files(folder), frames=17, **size))
    Image.new("RGB", (20, 16), "red").save(folder / "red.png")
    (folder / "red.txt").write_text("red")
    with refuses("frames", "red.png"):
        read_clips(captioned_files(folder), frames=5, **size)


@pytest.mark.parametrize("name", ["z.mp4", "z.png"])
def test_a_file_that_cannot_be_read_is_refused_before_the_first_clip(name, folder, refuses):
    (folder / name).write_bytes(b"neither video nor picture")
    (folder / "z.txt").write_text("nothing")
    with refuses(str(folder / name)):
        read_clips(captioned_files(folder), frames=1, fps=8, height=16, width=16)


def test_a_video_that_is_gone_when_it_is_read_is_missed_by_its_name(folder):
    files = captioned_files(folder)
    (folder / "long.mp4").unlink()
    with pytest.raises(FileNotFoundError, match=r"long\.mp4"):
        read_clips(files, frames=5, fps=8, height=16, width=16)


def test_bf16_is_nearer_to_float32_than_the_posterior_is_wide():
    torch.manual_seed(0)
    tokenizer = VAETokenizer(CausalVAE(widths=(8, 16, 16)).eval())
    words, encoder = load_text()
    clip = Clip(torch.randint(256, (5, 16, 16, 3), dtype=torch.uint8), "noise", 8.0)
    (exact,), (fast,) = (
        encode_clips([clip], tokenizer, words, encoder, length=8, precision=precision)
        for precision in ("no", "bf16")
    )
    mean, deviation = np.split(exact.arrays["latents"].astype(np.float32), 2)
    error = fast.arrays["latents"][:4].astype(np.float32) - mean
    assert 0 < np.abs(error).max() < 0.1 * deviation.min()
    assert (fast.arrays["text"] == exact.arrays["text"]).all()
    assert fast.facts == exact.facts


def test_a_fingerprint_tells_weights_and_configs_apart():
    def made(seed: int, **config) -> str:
        torch.manual_seed(seed)
        return fingerprint(CausalVAE(**{"widths": (8, 16, 16), **config}))

    assert made(0) == made(0)
    assert len({made(0), made(1), made(0, widths=(8, 16, 24))}) == 3


# A second of 60 frames, then 2 frames a second.
VARYING = [i / 60 for i in range(60)] + [1 + i / 2 for i in range(10)]


@pytest.mark.parametrize("suffix", [".mp4", ".mkv", ".webm"])
def test_clips_of_a_varying_rate_are_chosen_by_time_and_say_their_rate(tmp_path, suffix):
    film(tmp_path / f"a{suffix}", greys(VARYING), VARYING)
    (tmp_path / "a.txt").write_text("a grey that grows")
    clips = list(read_clips(captioned_files(tmp_path), frames=5, fps=8, height=64, width=64))
    assert len(clips) == 9  # 45 frames in 5.5 seconds
    assert {clip.fps for clip in clips} == {8}
    found = np.concatenate([seconds(clip.frames) for clip in clips])
    shown = [max(t for t in VARYING if t <= i / 8 + 0.01) for i in range(45)]
    assert np.abs(found - shown).max() < 0.06


def test_a_browsers_recording_gives_clips_of_its_own_rate_and_their_score(tmp_path):
    times = [i / 30 for i in range(60)]
    film(tmp_path / "a.webm", greys(times), times, rate=1000)
    film(tmp_path / "b.mkv", greys(times), times, rate=30)
    for name in "ab":
        (tmp_path / f"{name}.txt").write_text("a grey that grows")
    made = list(read_clips(captioned_files(tmp_path), frames=5, fps=8, height=64, width=64))
    assert [clip.fps for clip in made] == [8] * 6  # 16 frames of each
    for ours, theirs in zip(made[:3], made[3:], strict=True):
        assert np.abs(seconds(ours.frames) - seconds(theirs.frames)).max() < 0.06
    slow = read_clips(captioned_files(tmp_path), frames=5, fps=100, height=64, width=64)
    assert [clip.fps for clip in slow] == pytest.approx([30.0] * 24, rel=1e-3)


def test_a_phones_clip_stands_upright_and_an_anamorphic_one_is_round(tmp_path):
    frames = np.zeros((5, 64, 32, 3), np.uint8)
    frames[:, :16] = 255
    film(tmp_path / "a.mp4", frames, [i / 25 for i in range(5)], turn=90)
    (tmp_path / "a.txt").write_text("a bar at the left")
    (clip,) = read_clips(captioned_files(tmp_path), frames=5, fps=25, height=32, width=64)
    assert clip.frames[:, :, :12].float().mean() > 200
    assert clip.frames[:, :, 20:].float().mean() < 20


def test_of_many_files_one_is_opened_before_the_first_clip(tmp_path, monkeypatch):
    film(tmp_path / "00000.mp4", greys([0, 0.04, 0.08, 0.12, 0.16]), [0, 0.04, 0.08, 0.12, 0.16])
    (tmp_path / "00000.txt").write_text("grey")
    for number in range(1, 50):
        for suffix in (".mp4", ".txt"):
            os.link(tmp_path / f"00000{suffix}", tmp_path / f"{number:05d}{suffix}")
    opened = []

    def opening(path: Path, *given: str) -> Video:
        opened.append(path)
        return open_video(path, *given)

    for module in (caching, decoding):
        monkeypatch.setattr(module, "open_video", opening)
    clips = read_clips(captioned_files(tmp_path), frames=5, fps=25, height=16, width=16)
    assert next(clips).caption == "grey"
    assert opened == [tmp_path / "00000.mp4"]


@pytest.mark.parametrize("name", ["z.mp4", "z.mkv"])
def test_a_video_that_is_cut_off_is_refused_before_the_first_clip(name, folder, refuses):
    times = [i / 25 for i in range(25)]
    options = {"movflags": "+faststart"} if name == "z.mp4" else {}
    noise = np.random.default_rng(0).integers(0, 256, (25, 64, 64, 3)).astype(np.uint8)
    path = film(folder / name, noise, times, sound=True, options=options)
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    (folder / "z.txt").write_text("nothing")
    with refuses(str(path), "cut off"):
        read_clips(captioned_files(folder), frames=5, fps=8, height=16, width=16)


def test_a_folder_or_a_pipe_by_the_name_of_a_clip_is_refused_before_the_first_clip(folder, refuses):
    (folder / "z.txt").write_text("nothing")
    for make in (os.mkdir, os.mkfifo):
        make(folder / "z.mp4")
        with refuses(str(folder / "z.mp4"), "a file"):
            read_clips(captioned_files(folder), frames=5, fps=8, height=16, width=16)
        (folder / "z.mp4").rmdir() if make is os.mkdir else (folder / "z.mp4").unlink()


@pytest.mark.usefixtures("unchecked")
@pytest.mark.parametrize("fps", [np.int64(8), np.float32(8), Fraction(8)])
def test_a_rate_may_be_a_number_of_numpy_or_a_fraction(folder, fps):
    files = captioned_files(folder)
    sizes: dict[str, Any] = {
        "frames": np.int64(5), "height": np.uint8(16), "width": np.int32(16)
    }  # fmt: skip
    clips = [*read_clips(files, fps=fps, **sizes)]
    assert [type(clip.fps) for clip in clips] == [float] * 2
    plain = read_clips(files, frames=5, fps=8.0, height=16, width=16)
    assert all(a.frames.equal(b.frames) for a, b in zip(clips, plain, strict=True))


def clip_of_noise(caption: str = "noise") -> Clip:
    torch.manual_seed(0)
    return Clip(torch.randint(256, (5, 16, 16, 3), dtype=torch.uint8), caption, 8.0)


@pytest.fixture(scope="module")
def parts():
    torch.manual_seed(0)
    return VAETokenizer(CausalVAE(widths=(8, 16, 16)).eval()), *load_text()


@pytest.mark.parametrize("factor", [2.7e5, 1.0])
def test_text_states_beyond_float16_are_kept_as_float32(parts, tmp_path, monkeypatch, factor):
    true = caching.encode_texts
    kept: list[torch.Tensor] = []

    def large(*args, **options):
        kept[:] = [state * factor / state.abs().max() for state in true(*args, **options)]
        return kept

    monkeypatch.setattr(caching, "encode_texts", large)
    samples = encode_clips([clip_of_noise()], *parts, length=8)
    sample = Cache(write_cache(samples, tmp_path / "cache", made_with={}))[0]
    assert sample.arrays["latents"].dtype == np.float16
    assert sample.arrays["text"].dtype == (np.float32 if factor > 1 else np.float16)
    assert np.abs(sample.arrays["text"]).max() == pytest.approx(factor, rel=1e-3)
    assert np.allclose(sample.arrays["text"], kept[0].numpy(), rtol=1e-3, atol=1e-4 * factor)


def test_text_states_that_are_not_finite_are_refused_by_their_caption(
    parts, monkeypatch, tmp_path, refuses
):
    true = caching.encode_texts

    def broken(texts, *args, **options):
        states = true(texts, *args, **options)
        return [s / 0 if text == "bad" else s for s, text in zip(states, texts, strict=True)]

    monkeypatch.setattr(caching, "encode_texts", broken)
    clips = [clip_of_noise("good"), clip_of_noise("bad")]
    with refuses("clips", "text", "'bad'"):
        write_cache(encode_clips(clips, *parts, length=8), tmp_path / "cache", made_with={})
    assert not (tmp_path / "cache").exists()


def test_a_caption_with_half_a_character_is_refused(parts, refuses):
    with refuses("texts", "ud800", "surrogates"):
        next(encode_clips([clip_of_noise("a \ud800 seven")], *parts, length=8))


@pytest.mark.usefixtures("unchecked")
def test_a_clips_own_rate_may_be_of_numpy(parts, tmp_path):
    clip = clip_of_noise()._replace(fps=np.float32(8))
    write_cache(encode_clips([clip], *parts, length=8), tmp_path / "cache", made_with={})
    assert Cache(tmp_path / "cache")[0].facts["fps"] == 8.0


def of_clips(**changes) -> Sample:
    arrays = {"latents": np.ones((8, 2, 8, 8), np.float16), "text": np.ones((3, 8), np.float16)}
    facts = {"caption": "red", "fps": 7.0, "motion_flow": 1.0}
    return Sample(
        {name: changes.get(name, array) for name, array in arrays.items()},
        {name: changes.get(name, fact) for name, fact in facts.items()},
    )


@pytest.mark.parametrize(
    ("words", "changes"),
    [
        ("no latents of 4 axes", {"latents": np.ones((8, 8, 8), np.float16)}),
        ("no latents of 4 axes", {"latents": np.ones((8, 2, 8, 8), np.int16)}),
        ("latents of shape (8, 2, 8, 4)", {"latents": np.ones((8, 2, 8, 4), np.float16)}),
        ("text of shape (3, 7)", {"text": np.ones((3, 7), np.float16)}),
        ("text with NaN", {"text": np.full((3, 8), np.inf, np.float16)}),
        ("caption", {"caption": None}), ("caption", {"caption": "a \ud800 seven"}),
        ("fps", {"fps": "8"}), ("fps", {"fps": None}), ("motion_flow", {"motion_flow": None}),
    ],
)  # fmt: skip
def test_a_sample_that_is_none_of_clips_is_named_with_its_shard(tmp_path, refuses, words, changes):
    made = [of_clips(), of_clips(), of_clips(**changes)]
    cache = Cache(write_cache(made, tmp_path / "cache", made_with={}, shard=2))
    with refuses("cache", words, "shard-00001.tar", "00000002"):
        check_samples(cache)
    assert len(check_samples(cache, 2)) == 2


def test_samples_without_latents_are_named(tmp_path, refuses):
    made = [Sample({"text": np.ones((3, 8), np.float16)}, {"caption": "red", "fps": 7.0})]
    cache = Cache(write_cache(made, tmp_path / "cache", made_with={}))
    with refuses("cache", "no latents", "shard-00000.tar"):
        check_samples(cache)
