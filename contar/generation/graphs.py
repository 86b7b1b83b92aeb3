"""CUDA graphs of a loop's steps: a thousand small kernels launched at once."""

from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from contar._errors import bad, check_callable, check_instance
from contar._typing import Tensor
from contar.heads import Noise

Asked = tuple[str, tuple[int, ...]]  # a method of `Noise` and the shape that it was asked for


@dataclass(frozen=True)
class _Captured:
    graph: Any  # a torch.cuda.CUDAGraph
    inputs: tuple[Tensor | None, ...]
    output: Tensor


class _Listening(Noise):
    """A source that notes what it is asked for."""

    def __init__(self, source: Noise) -> None:
        super().__init__(source.generator, source.device)
        self.source = source
        self.asked: list[Asked] = []

    def normal(self, *shape: int) -> Tensor:
        self.asked.append(("normal", shape))
        return self.source.normal(*shape)

    def uniform(self, *shape: int) -> Tensor:
        self.asked.append(("uniform", shape))
        return self.source.uniform(*shape)


class _Given(Noise):
    """A source of what was drawn already."""

    def __init__(self, drawn: Sequence[Tensor]) -> None:
        self._drawn = iter(drawn)

    def normal(self, *shape: int) -> Tensor:
        return next(self._drawn)

    uniform = normal


class Graphs:
    """Replays the steps of generations by one model as CUDA graphs, one for each kind of step.

    The caller owns it and passes it to generation after generation. The first step of a kind runs
    as it always does, the second is captured, all further ones are replayed: the numbers are the
    same, the host launches one graph where it launched a thousand kernels. A model whose weights
    have moved since is captured anew. Inputs of the same place and shape share their memory, and
    all graphs their workspace, so that a graph costs little beyond what one step needs.

    On a CPU every step runs as it always does.
    """

    def __init__(self) -> None:
        self._captured: dict[Hashable, _Captured] = {}
        self._asked: dict[Hashable, list[Asked]] = {}  # by steps that ran once
        self._inputs: dict[Hashable, Tensor] = {}
        self._places: tuple[Hashable, ...] = ()
        self._model: nn.Module | None = None
        self._pool: Any = None

    def __len__(self) -> int:
        """Return how many steps are captured."""
        return len(self._captured)

    def bind(self, model: nn.Module) -> None:
        """Forget what was captured unless it was of this model, its weights where they are now."""
        check_instance("model", model, nn.Module)
        tensors = (*model.parameters(), *model.buffers())
        places = (id(model), *((x.data_ptr(), x.shape, x.dtype) for x in tensors))
        if places != self._places:
            self._captured.clear()
            self._asked.clear()
            self._inputs.clear()
            self._pool = None  # it went with its last graph
            self._places, self._model = places, model  # kept, so that no other has its id

    def __call__(
        self, kind: Hashable, step: Callable[..., Tensor], noise: Noise, *tensors: Tensor | None
    ) -> Tensor:
        """Return `step(noise, *tensors)`.

        Args:
            kind: all that the step depends on beside the bound model's weights, its tensors'
                values, shapes and dtypes: numbers and immutable values.
            step: computes with the noise, the tensors and the bound model alone, without a look at
                a value; it asks for the same shapes of noise each time.
            noise: the source; what it draws is drawn before the graph is replayed.
            tensors: the first one has to be one; None is passed on.

        Raises:
            ValueError: a step that cannot be called, or no tensors.
        """
        check_callable("step", step)
        check_instance("noise", noise, Noise)
        if not tensors or tensors[0] is None:
            raise bad("tensors", "none", "at least one")
        if tensors[0].device.type != "cuda":
            return step(noise, *tensors)
        cast = torch.is_autocast_enabled("cuda") and torch.get_autocast_dtype("cuda")
        key = (kind, cast, *(x if x is None else (x.shape, x.dtype) for x in tensors))
        if key not in self._asked:
            listening = _Listening(noise)
            result = step(listening, *tensors)
            self._asked[key] = listening.asked
            return result
        drawn = [getattr(noise, method)(*shape) for method, shape in self._asked[key]]
        given = (*tensors, *drawn)
        if key not in self._captured:
            self._captured[key] = self._capture(step, given, len(tensors))
        captured = self._captured[key]
        for ours, theirs in zip(captured.inputs, given, strict=True):
            if ours is not None and theirs is not None:
                ours.copy_(theirs)
        captured.graph.replay()
        return captured.output.clone()

    def _capture(
        self, step: Callable[..., Tensor], tensors: tuple[Tensor | None, ...], count: int
    ) -> _Captured:
        # Not torch.cuda.graph(), which collects garbage and empties the allocator each time.
        inputs = tuple(self._input(place, x) for place, x in enumerate(tensors))
        if self._pool is None:
            self._pool = torch.cuda.graph_pool_handle()
        device = next(x.device for x in tensors if x is not None)
        torch.cuda.synchronize(device)
        graph, stream = torch.cuda.CUDAGraph(), torch.cuda.Stream(device)
        with torch.cuda.stream(stream):
            graph.capture_begin(pool=self._pool, capture_error_mode="thread_local")
            try:
                drawn = [x for x in inputs[count:] if x is not None]
                output = step(_Given(drawn), *inputs[:count])
            finally:
                graph.capture_end()
        torch.cuda.current_stream().wait_stream(stream)
        return _Captured(graph, inputs, output)

    def _input(self, place: int, tensor: Tensor | None) -> Tensor | None:
        if tensor is None:
            return None
        key = (place, tensor.shape, tensor.dtype)
        if key not in self._inputs:
            with torch.inference_mode(False):  # to be written in any mode
                self._inputs[key] = torch.empty_like(tensor, memory_format=torch.contiguous_format)
        return self._inputs[key]
