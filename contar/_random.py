"""Random draws from injected generators; the global random state is never touched.

One generator serves a whole batch, drawn in one call. A list gives each sample a generator of its
own, so that a sample does not depend on its neighbours. A CPU generator works for any device: what
it draws is moved there.
"""

import hashlib
from collections.abc import Sequence
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
    generator: Generators | None,
    batch: int,
    device: torch.device | str,
    name: str = "generator",
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
