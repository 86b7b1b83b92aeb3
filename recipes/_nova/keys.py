"""Parameter names of official NOVA checkpoints, and their shapes, to ours and back."""

import math
from collections.abc import Mapping

from einops import rearrange
from torch import Tensor

from contar._files import check_finite, check_weights
from recipes._nova.config import NovaConfig
from recipes._shared.key_map import renamed

# Ours, official. `{i}` is a block's number; blocks of the spatial tower's decoder half count on.
_PARTS = [
    ("temporal.blocks.{i}.", "video_encoder.blocks.{i}."),
    ("temporal.norm.", "video_encoder.norm."),
    ("embed.", "video_encoder.patch_embed.proj."),
    ("adapter.down.", "video_encoder.mixer.lora."),
    ("adapter.up.", "video_encoder.mixer.proj."),
    ("times.embed.fc1.", "video_pos_embed.time_proj.0."),
    ("times.embed.fc2.", "video_pos_embed.time_proj.2."),
    ("times.norm.", "video_pos_embed.norm."),
    ("motion.flow.fc1.", "motion_embed.flow_proj.0."),
    ("motion.flow.fc2.", "motion_embed.flow_proj.2."),
    ("motion.fps.fc1.", "motion_embed.fps_proj.0."),
    ("motion.fps.fc2.", "motion_embed.fps_proj.2."),
    ("begin", "mask_embed.bos_token"),
    ("text.padding", "text_embed.weight"),
    ("text.", "text_embed."),
    ("spatial.embed.", "image_encoder.patch_embed.proj."),
    ("spatial.mask_token", "mask_embed.mask_token"),
    ("spatial.encoder.{i}.", "image_encoder.blocks.{i}."),
    ("spatial.decoder.{i}.", "image_encoder.blocks.{i}."),
    ("spatial.norm.", "image_encoder.norm."),
    ("head.network.token.", "image_decoder.patch_embed.proj."),
    ("head.network.time.", "image_decoder.time_cond_embed.timestep_proj."),
    ("head.network.condition.", "image_decoder.time_cond_embed.condition_proj."),
    ("head.network.blocks.{i}.norm1.proj.", "image_decoder.blocks.{i}.norm1.proj."),
    ("head.network.blocks.{i}.mlp.", "image_decoder.blocks.{i}.proj."),
    ("head.network.blocks.{i}.norm2.", "image_decoder.blocks.{i}.norm2."),
    ("head.network.norm.proj.", "image_decoder.norm.proj."),
    ("head.network.out.", "image_decoder.head."),
]
# Official patch embeddings are convolutions; ours are linear layers over (y, x, channel).
_PATCHES = ("embed.weight", "spatial.embed.weight", "head.network.token.weight")


def official_name(name: str, encoder_depth: int) -> str:
    """Return the official name of one of our parameters, of so many blocks in the encoder half.

    Raises:
        ValueError: a parameter that official models do not have (layers that join widths).
    """
    return renamed(name, _PARTS, {"spatial.decoder.{i}.": encoder_depth})


def to_official(state: Mapping[str, Tensor], sizes: NovaConfig) -> dict[str, Tensor]:
    """Rename and reshape our state dict to the official layout.

    Raises:
        ValueError: a parameter that official models do not have.
    """
    result = {}
    for name, tensor in state.items():
        if name in _PATCHES:
            side = math.isqrt(tensor.shape[1] // sizes.channels)
            tensor = rearrange(tensor, "d (p q c) -> d c p q", p=side, q=side).contiguous()
        result[official_name(name, sizes.encoder.depth)] = tensor
    return result


def from_official(
    official: Mapping[str, Tensor],
    ours: Mapping[str, Tensor],
    sizes: NovaConfig,
    *,
    name: str = "state",
) -> dict[str, Tensor]:
    """Rename and reshape an official state dict, which errors call `name`, to the layout of `ours`.

    Raises:
        ValueError: missing, unexpected, misshapen, NaN or infinite weights, all of them listed.
    """
    check_weights(name, official, to_official(ours, sizes))
    check_finite(name, official)
    result = {}
    for key in ours:
        tensor = official[official_name(key, sizes.encoder.depth)]
        result[key] = rearrange(tensor, "d c p q -> d (p q c)") if key in _PATCHES else tensor
    return result
