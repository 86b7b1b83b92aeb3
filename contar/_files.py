"""Files: written whole; configs and weights are data, checked before anything is built of them."""

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from contar._errors import bad

WEIGHTS = "diffusion_pytorch_model.safetensors"
_PICKLES = (".bin", ".pt", ".pth", ".ckpt", ".pkl")


def read_json(path: Path) -> dict[str, Any]:
    """Return the JSON object in a file.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: it holds no JSON object.
    """
    if not path.is_file():
        raise FileNotFoundError(f"{path.name}: got no such file in {path.parent}, allowed: one")
    try:
        return json_object(path.read_bytes().decode())
    except ValueError as error:
        raise bad(path.name, f"{path}, which is no JSON ({error})", "a JSON object") from error


def json_object(content: str | bytes, *, finite: bool = False) -> dict[str, Any]:
    """Return a JSON object.

    Raises:
        ValueError: it is none, or one with NaN or infinity that is to be finite.
    """
    try:
        value = json.loads(content, parse_constant=_refuse if finite else None)
    except RecursionError as error:  # of a thousand brackets
        raise ValueError(str(error)) from error
    if not isinstance(value, dict):
        raise ValueError(f"a {type(value).__name__}, not an object")
    return value


def _refuse(constant: str) -> None:
    raise ValueError(f"{constant}, which JSON does not have")


def write_whole(path: Path, content: str | bytes) -> None:
    """Write a file beside its place and rename it: it is there as a whole, or as it was before.

    Raises:
        OSError: it could not be written.
    """
    part = path.with_name(f".{path.name}.part")
    try:
        part.write_bytes(content.encode() if isinstance(content, str) else content)
        os.replace(part, path)
    finally:
        part.unlink(missing_ok=True)


def flush(path: Path) -> None:
    """Have a file's content, or a folder's list of names, on the disk before what follows."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def weight_files(folder: Path, name: str = WEIGHTS) -> list[Path]:
    """Return a folder's safetensors file, or its shards, each seen to be whole.

    Raises:
        FileNotFoundError: neither the file nor an index of shards, or a shard is not there.
        ValueError: a file that is cut off or of another format, or only a pickle, which could run
            code.
    """
    index = folder / f"{name}.index.json"
    names = [name]
    if index.is_file():
        shards = read_json(index).get("weight_map")
        if not isinstance(shards, Mapping) or any("/" in str(f) for f in shards.values()):
            raise bad(index.name, shards, "a weight_map to the names of files beside it")
        names = sorted(set(map(str, shards.values())))
    files = [folder / file for file in names]
    for file in files:
        _check_whole(file)
    return files


def _check_whole(file: Path) -> None:
    from safetensors import SafetensorError, safe_open

    where = f"{file.parent.name}/{file.name}"
    if not file.is_file():
        pickles = sorted(f.name for f in file.parent.glob("*") if f.suffix in _PICKLES)
        if pickles:
            raise bad(where, f"pickles ({', '.join(pickles)})", "safetensors, which run no code")
        raise FileNotFoundError(f"{where}: got no such file in {file.parent}, allowed: safetensors")
    try:
        with safe_open(file, "pt"):
            pass
    except SafetensorError as error:
        # Only now: safetensors begin with a length, which may be these bytes.
        with file.open("rb") as stream:
            start = stream.read(2)
        if start == b"PK" or start in (b"\x80\x02", b"\x80\x03", b"\x80\x04", b"\x80\x05"):
            raise bad(where, "a pickle by that name", "safetensors, which run no code") from error
        raise bad(where, f"a file that is cut off or no safetensors ({error})", "one") from error


def read_weights(folder: Path, name: str = WEIGHTS) -> dict[str, Tensor]:
    """Return the tensors of a folder's safetensors file or shards; errors as `weight_files`."""
    from safetensors.torch import load_file

    files = weight_files(folder, name)
    return {key: value for file in files for key, value in load_file(file).items()}


def write_weights(tensors: Mapping[str, Tensor], file: Path) -> None:
    """Write safetensors; OSError if they could not be written."""
    from safetensors import SafetensorError
    from safetensors.torch import save_file

    try:
        save_file(dict(tensors), file)
    except SafetensorError as error:
        raise OSError(f"{file}: {error}") from error


def apart(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return weights that share no memory: tied ones as copies, which a file can hold."""
    seen, copies = set(), {}
    for name, value in state.items():
        tensor = value.contiguous()
        place = tensor.untyped_storage().data_ptr()
        copies[name] = tensor.clone() if place in seen else tensor
        seen.add(place)
    return copies


def load_exactly(model: nn.Module, state: Mapping[str, Tensor], name: str) -> None:
    """Put weights into a model; they may be those of a model on `meta`, which then takes them over.

    Raises:
        ValueError: missing, unexpected or misshapen weights, integers for fractions, NaN or
            infinite numbers, all listed; nothing is loaded.
    """
    check_weights(name, state, model.state_dict())
    check_finite(name, state)
    # Copies: a tensor mapped from a file lies at any address, and kernels round by alignment.
    model.load_state_dict({key: value.clone() for key, value in state.items()}, assign=True)


def check_weights(name: str, state: object, wanted: Mapping[str, Tensor]) -> None:
    """Raise a ValueError unless `state` has exactly the names and shapes of `wanted`.

    It lists all that is missing, unexpected, misshapen or of integers for fractions.
    """
    if not isinstance(state, Mapping):
        raise bad(name, type(state).__name__, "a mapping from names to tensors")
    problems = [f"missing {key}" for key in wanted if key not in state]
    problems += [f"unexpected {key}" for key in state if key not in wanted]
    for key, value in wanted.items():
        came = state.get(key, value)
        if _shape(came) != _shape(value):
            problems.append(f"{key} is {_shape(came)}, must be {_shape(value)}")
        if isinstance(came, Tensor) and came.is_floating_point() != value.is_floating_point():
            problems.append(f"{key} is {came.dtype}, must be of {value.dtype}'s kind")
    if problems:
        raise bad(name, "; ".join(problems), "exactly the weights of this model")


def check_finite(name: str, state: Mapping[str, Any]) -> None:
    """Raise a ValueError that lists the weights with NaN or infinite numbers, if there are any."""
    wrong = [
        f"{key} ({value.dtype})"
        for key, value in state.items()
        if isinstance(value, Tensor) and value.is_floating_point() and not _finite(value)
    ]
    if wrong:
        got = "NaN or infinite numbers in " + ", ".join(wrong)
        raise bad(name, got, "finite weights, in the dtype that is asked for as well")


def _finite(value: Tensor) -> bool:
    if not value.numel() or value.is_meta:
        return True
    value = value.detach()
    # Bounds take no memory of the tensor's size; types of 8 bits have none.
    bounds = (value if value.element_size() > 1 else value.float()).aminmax()
    return bool(bounds.min.isfinite() & bounds.max.isfinite())


def _shape(value: object) -> tuple[int, ...] | str:
    return tuple(value.shape) if isinstance(value, Tensor) else type(value).__name__
