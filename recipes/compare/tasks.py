"""Tasks, and the variants that each compares."""

from collections.abc import Callable

from torch import nn

from recipes.variants import checkerboard
from recipes.variants.canvas import HEADS
from recipes.variants.digit_pixels import CANVAS, SMALL
from recipes.variants.masked import Masked
from recipes.variants.nova_no_temporal import NoTemporal
from recipes.variants.nova_video import NovaVideo
from recipes.variants.raster import Raster
from recipes.variants.whole_flow import WholeFlow

Variants = dict[str, Callable[[], nn.Module]]
SMALL_IMAGES: Variants = {
    f"{order}-{name}": lambda model=model, head=head: model(SMALL, head)
    for order, model in (("raster", Raster), ("masked", Masked))
    for name, head in HEADS.items()
}
IMAGES: Variants = {
    **{f"masked-{name}": lambda head=head: Masked(CANVAS, head) for name, head in HEADS.items()},
    "raster-flow": lambda: Raster(CANVAS, HEADS["flow"]),
    "checkerboard-flow": lambda: checkerboard.build(CANVAS, HEADS["flow"]),
    "whole-flow": lambda: WholeFlow(CANVAS),
}
"""Variants of the task `digits`, by name."""
VIDEOS: Variants = {
    "nova": lambda: NovaVideo(),
    "nova-no-adapter": lambda: NovaVideo(adapter=None),
    "nova-no-temporal": lambda: NoTemporal(),
}
"""Variants of the task `moving-digits`, by name."""
TASKS = {"digits": IMAGES, "small-digits": SMALL_IMAGES, "moving-digits": VIDEOS}
"""The variants of each task."""
