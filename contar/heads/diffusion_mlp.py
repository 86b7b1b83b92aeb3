"""The diffusion MLP: a small network that denoises each token on its own."""

from collections.abc import Iterator, Sequence
from functools import cache
from itertools import groupby
from operator import itemgetter
from typing import Any, Literal, TypedDict

import torch
from torch import nn
from torch.nn import functional

from contar._errors import (
    DEEPEST,
    LARGEST,
    check_broadcast,
    check_choice,
    check_instance,
    check_number,
    check_size,
    check_tensor,
)
from contar._layers import LayerNorm, Mlp, weight_of
from contar._typing import Float, Tensor
from contar.conditioning import AdaptiveLayerNorm, ScalarEmbedding
from contar.diffusion import NoiseProcess

_ROWS = 1024  # of one product that makes modulations: as fast as any, and of little memory


class NetworkOptions(TypedDict, total=False):
    """What a `DiffusionMLP` takes beside its sizes, and so every head that has one."""

    prenorm: bool
    projection: Literal["mlp", "linear"]
    norm: Literal["layer", "rms"]
    eps: float
    gated: bool
    hidden: int | None
    bias: bool
    time_norm: Literal["rms", "deviation"] | None


class _Block(nn.Module):
    def __init__(self, norm1: AdaptiveLayerNorm, mlp: Mlp, norm2: nn.Module) -> None:
        super().__init__()
        self.norm1, self.mlp, self.norm2 = norm1, mlp, norm2

    def forward(self, x: Tensor, factor: Tensor, shift: Tensor, gate: Tensor) -> Tensor:
        h = self.mlp(self.norm1.modulate(x, factor, shift))
        return torch.addcmul(x, gate, self.norm2(h))


