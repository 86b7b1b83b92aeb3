"""Which passes of the network a set takes: conditional, unconditional, whole or in part."""

from collections.abc import Callable
from typing import Any, Protocol, runtime_checkable

import torch

from contar._errors import check_callable, check_instance, check_size
from contar._typing import Float, Int, Tensor
from contar.generation.plan import GenerationPlan
from contar.generation.sets import Predict
from contar.ordering import SetStep


@runtime_checkable
class Network(Protocol):
    """The network of one frame, for some of the samples [conditional, unconditional]."""

    def __call__(
        self,
        tokens: Float[Tensor, "b n c"],
        step: SetStep,
        rows: Int[Tensor, "b m"],
        part: slice,
        memory: Any,
    ) -> Float[Tensor, "b2 m d"]:
        """Return the conditions of `rows`.

        Args:
            tokens: so far, of b samples.
            step: whose `known` positions are visible.
            rows: positions whose condition is wanted.
            part: of the 2 b samples: the first b, the last b, or all.
            memory: as `allocate` made it, to reuse and to renew; None computes everything.
        """
        ...


def guided_passes(
    network: Network,
    plan: GenerationPlan,
    batch: int,
    *,
    guided: Callable[[SetStep], bool],
    allocate: Callable[[int], Any],
) -> Predict:
    """Return the function that predicts the conditions of one frame's sets.

    It keeps what the sets of this frame reuse, so each frame takes its own. A guided set's
    conditions are followed by the unconditional ones. `plan.refresh` and `plan.guidance_every`
    say what is reused (their source: LazyMAR, Yan et al. 2025, arXiv 2503.12450): features of
    tokens that are neither new nor predicted, and the difference that the condition makes. A set
    that takes this difference anew computes both passes afresh, so that it holds nothing else.

    Args:
        network: of the frame.
        plan: whose options count.
        batch: samples, b.
        guided: whether guidance acts in a set.
        allocate: from a number of samples to an empty memory for them; called where `plan.refresh`
            is above 1.

    Raises:
        ValueError: functions that cannot be called, no plan, or a batch below 1.
    """
    for name, function in (("network", network), ("guided", guided), ("allocate", allocate)):
        check_callable(name, function)
    check_instance("plan", plan, GenerationPlan)
    check_size("batch", batch)
    cond, uncond, both = slice(0, batch), slice(batch, 2 * batch), slice(0, 2 * batch)
    memories: dict[int, Any] = {}  # by the end of the part
    residual: list[Tensor] = []  # [b, n, d], what the condition makes of each position
    since = -1  # guided sets since that was computed

    def run(tokens: Tensor, step: SetStep, rows: Tensor, part: slice) -> Tensor:
        memory = None
        if plan.refresh > 1:
            if part.stop not in memories:
                memories[part.stop] = allocate(part.stop - part.start)
            memory = memories[part.stop]
        return network(tokens, step, rows, part, memory)

    def predict(tokens: Tensor, step: SetStep) -> Tensor:
        nonlocal since
        if step.index % plan.refresh == 0:
            memories.clear()
        if not guided(step):
            return run(tokens, step, step.current, cond)
        if plan.guidance_every == 1:
            return run(tokens, step, step.current, both)
        now = (since + 1) % plan.guidance_every
        if now:
            z = run(tokens, step, step.current, cond)
            ids = step.current[..., None].expand_as(z)
            z = torch.cat([z, z - residual[0].gather(1, ids)])
            since = now  # only here: a set that fails does not count
            return z
        memories.clear()
        hidden = torch.cat([step.current, step.remaining], dim=1)
        z = run(tokens, step, hidden, cond)
        without = network(tokens, step, hidden, uncond, None)
        count = step.current.shape[1]
        empty = z.new_zeros(len(z), tokens.shape[1], z.shape[2])
        made = empty.scatter(1, hidden[..., None].expand_as(z), z - without)
        z = torch.cat([z[:, :count], without[:, :count]])
        residual[:], since = [made], now
        return z

    return predict
