"""Pixels and sound to latents and back, latents to tokens and back."""

from typing import TYPE_CHECKING

from contar._lazy import lazily
from contar.tokenizers.audio import KNOWN_CODECS, AudioTokenizer
from contar.tokenizers.patching import patches, patchify, unpatchify
from contar.tokenizers.protocol import Tokenizer, latent_frames, longest_clip

if TYPE_CHECKING:
    from contar.tokenizers.causal_vae import CausalVAE
    from contar.tokenizers.opensora import OpenSoraVAE
    from contar.tokenizers.vae import KNOWN_VAES, VAETokenizer, vae_memory
else:  # these import diffusers
    __getattr__ = lazily(
        __name__,
        {
            "causal_vae": ("CausalVAE",),
            "opensora": ("OpenSoraVAE",),
            "vae": ("KNOWN_VAES", "VAETokenizer", "vae_memory"),
        },
    )

__all__ = [
    "KNOWN_CODECS",
    "KNOWN_VAES",
    "AudioTokenizer",
    "CausalVAE",
    "OpenSoraVAE",
    "Tokenizer",
    "VAETokenizer",
    "latent_frames",
    "longest_clip",
    "patches",
    "patchify",
    "unpatchify",
    "vae_memory",
]
