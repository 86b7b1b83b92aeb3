"""Files of captioned videos and pictures become clips of one size, length and rate."""

import numpy as np
import pytest
import torch
from PIL import Image

from contar.data.captioned import captioned_files
from contar.media import write_video
from contar.tokenizers.causal_vae import CausalVAE
from contar.tokenizers.vae import VAETokenizer
from contar.training.caching import Clip, encode_clips, fingerprint, read_clips
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
