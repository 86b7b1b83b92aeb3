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

    def options(self, call: Call, t: int, x: Float[Tensor, "b 1 n d"]) -> tuple[bool, Any]:
        """Return whether the cache is filled anew, and the arguments with which the tower does it.

        It is at the first frame, and where the prompt changes. Then all frames in sight are read,
        in one pass, under the new prompt; else the newest alone.

        Args:
            call: a generation.
            t: frame of the chunk.
            x: its coarse tokens, without positions.
        """
        model, plan, coarse, frames = call.model, call.plan, call.coarse, call.chunk_frames
        seen, text, prefix = plan.in_sight(t), call.text_at(t), None
        anew = text is not self.text
        kept = seen if anew or len(call.texts) > 1 else [t]
        self.read = {frame: x if frame == t else self.read[frame] for frame in kept}
        if anew:
            prefix, self.text = model.prefix(text, call.flow, call.fps), text
            self.cache = self._allocate(call, prefix)
        parts = []
        for frame in seen if anew else [t]:
            added = model.added_positions(frames, coarse, frame=frame, law=plan.times)
            parts.append(self.read[frame] if added is None else self.read[frame] + added)
        x = torch.cat(parts, dim=1).repeat(len(text) // call.batch, 1, 1, 1)
        length = call.prefix_length if seen[0] == 0 else 0
        rope = model.rotary_positions(frames, coarse, length, seen=seen, law=plan.times)
        return anew, {"frames": x, "prefix": prefix, "rope": rope, "cache": self.cache}

    @staticmethod
    def _allocate(call: Call, prefix: Tensor) -> KVCache:
        plan, blocks = call.plan, call.chunk_frames
        pinned = plan.pinned if plan.window else 0
        if plan.window:
            blocks = min(blocks, plan.window + pinned)
        capacity = prefix.shape[1] + blocks * call.coarse[0] * call.coarse[1]
        options: Any = {"window": plan.window, "pinned": pinned}
        return call.model.temporal.allocate_cache(len(prefix), capacity, **options)
