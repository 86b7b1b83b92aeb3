"""What memory an autoencoder needs at work, without its weights."""

import copy
from typing import Any

import torch

from contar._memory import peak_bytes
from contar.tokenizers.vae import VAETokenizer


def vae_memory(
    tokenizer: VAETokenizer, frames: int, size: tuple[int, int], dtype: torch.dtype
) -> dict[str, int]:
    """Return the bytes that encoding and decoding one clip take at most, beside weights and clip.

    Args:
        tokenizer: its autoencoder on `meta`.
        frames: of the clip.
        size: height and width in pixels.
        dtype: of the autoencoder.

    Raises:
        ValueError: frames or sides that the tokenizer does not take.
    """
    tokenizer = VAETokenizer(copy.deepcopy(tokenizer.vae))
    torch.nn.Module.to(tokenizer.vae, dtype=dtype)  # diffusers' own warns of a list that is empty
    empty: Any = {"dtype": torch.float32, "device": "meta"}
    pixels = torch.zeros(1, 3, frames, *size, **empty)
    grid = [side // tokenizer.space_stride for side in size]
    count = tokenizer.latent_frames(frames)
    latents = torch.zeros(1, tokenizer.channels, count, *grid, **empty)
    return {
        "encode": peak_bytes(lambda: tokenizer.encode(pixels)),
        "decode": peak_bytes(lambda: tokenizer.decode(latents)),
    }
