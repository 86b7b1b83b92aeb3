"""Only numbers of frames that come back are taken, whatever an autoencoder is set to."""

from typing import Any

import pytest
import torch
from small_vaes import cogvideox, hunyuan, ltx, make

from contar.tokenizers import VAETokenizer, latent_frames


def come_back(vae: Any, most: int) -> list[int]:
    """The numbers of frames that are taken, each of which must come back."""
    tokenizer, taken = VAETokenizer(vae.eval()), []
    side = max(16, tokenizer.space_stride)
    for frames in range(1, most):
        try:
            latents = tokenizer.latent_frames(frames)
        except ValueError:
            continue
        made = tokenizer.encode(torch.zeros(1, 3, frames, side, side))
        assert made.shape[2] == latents
        assert tokenizer.decode(made).shape[2] == tokenizer.pixel_frames(latents) == frames
        taken.append(frames)
    return taken


@pytest.mark.parametrize("frames", [5, 13, 29, 2, 8, 16, 32])
def test_cogvideox_refuses_frames_that_would_come_back_as_others(frames: int, refuses: Any) -> None:
    tokenizer = VAETokenizer(make("cogvideox"))
    below = (frames - 1) // 8 * 8 + 1
    with refuses("num_frames", str(frames), f"{below} or {below + 8} frames (k * 8 + 1)"):
        tokenizer.latent_frames(frames)
    with refuses("pixels.frames", str(frames)):
        tokenizer.encode(torch.zeros(1, 3, frames, 8, 8))


@pytest.mark.parametrize("latents", [1, 2, 3, 4, 5])
def test_pixel_frames_are_what_decoding_gives(latents: int) -> None:
    tokenizer = VAETokenizer(make("cogvideox"))
    pixels = tokenizer.decode(torch.zeros(1, 4, latents, 1, 1))
    assert pixels.shape[2] == tokenizer.pixel_frames(latents)


def test_other_sizes_of_the_batches_in_which_cogvideox_decodes_count_too() -> None:
    vae = cogvideox()
    vae.num_latent_frames_batch_size = 4
    assert come_back(vae, 40) == [1, 17, 33]
    vae = cogvideox()
    vae.enable_tiling()
    assert come_back(vae, 20) == [1, 9, 17]


def test_tiles_in_time_change_no_length() -> None:
    assert come_back(hunyuan(), 40) == list(range(1, 40, 4))  # 16 frames at once
    vae = ltx()
    vae.use_framewise_encoding = vae.use_framewise_decoding = True
    assert come_back(vae, 42) == list(range(1, 42, 8))


def test_an_autoencoder_that_is_set_to_another_length_is_refused(refuses: Any) -> None:
    vae = make("mochi")
    vae.drop_last_temporal_frames = False
    tokenizer = VAETokenizer(vae)
    latents = tokenizer.encode(torch.zeros(1, 3, 7, 16, 16))
    with refuses("vae", "12 frames", "makes 7"):
        tokenizer.decode(latents)


def test_the_rule_is_named_with_what_goes_together(refuses: Any) -> None:
    assert latent_frames(25, 4, lone_first=True, together=2) == 7
    with refuses("num_frames", "21", "17 or 25 frames (k * 8 + 1)"):
        latent_frames(21, 4, lone_first=True, together=2)