class DiffusionMLP(nn.Module):
    """Predicts noise (or velocity, or the token) of a noisy token from its timestep and condition.

    Source: the diffusion loss of MAR (arXiv 2406.11838, section 3.2). As it stands the blocks are
    NOVA's; with `prenorm` and a linear `projection` they are MAR's and Sundial's (arXiv
    2502.00816). VibeVoice's (arXiv 2508.19205) are MAR's with norm="rms", gated, without biases.

    Args:
        learned_variance: also predict where the reverse steps' variance lies, which doubles the
            outputs.
        prenorm: a block's learned norm comes before its MLP, instead of after it.
        projection: of the condition: an "mlp" or one "linear" layer.
        norm: kind of the norms, "layer" or "rms".
        eps: of the norms that are modulated.
        gated: the blocks' MLPs are gated, as SwiGLU.
        hidden: width within the blocks' MLPs, the network's own if None.
        time_norm: of the embedded timestep, as in `ScalarEmbedding`.
        fused: torch's layer norm in one kernel, as in `AdaptiveLayerNorm`.

    Raises:
        ValueError: a size below 1, or a value that is not listed.
    """

    def __init__(
        self,
        token_dim: int,
        cond_dim: int,
        *,
        width: int,
        depth: int,
        learned_variance: bool = False,
        prenorm: bool = False,
        projection: Literal["mlp", "linear"] = "mlp",
        norm: Literal["layer", "rms"] = "layer",
        eps: float = 1e-6,
        gated: bool = False,
        hidden: int | None = None,
        bias: bool = True,
        time_norm: Literal["rms", "deviation"] | None = None,
        fused: bool = True,
    ) -> None:
        super().__init__()
        sizes = {"token_dim": token_dim, "cond_dim": cond_dim, "width": width, "depth": depth}
        for name, size in sizes.items():
            check_size(name, size, 1, DEEPEST if name == "depth" else LARGEST)
        flags = {"learned_variance": learned_variance, "prenorm": prenorm, "gated": gated}
        for name, flag in {**flags, "bias": bias, "fused": fused}.items():
            check_instance(name, flag, bool)
        check_choice("projection", projection, ("mlp", "linear"))
        check_choice("norm", norm, ("layer", "rms"))
        check_choice("time_norm", time_norm, (None, "rms", "deviation"))
        check_number("eps", eps, 0)
        inner = width if hidden is None else check_size("hidden", hidden)
        self.token_dim, self.cond_dim = token_dim, cond_dim
        self.token = nn.Linear(token_dim, width, bias)
        self.time = ScalarEmbedding(width, cosine_first=True, bias=bias, norm=time_norm)
        self.condition = (
            nn.Linear(cond_dim, width, bias)
            if projection == "linear"
            else Mlp(cond_dim, width, width, act_layer=nn.SiLU, bias=bias)
        )
        modulated: Any = {"norm": norm, "eps": eps, "bias": bias, "fused": fused}

        def block() -> _Block:
            norm1 = AdaptiveLayerNorm(width, outputs=3, affine=prenorm, **modulated)
            mlp = Mlp(width, inner, act_layer=nn.SiLU, gated=gated, bias=bias)
            if prenorm:
                return _Block(norm1, mlp, nn.Identity())
            layer = nn.LayerNorm if fused else LayerNorm
            return _Block(norm1, mlp, nn.RMSNorm(width, 1e-5) if norm == "rms" else layer(width))

        self.blocks = nn.ModuleList(block() for _ in range(depth))
        self.norm = AdaptiveLayerNorm(width, **modulated)
        self.out = nn.Linear(width, token_dim * (1 + learned_variance), bias)

    def forward(
        self,
        x: Float[Tensor, "*m c"],
        timestep: Float[Tensor, "*m2"],
        condition: Float[Tensor, "*m d"],
    ) -> Float[Tensor, "*m c2"]:
        """Predict in float32 from noisy tokens and projected conditions (`self.condition(z)`).

        Raises:
            ValueError: shapes that do not fit.
        """
        check_tensor("x", x, (..., self.token_dim), "[..., token_dim]")
        check_tensor("timestep", timestep, (...,), "[...]")
        shape = (*x.shape[:-1], self.token.out_features)
        check_tensor("condition", condition, shape, "[..., width]", like=weight_of(self.token))
        check_broadcast("timestep", timestep.shape, x.shape[:-1])
        return self.denoise(x, self.modulations(condition, self.time(timestep)))

    @property
    def learned_variance(self) -> bool:
        """Whether it predicts where the reverse steps' variance lies."""
        return self.out.out_features > self.token_dim

    def modulations(self, condition: Tensor, time: Tensor) -> list[tuple[Tensor, ...]]:
        """Return what conditions and embedded timesteps make of each block and the last norm."""
        activated = functional.silu(condition + time)
        norms: Any = (*(block.norm1 for block in self.blocks), self.norm)
        return [norm.vectors(activated) for norm in norms]

    def compile(self, **options: Any) -> None:
        """Compile what each step of `sample` and of `loss` runs; options of `torch.compile`."""
        vars(self).pop("denoise", None)  # of an earlier call
        graph = torch.compile(self.denoise, **options)
        # A graph knows its inputs by their places in memory, too, which in a copy is the first.
        self.denoise = lambda x, modulations: graph(
            x, [[vector.clone() for vector in vectors] for vectors in modulations]
        )

    def __getstate__(self) -> dict[str, Any]:
        state: Any = super().__getstate__()
        state.pop("denoise", None)  # bound to this head, not to its copy
        return state

    def denoise(self, x: Tensor, modulations: Sequence[Sequence[Tensor]]) -> Tensor:
        """Predict, in float32, from noisy tokens and what `modulations` made."""
        return self.predict(x, modulations).float()

    def predict(self, x: Tensor, modulations: Sequence[Sequence[Tensor]]) -> Tensor:
        """Predict as `denoise` does, in the dtype of the weights."""
        x = self.token(x.to(weight_of(self.token).dtype))
        for block, vectors in zip(self.blocks, modulations[:-1], strict=True):
            x = block(x, *vectors)
        return self.out(self.norm.modulate(x, *modulations[-1]))

    def layers_of_a_step(self) -> list[nn.Module]:
        """Return the wide linear layers that `denoise` calls."""
        mlps: Any = [block.mlp for block in self.blocks]
        return [layer for mlp in mlps for layer in (mlp.fc1, mlp.fc2)]

    def in_steps(
        self, condition: Tensor, timesteps: Sequence[float], guided: Sequence[bool], batch: int
    ) -> Iterator[list[list[Tensor]]]:
        """Yield the modulations of a draw's steps in turn, made for many steps at once.

        Nearly two thirds of a head's weights only make modulations, which depend on no token. One
        product for many steps reads these weights once, where a product a step reads them each
        time: for few tokens that is nearly all of the time.
        """
        for both, group in groupby(zip(timesteps, guided, strict=True), itemgetter(1)):
            rows = condition if both else condition[:batch]
            together = max(1, _ROWS // max(1, rows[..., 0].numel()))
            every = _timesteps(tuple(timestep for timestep, _ in group), rows.device)
            for part in every.split(together):
                made = self.modulations(rows[None], self.time(part[:, None, None]))
                for i in range(len(part)):
                    yield [[vector[i] for vector in vectors] for vectors in made]

    def times(self, process: NoiseProcess, index: Tensor) -> Tensor:
        """Return each token's embedded timestep; of more tokens than timesteps, each made once."""
        if index.numel() <= len(process):
            return self.time(process.timestep(index))
        every = torch.arange(len(process), device=index.device)
        return functional.embedding(index, self.time(process.timestep(every)))


def _timesteps(values: tuple[float, ...], device: torch.device) -> Tensor:
    """Return [steps]; on a GPU one that stays there, since a copy cannot be part of a graph."""
    if device.type == "cuda":
        return _kept(values, device)
    return torch.tensor(values, dtype=torch.float32, device=device)


@cache  # forgets none: a captured graph reads them where they lie, 4 bytes a step of a plan
def _kept(values: tuple[float, ...], device: torch.device) -> Tensor:
    with torch.inference_mode(False):
        return torch.tensor(values, dtype=torch.float32, device=device)
