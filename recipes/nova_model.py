"""NOVA's network, put together from contar's parts."""

from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

import torch
from torch import nn

from contar._errors import bad, check_grid, check_size, check_tensor
from contar._typing import Float, Tensor
from contar.attention import (
    Positions,
    grid_coordinates,
    rotary_table,
    sincos_2d,
)
from contar.backbones import SpatialTower, TemporalTower
from contar.conditioning import FrameTimes, MotionTokens, ScaleShiftAdapter, TextProjection
from contar.heads import TokenHead
from contar.tokenizers import patchify
from recipes._nova.config import NovaConfig
from recipes._nova.keys import from_official, to_official
from recipes._shared.building import compile_parts
from recipes._shared.headed import Headed, choose_head


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
        width = c.temporal.width
        values = c.patch**2 * c.channels
        self.text = TextProjection(c.text_width, width, length=c.text_length, rows=c.text_rows)
        self.motion = MotionTokens(width) if c.frames > 1 else None
        self.begin = nn.Parameter(torch.randn(1, width) * 0.02)
        self.embed = nn.Linear(4 * values, width)  # a coarse patch covers 2 x 2 tokens
        self.times = FrameTimes(width, base=c.frames) if c.positions == "absolute" else None
        self.temporal = TemporalTower(depth=c.temporal.depth, width=width, heads=c.temporal.heads)
        self.adapter = None
        if c.adapter is not None:
            rank = None if c.adapter == "full" else c.adapter
            self.adapter = ScaleShiftAdapter(width, rank=rank)
        self.spatial = SpatialTower(values, width, encoder=c.encoder, decoder=c.decoder)
        self.head: Any = choose_head(head, c.head, values, c.decoder.width)

    def prefix(
        self,
        text: Float[Tensor, "b l e"],
        flow: Float[Tensor, " b"] | None,
        fps: Float[Tensor, " b"] | None,
    ) -> Float[Tensor, "b p d"]:
        """Return the tokens of text and motion that come before the first frame.

        Raises:
            ValueError: shapes that do not fit, flow without fps or fps without flow, or either for
                a model of images.
        """
        check_tensor("text", text, (None, None, self.sizes.text_width), "[b, l, width]")
        for name, value, other in (("flow", flow, fps), ("fps", fps, flow)):
            if value is None and other is not None:
                raise bad(name, None, "both flow and fps, or neither")
            if value is not None:
                if self.motion is None:
                    raise bad(name, "a tensor", "None: this model makes images")
                check_tensor(name, value, (len(text),), "[b]")
        tokens = self.text(text.to(self.begin.dtype))
        if self.motion is None or flow is None or fps is None:
            return tokens
        return torch.cat([tokens, self.motion(flow * self.sizes.motion_scale, fps)], dim=1)

    def frame_tokens(
        self, previous: Float[Tensor, "b c t h w"] | None, batch: int, count: int
    ) -> Float[Tensor, "b t n d"]:
        """Return what the temporal tower sees of each frame: the frame before it, coarsely.

        Args:
            previous: the frames before; None is the beginning of the video.
            batch: samples.
            count: coarse tokens of a frame.

        Raises:
            ValueError: a number below 1, or frames of another shape.
        """
        check_size("batch", batch)
        check_size("count", count)
        if previous is None:
            return self.begin.expand(batch, 1, count, -1)
        allowed = (batch, self.sizes.channels, None, None, None)
        check_tensor("previous", previous, allowed, "[b, c, t, h, w]")
        self.sizes.check_latent("previous", (previous.shape[3], previous.shape[4]))
        frames = previous.transpose(1, 2).to(self.begin.dtype)
        return self.embed(patchify(frames, 2 * self.sizes.patch))

    def frame_positions(
        self, frames: int, grid: tuple[int, int], prefix: int, *, frame: int | None = None
    ) -> tuple[Float[Tensor, "t n d"] | None, Float[Tensor, "m k 2"] | None]:
        """Return what is added to the coarse tokens, or the rotary table of prefix and frames.

        Args:
            frames: of the whole clip.
            grid: coarse tokens of a frame, (rows, columns).
            prefix: tokens before the frames.
            frame: the one frame that is meant; None is all of them.

        Raises:
            ValueError: a number outside its range, or no grid.
        """
        check_size("frames", frames)
        check_grid("grid", grid)
        check_size("prefix", prefix, 0)
        if frame is not None and check_size("frame", frame, 0) >= frames:
            raise bad("frame", frame, f"below {frames}")
        first, count = (0, frames) if frame is None else (frame, 1)
        tower = self.sizes.temporal
        if self.times is None:
            coordinates = grid_coordinates(count, *grid, device=self.begin.device)
            coordinates[:, 0] += first
            table = rotary_table(coordinates, tower.width // tower.heads)
            return None, Positions(turn=table).behind(prefix).turn
        space = sincos_2d(grid, tower.width, base=self.sizes.frame_grid, device=self.begin.device)
        times = self.times(frames, frame=frame)[:, None]
        return times + space.to(self.begin.dtype), None

    def token_positions(self, grid: tuple[int, int]) -> tuple[Positions, Positions]:
        """Return the positions of a frame's tokens for both halves of the spatial tower.

        Raises:
            ValueError: no grid.
        """
        check_grid("grid", grid)
        encoder, decoder = self.sizes.encoder, self.sizes.decoder
        return self._positions_of_half(grid, *encoder[1:]), self._positions_of_half(
            grid, *decoder[1:]
        )

    def _positions_of_half(self, grid: tuple[int, int], width: int, heads: int) -> Positions:
        if self.times is None:
            coordinates = grid_coordinates(1, *grid, device=self.begin.device)
            return Positions(turn=rotary_table(coordinates, width // heads))
        table = sincos_2d(grid, width, base=self.sizes.grid, device=self.begin.device)
        return Positions(add=table.to(self.begin.dtype))

    def adapt(
        self, anchor: Float[Tensor, "*m n d"], features: Float[Tensor, "*m2 n d"]
    ) -> Float[Tensor, "*m2 n d"]:
        """Return the condition of a later frame, given the first frame's features."""
        return features if self.adapter is None else self.adapter(anchor, features)

    def compile(self, **options: Any) -> None:
        """Compile what sampling repeats: the spatial tower's blocks and the head's network.

        Each is one graph, of any number of tokens; the first samples wait for the compiler. Of use
        where launches cost more than what they run, as small sets on a GPU do.

        Args:
            options: of `torch.compile`; `mode="reduce-overhead"` replays CUDA graphs.
        """
        compile_parts([*self.spatial.encoder, *self.spatial.decoder, self.head], options)

    def official_state_dict(self) -> dict[str, Tensor]:
        """Return the state dict in the names and shapes of official checkpoints."""
        return to_official(self.state_dict(), self.sizes.encoder.depth, self.sizes.channels)

    def load_official_state_dict(self, state: Mapping[str, Tensor]) -> None:
        """Load a state dict in the names and shapes of official checkpoints.

        Raises:
            ValueError: missing, unexpected or misshapen weights, all listed; nothing is loaded.
        """
        sizes = self.sizes
        ours = from_official(state, self.state_dict(), sizes.encoder.depth, sizes.channels)
        self.load_state_dict(ours)
