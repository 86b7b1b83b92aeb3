"""How a training run goes: the losses of one step, parts kept from training."""

from contar.training.freeze import freeze
from contar.training.losses import FrameLosses, frame_losses

__all__ = ["FrameLosses", "frame_losses", "freeze"]
