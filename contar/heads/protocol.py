"""What every token head can do, and what their draws and checks have in common."""

from typing import Any, Protocol, runtime_checkable

import torch

from contar._errors import bad, check_instance, check_number, check_size, check_tensor
from contar._random import Generators, check_generator, normal, uniform
from contar._typing import Float, Tensor
from contar.conditioning import Guidance


class Noise:
    """Random numbers for a head, in the order in which it asks for them.

    A model that draws in another way (as official seeds need) passes a subclass to `sample`.

    Args:
        generator: one, or one for each sample, as the other functions of contar take it; None is
            freshly seeded.
        device: where the numbers are wanted.
    """

    def __init__(self, generator: Generators | None, device: torch.device | str = "cpu") -> None:
        generator = check_generator(None, 1, device) if generator is None else generator
        self.generator, self.device = generator, device

    def normal(self, *shape: int) -> Tensor:
        """Draw float32 from the standard normal; the first axis is the batch."""
        return normal(*shape, generator=self.generator, device=self.device)

    def uniform(self, *shape: int) -> Tensor:
        """Draw float32 from [0, 1); the first axis is the batch."""
        return uniform(*shape, generator=self.generator, device=self.device)


@runtime_checkable
class TokenHead(Protocol):
    """The distribution of one token, given its condition: how to learn it and how to draw from it.

    Attributes:
        token_dim: values of a token.
        cond_dim: values of a condition.
    """

    token_dim: int
    cond_dim: int

    def loss(
        self,
        target: Float[Tensor, "m c"],
        cond: Float[Tensor, "m d"],
        *,
        repeats: int = 1,
        generator: torch.Generator | None = None,
    ) -> Float[Tensor, "r m"]:
        """Return what is to be minimised, for each token by itself.

        Args:
            target: [m, token_dim], clean tokens.
            cond: [m, cond_dim], their conditions.
            repeats: draws for each token, cheap beside the network that made the conditions; a
                head whose loss draws nothing has one row.
            generator: of the draws.

        Raises:
            ValueError: what does not fit the head or the other arguments.
        """
        ...

    def sample(
        self,
        cond: Float[Tensor, "b n d"],
        *,
        uncond: Float[Tensor, "b n d"] | None = None,
        guidance: Guidance | None = None,
        temperature: float = 1.0,
        noise: Noise | Generators | None = None,
        steps: int | None = None,
    ) -> Float[Tensor, "b n c"]:
        """Draw a token for each condition, in float32.

        Args:
            cond: [b, n, cond_dim].
            uncond: [b, n, cond_dim], unconditional ones, where guidance acts.
            guidance: constant guidance; None is none.
            temperature: below 1 for likelier tokens; each head says what it multiplies.
            noise: asked for each draw of noise, in order; a generator, or one for each sample,
                draws as `Noise` does, and None is freshly seeded.
            steps: in which a token is drawn; None is the head's own number. A head that draws at
                once takes None alone.

        Raises:
            ValueError: what does not fit the head or the other arguments.
        """
        ...


def check_loss(
    head: TokenHead,
    target: object,
    cond: object,
    repeats: object,
    generator: torch.Generator | None,
    *,
    like: Tensor,
) -> Any:
    """Return the generator of a loss's draws; a ValueError as of `TokenHead.loss`."""
    check_tensor("target", target, (None, head.token_dim), "[m, token_dim]")
    assert isinstance(target, Tensor)
    shape = (len(target), head.cond_dim)
    check_tensor("cond", cond, shape, "[m, cond_dim]", like=like)
    check_size("repeats", repeats)
    if generator is not None:
        check_instance("generator", generator, torch.Generator)
    return check_generator(generator, 1, target.device)


def check_sample(
    head: TokenHead,
    cond: object,
    uncond: Any,
    guidance: Guidance | None,
    noise: Noise | Generators | None,
    *,
    like: Tensor,
) -> tuple[Guidance, Tensor | None, Noise]:
    """Return a draw's guidance, `uncond` where it acts, and the noise; errors as of `sample`."""
    shape = (None, None, head.cond_dim)
    check_tensor("cond", cond, shape, "[b, n, cond_dim]", like=like)
    assert isinstance(cond, Tensor)
    guidance = Guidance() if guidance is None else guidance
    if not isinstance(guidance, Guidance) or not guidance.constant:
        check_instance("guidance", guidance, Guidance)
        guidance.check_constant()
    if uncond is None and guidance.scale > 1:
        raise bad("uncond", None, f"conditions of shape {tuple(cond.shape)} for guidance")
    same = isinstance(uncond, Tensor) and (uncond.shape, uncond.dtype) == (cond.shape, cond.dtype)
    if uncond is not None and not same:
        check_tensor("uncond", uncond, tuple(cond.shape), "[b, n, cond_dim]", like=like)
    uncond = uncond if guidance.scale > 1 else None
    if not isinstance(noise, Noise):
        noise = Noise(check_generator(noise, len(cond), cond.device, "noise"), cond.device)
    return guidance, uncond, noise


def check_plain(guidance: Guidance, temperature: object, *, renorm: bool = True) -> None:
    """Raise a ValueError for a temperature below 0, or for guidance that has no meaning here.

    `renorm` says whether a renormalisation over tokens has one.
    """
    check_number("temperature", temperature, 0)
    if guidance.truncation:
        raise bad("guidance.truncation", guidance.truncation, "0: this head has no timesteps")
    if guidance.ceiling is not None:
        raise bad("guidance.ceiling", guidance.ceiling, "None: this head has no timesteps")
    if guidance.renorm < 1 and not (renorm and guidance.renorm_over == "tokens"):
        allowed = "1, or over tokens" if renorm else "1"
        raise bad("guidance.renorm", guidance.renorm, f"{allowed} with this head")


def check_draw(
    head: TokenHead, guidance: Guidance, temperature: float, steps: int | None, name: str = "steps"
) -> None:
    """Raise a ValueError, where a head tells it beforehand, unless its `sample` takes these.

    `name` is that of `steps` in what was asked for, for errors.
    """
    if (check := getattr(head, "check_sample", None)) is None:
        return
    try:
        check(guidance, temperature, steps)
    except ValueError as error:
        argument, _, rest = str(error).partition(": ")
        if argument != "steps":
            raise
        raise ValueError(f"{name}: {rest}") from None


def check_one_pass(steps: object) -> None:
    """Raise a ValueError unless a head that draws in one pass is asked for no number of steps."""
    if steps is not None:
        raise bad("steps", steps, "None: this head draws a token in one pass")
