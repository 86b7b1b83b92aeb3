"""MAR's files: saved models, official checkpoints, the tokenizer released with them."""

import argparse
import itertools
import re
import zipfile
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from contar._building import TooLargeError, build_for
from contar._defaults import fixed_defaults
from contar._errors import FLOATS, bad, check_choice, check_instance
from contar._files import WEIGHTS, load_exactly, read_json, read_weights
from contar.cpu import speed_up
from contar.tokenizers import VAETokenizer
from recipes._mar.config import MarConfig
from recipes._mar.keys import from_official
from recipes._mar.network import Mar
from recipes._shared.building import build_empty

LATENT_SCALE = 0.2325  # brings the released tokenizer's latents to a standard deviation of 1
# Of the tokenizer; what else its file may hold was needed in training only.
_PARTS = ("encoder.", "decoder.", "quant_conv.", "post_quant_conv.")


@fixed_defaults()
def from_pretrained(
    path: str | Path,
    *,
    config: MarConfig | None = None,
    ema: bool = True,
    dtype: torch.dtype | None = None,
) -> Mar:
    """Load a folder that `save_pretrained` wrote, or an official checkpoint (`.pth`).

    A checkpoint is a pickle. One that holds more than tensors, plain values and parsed arguments is
    refused, and nothing of it is run.

    Args:
        path: of the folder or file.
        config: of a checkpoint that does not say which released model it is; None reads it from
            the arguments stored there.
        ema: take a checkpoint's averaged weights, not those of its last step.
        dtype: of the weights; None keeps the file's.

    Raises:
        FileNotFoundError: no such path, or a folder without a config or weights.
        ValueError: a file of another kind, sizes that are not known or of a model far larger than
            its weights, or weights that are missing, unexpected, misshapen, NaN or infinite (all
            are listed).
    """
    check_instance("ema", ema, bool)
    if config is not None:
        check_instance("config", config, MarConfig)
    if dtype is not None:
        check_choice("dtype", dtype, FLOATS)
    path = _existing(path)
    if path.is_dir():
        if config is not None:
            raise bad("config", config, f"None: {path} has its own")
        config = MarConfig.from_dict(read_json(path / "config.json").get("sizes"))  # type: ignore[arg-type]
        state = read_weights(path)
        model = build_empty(Mar, config, state)
        model.rename_saved(state)
    else:
        checkpoint = _read_pickle(path)
        weights = _named_weights(path, checkpoint, "model_ema" if ema else "model")
        if config is None:
            arguments = checkpoint.get("args")
            known = vars(arguments) if isinstance(arguments, argparse.Namespace) else {}
            if known.get("model") is None:
                allowed = "a MarConfig: the checkpoint does not say which model it is"
                raise bad("config", None, allowed)
            config = MarConfig.from_official(known)
        model = build_empty(Mar, config, weights)
        state = from_official(weights, model.state_dict())
    state = {name: x.detach().to(dtype or x.dtype) for name, x in state.items()}
    load_exactly(model, state, WEIGHTS)
    return speed_up(model.eval())


