"""Weights that processes share out among them, block by block, and their files: torch's FSDP2."""

import math
import warnings
from collections.abc import Callable, Mapping
from copy import deepcopy
from importlib import import_module
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from contar._errors import bad
from contar.backbones import Block
from contar.training.config import RunConfig
from contar.training.distributed import each


def check_shareable(objective: nn.Module) -> None:
    """Raise a ValueError for what FSDP2 would not train.

    That is a compiled module, whose graph knows whole weights only, and a weight of two names,
    which two blocks may hold.
    """
    for name, module in objective.named_modules():
        mine = vars(module)
        if mine.get("_compiled_call_impl") or {"_orig_mod", "denoise"} & {*mine, *module._modules}:
            got = f"{name or type(module).__name__}, which is compiled, with shard=True"
            raise bad("objective", got, "modules that are not compiled, or shard=False")
    names: dict[int, str] = {}
    for name, parameter in objective.named_parameters(remove_duplicate=False):
        first = names.setdefault(id(parameter), name)
        if first != name:
            got = f"one weight as {first} and {name}, with shard=True"
            raise bad("objective", got, "weights of one name, or shard=False")


def share_out(module: nn.Module, config: RunConfig, device: torch.device) -> None:
    """Share a module's weights out among the processes, in place.

    A `Block` gathers its weights when it is called, forwards and backwards, and lets go of them;
    all else is gathered together. With "bf16" blocks are gathered in bfloat16, in which autocast
    multiplies. Gradients are summed in float32.

    Source: Zhao et al., "PyTorch FSDP: Experiences on Scaling Fully Sharded Data Parallel", VLDB
    2023, arXiv 2304.11277, as `torch.distributed.fsdp.fully_shard` has it.
    """
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.fsdp import MixedPrecisionPolicy, fully_shard

    mesh = init_device_mesh(device.type, (torch.distributed.get_world_size(),))
    gathered = torch.bfloat16 if config.precision == "bf16" else None
    blocks = [block for block in module.modules() if isinstance(block, Block)]
    for part, dtype in (*((block, gathered) for block in blocks), (module, None)):
        policy = MixedPrecisionPolicy(dtype, torch.float32, cast_forward_inputs=False)
        fully_shard(part, mesh=mesh, reshard_after_forward=True, mp_policy=policy)


def is_shared(tensor: Tensor) -> bool:
    """Return whether processes share a tensor out."""
    return hasattr(tensor, "to_local")  # as torch's DTensor alone has it


def local(tensor: Any) -> Tensor:
    """Return what this process holds of a tensor, in the same memory."""
    return tensor.to_local() if is_shared(tensor) else tensor


def shared_as(whole: Tensor, other: Any) -> Tensor:
    """Return a tensor that each process has as a whole, shared out as another of its shape is."""
    if is_shared(whole) or not is_shared(other) or whole.shape != other.shape:
        return whole
    from torch.distributed.tensor import distribute_tensor

    place = whole.to(local(other).device)
    return distribute_tensor(place, other.device_mesh, other.placements, src_data_rank=None)


def unshared(module: nn.Module) -> Callable[[nn.Module], nn.Module]:
    """Return what makes whole copies of modules that are shared out, of such a one that is not.

    All processes have to call it together, and each gets a copy.
    """
    memo: dict[int, Any] = {
        id(weight): nn.Parameter(torch.empty_like(weight, device="meta"), weight.requires_grad)
        for weight in module.parameters()
    }
    shell = deepcopy(module, memo)

    def copy(shared: nn.Module) -> nn.Module:
        state: dict[str, Any] = shared.state_dict()
        kept = {n: x.full_tensor() if is_shared(x) else x.clone() for n, x in state.items()}
        made = deepcopy(shell)
        made.load_state_dict(kept, assign=True)
        return made.to(next(shared.parameters()).device)

    return copy


# Safetensors, which run no code; what `torch.distributed.checkpoint` writes by itself is pickled.


def write_shards(folder: Path, tensors: Mapping[str, Tensor]) -> None:
    """Write tensors that processes share out, when all of them call it; OSError if it fails."""
    checkpoint: Any = import_module("torch.distributed.checkpoint")
    writer = checkpoint.HuggingFaceStorageWriter(str(folder), save_distributed=True)
    try:
        checkpoint.save(dict(tensors), storage_writer=writer)
    except checkpoint.api.CheckpointException as error:
        raise OSError(f"{folder}: {_first(error)}") from error


def read_shards(folder: Path, wanted: Mapping[str, Mapping[str, Any]]) -> dict[str, Tensor]:
    """Return the tensors of files, named "part.name", each whole or shared out as the wanted one.

    Raises:
        ValueError: files that are damaged or not all there, or tensors of other names or shapes.
    """
    checkpoint: Any = import_module("torch.distributed.checkpoint")
    like = {f"{part}.{name}": x for part, named in wanted.items() for name, x in named.items()}
    found: dict[str, Tensor] = {}

    def glance() -> None:
        try:
            metadata = checkpoint.HuggingFaceStorageReader(str(folder)).read_metadata()
        except Exception as error:  # of any kind, by what is there instead
            raise _damaged(folder, error) from error
        for name, facts in metadata.state_dict_metadata.items():
            if name not in like or facts.size != like[name].shape:  # type: ignore[union-attr]
                raise _damaged(folder, f"{name}, which this run does not have by that shape")
            held = sum(math.prod(chunk.sizes) for chunk in facts.chunks)  # type: ignore[union-attr]
            if held != like[name].numel():
                raise _damaged(folder, f"{held} of the {like[name].numel()} values of {name}")
            shared = is_shared(like[name])
            found[name] = torch.empty_like(like[name], device=None if shared else "cpu")

    each(glance)
    alone = not any(map(is_shared, found.values()))
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # that one process reads by itself
            reader = checkpoint.HuggingFaceStorageReader(str(folder))
            checkpoint.load(found, storage_reader=reader, no_dist=alone)
    except checkpoint.api.CheckpointException as error:
        raise _damaged(folder, _first(error)) from error
    return found


def _damaged(folder: Path, what: object) -> ValueError:
    name = f"{folder.parent.name}/{folder.name}"
    return bad(name, f"files that do not fit ({what})", "the files that were saved")


def _first(error: Any) -> str:
    """Return what went wrong in the first process in which something did."""
    number, (cause, _) = min(error.failures.items())
    return f"{type(cause).__name__} in process {number}: {cause}"
