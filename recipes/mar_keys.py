"""Parameter names of official MAR checkpoints to ours and back."""

from collections.abc import Mapping

import torch
from torch import Tensor

from contar._files import check_finite, check_weights
from recipes.key_map import renamed

# Ours, official. `{i}` is a block's number.
_PARTS = [
    ("classes.", "class_emb."),
    ("no_class", "fake_latent"),
    ("embed.", "z_proj."),
    ("embed_norm.", "z_proj_ln."),
    ("encoder_positions", "encoder_pos_embed_learned"),
    ("encoder.{i}.", "encoder_blocks.{i}."),
    ("encoder_norm.", "encoder_norm."),
    ("join.", "decoder_embed."),
    ("mask_token", "mask_token"),
    ("decoder_positions", "decoder_pos_embed_learned"),
    ("decoder.{i}.", "decoder_blocks.{i}."),
    ("decoder_norm.", "decoder_norm."),
    ("head_positions", "diffusion_pos_embed_learned"),
    ("head.token.", "diffloss.net.input_proj."),
    ("head.time.fc1.", "diffloss.net.time_embed.mlp.0."),
    ("head.time.fc2.", "diffloss.net.time_embed.mlp.2."),
    ("head.condition.", "diffloss.net.cond_embed."),
    ("head.blocks.{i}.norm1.proj.", "diffloss.net.res_blocks.{i}.adaLN_modulation.1."),
    ("head.blocks.{i}.norm1.", "diffloss.net.res_blocks.{i}.in_ln."),
    ("head.blocks.{i}.mlp.fc1.", "diffloss.net.res_blocks.{i}.mlp.0."),
    ("head.blocks.{i}.mlp.fc2.", "diffloss.net.res_blocks.{i}.mlp.2."),
    ("head.norm.proj.", "diffloss.net.final_layer.adaLN_modulation.1."),
    ("head.out.", "diffloss.net.final_layer.linear."),
]


def official_name(name: str) -> str:
    """Return the official name of one of our parameters.

    Raises:
        ValueError: a parameter that official models do not have.
    """
    return renamed(name, _PARTS)


def to_official(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Rename our state dict to the official names.

    Raises:
        ValueError: a parameter that official models do not have.
    """
    return {official_name(name): _reordered(name, tensor) for name, tensor in state.items()}


def from_official(official: Mapping[str, Tensor], ours: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Rename an official state dict to the names of `ours`.

    Raises:
        ValueError: missing, unexpected, misshapen, NaN or infinite weights, all of them listed.
    """
    check_weights("state", official, to_official(ours))
    check_finite("state", official)
    return {name: _reordered(name, official[official_name(name)]) for name in ours}


def _reordered(name: str, tensor: Tensor) -> Tensor:
    """Swap scale and shift: official modulations begin with the shift, ours with the scale."""
    if ".norm1.proj." not in name and ".norm.proj." not in name:
        return tensor
    first, second, *rest = tensor.chunk(2 if ".norm." in name else 3)
    return torch.cat([second, first, *rest])
