"""Names of a room that are imported when they are asked for, so that importing a room is light."""

from collections.abc import Callable, Mapping
from importlib import import_module
from typing import Any


def lazily(room: str, files: Mapping[str, tuple[str, ...]]) -> Callable[[str], Any]:
    """Return the `__getattr__` of a room, which finds its other names.

    Args:
        files: of the room, each with its names.
    """
    places = {name: f"{room}.{file}" for file, names in files.items() for name in names}

    def find(name: str) -> Any:
        if name not in places:
            raise AttributeError(f"module {room!r} has no attribute {name!r}")
        return getattr(import_module(places[name]), name)

    return find
