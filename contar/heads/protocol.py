"""What every token head can do."""

from typing import Any, Protocol, runtime_checkable

import torch

from contar._errors import bad, check_instance, check_number, check_size, check_tensor
from contar._random import Generators, check_generator
from contar._typing import Float, Tensor
from contar.conditioning import Guidance


@runtime_checkable
class TokenHead(Protocol):
    """The distribution of one token, given its condition: how to learn it and how to draw from it.

    Attributes:
        values: of a token.
        cond_width: of a condition.
    """

    values: int
    cond_width: int

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
            target: [m, values], clean tokens.
            cond: [m, cond_width], their conditions.
            repeats: draws for each token, cheap beside the network that made the conditions; a
                head whose loss draws nothing has one row.
            generator: of the draws.
        """
        ...

    def sample(
        self,
        cond: Float[Tensor, "b n d"],
        *,
        uncond: Float[Tensor, "b n d"] | None = None,
        guidance: Guidance | None = None,
        temperature: float = 1.0,
        generator: Generators | None = None,
    ) -> Float[Tensor, "b n c"]:
        """Draw a token for each condition, in float32.

        Args:
            cond: [b, n, cond_width].
            uncond: [b, n, cond_width], unconditional ones, where guidance acts.
            guidance: constant guidance; None is none.
            temperature: below 1 for likelier tokens; each head says what it multiplies.
            generator: of the draws, one or one for each sample.
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
    """Return the generator of a loss's draws.

    Raises:
        ValueError: what does not fit the head or the other arguments.
    """
    check_tensor("target", target, (None, head.values), "[m, values]")
    assert isinstance(target, Tensor)
    shape = (len(target), head.cond_width)
    check_tensor("cond", cond, shape, "[m, cond_width]", like=like)
    check_size("repeats", repeats)
    if generator is not None:
        check_instance("generator", generator, torch.Generator)
    return check_generator(generator, 1, target.device)


def check_sample(
    head: TokenHead,
    cond: object,
    uncond: Any,
    guidance: Guidance | None,
    temperature: object,
    generator: Generators | None,
    *,
    like: Tensor,
) -> tuple[Guidance, Tensor | None, Generators]:
    """Return the guidance of a draw, `uncond` where it acts, and the generator.

    Raises:
        ValueError: what does not fit the head or the other arguments.
    """
    shape = (None, None, head.cond_width)
    check_tensor("cond", cond, shape, "[b, n, cond_width]", like=like)
    assert isinstance(cond, Tensor)
    guidance = Guidance() if guidance is None else guidance
    check_instance("guidance", guidance, Guidance)
    guidance.check_constant()
    if uncond is not None:
        check_tensor("uncond", uncond, tuple(cond.shape), "[b, n, cond_width]", like=like)
    elif guidance.scale > 1:
        raise bad("uncond", None, f"conditions of shape {tuple(cond.shape)} for guidance")
    check_number("temperature", temperature, 0)
    uncond = uncond if guidance.scale > 1 else None
    return guidance, uncond, check_generator(generator, len(cond), cond.device)


def check_plain(guidance: Guidance, *, renorm: bool = True) -> None:
    """Raise a ValueError for kinds of guidance that mean nothing outside a diffusion.

    Args:
        guidance: of a draw.
        renorm: whether a renormalisation over tokens has a meaning.
    """
    if guidance.truncation:
        raise bad("guidance.truncation", guidance.truncation, "0: this head has no timesteps")
    if guidance.ceiling is not None:
        raise bad("guidance.ceiling", guidance.ceiling, "None: this head has no timesteps")
    if guidance.renorm < 1 and not (renorm and guidance.renorm_over == "tokens"):
        allowed = "1, or over tokens" if renorm else "1"
        raise bad("guidance.renorm", guidance.renorm, f"{allowed} with this head")
