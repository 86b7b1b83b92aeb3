"""What the configs of the recipes share: towers, and the reading of saved configs."""

from collections.abc import Mapping, Sequence
from dataclasses import MISSING, fields
from typing import Any, NamedTuple

from contar._errors import DEEPEST, LARGEST, bad, check_size, plain


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
