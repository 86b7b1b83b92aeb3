"""What the temporal tower has in sight: the frames in its cache, read under one prompt."""

from dataclasses import dataclass, field
from typing import Any

import torch

from contar._typing import Float, Tensor
from contar.attention import KVCache
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
        anew = text is not self.text
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
        length = 0 if seen[0] else model.text.length + (0 if model.motion is None else 2)
        rope = model.rotary_positions(frames, coarse, length, seen=seen, law=plan.times)
        features = model.temporal(
            x, prefix=prefix, rope=rope, cache=self.cache, backend=call.backend
        )
        anchor = features[:, 0] if anew or self.anchor is None else self.anchor
        self.anchor = anchor
        return anchor, features
