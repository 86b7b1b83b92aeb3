"""What a tokenizer is: strides, channels, scale and shift, frame counts; encode and decode."""

from contextlib import suppress
from typing import Protocol, runtime_checkable

from contar._errors import bad, check_size
from contar._random import Generators
from contar._typing import Float, Tensor

STRIDES = (4, 8)  # frames, pixels, of contar's own video autoencoders
State = tuple[Tensor, ...]  # of decoding in pieces, each [b, ...], the caller's to hold


@runtime_checkable
class Tokenizer(Protocol):
    """Clips of pixels to scaled latents and back; an image is a clip of one frame.

    Attributes:
        channels: of a latent.
        time_stride: pixel frames for a latent frame; 1 where frames are encoded on their own.
        space_stride: pixels for a latent pixel, in height and in width.
        shift: [channels] or [1], taken from what the network makes.
        scale: [channels] or [1], with which the difference is multiplied.
        incremental: whether pieces of a clip, decoded by `decode_next`, equal the whole, decoded.
    """

    @property
    def channels(self) -> int: ...  # noqa: D102
    @property
    def time_stride(self) -> int: ...  # noqa: D102
    @property
    def space_stride(self) -> int: ...  # noqa: D102
    @property
    def shift(self) -> Float[Tensor, " c"]: ...  # noqa: D102
    @property
    def scale(self) -> Float[Tensor, " c"]: ...  # noqa: D102
    @property
    def incremental(self) -> bool: ...  # noqa: D102

    def latent_frames(self, frames: int, name: str = "num_frames") -> int:
        """Return how many latent frames a clip has; ValueError names the nearest valid counts."""
        ...

    def pixel_frames(self, latents: int) -> int:
        """Return how many frames so many latent frames decode to."""
        ...

    def encode(
        self, pixels: Float[Tensor, "b 3 t h w"], *, generator: Generators | None = None
    ) -> Float[Tensor, "b c t2 h2 w2"]:
        """Return scaled latents of pixels in [-1, 1]: a draw with a generator, else the mean."""
        ...

    def decode(self, latents: Float[Tensor, "b c t h w"]) -> Float[Tensor, "b 3 t2 h2 w2"]:
        """Return pixels, about in [-1, 1], of scaled latents."""
        ...

    def decode_next(
        self, latents: Float[Tensor, "b c t h w"], state: State | None = None
    ) -> tuple[Float[Tensor, "b 3 t2 h2 w2"], State]:
        """Return pixels of clips' next latents, and the state for those after; None begins."""
        ...


def latent_frames(
    frames: int, stride: int, *, lone_first: bool, together: int = 1, name: str = "num_frames"
) -> int:
    """Return how many latent frames a clip of `frames` frames has.

    Args:
        frames: of the clip.
        stride: frames for each latent frame.
        lone_first: the first frame has a latent frame of its own, so clips have stride * k + 1.
        together: k has to be a multiple of this, or other numbers of frames come back.
        name: of the argument, for the error.

    Raises:
        ValueError: a number that the stride does not fit; names the nearest that it does.
    """
    check_size(name, frames)
    first = int(lone_first)
    unit = stride * together
    beyond = (frames - first) % unit
    if beyond:
        below, above = frames - beyond, frames - beyond + unit
        nearest = f"{below} or {above}" if below > 0 else str(above)
        rule = f"k * {unit} + {first}" if lone_first else f"k * {unit}"
        raise bad(name, frames, f"{nearest} frames ({rule})")
    return (frames - first) // stride + first


def longest_clip(tokenizer: Tokenizer, most: int) -> int:
    """Return the most frames, up to `most`, that a tokenizer takes; `most` if it takes none."""
    for frames in range(most, 0, -1):
        with suppress(ValueError):
            tokenizer.latent_frames(frames)
            return frames
    return most