@fixed_defaults()
def load_tokenizer(path: str | Path) -> VAETokenizer:
    """Load the tokenizer released with MAR (`kl16.ckpt`, laid out as in latent-diffusion).

    The file is read as in `from_pretrained`. Images are clips of one frame: latents [b, c, h, w]
    are `tokenizer.encode(images[:, :, None])[:, :, 0]`.

    Raises:
        FileNotFoundError: no such file.
        ValueError: a file of another kind, or weights that make no autoencoder.
    """
    from diffusers.loaders.single_file_utils import (
        convert_ldm_vae_checkpoint,
        update_vae_attentions_ldm_to_diffusers,
    )
    from diffusers.models.autoencoders.autoencoder_kl import AutoencoderKL

    path = _existing(path)
    state = _named_weights(path, _read_pickle(path), "model")
    state = {k: v for k, v in state.items() if isinstance(v, Tensor) and k.startswith(_PARTS)}
    try:
        config = _tokenizer_config(state)
        within = [key for key in state if ".attn." in key]
        rest = {key: value for key, value in state.items() if key not in within}
        converted = convert_ldm_vae_checkpoint(rest, config)
        last = len(config["block_out_channels"]) - 1
        for i in range(last + 1):  # attention within levels, which diffusers' conversion leaves out
            for old, new in (
                (f"encoder.down.{i}.attn.", f"encoder.down_blocks.{i}.attentions."),
                (f"decoder.up.{i}.attn.", f"decoder.up_blocks.{last - i}.attentions."),
            ):
                keys = [key for key in within if key.startswith(old)]
                names = {"old": old, "new": new}
                update_vae_attentions_ldm_to_diffusers(keys, converted, state, names)
        make = partial(AutoencoderKL, **config, scaling_factor=LATENT_SCALE)
        vae: Any = build_for(state, make, name="path", sizes=config)
    except TooLargeError:
        raise
    except (ArithmeticError, LookupError, ValueError) as error:
        raise bad("path", str(path), f"an autoencoder's weights: {error!r}") from error
    load_exactly(vae, converted, "path")
    return VAETokenizer(speed_up(vae.eval()))


def _tokenizer_config(state: Mapping[str, Tensor]) -> dict[str, Any]:
    """Read the sizes of an autoencoder off its weights."""

    def count(pattern: str) -> int:
        return next(i for i in itertools.count() if pattern.format(i) not in state)

    def kinds(half: str, levels: range, plain: str) -> list[str]:
        attends = [f"{half}.{level}.attn.0.q.weight" in state for level in levels]
        return [f"Attn{plain}" if attend else plain for attend in attends]

    first_conv = "encoder.down.{}.block.0.conv1.weight"
    levels = range(count(first_conv))
    return {
        "in_channels": state["encoder.conv_in.weight"].shape[1],
        "out_channels": state["decoder.conv_out.weight"].shape[0],
        "latent_channels": state["post_quant_conv.weight"].shape[0],
        "block_out_channels": [state[first_conv.format(level)].shape[0] for level in levels],
        "layers_per_block": count("encoder.down.0.block.{}.conv1.weight"),
        "down_block_types": kinds("encoder.down", levels, "DownEncoderBlock2D"),
        "up_block_types": kinds("decoder.up", levels[::-1], "UpDecoderBlock2D"),
    }


def _existing(path: Any) -> Path:
    if not isinstance(path, str | Path):
        raise bad("path", path, "the path of a file or folder")
    if not Path(path).exists():
        raise FileNotFoundError(f"path: got {str(path)!r}, allowed: a file or folder that exists")
    return Path(path)


def _read_pickle(path: Path) -> Mapping[str, Any]:
    """Read a pickle of tensors, plain values and parsed arguments, and nothing else."""
    try:
        with torch.serialization.safe_globals([argparse.Namespace]):
            content = torch.load(
                path, map_location="cpu", weights_only=True, mmap=zipfile.is_zipfile(path)
            )
    except Exception as error:  # of any kind: what a broken or hostile file leads to
        named = re.search(r"GLOBAL (\S+)", str(error))  # torch's own text says how to run it
        got = f"{path}, which names {named[1]}" if named else str(path)
        allowed = "a whole file of tensors, plain values and parsed arguments"
        raise bad("path", got, allowed) from error
    if not isinstance(content, Mapping):
        raise bad("path", str(path), "a file of named weights")
    return content


def _named_weights(path: Path, checkpoint: Mapping[str, Any], key: str) -> dict[str, Any]:
    weights = checkpoint.get(key)
    if not isinstance(weights, Mapping) or not all(isinstance(name, str) for name in weights):
        others = ", ".join(map(repr, itertools.islice(checkpoint, 5))) or "nothing"
        raise bad("path", f"{path} with {others}", f"a checkpoint of named weights under {key!r}")
    return dict(weights)
