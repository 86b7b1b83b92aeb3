"""NOVA's network, put together from contar's parts."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any, Literal

import torch
from torch import nn

from contar._typing import Float, Tensor
from contar.attention import Positions, grid_coordinates, rotary_table
from contar.attention._angles import grid_waves
from contar.backbones import SpatialTower, TemporalTower
from contar.conditioning import (
    FrameTimes,
    MotionTokens,
    ScaleShiftAdapter,
    TextProjection,
    frame_times,
)
from contar.heads import TokenHead
from contar.tokenizers import patchify
from recipes._nova.config import NovaConfig
from recipes._nova.keys import from_official, to_official
from recipes._shared.headed import Headed, choose_head

Law = Literal["stretch", "continue", "window"] | None  # of frames' times, as in `GenerationPlan`


class Nova(Headed):
    """The network: weights and nothing else. Loops and losses are functions in `recipes.nova`."""

    config_name = "config.json"

    def __init__(
        self, sizes: NovaConfig | Mapping[str, Any], head: TokenHead | None = None
    ) -> None:
        super().__init__()
        c = sizes if isinstance(sizes, NovaConfig) else NovaConfig.from_dict(sizes)
        self.register_to_config(sizes=asdict(c))
        self.sizes = c
        width, token_dim = c.temporal.width, c.token_dim
        self.text = TextProjection(c.text_width, width, length=c.text_length, rows=c.text_rows)
        self.motion = MotionTokens(width) if c.frames > 1 else None
        self.begin = nn.Parameter(torch.randn(1, width) * 0.02)
        self.embed = nn.Linear(4 * token_dim, width)  # a coarse patch covers 2 x 2 tokens
        self.times = FrameTimes(width, base=c.frames) if c.positions == "absolute" else None
        self.temporal = TemporalTower(depth=c.temporal.depth, width=width, heads=c.temporal.heads)
        rank = None if c.adapter == "full" else c.adapter
        self.adapter = None if c.adapter is None else ScaleShiftAdapter(width, rank=rank)
        self.spatial = SpatialTower(token_dim, width, encoder=c.encoder, decoder=c.decoder)
        self.head: Any = choose_head(head, c.head, token_dim, c.decoder.width)

    def prefix(
        self,
        text: Float[Tensor, "b l e"],
        flow: Float[Tensor, " b"] | None,
        fps: Float[Tensor, " b"] | None,
    ) -> Float[Tensor, "b p d"]:
        """Return the tokens of text and motion that come before the first frame."""
        tokens = self.text(text.to(self.begin.dtype))
        if self.motion is None or flow is None or fps is None:
            return tokens
        return torch.cat([tokens, self.motion(flow * self.sizes.motion_scale, fps)], dim=1)

    def frame_tokens(
        self, previous: Float[Tensor, "b c t h w"] | None, batch: int, count: int
    ) -> Float[Tensor, "b t n d"]:
        """Return what the temporal tower sees of each frame: the frame before it, coarsely.

        Where there is none, at the beginning of the video, it is `count` times the learned vector.
        """
        if previous is None:
            return self.begin.expand(batch, 1, count, -1)
        frames = previous.transpose(1, 2).to(self.begin.dtype)
        return self.embed(patchify(frames, 2 * self.sizes.patch))

    def added_positions(
        self, frames: int, grid: tuple[int, int], *, frame: int | None = None, law: Law = None
    ) -> Float[Tensor, "t n d"] | None:
        """Return what is added to the coarse tokens, `grid` a frame, of one or all of the frames.

        It is None with rotary positions. The law of times is "stretch", if it is not said, as the
        models with added ones were released.
        """
        if self.times is None:
            return None
        width, learned = self.sizes.temporal.width, self.sizes.frame_grid
        space = grid_waves(grid, width, learned, self.begin.device)
        times: Any = self.times(frames, frame=frame, law=law or "stretch")
        return times[:, None] + space.to(self.begin.dtype)

    def rotary_positions(
        self,
        frames: int,
        grid: tuple[int, int],
        prefix: int,
        *,
        seen: Sequence[int] | None = None,
        law: Law = None,
    ) -> Float[Tensor, "m k 2"] | None:
        """Return the rotary table of a prefix of so many tokens, and of frames of coarse tokens.

        The frames are those that are seen, or all of the clip. It is None with absolute positions.
        The law of times is "continue", if it is not said, as the models with them were released.
        """
        if self.times is not None:
            return None
        tower, options = self.sizes.temporal, {"dtype": torch.float32, "device": self.begin.device}
        seen = range(frames) if seen is None else seen
        if law == "window":
            times = torch.arange(len(seen), **options)
        else:
            times = torch.tensor(seen, **options)
            times = frame_times(times, frames, self.sizes.frames, law or "continue")
        coordinates = grid_coordinates(len(seen), *grid, device=self.begin.device)
        coordinates[:, 0] = times.repeat_interleave(grid[0] * grid[1])
        table = rotary_table(coordinates, tower.width // tower.heads)
        return Positions(rope=table).shifted(prefix).rope

    def token_positions(self, grid: tuple[int, int]) -> tuple[Positions, Positions]:
        """Return the positions of a frame's tokens for both halves of the spatial tower."""
        halves, device = (self.sizes.encoder, self.sizes.decoder), self.begin.device
        if self.times is None:
            places = grid_coordinates(1, *grid, device=device)
            first, second = (rotary_table(places, half.width // half.heads) for half in halves)
            return Positions(rope=first), Positions(rope=second)
        first, second = (grid_waves(grid, half.width, self.sizes.grid, device) for half in halves)
        return Positions(add=first.to(self.begin.dtype)), Positions(add=second.to(self.begin.dtype))

    def adapt(
        self, anchor: Float[Tensor, "*m n d"], features: Float[Tensor, "*m2 n d"]
    ) -> Float[Tensor, "*m2 n d"]:
        """Return the condition of a later frame, given the first frame's features."""
        return features if self.adapter is None else self.adapter(anchor, features)

    def _to_official(self, state: Mapping[str, Tensor]) -> dict[str, Tensor]:
        return to_official(state, self.sizes)

    def _from_official(self, state: Mapping[str, Tensor]) -> dict[str, Tensor]:
        return from_official(state, self.state_dict(), self.sizes)


def frozen_parts(model: Nova, *, images: bool = False) -> tuple[str, ...]:
    """Return what the official training keeps fixed, as names for `contar.training.freeze`.

    Args:
        model: a NOVA; parts that it does not have are left out.
        images: for the first stage, on images, which also keeps what tells frames apart.
    """
    names = ["motion", "times", "embed"] if images else ["motion"]
    return "text.norm", *(name for name in names if getattr(model, name) is not None)
