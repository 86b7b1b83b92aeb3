"""Noise in the order of the official code, so that its seeds give its samples."""

import torch
from torch import Tensor

from contar._random import Generators
from contar.backbones import take
from contar.heads import Noise
from contar.ordering import SetStep
from contar.tokenizers import patches


class FrameNoise(Noise):
    """Noise of a whole frame [b, c, h, w], `latent`, of which a set, `step`, takes its tokens."""

    def __init__(
        self,
        generator: Generators,
        step: SetStep,
        latent: tuple[int, int, int, int],
        patch: int,
        device: torch.device,
    ) -> None:
        super().__init__(generator, device)
        self.step, self.latent, self.patch = step, latent, patch

    def normal(self, *shape: int) -> Tensor:
        """Return the tokens of the set, or, if all are asked for, the set's, then the others."""
        step, (batch, tokens) = self.step, self.step.current.shape
        whole = tokens + step.known.shape[1] + step.remaining.shape[1]
        token_dim = self.latent[1] * self.patch**2
        if shape not in ((batch, tokens, token_dim), (batch, whole, token_dim)):
            return super().normal(*shape)
        ids = step.current
        if shape[1] > tokens:
            ids = torch.cat([step.current, step.known, step.remaining], dim=1)
        return take(patches(super().normal(*self.latent), self.patch), ids)
