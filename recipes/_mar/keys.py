"""Parameter names of official MAR checkpoints to ours and back."""

from collections.abc import Mapping

import torch
from torch import Tensor

from contar._files import check_finite, check_weights
from recipes._shared.key_map import renamed

MASK_TOKEN = "spatial.mask_token"  # [1, d], of official checkpoints [1, 1, d]
# Ours, official. `{i}` is a block's number.
_PARTS = [
    ("classes.", "class_emb."),
    ("no_class", "fake_latent"),
    ("spatial.embed.", "z_proj."),
    ("spatial.embed_norm.", "z_proj_ln."),
    ("encoder_positions", "encoder_pos_embed_learned"),
    ("spatial.encoder.{i}.", "encoder_blocks.{i}."),
    ("spatial.encoder_norm.", "encoder_norm."),
    ("spatial.join.", "decoder_embed."),
    ("spatial.mask_token", "mask_token"),
    ("decoder_positions", "decoder_pos_embed_learned"),
    ("spatial.decoder.{i}.", "decoder_blocks.{i}."),
    ("spatial.norm.", "decoder_norm."),
    ("head_positions", "diffusion_pos_embed_learned"),
    ("head.network.token.", "diffloss.net.input_proj."),
    ("head.network.time.fc1.", "diffloss.net.time_embed.mlp.0."),
    ("head.network.time.fc2.", "diffloss.net.time_embed.mlp.2."),
    ("head.network.condition.", "diffloss.net.cond_embed."),
    ("head.network.blocks.{i}.norm1.proj.", "diffloss.net.res_blocks.{i}.adaLN_modulation.1."),
    ("head.network.blocks.{i}.norm1.", "diffloss.net.res_blocks.{i}.in_ln."),
    ("head.network.blocks.{i}.mlp.fc1.", "diffloss.net.res_blocks.{i}.mlp.0."),
    ("head.network.blocks.{i}.mlp.fc2.", "diffloss.net.res_blocks.{i}.mlp.2."),
    ("head.network.norm.proj.", "diffloss.net.final_layer.adaLN_modulation.1."),
    ("head.network.out.", "diffloss.net.final_layer.linear."),
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
    state = {name: tensor[None] if name == MASK_TOKEN else tensor for name, tensor in state.items()}
    return {official_name(name): _reordered(name, tensor) for name, tensor in state.items()}


def from_official(official: Mapping[str, Tensor], ours: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Rename an official state dict to the names of `ours`.

    Raises:
        ValueError: missing, unexpected, misshapen, NaN or infinite weights, all of them listed.
    """
    check_weights("state", official, to_official(ours))
    check_finite("state", official)
    state = {name: _reordered(name, official[official_name(name)]) for name in ours}
    return {**state, MASK_TOKEN: state[MASK_TOKEN][0]}


def _reordered(name: str, tensor: Tensor) -> Tensor:
    """Swap scale and shift: official modulations begin with the shift, ours with the scale."""
    if ".norm1.proj." not in name and ".norm.proj." not in name:
        return tensor
    first, second, *rest = tensor.chunk(2 if ".norm." in name else 3)
    return torch.cat([second, first, *rest])
