"""Pixels to latents and back, latents to tokens and back."""

from contar.tokenizers.patchify import patchify, unpatchify

__all__ = ["patchify", "unpatchify"]
