"""Parameter names of foreign checkpoints: what the key maps of recipes have in common."""

import re
from collections.abc import Mapping, Sequence

from contar._errors import bad

Parts = Sequence[tuple[str, str]]


def renamed(name: str, parts: Parts, offsets: Mapping[str, int] | None = None) -> str:
    """Return the foreign name of one of our parameters.

    Parts are beginnings of names, (ours, foreign), of which the first that fits counts; `{i}` is a
    block's number, to which the offset of a part is added.

    Raises:
        ValueError: a parameter that no part begins.
    """
    for ours, theirs in parts:
        pattern = re.escape(ours).replace(r"\{i\}", r"(\d+)")
        if match := re.match(pattern, str(name)):
            offset = (offsets or {}).get(ours, 0)
            number = str(int(match[1]) + offset) if match.groups() else ""
            return theirs.replace("{i}", number) + name[match.end() :]
    raise bad("name", name, "a parameter that official checkpoints have")
