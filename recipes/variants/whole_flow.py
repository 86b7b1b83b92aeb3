"""Whole flow: no sets and no head. One flow denoises all tokens of the canvas together.

Every token sees every other one at every step, as in diffusion transformers: what the others gain
by drawing tokens one set after the other can be told from what the transformer gives.
"""

import torch
from torch import nn

from contar._random import Generators, normal
from contar._typing import Float, Int, Tensor
from contar.attention import sincos_2d
from contar.backbones import Block
from contar.conditioning import Guidance, ScalarEmbedding
from contar.diffusion import NoiseProcess, SamplerTable
from recipes.variants.canvas import ATTENTION, DEPTH, PREFIX, WIDTH, Canvas

FLOW = {"_class_name": "FlowMatchEulerDiscreteScheduler", "shift": 1.0}
STEPS = 50  # of the solver


class WholeFlow(nn.Module):
    """The composition, for a canvas."""

    def __init__(self, canvas: Canvas) -> None:
        super().__init__()
        self.canvas = canvas
        self.labels = nn.Embedding(canvas.classes + 1, PREFIX * WIDTH)
        self.time = ScalarEmbedding(WIDTH)
        self.embed = nn.Linear(canvas.token_dim, WIDTH)
        self.blocks = nn.ModuleList(Block(WIDTH, ATTENTION, prenorm=True) for _ in range(DEPTH))
        self.norm = nn.LayerNorm(WIDTH)
        self.out = nn.Linear(WIDTH, canvas.token_dim)

    def velocity(
        self, x: Float[Tensor, "b n c"], timestep: Float[Tensor, " b"], labels: Int[Tensor, " b"]
    ) -> Float[Tensor, "b n c"]:
        """Return the flow's velocity at every token."""
        prefix = self.labels(labels).unflatten(1, (PREFIX, WIDTH))
        prefix = prefix + self.time(timestep)[:, None]
        x = self.embed(x) + sincos_2d(self.canvas.grid, WIDTH, device=x.device)
        x = torch.cat([prefix, x], dim=1)
        for block in self.blocks:
            x = block(x)
        return self.out(self.norm(x[:, PREFIX:]))

    def loss(
        self, tokens: Float[Tensor, "b n c"], labels: Int[Tensor, " b"], generator: torch.Generator
    ) -> Tensor:
        """Return the mean squared error of the velocity."""
        process = NoiseProcess.from_config(FLOW)
        noise = normal(*tokens.shape, generator=generator, device=tokens.device)
        index = process.draw_indices(len(tokens), generator=generator, device=tokens.device)
        each = index[:, None].expand(-1, tokens.shape[1])
        noisy = process.add_noise(tokens, noise, each)
        velocity = self.velocity(noisy, process.timestep(index), labels)
        return (velocity - process.target(tokens, noise, each)).square().mean()

    @torch.no_grad()
    def generate(
        self, labels: Int[Tensor, " b"], guidance: Guidance, generator: Generators
    ) -> Float[Tensor, "b n c"]:
        """Fill a canvas for each class, all tokens together."""
        batch, now = len(labels), guidance.at(1)
        none = torch.full_like(labels, self.canvas.classes)

        def predict(x: Tensor, timestep: float) -> Tensor:
            guided = now.applies(timestep)
            both = torch.cat([labels, none])[: batch * (1 + guided)]
            times = x.new_full((len(both),), timestep)
            out = self.velocity(x.repeat(1 + guided, 1, 1), times, both)
            return now.combine(*out.chunk(2)) if guided else out

        def noise() -> Tensor:
            shape = (batch, self.canvas.tokens, self.canvas.token_dim)
            return normal(*shape, generator=generator, device=labels.device)

        return SamplerTable.from_config(FLOW, STEPS).sample(predict, noise(), noise)
