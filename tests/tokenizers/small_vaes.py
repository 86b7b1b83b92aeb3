"""Small random autoencoders of diffusers, one of each kind that the adapter knows."""

import importlib
from collections.abc import Callable
from typing import Any

import torch

from contar.tokenizers import OpenSoraVAE

diffusers: Any = importlib.import_module("diffusers")  # its names come lazily


def opensora(**options: Any) -> OpenSoraVAE:
    return OpenSoraVAE(block_out_channels=(32, 32, 32, 32), layers_per_block=1, **options)


def image() -> Any:
    return diffusers.AutoencoderKL(
        down_block_types=("DownEncoderBlock2D",) * 2,
        up_block_types=("UpDecoderBlock2D",) * 2,
        block_out_channels=(8, 8),
        norm_num_groups=4,
        scaling_factor=0.5,
        shift_factor=0.25,
    )


def cogvideox() -> Any:
    return diffusers.AutoencoderKLCogVideoX(
        block_out_channels=(8, 8, 8, 8), latent_channels=4, layers_per_block=1, norm_num_groups=2
    )


def wan() -> Any:
    return diffusers.AutoencoderKLWan(
        base_dim=3, z_dim=4, dim_mult=[1, 1, 1, 1], num_res_blocks=1,
        latents_mean=[0.1, 0.2, 0.3, 0.4], latents_std=[1.5, 2.5, 0.5, 1.0],
    )  # fmt: skip


def ltx() -> Any:
    vae = diffusers.AutoencoderKLLTXVideo(
        latent_channels=8,
        block_out_channels=(8, 8, 8, 8),
        decoder_block_out_channels=(8, 8, 8, 8),
        layers_per_block=(1, 1, 1, 1, 1),
        decoder_layers_per_block=(1, 1, 1, 1, 1),
    )
    vae.latents_mean.fill_(0.5)
    vae.latents_std.fill_(2.0)
    return vae


def allegro() -> Any:
    return diffusers.AutoencoderKLAllegro(
        block_out_channels=(8, 8, 8, 8), latent_channels=4, layers_per_block=1, norm_num_groups=2
    )


def hunyuan() -> Any:
    return diffusers.AutoencoderKLHunyuanVideo(
        block_out_channels=(8, 8, 8, 8), latent_channels=4, layers_per_block=1, norm_num_groups=4
    )


def mochi() -> Any:
    return diffusers.AutoencoderKLMochi(
        latent_channels=4,
        encoder_block_out_channels=(32, 32, 32, 32),
        decoder_block_out_channels=(32, 32, 32, 32),
        layers_per_block=(1, 1, 1, 1, 1),
        latents_mean=[0.1, 0.2, 0.3, 0.4],
        latents_std=[1.5, 2.5, 0.5, 1.0],
    )


KINDS: dict[str, Callable[[], Any]] = {
    f.__name__: f for f in (opensora, image, cogvideox, wan, ltx, allegro, hunyuan, mochi)
}


def make(kind: str) -> Any:
    """Return the autoencoder with the same weights each time, the global random state untouched."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return KINDS[kind]().eval()
