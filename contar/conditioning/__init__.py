"""What steers generation: text, motion, timesteps, the scale-and-shift adapter, norms, guidance."""

from contar.conditioning.adapter import ScaleShiftAdapter
from contar.conditioning.guidance import Guidance
from contar.conditioning.norm import AdaptiveLayerNorm
from contar.conditioning.prompts import encode_texts, text_package
from contar.conditioning.scalar import FrameTimes, MotionTokens, ScalarEmbedding, frame_times
from contar.conditioning.text import TextProjection

__all__ = [
    "AdaptiveLayerNorm",
    "FrameTimes",
    "Guidance",
    "MotionTokens",
    "ScalarEmbedding",
    "ScaleShiftAdapter",
    "TextProjection",
    "encode_texts",
    "frame_times",
    "text_package",
]
