"""What the configs of the recipes share: towers, and the reading of saved configs."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import MISSING, fields
from typing import Any, NamedTuple

from contar._errors import DEEPEST, LARGEST, bad, check_instance, check_size, plain


class Tower(NamedTuple):
    """Blocks, width and attention heads of a tower."""

    depth: int
    width: int
    heads: int


def check_tower(name: str, sizes: Any) -> Tower:
    """Return (depth, width, heads) as a Tower.

    Raises:
        ValueError: no three sizes, one below 1, or a width that the heads do not divide.
    """
    if not isinstance(sizes, Sequence) or isinstance(sizes, str) or len(sizes) != 3:
        raise bad(name, sizes, "a Tower: (depth, width, heads)")
    tower = plain(Tower(*sizes))
    for part, value in zip(tower._fields, tower, strict=True):
        check_size(f"{name}.{part}", value, 1, DEEPEST if part == "depth" else LARGEST)
    if tower.width % tower.heads:
        raise bad(f"{name}.heads", tower.heads, f"a divisor of the width {tower.width}")
    return tower


def check_fields(kind: Any, sizes: Any) -> None:
    """Raise a ValueError unless `sizes` maps fields of the dataclass `kind`, no needed one missing.

    Its values are not looked at.
    """
    if not isinstance(sizes, Mapping):
        raise bad("sizes", type(sizes).__name__, f"a {kind.__name__} or a mapping of its fields")
    known = {field.name: field for field in fields(kind)}
    needed = {name for name, f in known.items() if f.default is f.default_factory is MISSING}
    wrong = sorted(map(str, (set(sizes) - set(known)) | (needed - set(sizes))))
    if wrong:
        raise bad("sizes", "; ".join(wrong) + " unknown or missing", ", ".join(known))


def named_head(sizes: object, make: Callable[[Any, Any], dict[str, Any]]) -> Any:
    """Return a saved model's sizes with its head by name, as versions before 0.2 did not have it.

    Those knew one kind, of `head_depth` and `head_width`, and kept its scheduler beside it.

    Args:
        sizes: of a file.
        make: from width and depth to that one kind.
    """
    if not isinstance(sizes, Mapping) or "head" in sizes or "head_depth" not in sizes:
        return sizes
    given = dict(sizes)
    head = make(given.pop("head_width", 0), given.pop("head_depth"))
    if (scheduler := given.pop("scheduler", None)) is not None:
        check_instance("scheduler", scheduler, Mapping)
        flow = str(scheduler.get("_class_name")).startswith("FlowMatch")
        head |= {"name": "flow" if flow else "diffusion", "scheduler": scheduler, "steps": 25}
    return {**given, "head": head}


def named_head_weights(state: dict[str, Any], wanted: Mapping[str, Any]) -> None:
    """Rename in place the weights of a head that versions before 0.2 have saved.

    Args:
        state: of a file.
        wanted: of the model that it is for.
    """
    if "head.token.weight" in state and "head.token.weight" not in wanted:
        for name in [name for name in state if name.startswith("head.")]:
            state[name.replace("head.", "head.network.", 1)] = state.pop(name)
