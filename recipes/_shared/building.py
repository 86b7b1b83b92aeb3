"""Models with random weights, from a preset's name or a config."""

import inspect
from collections.abc import Callable, Iterable, Mapping
from typing import Any, TypeVar

import torch
from torch import nn

from contar._defaults import fixed_defaults
from contar._errors import FLOATS, bad, check_choice, check_device, check_instance
from contar.cpu import speed_up
from contar.heads import TokenHead

Model = TypeVar("Model", bound=nn.Module)
_RECOMPILES = 64  # graphs of a part: with and without cache, rows, mask


def build_model(
    make: Callable[[Any, TokenHead | None], Model],
    preset: object,
    presets: Mapping[str, Any],
    *,
    device: torch.device | str | None,
    dtype: torch.dtype | None,
    compile: bool,
    head: TokenHead | None = None,
) -> Model:
    """Build a model.

    Args:
        make: from a config and a head or None to the model.
        preset: a name in `presets`, or a config of their kind.
        presets: configs of one kind by name.
        device: where the weights are made, the CPU if None; "meta" makes none.
        dtype: of the weights, float32 if None.
        compile: call the model's `compile`.
        head: of one's own, instead of the config's.

    Raises:
        ValueError: an unknown preset, device or dtype, or a head that does not fit.
    """
    check_instance("compile", compile, bool)
    kind = type(next(iter(presets.values())))
    config = presets.get(preset) if isinstance(preset, str) else preset
    if not isinstance(config, kind):
        raise bad("preset", preset, f"a {kind.__name__} or one of " + ", ".join(presets))
    if device is not None:
        check_device("device", device)
    if dtype is not None:
        check_choice("dtype", dtype, FLOATS)
    with fixed_defaults("cpu" if device is None else device):
        model = make(config, head)
    if head is not None and device is not None:
        nn.Module.to(model, device)
    if dtype is not None:
        nn.Module.to(model, dtype=dtype)  # diffusers' own warns of modules that must stay float32
    speed_up(model)
    if compile:
        model.compile()
    return model


def compile_parts(parts: Iterable[nn.Module], options: Mapping[str, Any]) -> None:
    """Compile each part as one graph, for any number of tokens, unless `options` say otherwise."""
    defaults: dict[str, Any] = {"fullgraph": True, "dynamic": True}
    if "recompile_limit" in inspect.signature(torch.compile).parameters:
        defaults["recompile_limit"] = _RECOMPILES
    else:  # torch below 2.13 knows one for all graphs alone
        config = torch._dynamo.config
        config.recompile_limit = max(_RECOMPILES, config.recompile_limit)
    for part in parts:  # a head of one's own compiles as a module does: its forward
        part.compile(**{**defaults, **options})
