"""Which network makes the condition z: transformer block, temporal tower, spatial tower."""

from contar.backbones.block import Block, SelfAttention
from contar.backbones.spatial import SpatialTower
from contar.backbones.temporal import TemporalTower

__all__ = ["Block", "SelfAttention", "SpatialTower", "TemporalTower"]
