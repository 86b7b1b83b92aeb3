"""Files of what processes share out: each holds some rows of each tensor, and says which."""

import math
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from contar._errors import bad
from contar.training.distributed import each
from contar.training.sharding import is_shared

# Safetensors, which run no code; what `torch.distributed.checkpoint` writes by itself is pickled.


def write_shards(folder: Path, tensors: Mapping[str, Tensor]) -> None:
    """Write tensors that processes share out; all of them have to call it.

    Raises:
        OSError: they could not be written.
    """
    checkpoint = _checkpoint()
    writer = checkpoint.HuggingFaceStorageWriter(str(folder), save_distributed=True)
    try:
        checkpoint.save(dict(tensors), storage_writer=writer)
    except checkpoint.api.CheckpointException as error:
        raise OSError(f"{folder}: {_first(error)}") from error


def read_shards(folder: Path, wanted: Mapping[str, Mapping[str, Any]]) -> dict[str, Tensor]:
    """Return the tensors of files, named "part.name", each whole or shared out as one is.

    Args:
        folder: of `write_shards`.
        wanted: parts and names, with tensors of the shapes.

    Raises:
        ValueError: files that are damaged or not all there, or tensors of other names or shapes.
    """
    checkpoint = _checkpoint()
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


def _checkpoint() -> Any:
    """Return the module, which takes part of a second to import."""
    from torch.distributed import checkpoint

    return checkpoint


def _damaged(folder: Path, what: object) -> ValueError:
    name = f"{folder.parent.name}/{folder.name}"
    return bad(name, f"files that do not fit ({what})", "the files that were saved")


def _first(error: Any) -> str:
    """Return what went wrong in the first process in which something did."""
    number, (cause, _) = min(error.failures.items())
    return f"{type(cause).__name__} in process {number}: {cause}"
