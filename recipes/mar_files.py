"""MAR's files: saved models, official checkpoints, the tokenizer that was released with them."""

import argparse
import itertools
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from contar._errors import bad, check_device, check_instance
from recipes.mar_config import MarConfig
from recipes.mar_model import Mar

# The factor that brings the released tokenizer's latents to a standard deviation of 1.
LATENT_SCALE = 0.2325
# Of the tokenizer; what else its file holds was needed in training only.
_PARTS = ("encoder.", "decoder.", "quant_conv.", "post_quant_conv.")


def from_pretrained(
    path: str | Path,
    *,
    config: MarConfig | None = None,
    ema: bool = True,
    device: torch.device | str = "cpu",
) -> Mar:
    """Load a folder that `save_pretrained` wrote, or an official checkpoint (`.pth`).

    A checkpoint is a pickle of tensors and plain values; one that holds anything else is refused
    before anything of it is run.

    Args:
        path: of the folder or the file.
        config: of a checkpoint that does not say which released model it is; None reads it from
            the arguments stored there.
        ema: take a checkpoint's averaged weights, not those of the last step.
        device: where the model is made.

    Raises:
        ValueError: no such path, a file of another kind, or weights that do not fit.
    """
    check_instance("ema", ema, bool)
    check_device("device", device)
    if config is not None:
        check_instance("config", config, MarConfig)
    path = _existing(path)
    if path.is_dir():
        if config is not None:
            raise bad("config", config, f"None: {path} has its own")
        if not (path / "config.json").is_file():
            raise bad("path", str(path), "a folder with a config.json, or an official checkpoint")
        model = Mar.from_pretrained(path, use_safetensors=True)
        nn.Module.to(model, device)
        return model
    checkpoint, part = _read(path), "model_ema" if ema else "model"
    state = checkpoint.get(part)
    if not isinstance(state, Mapping):
        raise bad("path", str(path), f"a checkpoint with weights under {part!r}")
    if config is None:
        arguments = checkpoint.get("args")
        arguments = vars(arguments) if isinstance(arguments, argparse.Namespace) else arguments
        if not isinstance(arguments, Mapping) or "model" not in arguments:
            raise bad("config", None, f"a MarConfig: {path} does not say which model it is")
        config = MarConfig.from_official(arguments)
    with torch.device("meta"):
        model = Mar(config)
    model.to_empty(device=device)
    model.load_official_state_dict(state)
    return model.eval()


def load_tokenizer(path: str | Path) -> Any:
    """Load the released KL-16 tokenizer (`kl16.ckpt`, as latent-diffusion lays it out).

    Returns:
        A `diffusers.AutoencoderKL`; its `config.scaling_factor` brings latents to a standard
        deviation of 1.

    Raises:
        ValueError: no such file, or one of another kind.
    """
    from diffusers.loaders.single_file_utils import (
        convert_ldm_vae_checkpoint,
        update_vae_attentions_ldm_to_diffusers,
    )
    from diffusers.models.autoencoders.autoencoder_kl import AutoencoderKL

    checkpoint = _read(_existing(path))
    state = checkpoint.get("model")
    if not isinstance(state, Mapping):
        raise bad("path", str(path), "a checkpoint with weights under 'model'")
    state = {k: v for k, v in state.items() if isinstance(v, Tensor) and k.startswith(_PARTS)}
    config = _tokenizer_config(path, state)
    attention = [key for key in state if ".attn." in key]
    converted = convert_ldm_vae_checkpoint(
        {key: value for key, value in state.items() if key not in attention}, config
    )
    last = len(config["block_out_channels"]) - 1
    for level in range(last + 1):  # which diffusers' own conversion leaves out
        for old, new in (
            (f"encoder.down.{level}.attn", f"encoder.down_blocks.{level}.attentions"),
            (f"decoder.up.{level}.attn", f"decoder.up_blocks.{last - level}.attentions"),
        ):
            keys = [key for key in attention if key.startswith(f"{old}.")]
            names = {"old": old, "new": new}
            update_vae_attentions_ldm_to_diffusers(keys, converted, state, names)
    try:
        tokenizer = AutoencoderKL(**config, scaling_factor=LATENT_SCALE)
        tokenizer.load_state_dict(converted)
    except (RuntimeError, ValueError) as error:
        raise bad("path", str(path), f"the weights of an autoencoder: {error}") from error
    return tokenizer.eval()


def _tokenizer_config(path: str | Path, state: Mapping[str, Tensor]) -> dict[str, Any]:
    """Read the sizes of an autoencoder off its weights."""

    def kinds(half: str, levels: range, plain: str) -> list[str]:
        attends = [f"{half}.{level}.attn.0.q.weight" in state for level in levels]
        return [f"Attn{plain}" if attend else plain for attend in attends]

    def count(pattern: str) -> int:
        return next(i for i in itertools.count() if pattern.format(i) not in state)

    levels = count("encoder.down.{}.block.0.conv1.weight")
    try:
        return {
            "in_channels": state["encoder.conv_in.weight"].shape[1],
            "out_channels": state["decoder.conv_out.weight"].shape[0],
            "latent_channels": state["post_quant_conv.weight"].shape[0],
            "block_out_channels": [
                state[f"encoder.down.{level}.block.0.conv1.weight"].shape[0]
                for level in range(max(levels, 1))
            ],
            "layers_per_block": count("encoder.down.0.block.{}.conv1.weight"),
            "down_block_types": kinds("encoder.down", range(levels), "DownEncoderBlock2D"),
            "up_block_types": kinds("decoder.up", range(levels)[::-1], "UpDecoderBlock2D"),
        }
    except (KeyError, IndexError) as error:
        raise bad("path", str(path), f"an autoencoder of latent-diffusion: {error}") from error


def _existing(path: Any) -> Path:
    if not isinstance(path, str | Path) or not Path(path).exists():
        raise bad("path", path, "a file or folder that exists")
    return Path(path)


def _read(path: Path) -> Mapping[str, Any]:
    """Read a pickle of tensors, plain values and parsed arguments, and nothing else."""
    if not path.is_file():
        raise bad("path", str(path), "a file")
    try:
        with torch.serialization.safe_globals([argparse.Namespace]):
            content = torch.load(
                path, map_location="cpu", weights_only=True, mmap=zipfile.is_zipfile(path)
            )
    except Exception as error:  # of any kind: what a broken or hostile file leads to
        raise bad("path", str(path), f"a file of tensors and plain values: {error}") from error
    if not isinstance(content, Mapping):
        raise bad("path", str(path), "a file of named weights")
    return content
