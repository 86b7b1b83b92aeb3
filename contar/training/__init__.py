"""How a training run goes: losses of a step, parts kept from training, the loop and its saves."""

from contar.training.freezing import freeze
from contar.training.loop import RunConfig, train
from contar.training.losses import FrameLosses, frame_losses

__all__ = ["FrameLosses", "RunConfig", "frame_losses", "freeze", "train"]
