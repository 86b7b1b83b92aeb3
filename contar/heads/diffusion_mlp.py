"""The diffusion MLP: a small network that denoises each token on its own."""

from collections.abc import Callable, Iterator, Sequence
from functools import cache, partial
from itertools import groupby
from typing import Any, Literal

import torch
from torch import nn
from torch.nn import functional

from contar._errors import (
    DEEPEST,
    LARGEST,
    bad,
    check_broadcast,
    check_callable,
    check_choice,
    check_ids,
    check_instance,
    check_size,
    check_tensor,
)
from contar._mlp import Mlp, apply_mlp, packed
from contar._random import Generators, check_generator, normal
from contar._typing import Float, Int, Tensor
from contar.conditioning import AdaptiveLayerNorm, Guidance, ScalarEmbedding
from contar.diffusion import NoiseProcess, SamplerTable, variance_bound

_ROWS = 1024  # of one product that makes modulations: as fast as any, and of little memory


class _Block(nn.Module):
    def __init__(self, width: int, prenorm: bool) -> None:
        super().__init__()
        self.norm1 = AdaptiveLayerNorm(width, outputs=3, affine=prenorm)
        self.mlp = Mlp(width, width, act_layer=nn.SiLU)
        self.norm2 = nn.Identity() if prenorm else nn.LayerNorm(width)

    def forward(self, x: Tensor, mlp: Any, factor: Tensor, shift: Tensor, gate: Tensor) -> Tensor:
        h = mlp(self.norm1.modulate(x, factor, shift))
        return torch.addcmul(x, gate, self.norm2(h))


