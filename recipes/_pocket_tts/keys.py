"""Parameter names of transformers' Pocket TTS to ours and back."""

from collections.abc import Mapping

import torch
from torch import Tensor

from contar._files import check_finite, check_weights
from contar.heads import released_names
from recipes._shared.key_map import renamed

# Ours, theirs. `{i}` is a block's number.
_PARTS = [
    ("text.", "model.embed_tokens."),
    ("voice.", "model.audio_prompt_proj."),
    ("latent.", "model.audio_latent_proj."),
    ("begin", "model.bos_latent"),
    ("tower.blocks.{i}.attn.proj.", "model.layers.{i}.self_attn.o_proj."),
    ("tower.blocks.{i}.attn.qkv.", "model.layers.{i}.self_attn.qkv_proj."),
    ("tower.blocks.{i}.mlp.", "model.layers.{i}.mlp."),
    ("tower.blocks.{i}.norm1.", "model.layers.{i}.input_layernorm."),
    ("tower.blocks.{i}.norm2.", "model.layers.{i}.post_attention_layernorm."),
    ("tower.norm.", "model.norm."),
    ("end.", "eos_head."),
    ("mean", "latent_mean"),
    ("std", "latent_std"),
    *((f"head.{ours}", theirs) for ours, theirs in released_names("pocket_tts")),
]
_QKV = ".qkv_proj."
LEARNING = "loss_weighting."  # begins what is of use in training alone


def to_transformers(state: Mapping[str, Tensor], heads: int) -> dict[str, Tensor]:
    """Rename our state dict to transformers' names.

    Raises:
        ValueError: a parameter that their model does not have.
    """
    theirs: dict[str, Tensor] = {}
    for name, tensor in state.items():
        foreign = renamed(name, _PARTS)
        if _QKV in foreign:
            q, k, v = tensor.chunk(3)
            parts = {"q": _halves(q, heads), "k": _halves(k, heads), "v": v}
            theirs |= {foreign.replace(_QKV, f".{x}_proj."): part for x, part in parts.items()}
        else:
            theirs[foreign] = _reordered(name, tensor)
    return theirs


def from_transformers(
    theirs: Mapping[str, Tensor],
    ours: Mapping[str, Tensor],
    heads: int,
    *,
    name: str = "state",
) -> dict[str, Tensor]:
    """Rename a state dict of transformers' to the names of `ours`; errors call it `name`.

    Raises:
        ValueError: missing, unexpected, misshapen, NaN or infinite weights, all of them listed.
    """
    check_weights(name, theirs, to_transformers(ours, heads))
    check_finite(name, theirs)
    return {key: _ours(key, theirs, heads) for key in ours}


def _ours(name: str, theirs: Mapping[str, Tensor], heads: int) -> Tensor:
    foreign = renamed(name, _PARTS)
    if _QKV not in foreign:
        return _reordered(name, theirs[foreign])
    q, k, v = (theirs[foreign.replace(_QKV, f".{x}_proj.")] for x in "qkv")
    return torch.cat([_pairs(q, heads), _pairs(k, heads), v])


def _pairs(weight: Tensor, heads: int) -> Tensor:
    """Return rows of a head whose values turn in neighbouring pairs, as ours do.

    Theirs turn value i with value i + k/2. Queries and keys reordered alike have the same products.
    """
    return weight.unflatten(0, (heads, 2, -1)).transpose(1, 2).flatten(0, 2)


def _halves(weight: Tensor, heads: int) -> Tensor:
    return weight.unflatten(0, (heads, -1, 2)).transpose(1, 2).flatten(0, 2)


def _reordered(name: str, tensor: Tensor) -> Tensor:
    """Swap scale and shift: their modulations begin with the shift, ours with the scale."""
    if ".norm1.proj." not in name and ".norm.proj." not in name:
        return tensor
    first, second, *rest = tensor.chunk(2 if ".norm." in name else 3)
    return torch.cat([second, first, *rest])
