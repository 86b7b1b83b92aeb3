"""Who may look at whom: block layouts, masks, `attend`, caches, positions."""

from contar._random import Dropout
from contar.attention.attending import (
    BACKENDS,
    Backend,
    Mask,
    attend,
    check_backend,
    prepare_mask,
    why_unavailable,
)
from contar.attention.cache import KVCache, as_it_was
from contar.attention.layout import BlockLayout
from contar.attention.masks import dense_mask, flex_mask, xformers_bias
from contar.attention.positions import (
    Positions,
    check_table,
    grid_coordinates,
    rotary_sections,
    rotary_table,
    rotate,
    sincos_2d,
    sinusoid,
)
from contar.attention.token_cache import TokenCache

__all__ = [
    "BACKENDS",
    "Backend",
    "BlockLayout",
    "Dropout",
    "KVCache",
    "Mask",
    "Positions",
    "TokenCache",
    "as_it_was",
    "attend",
    "check_backend",
    "check_table",
    "dense_mask",
    "flex_mask",
    "grid_coordinates",
    "prepare_mask",
    "rotary_sections",
    "rotary_table",
    "rotate",
    "sincos_2d",
    "sinusoid",
    "why_unavailable",
    "xformers_bias",
]
