"""Which passes of the network a set takes: conditional, unconditional, whole or in part."""

from collections.abc import Callable
from typing import Any, Protocol, runtime_checkable

import torch

from contar._errors import check_callable, check_instance
from contar._typing import Float, Int, Tensor
from contar.generation.plan import GenerationPlan
from contar.generation.sets import Predict
from contar.ordering import SetStep


@runtime_checkable
class Network(Protocol):
    """The network of one frame, for the conditional half of a batch, the other, or both."""

    def __call__(
        self,
        tokens: Float[Tensor, "b n c"],
        step: SetStep,
        rows: Int[Tensor, "b m"],
        halves: slice,
        memory: Any,
    ) -> Float[Tensor, "b2 m d"]:
        """Return the conditions of `rows` for each of `halves`.

        Args:
            tokens: so far, for one half.
            step: whose `known` positions are visible.
            rows: positions whose condition is wanted.
            halves: of (conditional, unconditional), which samples follow one another.
            memory: as `allocate` made it, to reuse and to renew; None computes everything.
        """
        ...


def guided_passes(
    network: Network,
    plan: GenerationPlan,
    guided: Callable[[SetStep], bool],
    allocate: Callable[[slice], Any],
) -> Predict:
    """Return the function that predicts the conditions of one frame's sets.

    It keeps what the sets of this frame reuse, so each frame takes its own. A guided set's
    conditions are followed by the unconditional ones. `plan.refresh` and `plan.guidance_every`
    say what is reused (their source: LazyMAR, Yan et al. 2025, arXiv 2503.12450): features of
    tokens that are neither new nor predicted, and the difference that the text makes.

    Args:
        network: of the frame.
        plan: whose options count.
        guided: whether guidance acts in a set.
        allocate: from halves to an empty memory for them; called where `plan.refresh` is above 1.
    """
    check_callable("network", network)
    check_instance("plan", plan, GenerationPlan)
    cond, uncond, both = slice(0, 1), slice(1, 2), slice(0, 2)
    memories: dict[int, Any] = {}
    residual: list[Tensor] = []  # [b, n, d], what the text makes of each position

    def run(tokens: Tensor, step: SetStep, rows: Tensor, halves: slice) -> Tensor:
        memory = None
        if plan.refresh > 1:
            key = 2 * halves.start + halves.stop
            if key not in memories:
                memories[key] = allocate(halves)
            memory = memories[key]
        return network(tokens, step, rows, halves, memory)

    def predict(tokens: Tensor, step: SetStep) -> Tensor:
        if step.index % plan.refresh == 0:
            memories.clear()
        if not guided(step):
            return run(tokens, step, step.current, cond)
        if plan.guidance_every == 1:
            return run(tokens, step, step.current, both)
        if step.index % plan.guidance_every and residual:
            z = run(tokens, step, step.current, cond)
            ids = step.current[..., None].expand_as(z)
            return torch.cat([z, z - residual[0].gather(1, ids)])
        hidden = torch.cat([step.current, step.remaining], dim=1)
        z, without = (run(tokens, step, hidden, halves) for halves in (cond, uncond))
        count = step.current.shape[1]
        empty = z.new_zeros(len(z), tokens.shape[1], z.shape[2])
        residual[:] = [empty.scatter(1, hidden[..., None].expand_as(z), z - without)]
        return torch.cat([z[:, :count], without[:, :count]])

    return predict
