"""Autoencoders do not depend on torch's default dtype and device."""

import pytest
from other_defaults import assert_independent, randn, seeded
from small_vaes import KINDS, make

from contar.tokenizers import VAETokenizer


@pytest.mark.parametrize("kind", KINDS)
def test_tokenizers_encode_and_decode_the_same(kind: str) -> None:
    tokenizer = VAETokenizer(make(kind))
    side = max(16, tokenizer.space_stride)
    pixels = randn(1, 3, tokenizer.pixel_frames(3), side, side).clamp(-1, 1)
    latents = tokenizer.encode(pixels)
    assert_independent(lambda: (tokenizer.scale, tokenizer.shift))
    assert_independent(lambda: tokenizer.encode(pixels, generator=seeded()))
    assert_independent(lambda: tokenizer.decode(latents))
