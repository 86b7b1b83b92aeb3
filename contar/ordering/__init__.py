"""In which order tokens appear: orders, set sizes, the schedule, training masks."""

from contar.ordering.masking import TrainingMask, full_mask, mask_by_order, truncated_normal_mask
from contar.ordering.orders import checkerboard_order, kept_first, random_order, raster_order
from contar.ordering.schedule import SetSchedule, SetStep
from contar.ordering.sizes import Curve, Rounding, set_sizes

__all__ = [
    "Curve",
    "Rounding",
    "SetSchedule",
    "SetStep",
    "TrainingMask",
    "checkerboard_order",
    "full_mask",
    "kept_first",
    "mask_by_order",
    "random_order",
    "raster_order",
    "set_sizes",
    "truncated_normal_mask",
]
