"""What a frame is drawn with: the temporal tower's sight of those before it, and noise."""

from dataclasses import dataclass, field
from typing import Any

import torch

from contar._typing import Float, Tensor
from contar.attention import KVCache
from contar.backbones import take
from contar.heads import Noise
from contar.ordering import SetStep
from contar.tokenizers import patches
from recipes._nova.call import Call


@dataclass
class Sight:
    """The temporal tower's cache, and what it takes to fill another under the next prompt."""

    cache: KVCache | None = None
    text: Tensor | None = None  # of the prompt under which the cache was filled
    read: dict[int, Tensor] = field(default_factory=dict)  # coarse tokens of frames, [b, 1, n, d]
    anchor: Float[Tensor, "b2 n d"] | None = None  # the first frame's features

    def look(
        self, call: Call, t: int, x: Float[Tensor, "b 1 n d"]
    ) -> tuple[Float[Tensor, "b2 n d"], Float[Tensor, "b2 s n d"]]:
        """Return the anchor and what the tower makes of frames of the chunk, t the last of them.

        At the first frame, and where the prompt changes, all frames in sight are read, in one pass,
        under the new prompt; else the newest alone, of which x are the coarse tokens, without
        positions.
        """
        model, plan, coarse, frames = call.model, call.plan, call.coarse, call.chunk_frames
        seen, text, prefix = plan.in_sight(t), call.text_at(t), None
        anew = text is not self.text  # of one prompt it is one tensor, among `call.texts`
        kept = seen if anew or len(call.texts) > 1 else [t]
        self.read = {frame: x if frame == t else self.read[frame] for frame in kept}
        if anew:
            prefix, self.text = model.prefix(text, call.flow, call.fps), text
            pinned = plan.pinned if plan.window else 0
            blocks = min(frames, plan.window + pinned) if plan.window else frames
            capacity = prefix.shape[1] + blocks * coarse[0] * coarse[1]
            options: Any = {"window": plan.window, "pinned": pinned}
            self.cache = model.temporal.allocate_cache(len(prefix), capacity, **options)
        parts = []
        for frame in seen if anew else [t]:
            added = model.added_positions(frames, coarse, frame=frame, law=plan.times)
            parts.append(self.read[frame] if added is None else self.read[frame] + added)
        x = torch.cat(parts, dim=1).repeat(len(text) // call.batch, 1, 1, 1)
        # The prefix is in frame 0's block, and leaves the cache with it.
        length = 0 if seen[0] else model.text.length + (0 if model.motion is None else 2)
        rope = model.rotary_positions(frames, coarse, length, seen=seen, law=plan.times)
        features = model.temporal(
            x, prefix=prefix, rope=rope, cache=self.cache, backend=call.backend
        )
        anchor = features[:, 0] if anew or self.anchor is None else self.anchor
        self.anchor = anchor
        return anchor, features


class FrameNoise(Noise):
    """Noise of whole frames, of which sets take their tokens: official seeds give their samples."""

    def __init__(self, call: Call, step: SetStep) -> None:
        super().__init__(call.generator, call.model.begin.device)
        sizes = call.model.sizes
        self.step, self.patch = step, sizes.patch
        self.latent = (call.batch, sizes.channels, *call.latent)

    def normal(self, *shape: int) -> Tensor:
        """Return those of the set's tokens, or, if all are asked for, the set's, then the others'.

        The shape says which: [b, tokens of the set or of the frame, token_dim]. Any other shape is
        drawn as it is asked for, as uniform numbers are.
        """
        step, (batch, tokens) = self.step, self.step.current.shape
        whole = tokens + step.known.shape[1] + step.remaining.shape[1]
        token_dim = self.latent[1] * self.patch**2
        if shape not in ((batch, tokens, token_dim), (batch, whole, token_dim)):
            return super().normal(*shape)
        ids = step.current
        if shape[1] > tokens:
            ids = torch.cat([step.current, step.known, step.remaining], dim=1)
        return take(patches(super().normal(*self.latent), self.patch), ids)
