"""Latents and pixels are finite: in float32 where a config asks for it, or an error."""

from typing import Any

import pytest
import torch
from small_vaes import KINDS, make

from contar.tokenizers import VAETokenizer

LARGE = 4e4  # of a weight: as float16 holds it, with sums of products beyond what float16 holds


def strained(part: str, *, force_upcast: bool, dtype: torch.dtype) -> Any:
    """An image autoencoder whose activations grow to 1e6, and whose results do not."""
    vae = make("image")
    vae.register_to_config(force_upcast=force_upcast)
    with torch.no_grad():
        getattr(vae, part).conv_in.weight.mul_(LARGE * 4)
    peaks: list[float] = []
    getattr(vae, part).conv_in.register_forward_hook(
        lambda _, __, out: peaks.append(float(out.abs().max()))
    )
    return torch.nn.Module.to(vae.half(), dtype), peaks


def clip() -> torch.Tensor:
    draws = torch.Generator().manual_seed(0)
    return torch.rand(1, 3, 2, 16, 16, generator=draws) * 2 - 1


def test_float16_with_force_upcast_is_decoded_and_encoded_in_float32() -> None:
    latents = 8 * torch.randn(1, 4, 2, 8, 8, generator=torch.Generator().manual_seed(0))
    for part, call, given in (("decoder", "decode", latents), ("encoder", "encode", clip())):
        half, peaks = strained(part, force_upcast=True, dtype=torch.float16)
        whole, _ = strained(part, force_upcast=True, dtype=torch.float32)
        before = dict(half.named_parameters())
        places = {name: value.data_ptr() for name, value in before.items()}
        made = getattr(VAETokenizer(half), call)(given)
        assert max(peaks) > 65_504
        assert torch.equal(made, getattr(VAETokenizer(whole), call)(given))
        assert half.dtype == torch.float16  # the very weights that were there
        assert {name: p.data_ptr() for name, p in half.named_parameters()} == places
        assert all(value is before[name] for name, value in half.named_parameters())


def test_an_upcast_autoencoder_is_float16_again_after_a_call_that_failed() -> None:
    half, _ = strained("decoder", force_upcast=True, dtype=torch.float16)
    half.decoder.conv_out.register_forward_pre_hook(lambda *_: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        VAETokenizer(half).decode(torch.zeros(1, 4, 1, 8, 8))
    assert {x.dtype for x in half.parameters()} == {torch.float16}


def test_without_it_what_float16_cannot_hold_is_an_error_and_no_black_frame(refuses: Any) -> None:
    half, _ = strained("decoder", force_upcast=False, dtype=torch.float16)
    latents = 8 * torch.randn(1, 4, 2, 8, 8, generator=torch.Generator().manual_seed(0))
    with refuses("pixels", "NaN", "AutoencoderKL", "vae.to(torch.float32)"):
        VAETokenizer(half).decode(latents)
    half, _ = strained("encoder", force_upcast=False, dtype=torch.float16)
    with refuses("latents", "NaN", "AutoencoderKL", "vae.to(torch.float32)"):
        VAETokenizer(half).encode(clip())
    bfloat, _ = strained("decoder", force_upcast=False, dtype=torch.bfloat16)
    assert VAETokenizer(bfloat).decode(latents).isfinite().all()


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf")])
def test_what_is_not_finite_goes_in_nowhere_and_comes_out_nowhere(
    kind: str, value: float, refuses: Any
) -> None:
    vae = make(kind)
    tokenizer = VAETokenizer(vae)
    side = max(16, tokenizer.space_stride)
    pixels = torch.zeros(2, 3, tokenizer.pixel_frames(1), side, side)
    latents = torch.zeros(1, tokenizer.channels, 1, *[side // tokenizer.space_stride] * 2)
    pixels[1, 0, 0, 0, 0] = latents[0, 0, 0, 0, 0] = value
    said = "NaN" if value != value else "infinite"
    with refuses("pixels", said):
        tokenizer.encode(pixels)
    with refuses("pixels", said):
        tokenizer.posterior(pixels)
    with refuses("latents", said):
        tokenizer.decode(latents)
    with torch.no_grad():
        next(iter(vae.decoder.parameters())).fill_(value)
        next(iter(vae.encoder.parameters())).fill_(value)
    with refuses("latents"):
        tokenizer.encode(torch.zeros_like(pixels))
    with refuses("pixels"):
        tokenizer.decode(torch.zeros_like(latents))
