"""What the configs of the recipes share: towers, and the reading of saved configs."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import MISSING, fields
from typing import Any, NamedTuple

from contar._errors import DEEPEST, LARGEST, bad, check_instance, check_size, keep_plain, plain
from contar.heads import check_head


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


def settle_parts(config: Any) -> None:
    """Check towers and head of a new config, and make its numbers plain.

    Raises:
        ValueError: as `check_tower` and `contar.heads.check_head`.
    """
    keep_plain(config)
    for name in _towers(config):
        object.__setattr__(config, name, check_tower(name, getattr(config, name)))
    check_head(config.head)
    head = {name: plain(value) for name, value in config.head.items()}
    object.__setattr__(config, "head", head)


def _towers(kind: Any) -> list[str]:
    return [field.name for field in fields(kind) if field.type is Tower]


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


def read_saved(
    kind: Any, sizes: Any, make_head: Callable[[Any, Any], dict[str, Any]]
) -> dict[str, Any]:
    """Return the fields of a saved config, whose tuples came back from JSON as lists.

    Versions before 0.2 knew one kind of head, of `head_depth` and `head_width`, which `make_head`
    makes of width and depth, and kept its scheduler beside it.

    Raises:
        ValueError: no mapping, a field that is unknown or missing, or a tower that is none.
    """
    if isinstance(sizes, Mapping) and "head" not in sizes and "head_depth" in sizes:
        sizes = dict(sizes)
        head = make_head(sizes.pop("head_width", 0), sizes.pop("head_depth"))
        if (scheduler := sizes.pop("scheduler", None)) is not None:
            check_instance("scheduler", scheduler, Mapping)
            flow = str(scheduler.get("_class_name")).startswith("FlowMatch")
            head |= {"name": "flow" if flow else "diffusion", "scheduler": scheduler, "steps": 25}
        sizes["head"] = head
    check_fields(kind, sizes)
    towers = {name: check_tower(name, sizes[name]) for name in _towers(kind)}
    read = {name: tuple(size) if isinstance(size, list) else size for name, size in sizes.items()}
    return {**read, **towers}
