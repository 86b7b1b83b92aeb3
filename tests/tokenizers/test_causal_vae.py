"""contar's own VAE: causal in time both ways, exact in frames."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from contar.tokenizers import CausalVAE, VAETokenizer

few = settings(max_examples=min(settings().max_examples, 50))


def make() -> CausalVAE:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return CausalVAE(widths=(8, 16, 16), latents_mean=[1.0] * 4, latents_std=[2.0] * 4).eval()


VAE = make()


def clip(frames: int, seed: int) -> torch.Tensor:
    draws = torch.Generator().manual_seed(seed)
    return torch.rand(1, 3, frames, 16, 24, generator=draws) * 2 - 1


@few
@given(whole=st.integers(1, 6), part=st.integers(1, 6), seed=st.integers(0, 2**31))
def test_latents_do_not_depend_on_later_frames_nor_frames_on_later_latents(whole, part, seed):
    whole, part = max(whole, part), min(whole, part)
    tokenizer = VAETokenizer(VAE)
    pixels = clip(4 * whole - 3, seed)
    latents = tokenizer.encode(pixels)
    assert latents.shape[2] == whole
    first = tokenizer.encode(pixels[:, :, : 4 * part - 3])
    torch.testing.assert_close(latents[:, :, :part], first, rtol=1e-4, atol=1e-5)
    decoded = tokenizer.decode(latents)
    assert decoded.shape == pixels.shape
    first = tokenizer.decode(latents[:, :, :part])
    torch.testing.assert_close(decoded[:, :, : 4 * part - 3], first, rtol=1e-4, atol=1e-5)


def test_a_later_frame_may_change_what_comes_from_then_on():
    pixels = clip(9, 0)
    changed = pixels.clone()
    changed[:, :, 5:] = 0
    a, b = (VAETokenizer(VAE).encode(x) for x in (pixels, changed))
    assert not torch.allclose(a[:, :, 2], b[:, :, 2])


def test_latents_are_scaled_by_the_measured_mean_and_deviation():
    pixels = clip(5, 1)
    plain = VAE.encode(pixels).latent_dist.mode()  # type: ignore[union-attr]
    torch.testing.assert_close(VAETokenizer(VAE).encode(pixels), (plain - 1) / 2)


@pytest.mark.parametrize("frames", range(1, 71, 4))
def test_every_length_comes_out_exact(frames):
    tokenizer = VAETokenizer(VAE)
    assert tokenizer.decode(tokenizer.encode(clip(frames, 0))).shape[2] == frames


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("widths", {"widths": (8, 16)}),
        ("widths", {"widths": (8, 16, 20)}),
        ("depth", {"depth": 0}),
        ("latent_channels", {"latent_channels": 0}),
    ],
)
def test_bad_sizes_are_refused(name, options, refuses):
    with refuses(name):
        CausalVAE(**options)


def test_bad_pixels_and_latents_are_refused(refuses):
    with refuses("x.frames", "6", "5 or 9"):
        VAE.encode(torch.zeros(1, 3, 6, 16, 16))
    with refuses("x", "(1, 3, 5, 16, 20)"):
        VAE.encode(torch.zeros(1, 3, 5, 16, 20))
    with refuses("x"):
        VAE.encode(torch.zeros(1, 4, 5, 16, 16))
    with refuses("z"):
        VAE.decode(torch.zeros(1, 3, 2, 2, 2))