class DiffusionMLP(nn.Module):
    """Predicts noise (or velocity, or the token) of a noisy token from its timestep and condition.

    Source: the diffusion loss of MAR (arXiv 2406.11838, section 3.2). As it stands the blocks are
    NOVA's; with `prenorm` and a linear `projection` they are MAR's.

    Args:
        values: of a token.
        cond_width: of the condition z.
        width: of the network.
        depth: blocks.
        learned_variance: also predict where the reverse steps' variance lies, which doubles the
            outputs.
        prenorm: a block's learned norm comes before its MLP, instead of after it.
        projection: of the condition: an "mlp" or one "linear" layer.

    Raises:
        ValueError: a size below 1, or an unknown projection.
    """

    def __init__(
        self,
        values: int,
        cond_width: int,
        *,
        width: int,
        depth: int,
        learned_variance: bool = False,
        prenorm: bool = False,
        projection: Literal["mlp", "linear"] = "mlp",
    ) -> None:
        super().__init__()
        sizes = {"values": values, "cond_width": cond_width, "width": width, "depth": depth}
        for name, size in sizes.items():
            check_size(name, size, 1, DEEPEST if name == "depth" else LARGEST)
        check_instance("learned_variance", learned_variance, bool)
        check_instance("prenorm", prenorm, bool)
        check_choice("projection", projection, ("mlp", "linear"))
        self.values, self.cond_width = values, cond_width
        self.token = nn.Linear(values, width)
        self.time = ScalarEmbedding(width, cosine_first=True)
        self.condition = (
            nn.Linear(cond_width, width)
            if projection == "linear"
            else Mlp(cond_width, width, width, act_layer=nn.SiLU)
        )
        self.blocks = nn.ModuleList(_Block(width, prenorm) for _ in range(depth))
        self.norm = AdaptiveLayerNorm(width)
        self.out = nn.Linear(width, values * (1 + learned_variance))

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
        check_tensor("x", x, (..., self.values), "[..., values]")
        check_tensor("timestep", timestep, (...,), "[...]")
        shape = (*x.shape[:-1], self.token.out_features)
        check_tensor("condition", condition, shape, "[..., width]", like=self.token.weight)
        check_broadcast("timestep", timestep.shape, x.shape[:-1])
        return self._denoise(x, self._modulations(condition, self.time(timestep)))

    def _modulations(self, condition: Tensor, time: Tensor) -> list[tuple[Tensor, ...]]:
        """Return what conditions and embedded timesteps make of each block and the last norm."""
        activated = functional.silu(condition + time)
        return [norm.vectors(activated) for norm in self._norms()]

    def _norms(self) -> list[AdaptiveLayerNorm]:
        return [*(block.norm1 for block in self.blocks), self.norm]  # type: ignore[list-item]

    def compile(self, **options: Any) -> None:
        """Compile what each step of `sample` and of `loss` runs; options of `torch.compile`."""
        vars(self).pop("_denoise", None)  # of an earlier call
        graph = torch.compile(self._denoise, **options)
        # A graph knows its inputs by their places in memory, too, which in a copy is the first.
        self._denoise = lambda x, modulations, mlps=None: graph(
            x, [[vector.clone() for vector in vectors] for vectors in modulations]
        )

    def __getstate__(self) -> dict[str, Any]:
        state: Any = super().__getstate__()
        state.pop("_denoise", None)  # bound to this head, not to its copy
        return state

    def _denoise(
        self, x: Tensor, modulations: Sequence[Sequence[Tensor]], mlps: Any = None
    ) -> Tensor:
        """Predict, with `mlps` in place of the blocks' own where they are given."""
        x = self.token(x.to(self.token.weight.dtype))
        if mlps is None:
            mlps = [partial(apply_mlp, block.mlp) for block in self.blocks]
        for block, mlp, vectors in zip(self.blocks, mlps, modulations[:-1], strict=True):
            x = block(x, mlp, *vectors)
        return self.out(self.norm.modulate(x, *modulations[-1])).float()

    def loss(
        self,
        target: Float[Tensor, "m c"],
        cond: Float[Tensor, "m d"],
        *,
        process: NoiseProcess,
        repeats: int = 1,
        generator: torch.Generator | None = None,
        noise: Float[Tensor, "r m c"] | None = None,
        index: Int[Tensor, "r m"] | None = None,
    ) -> Float[Tensor, "r m"]:
        """Return the squared error of each token, averaged over its values, unreduced.

        With learned variance the variational bound's term is added (`variance_bound`).

        Args:
            target: [m, values], clean tokens; give the hidden ones only.
            cond: [m, cond_width], their conditions.
            process: what noise is added and what is to be predicted.
            repeats: draws of noise and timestep for each token.
            generator: draws the noise, then the timesteps, where they are not given.
            noise: [repeats, m, values], instead of a draw.
            index: [repeats, m], indices of training timesteps, instead of a draw.

        Raises:
            ValueError: shapes that do not fit, `repeats` below 1, indices that the process does
                not have, or a process of another kind of variance than the head's.
        """
        check_tensor("target", target, (None, self.values), "[m, values]")
        count, weight = target.shape[0], self.token.weight
        shape = (count, self.cond_width)
        check_tensor("cond", cond, shape, "[m, cond_width]", like=weight)
        self.check_draws(process, repeats, count, noise, index)
        drawn: Any = generator
        if noise is None or index is None:
            drawn = check_generator(generator, repeats, target.device)
        shape = (repeats, count)
        if noise is None:
            noise = normal(*shape, self.values, generator=drawn, device=target.device)
        if index is None:
            index = process.draw_indices(*shape, generator=drawn, device=target.device)
        clean = target.float().expand(*shape, -1)
        noisy = process.add_noise(clean, noise.float(), index)
        condition = self.condition(cond).expand(*shape, -1)
        output = self._denoise(noisy, self._modulations(condition, self._times(process, index)))
        prediction, spread = output.tensor_split([self.values], dim=-1)
        errors = (prediction - process.target(clean, noise.float(), index)).square()
        if process.betas is not None:
            errors = errors + variance_bound(clean, noisy, prediction, spread, index, process.betas)
        return errors.mean(-1)

    def sample(
        self,
        cond: Float[Tensor, "b n d"],
        *,
        table: SamplerTable,
        uncond: Float[Tensor, "b n d"] | None = None,
        guidance: Guidance | None = None,
        temperature: float = 1.0,
        generator: Generators | None = None,
        noise: Float[Tensor, "b m c"] | None = None,
        draw_noise: Callable[[], Float[Tensor, "b m c"]] | None = None,
    ) -> Float[Tensor, "b n c"]:
        """Draw the tokens of one set, in float32.

        Args:
            cond: [b, n, cond_width], conditions of the predicted tokens.
            table: the solver.
            uncond: [b, n, cond_width], unconditional ones; needed where guidance acts.
            guidance: constant guidance of this set; None is none.
            temperature: factor of the noise that the solver adds.
            generator: draws what is not given.
            noise: [b, m, values], what sampling starts from. Where m > n, the further tokens are
                those of the rest of the frame: they go along, each predicted as it stands, and
                count in a renormalisation over the frame.
            draw_noise: returns fresh noise [b, m, values] for the steps of a stochastic solver.

        Raises:
            ValueError: shapes that do not fit, guidance without `uncond`, a renormalisation over
                the frame without the rest of the frame, or a temperature that the solver lacks.
        """
        weight = self.token.weight
        shape = (None, None, self.cond_width)
        check_tensor("cond", cond, shape, "[b, n, cond_width]", like=weight)
        batch, count, _ = cond.shape
        guidance = Guidance() if guidance is None else guidance
        self.check_solver(table, guidance, temperature)
        if uncond is not None:
            shape = tuple(cond.shape)
            check_tensor("uncond", uncond, shape, "[b, n, cond_width]", like=weight)
        elif guidance.scale > 1:
            raise bad("uncond", None, f"conditions of shape {tuple(cond.shape)} for guidance")
        over_frame = guidance.scale > 1 > guidance.renorm and guidance.renorm_over == "frame"
        if over_frame and noise is None:
            raise bad("noise", None, "that of the whole frame, over which is renormalised")
        if draw_noise is not None:
            check_callable("draw_noise", draw_noise)
        drawn: Any = generator
        if noise is None or draw_noise is None:
            drawn = check_generator(generator, batch, cond.device)
        if noise is None:
            noise = normal(batch, count, self.values, generator=drawn, device=cond.device)
        check_tensor("noise", noise, (batch, None, self.values), "[b, m, values]")
        rest = noise.shape[1] - count
        if rest < 0:
            raise bad("noise", tuple(noise.shape), f"at least the {count} predicted tokens")
        if draw_noise is None:
            draw_noise = partial(normal, *noise.shape, generator=drawn, device=cond.device)
        both = cond if uncond is None else torch.cat([cond, uncond])
        condition = self.condition(both)
        modulations = self._in_steps(condition, table.timestep, guidance, batch)
        calls = len(table.timestep)
        mlps = [packed(block.mlp, condition, calls) for block in self.blocks]

        def predict(x: Tensor, timestep: float) -> Tensor:
            guided = guidance.applies(timestep)
            tokens = torch.cat([x[:, :count]] * (1 + guided))
            outputs = self._denoise(tokens, next(modulations), mlps)
            prediction, spread = outputs.tensor_split([self.values], dim=-1)
            others = x[:, count:]
            if guided and guidance.renorm_over == "frame":
                halves = (torch.cat([half, others], dim=1) for half in prediction.chunk(2))
                prediction = guidance.combine(*halves)
            else:
                if guided:
                    prediction = guidance.combine(*prediction.chunk(2))
                prediction = torch.cat([prediction, others], dim=1)
            if not spread.shape[-1]:
                return prediction
            spread = torch.cat([spread[:batch], torch.zeros_like(others)], dim=1)
            return torch.cat([prediction, spread], dim=-1)

        x = table.sample(predict, noise.float(), draw_noise, temperature=temperature)
        return x[:, :count]

    def _in_steps(
        self, condition: Tensor, timesteps: Sequence[float], guidance: Guidance, batch: int
    ) -> Iterator[list[list[Tensor]]]:
        """Yield the modulations of a draw's steps in turn, made for many steps at once.

        Nearly two thirds of a head's weights only make modulations, which depend on no token. One
        product for many steps reads these weights once, where a product a step reads them each
        time: for few tokens that is nearly all of the time.
        """
        for guided, group in groupby(timesteps, guidance.applies):
            rows = condition if guided else condition[:batch]
            together = max(1, _ROWS // max(1, rows[..., 0].numel()))
            steps = list(group)
            for first in range(0, len(steps), together):
                part = tuple(steps[first : first + together])
                times = _timesteps(part, rows.device)
                made = self._modulations(rows[None], self.time(times[:, None, None]))
                for i in range(len(part)):
                    yield [[vector[i] for vector in vectors] for vectors in made]

    def _times(self, process: NoiseProcess, index: Tensor) -> Tensor:
        """Return each token's embedded timestep; of more tokens than timesteps, each made once."""
        if index.numel() <= len(process):
            return self.time(process.timestep(index))
        every = torch.arange(len(process), device=index.device)
        return functional.embedding(index, self.time(process.timestep(every)))

    def check_draws(
        self,
        process: NoiseProcess,
        repeats: int,
        count: int,
        noise: Tensor | None = None,
        index: Tensor | None = None,
    ) -> None:
        """Raise a ValueError unless `loss` takes these for `count` tokens."""
        self.check_process(process)
        check_size("repeats", repeats)
        if noise is not None:
            check_tensor("noise", noise, (repeats, count, self.values), "[repeats, m, values]")
        if index is not None:
            check_tensor("index", index, (repeats, count), "[repeats, m]", kind="int")
            check_ids("index", index, len(process))

    def check_process(self, process: NoiseProcess) -> None:
        """Raise a ValueError unless `loss` takes this process."""
        check_instance("process", process, NoiseProcess)
        learned = self.out.out_features > self.values
        if learned != (process.betas is not None):
            kinds = ("fixed", "learned")
            got = f"one of {kinds[not learned]} variance"
            raise bad("process", got, f"{kinds[learned]} variance, as the head's")

    def check_solver(self, table: SamplerTable, guidance: Guidance, temperature: float) -> None:
        """Raise a ValueError unless `sample` takes these three together."""
        check_instance("table", table, SamplerTable)
        learned = self.out.out_features > self.values
        if learned != (table.noise_high is not None):
            kinds = ("fixed", "learned")
            got = f"a solver of {kinds[not learned]} variance"
            raise bad("table", got, f"{kinds[learned]} variance, as this head has it")
        table.check_temperature("temperature", temperature)
        check_instance("guidance", guidance, Guidance)
        guidance.check_constant()


def _timesteps(values: tuple[float, ...], device: torch.device) -> Tensor:
    """Return [steps]; on a GPU one that stays there, since a copy cannot be part of a graph."""
    if device.type == "cuda":
        return _kept(values, device)
    return torch.tensor(values, dtype=torch.float32, device=device)


@cache
def _kept(values: tuple[float, ...], device: torch.device) -> Tensor:
    with torch.inference_mode(False):
        return torch.tensor(values, dtype=torch.float32, device=device)
