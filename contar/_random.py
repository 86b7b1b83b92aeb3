"""Random draws from injected generators; the global random state is never touched.

One generator serves a whole batch, drawn in one call. A list gives each sample a generator of its
own, so that a sample does not depend on its neighbours. A CPU generator works for any device: what
it draws is moved there.
"""

import hashlib
import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor

from contar._errors import bad, check_number

Generators = torch.Generator | Sequence[torch.Generator]


def seeded(*key: int | str) -> torch.Generator:
    """Return a CPU generator that a key alone determines, as (seed, step, index of a sample).

    torch's CPU generator takes the lower 32 bits of a seed and no more, hence the hash.
    """
    digest = hashlib.sha256(" ".join(map(str, key)).encode()).digest()
    return torch.Generator().manual_seed(int.from_bytes(digest[:4], "big"))


def check_generator(
    generator: Generators | None, batch: int, device: torch.device | str, name: str = "generator"
) -> Generators:
    """Return a usable generator, a freshly seeded one for None.

    Raises:
        ValueError: a list whose length is not `batch`, or a generator on a device that is neither
            the CPU nor `device`.
    """
    if generator is None:
        generator = torch.Generator("cuda" if torch.device(device).type == "cuda" else "cpu")
        generator.seed()
    several = isinstance(generator, Sequence)
    generators = list(generator) if several else [generator]  # type: ignore[arg-type]
    if several and len(generators) != batch:
        raise bad(name, f"a list of {len(generators)}", f"one, or a list of {batch}")
    for g in generators:
        if not isinstance(g, torch.Generator):
            raise bad(name, g, "a torch.Generator or a list of them")
        if g.device.type not in ("cpu", torch.device(device).type):
            raise bad(name, f"a generator on {g.device}", f"one on cpu or on {device}")
    return generator


def _draw(
    method: str,
    shape: Sequence[int],
    generator: Generators,
    device: torch.device | str,
    dtype: torch.dtype = torch.float32,
    **kwargs: int,
) -> Tensor:
    one = not isinstance(generator, Sequence)
    generators = [generator] if one else list(generator)  # type: ignore[arg-type]
    rows = [shape[0] if one else 1, *shape[1:]]
    draws = [
        getattr(torch.empty(rows, dtype=dtype, device=g.device), method)(**kwargs, generator=g)
        for g in generators
    ]
    drawn = torch.cat(draws) if len(draws) > 1 else draws[0]
    return drawn.to(device, non_blocking=True)  # a loop that draws does not wait for the device


def uniform(*shape: int, generator: Generators, device: torch.device | str = "cpu") -> Tensor:
    """Draw float32 from [0, 1); the first axis of `shape` is the batch."""
    return _draw("uniform_", shape, generator, device)


def normal(*shape: int, generator: Generators, device: torch.device | str = "cpu") -> Tensor:
    """Draw float32 from the standard normal; the first axis of `shape` is the batch."""
    return _draw("normal_", shape, generator, device)


def integers(
    high: int, *shape: int, generator: Generators, device: torch.device | str = "cpu"
) -> Tensor:
    """Draw int64 from {0, ..., high - 1}; the first axis of `shape` is the batch."""
    return _draw("random_", shape, generator, device, torch.int64, to=high)


# Numbers that follow from a key alone, made for many keys at once and on any device: splitmix64
# (Steele, Lea & Flood, "Fast Splittable Pseudorandom Number Generators", OOPSLA 2014), whose
# products wrap around as those of int64 do. A shift to the right brings copies of the sign along,
# which the masks take away.
_STEP = 0x9E3779B97F4A7C15 - 2**64
_ROUNDS = ((30, 0xBF58476D1CE4E5B9 - 2**64), (27, 0x94D049BB133111EB - 2**64))
_BITS = 24  # of a uniform number, as many as float32 holds exactly


def keys(
    *key: int | str, index: Sequence[int] | Tensor, device: torch.device | str = "cpu"
) -> Tensor:
    """Return an int64 key for each index, which (key, index) determine.

    They are on the device of a tensor of indices, else on `device`.
    """
    if not isinstance(index, Tensor):
        index = torch.tensor(list(index), dtype=torch.int64, device="cpu")
        index = index.to(device, non_blocking=True)
    digest = hashlib.sha256(" ".join(map(str, key)).encode()).digest()
    return _mix(index.long() * _STEP + int.from_bytes(digest[:8], "big", signed=True))


def keyed_uniform(key: Tensor, *shape: int) -> Tensor:
    """Return float32 numbers in (0, 1], [b, *shape] for keys [b], each row by its key alone."""
    count = torch.arange(1, math.prod(shape) + 1, device=key.device)
    mixed = _mix(key[:, None] + count * _STEP)
    whole = ((mixed >> (64 - _BITS)) & (2**_BITS - 1)) + 1
    return (whole.float() * 2.0**-_BITS).view(len(key), *shape)


def keyed_normal(key: Tensor, *shape: int) -> Tensor:
    """Return standard normal float32 numbers, [b, *shape] for keys [b], by Box and Muller."""
    half = math.prod(shape) + 1 >> 1
    length, angle = keyed_uniform(key, 2, half).unbind(1)
    length, angle = (-2 * length.log()).sqrt(), 2 * math.pi * angle
    pair = torch.cat([length * angle.cos(), length * angle.sin()], dim=1)
    return pair[:, : math.prod(shape)].reshape(len(key), *shape)


def _mix(value: Tensor) -> Tensor:
    for shift, factor in _ROUNDS:
        value = (value ^ ((value >> shift) & (2 ** (64 - shift) - 1))) * factor
    return value ^ ((value >> 31) & (2**33 - 1))


@dataclass(frozen=True)
class Dropout:
    """A share of values set to 0, the others scaled up so that their mean stays.

    Source: Srivastava et al., "Dropout: A Simple Way to Prevent Neural Networks from Overfitting",
    JMLR 2014. Drawn from the generator that is given, not from torch's global one; each call draws
    anew, so that what is computed twice is no longer the same.

    Args:
        share: of the values, from 0 to below 1.
        generator: one, or one for each sample.

    Raises:
        ValueError: a share outside its range, or no generator.
    """

    share: float
    generator: Generators

    def __post_init__(self) -> None:
        if check_number("share", self.share, 0, 1) == 1:
            raise bad("share", self.share, "a number from 0 to below 1")
        several = isinstance(self.generator, Sequence) and len(self.generator) > 0
        for generator in self.generator if several else [self.generator]:  # type: ignore[union-attr]
            if not isinstance(generator, torch.Generator):
                raise bad("generator", generator, "a torch.Generator or a list of them")

    def __call__(self, x: Tensor) -> Tensor:
        """Return x [b, ...] with some of its values at 0."""
        if not self.share:
            return x
        drawn = uniform(*x.shape, generator=self.generator, device=x.device)
        return x.masked_fill(drawn < self.share, 0) / (1 - self.share)


@contextmanager
def seeded_weights(seed: int) -> Iterator[None]:
    """Seed torch's generator of the CPU, which draws the weights of layers, and put it back after.

    `torch.manual_seed` would seed those of the GPUs as well.
    """
    with torch.random.fork_rng(devices=[]):
        torch.set_rng_state(torch.Generator().manual_seed(seed).get_state())
        yield
