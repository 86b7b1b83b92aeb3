"""Pixels to latents and back, latents to tokens and back."""

from contar.tokenizers.patches import patchify, unpatchify
from contar.tokenizers.protocol import Tokenizer

__all__ = ["Tokenizer", "patchify", "unpatchify"]
