"""Which network makes the condition z: transformer block, temporal tower, spatial tower."""

from contar.backbones.block import Block, SelfAttention, run_blocks, take
from contar.backbones.spatial import SpatialTower
from contar.backbones.spatial_memory import SpatialMemory
from contar.backbones.temporal import TemporalTower

__all__ = [
    "Block",
    "SelfAttention",
    "SpatialMemory",
    "SpatialTower",
    "TemporalTower",
    "run_blocks",
    "take",
]
