"""Who may look at whom: block layouts, masks, `attend`, caches, positions."""

from contar._random import Dropout
from contar.attention.attending import attend, prepare_mask, why_unavailable
from contar.attention.cache import KVCache
from contar.attention.layout import BlockLayout
from contar.attention.masks import dense_mask, flex_mask, xformers_bias
from contar.attention.positions import (
    Positions,
    grid_coordinates,
    rotary_table,
    rotate,
    sincos_2d,
    sinusoid,
)
from contar.attention.token_cache import TokenCache

__all__ = [
    "BlockLayout",
    "Dropout",
    "KVCache",
    "Positions",
    "TokenCache",
    "attend",
    "dense_mask",
    "flex_mask",
    "grid_coordinates",
    "prepare_mask",
    "rotary_table",
    "rotate",
    "sincos_2d",
    "sinusoid",
    "why_unavailable",
    "xformers_bias",
]
