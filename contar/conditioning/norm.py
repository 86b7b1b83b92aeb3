"""Layer norm whose scale and shift come from a condition."""

from typing import Literal

import torch
from torch import nn

from contar._errors import (
    check_broadcast,
    check_choice,
    check_instance,
    check_number,
    check_size,
    check_tensor,
)
from contar._layers import layer_norm, weight_of
from contar._typing import Float, Tensor


class AdaptiveLayerNorm(nn.Module):
    """norm(x) * (1 + scale) + shift, and further modulations such as a gate, from a condition.

    Source: DiT's adaLN (Peebles & Xie 2022, arXiv 2212.09748, section 3.2).

    Args:
        width: of x and of the condition.
        outputs: vectors taken from the condition: 2 are scale and shift, more are returned.
        affine: the norm has a learned weight and bias of its own, before the modulation (MAR).
        norm: "layer", or "rms", which does not centre and has no bias (Zhang & Sennrich 2019,
            arXiv 1910.07467).
        fused: torch's layer norm in one kernel; without it, gradients may go through a
            forward-mode derivative.

    Raises:
        ValueError: a width below 1, fewer than 2 outputs, an `eps` below 0, an unknown norm.
    """

    def __init__(
        self,
        width: int,
        *,
        outputs: int = 2,
        eps: float = 1e-6,
        affine: bool = False,
        norm: Literal["layer", "rms"] = "layer",
        bias: bool = True,
        fused: bool = True,
    ) -> None:
        super().__init__()
        check_size("width", width)
        flags = {"affine": affine, "bias": bias, "fused": fused}
        for name, flag in flags.items():
            check_instance(name, flag, bool)
        check_choice("norm", norm, ("layer", "rms"))
        self.outputs, self.eps = check_size("outputs", outputs, 2), check_number("eps", eps, 0)
        self.kind, self.fused = norm, fused
        self.act = nn.SiLU()
        self.proj = nn.Linear(width, outputs * width, bias)
        self.weight = nn.Parameter(torch.ones(width)) if affine else None
        self.bias = nn.Parameter(torch.zeros(width)) if affine and norm == "layer" else None

    def forward(
        self, x: Float[Tensor, "*m d"], condition: Float[Tensor, "*m2 d"]
    ) -> tuple[Float[Tensor, "*m d"], tuple[Float[Tensor, "*m2 d"], ...]]:
        """Return the modulated x and the vectors beyond scale and shift.

        Raises:
            ValueError: another width, or a condition that does not broadcast to x.
        """
        width = self.proj.in_features
        check_tensor("x", x, (..., width), "[..., width]")
        check_tensor(
            "condition", condition, (..., width), "[..., width]", like=weight_of(self.proj)
        )
        check_broadcast("condition", condition.shape, x.shape)
        factor, shift, *rest = self.vectors(self.act(condition))
        return self.modulate(x, factor, shift), tuple(rest)

    def vectors(self, activated: Float[Tensor, "*m d"]) -> tuple[Float[Tensor, "*m d"], ...]:
        """Return 1 + scale, shift and the further vectors of an activated condition, unchecked."""
        scale, *rest = self.proj(activated).chunk(self.outputs, dim=-1)
        return 1 + scale, *rest

    def modulate(
        self,
        x: Float[Tensor, "*m d"],
        factor: Float[Tensor, "*m2 d"],
        shift: Float[Tensor, "*m2 d"],
    ) -> Float[Tensor, "*m d"]:
        """Return norm(x) * factor + shift, unchecked."""
        if self.kind == "rms":
            x = nn.functional.rms_norm(x, x.shape[-1:], self.weight, self.eps)
        elif self.fused:
            x = nn.functional.layer_norm(x, x.shape[-1:], self.weight, self.bias, self.eps)
        else:
            x = layer_norm(x, self.weight, self.bias, self.eps)
        return torch.addcmul(shift, x, factor)
