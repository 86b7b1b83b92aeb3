"""Video tokenizers: a clip to latents and back."""

import pytest
import torch

from contar.cpu import speed_up
from contar.tokenizers import CausalVAE, OpenSoraVAE, VAETokenizer

SIZES = {"17 frames of 64 x 64": (17, 64), "33 frames of 128 x 128": (33, 128)}


def small():
    """The tokenizer of moving digits."""
    return CausalVAE(widths=(32, 64, 96))


KINDS = {"causal": small, "opensora": OpenSoraVAE}


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("way", ["encode", "decode"])
@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("kind", KINDS)
def test_tokenizer(row, kind, size, way, dtype, device):
    frames, side = SIZES[size]
    if device == "cpu" and kind == "opensora" and side > 64:
        pytest.skip("of the size of a GPU's work")
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        vae = speed_up(KINDS[kind]().eval().to(device, getattr(torch, dtype)))
    tokenizer = VAETokenizer(vae)
    pixels = torch.rand(1, 3, frames, side, side, generator=torch.Generator().manual_seed(0))
    pixels = (2 * pixels - 1).to(device)

    def encode():
        return tokenizer.encode(pixels, generator=torch.Generator().manual_seed(1))

    latents = encode()
    run = encode if way == "encode" else lambda: tokenizer.decode(latents)

    def check(result):
        shape = (1, 4, (frames + 3) // 4, side // 8, side // 8)
        assert tuple(result.shape) == (shape if way == "encode" else tuple(pixels.shape))
        torch.testing.assert_close(result, run())

    with torch.no_grad():
        row(run, check, device=device, dtype=dtype, rounds=3)
