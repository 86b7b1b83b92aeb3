"""jaxtyping's import hook as the tests use it: beartype, on what a function has not met yet."""

import functools
import importlib
from collections import Counter
from collections.abc import Callable, Hashable
from types import CodeType, FunctionType
from typing import Any

import jaxtyping
import torch
from beartype import BeartypeConf, beartype
from jaxtyping import config

CALLS = 25  # of a function that a test looks at: a loop makes thousands alike
FIRST = 2  # of these that are checked, whatever was checked before
# What contar imports: under the hook, all that a module imports would be compiled anew.
LARGE = (
    "torch.nn.attention.flex_attention", "torch.utils.flop_counter",
    "diffusers.models.autoencoders.vae", "diffusers.pipelines.pipeline_utils",
)  # fmt: skip
checked = beartype(conf=BeartypeConf(is_pep484_tower=True))  # takes an int for a float
seen: Counter[CodeType] = Counter()  # calls by this test
met: set[Hashable] = set()  # functions and kinds of arguments that were checked, by any test
_jaxtyped = jaxtyping.jaxtyped


def kind(value: Any) -> Hashable:
    """Return what a check of `value` depends on: of tensors shape and dtype, else the type."""
    if isinstance(value, torch.Tensor):
        return value.shape, value.dtype
    if isinstance(value, list | tuple) and len(value) < 9:
        return type(value), *map(kind, value)
    return type(value)


def jaxtyped(*, typechecker: Any) -> Callable[[Any], Any]:
    """Stand in for jaxtyping's decorator, which the import hook puts before every function."""
    decorate = _jaxtyped(typechecker=typechecker)

    def decorated(function: Any) -> Any:
        if not isinstance(function, FunctionType):
            return decorate(function)
        code, made = function.__code__, []

        @functools.wraps(function)
        def call(*args: Any, **kwargs: Any) -> Any:
            if torch.compiler.is_compiling() or seen[code] >= CALLS:  # a graph holds no checks
                return function(*args, **kwargs)
            kinds = (code, *map(kind, args), *kwargs, *map(kind, kwargs.values()))
            if seen[code] >= FIRST and kinds in met:
                result = function(*args, **kwargs)
            else:
                if not made:  # only now, because reading annotations takes long
                    made.append(decorate(function))
                result = made[0](*args, **kwargs)
            seen[code] += 1  # not of a wrong call, which is as wrong once more
            if not config.jaxtyping_disable:
                met.add(kinds)
            return result

        return function if seen[code] >= CALLS else call

    return decorated


def import_large() -> None:
    for name in LARGE:
        importlib.import_module(name)


def install(packages: list[str]) -> None:
    """Check the shapes and types of what is imported from these packages from now on."""
    import_large()
    jaxtyping.jaxtyped = jaxtyped
    jaxtyping.install_import_hook(packages, f"{__name__}.checked")
