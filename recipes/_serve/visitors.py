"""Who is here: what each tab has brought and made, in memory, until it is closed."""

from collections import OrderedDict
from dataclasses import dataclass, field
from threading import Event, Lock

import numpy as np

from contar._errors import check_count
from contar._typing import Tensor, UInt8
from recipes._serve.wish import Given, Wish


@dataclass
class Visitor:
    """A tab.

    Attributes:
        given: [n, h, w, 3], what it brought, cut to the model's shape.
        made: [t, h, w, 3], what was made for it last.
        wish: what it asked for, and waits for.
        busy: whether something is made for it.
        stop: of its generation, or of the one that it waits for.
    """

    given: UInt8[Tensor, "n h w 3"] | None = None
    made: UInt8[np.ndarray, "t h w 3"] | None = None
    wish: tuple[Wish, Given | None] | None = None
    busy: bool = False
    stop: Event = field(default_factory=Event)

    def begin(self) -> None:
        """Stop what is at work or waits, and be ready for something new."""
        self.stop.set()
        self.wish, self.stop = None, Event()


class Visitors:
    """The tabs that are open, by their names; of more than `most` those longest idle are forgotten.

    One for which something is made is not idle.

    Args:
        most: tabs.

    Raises:
        ValueError: `most` below 1.
    """

    def __init__(self, most: int = 256) -> None:
        self._most = check_count("most", most)
        self._here: OrderedDict[str, Visitor] = OrderedDict()
        self._lock = Lock()

    def __len__(self) -> int:
        return len(self._here)

    def of(self, name: str) -> Visitor:
        """Return a tab's visitor, a new one if it was not here."""
        with self._lock:
            visitor = self._here.setdefault(name, Visitor())
            self._here.move_to_end(name)
            idle = [n for n, other in self._here.items() if n != name and not other.busy]
            for other in idle[: max(0, len(self._here) - self._most)]:
                self._here.pop(other).stop.set()
            return visitor

    def leave(self, name: str) -> None:
        """Stop what is made for a tab, and forget it."""
        with self._lock:
            visitor = self._here.pop(name, None)
        if visitor is not None:
            visitor.stop.set()
