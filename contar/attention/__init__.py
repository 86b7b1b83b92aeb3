"""Who may look at whom: block layouts, masks, `attend`, caches, positions."""

from contar._random import Dropout
from contar.attention.attending import (
    BACKENDS,
    Backend,
    Mask,
    attend,
    attention,
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
    grid_waves,
    rotary_sections,
    rotary_table,
    rotate,
    rotated,
    sincos_2d,
    sinusoid,
    waves,
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
    "attention",
    "check_backend",
    "check_table",
    "dense_mask",
    "flex_mask",
    "grid_coordinates",
    "grid_waves",
    "prepare_mask",
    "rotary_sections",
    "rotary_table",
    "rotate",
    "rotated",
    "sincos_2d",
    "sinusoid",
    "waves",
    "why_unavailable",
    "xformers_bias",
]
