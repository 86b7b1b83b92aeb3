"""Who is here: what each tab has brought and made, in memory, until it is closed."""

from collections import OrderedDict
from dataclasses import dataclass, field
from threading import Event, RLock

import numpy as np

from contar._typing import Tensor, UInt8
from recipes._serve.wish import Given, Wish


@dataclass
class Visitor:
    """A tab."""

    given: UInt8[Tensor, "n h w 3"] | None = None  # it brought, cut to the model's shape
    made: UInt8[np.ndarray, "t h w 3"] | None = None  # for it, last
    wish: tuple[Wish, Given | None] | None = None  # that it waits for
    busy: bool = False  # something is made for it
    stop: Event = field(default_factory=Event)  # of its generation, or the one it waits for

    @property
    def bytes(self) -> int:
        """What is held in memory for it."""
        return sum(held.nbytes for held in (self.given, self.made) if held is not None)

    def begin(self) -> None:
        """Stop what is at work or waits, and be ready for something new."""
        self.stop.set()
        self.wish, self.stop = None, Event()


class Visitors:
    """The tabs that are open, by their names; where there are too many, the longest idle go.

    One for which something is made is not idle.

    Args:
        most: tabs.
        room: bytes that all may hold, of what they brought and what was made for them.
    """

    def __init__(self, most: int = 256, room: int = 2 * 2**30) -> None:
        self._most, self._room = most, room
        self._here: OrderedDict[str, Visitor] = OrderedDict()
        self._lock = RLock()

    def __len__(self) -> int:
        return len(self._here)

    def of(self, name: str) -> Visitor:
        """Return a tab's visitor, a new one if it was not here."""
        with self._lock:
            visitor = self._here.setdefault(name, Visitor())
            self._here.move_to_end(name)
            self.make_room(name)
            return visitor

    def make_room(self, name: str) -> None:
        """Forget idle ones if there are too many, or all hold too much; the tab of a name stays."""
        with self._lock:
            idle = [n for n, other in self._here.items() if n != name and not other.busy]
            held = sum(visitor.bytes for visitor in self._here.values())
            for other in idle:
                if len(self._here) <= self._most and held <= self._room:
                    return
                gone = self._here.pop(other)
                gone.stop.set()
                held -= gone.bytes

    def leave(self, name: str) -> None:
        """Stop what is made for a tab, and forget it."""
        with self._lock:
            visitor = self._here.pop(name, None)
        if visitor is not None:
            visitor.stop.set()

    def leave_all(self) -> None:
        """Stop what is made, or waits to be, for any tab, and forget them all."""
        for name in list(self._here):
            self.leave(name)
