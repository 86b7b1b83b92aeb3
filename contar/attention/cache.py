"""The KV cache: allocated once, owned by the caller, passed to each call."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Protocol, runtime_checkable

import torch

from contar._errors import FLOATS, bad, check_choice, check_device, check_size, check_total
from contar._typing import Float, Tensor
from contar.attention._angles import rotated
from contar.attention.layout import BlockLayout


def allocate(
    sizes: dict[str, int], *, device: torch.device | str | None, dtype: torch.dtype | None
) -> Float[Tensor, "l 2 b s n k"]:
    """Return memory for the keys and values of every layer, without values yet.

    `sizes` are layers, batch, heads, tokens and width, by the names that errors have for them; all
    else, errors too, is as in `KVCache`.
    """
    layers, *others = (check_size(name, size) for name, size in sizes.items())
    check_total(", ".join(sizes), layers, 2, *others)
    if device is not None:
        check_device("device", device)
    if dtype is not None:
        check_choice("dtype", dtype, FLOATS)
    return torch.empty((layers, 2, *others), device=device or "cpu", dtype=dtype or torch.float32)


@runtime_checkable
class Undoable(Protocol):
    """What `undo` puts back to where it was when a pass began, and `settle` keeps as it is."""

    def undo(self) -> None:
        """Put it back."""

    def settle(self) -> None:
        """Keep it."""


@contextmanager
def as_it_was(cache: Undoable) -> Iterator[None]:
    """Undo what the body does to a cache if it does not end: out of memory, an interrupt, ..."""
    cache.settle()
    try:
        yield
    except BaseException:
        cache.undo()
        raise
    cache.settle()


class KVCache:
    """Keys and values of the blocks seen so far, of every layer, in memory allocated once.

    A forward pass calls `reserve` with the sizes of its new blocks, then `write` once a layer.
    `undo` takes back a pass that failed on its way, as the towers do by themselves. With a
    `window`, blocks that no new block may see make room first, so `capacity` need not grow with the
    number of frames. Keys are kept as they come and turned when they are read, so the positions of
    what is kept may change from pass to pass.

    Args:
        width: values per head.
        capacity: tokens that fit: those of the visible blocks, the newest included.
        device: where the memory lies; None is the CPU.
        dtype: of keys and values; None is float32.

    Raises:
        ValueError: a number below 1 (`pinned`: below 0), an unknown device, or a dtype that holds
            no fractions.
    """

    def __init__(
        self,
        *,
        layers: int,
        batch: int,
        heads: int,
        width: int,
        capacity: int,
        window: int | None = None,
        pinned: int = 0,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        sizes = {"layers": layers, "batch": batch, "heads": heads, "capacity": capacity}
        sizes["width"] = width
        self.window = window if window is None else check_size("window", window)
        self.pinned = check_size("pinned", pinned, 0)
        self._sizes: tuple[int, ...] = ()
        self._used = 0  # their sum: a graph that read the sizes would be one for each number
        # Sizes before the last `reserve`, the blocks that it dropped, and where they lay.
        self._before: tuple[tuple[int, ...], Tensor, int] | None = None
        self._memory = allocate(sizes, device=device, dtype=dtype)
        self.capacity = self._memory.shape[4]

    @property
    def fits(self) -> dict[str, int]:
        """What a tower must have to write here: layers, batch, heads and width of a head."""
        layers, _, batch, heads, _, width = self._memory.shape
        return {"layers": layers, "batch": batch, "heads": heads, "width": width}

    @property
    def sizes(self) -> tuple[int, ...]:
        """Tokens of each block that is kept: the pinned ones, then the newest."""
        return self._sizes

    def layout(self, *sizes: int) -> BlockLayout:
        """Return the layout under which new blocks would attend, were they reserved now.

        Its queries are the new blocks, its keys the kept blocks and then the new ones.

        Raises:
            ValueError: no blocks, an empty one, or more than fit.
        """
        if not sizes:
            raise bad("sizes", sizes, "at least one block")
        first = min(self.pinned, len(self._sizes))
        remaining = self._sizes[:first] + self._sizes[first + self._dropped :]
        layout = BlockLayout((*remaining, *sizes), self.window, self.pinned, len(remaining))
        if layout.keys > self.capacity:
            room = self.capacity - sum(remaining)
            raise bad("sizes", sizes, f"at most {room} tokens in all (capacity {self.capacity})")
        return layout

    @property
    def _dropped(self) -> int:
        """How many blocks behind the pinned ones no new block sees."""
        if self.window is None:
            return 0
        return max(0, len(self._sizes) - self.pinned - (self.window - 1))

    def reserve(self, *sizes: int) -> BlockLayout:
        """Make room for new blocks and return the layout under which they attend, as `layout`.

        Raises:
            ValueError: as `layout`; the cache is as it was.
        """
        layout, kept = self.layout(*sizes), self._sizes
        first = sum(kept[: self.pinned])
        gap = sum(kept[self.pinned : self.pinned + self._dropped])
        before = (kept, self._memory[..., first : first + gap, :].clone(), first)
        if gap:
            moved = self._memory[..., first + gap : sum(kept), :].clone()
            self._memory[..., first : first + moved.shape[-2], :] = moved
        self._sizes, self._used, self._before = layout.sizes, layout.keys, before
        return layout

    def undo(self) -> None:
        """Take back the last `reserve` and what was written since; without one nothing happens."""
        if self._before is None:
            return
        sizes, lost, first = self._before
        stop, gap = sum(sizes), lost.shape[-2]
        if gap:
            for layer in self._memory:  # one by one: where memory has run out, little is left
                layer[..., first + gap : stop, :] = layer[..., first : stop - gap, :].clone()
            self._memory[..., first : first + gap, :] = lost
        self._sizes, self._used, self._before = sizes, stop, None

    def settle(self) -> None:
        """Keep what the last `reserve` began: `undo` does nothing from here on."""
        self._before = None

    def write(
        self,
        layer: int,
        k: Float[Tensor, "b s q k"],
        v: Float[Tensor, "b s q k"],
        *,
        rope: Float[Tensor, "*b kv k2 2"] | None = None,
    ) -> tuple[Float[Tensor, "b s kv k"], Float[Tensor, "b s kv k"]]:
        """Store the newest tokens' keys and values of one layer; return those of all tokens kept.

        `rope`, a rotary table of all tokens kept, turns the keys that are returned.

        Raises:
            ValueError: a layer or shapes that do not fit the cache, or more tokens than were
                reserved.
        """
        layers = self._memory.shape[0]
        if not 0 <= layer < layers:
            raise bad("layer", layer, f"fewer than the {layers} layers")
        if k.ndim != 4:
            raise bad("k", tuple(k.shape), "[b, s, q, k]")
        stop = self._used
        start = stop - k.shape[2]
        _, _, batch, heads, _, width = self._memory.shape
        if k.shape != v.shape or k.shape != (batch, heads, k.shape[2], width) or start < 0:
            allowed = f"two of {(batch, heads, f'at most {stop}', width)}"
            raise bad("k, v", (tuple(k.shape), tuple(v.shape)), allowed)
        memory = self._memory[layer]
        memory[0, :, :, start:stop] = k
        memory[1, :, :, start:stop] = v
        k, v = memory[0, :, :, :stop], memory[1, :, :, :stop]
        return (k if rope is None else rotated(k, rope)), v
