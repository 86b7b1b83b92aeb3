"""Shots that look alike: hashes of their frames, and which came first."""

from array import array
from itertools import pairwise
from typing import Any

import numpy as np
from PIL import Image

from contar._errors import check_size
from contar.preparation.step import Step

_BITS, _FRAMES = 64, 3


class Hashes(Step):
    """Perceptual hashes of a shot's first, middle and last still, 64 bits each, in hexadecimal.

    The hash is imagehash's `phash`: which of the 8 x 8 lowest frequencies of the grey picture are
    above their median.

    Raises:
        ImportError: imagehash is not installed.
    """

    name = "hashes"
    adds = ("hash",)

    def score(self, shot: dict[str, Any]) -> None:
        """Hash a shot's stills."""
        try:
            from imagehash import phash
        except ImportError as error:
            got = 'imagehash is not installed (pip install "contar[scale]")'
            raise ImportError(got) from error
        stills = shot["stills"]
        chosen = (0, len(stills) // 2, len(stills) - 1)
        known = {number: str(phash(Image.fromarray(stills[number]))) for number in {*chosen}}
        shot["hash"] = "".join(known[number] for number in chosen)


class Duplicates:
    """Says of one shot after the other which earlier one it is nearly the same as.

    Two shots are so if each of their three hashes differs in at most `near` bits. Shots that are
    duplicates of others are not compared with, so the answer is always one that stays. One
    that stays takes some 250 bytes.

    Args:
        near: bits of 64, at most 15.

    Raises:
        ValueError: a number outside its range.
    """

    def __init__(self, near: int = 4) -> None:
        self.near = check_size("near", near, 0, 15)
        # Hashes that differ in so many bits at most are equal in one of one more parts.
        edges = [_BITS * k // (self.near + 1) for k in range(self.near + 2)]
        self._parts = [(low, (1 << high - low) - 1) for low, high in pairwise(edges)]
        self._buckets: list[dict[int, array[int]]] = [{} for _ in self._parts]
        self._hashes: array[int] = array("Q")
        self._names: list[str] = []

    def first(self, hashes: str, name: str) -> str | None:
        """Return the earliest shot that this one is nearly the same as; None if it stays."""
        words = [int(hashes[i : i + 16], 16) for i in range(0, 16 * _FRAMES, 16)]
        keys = [words[1] >> low & mask for low, mask in self._parts]
        found = [
            bucket[key] for bucket, key in zip(self._buckets, keys, strict=True) if key in bucket
        ]
        if found:
            others = np.unique(np.concatenate([np.frombuffer(each, np.uint32) for each in found]))
            known = np.frombuffer(self._hashes, np.uint64).reshape(-1, _FRAMES)[others]
            differing = np.bitwise_count(known ^ np.asarray(words, np.uint64))
            same = others[(differing <= self.near).all(axis=1)]
            if same.size:
                return self._names[same[0]]
        for bucket, key in zip(self._buckets, keys, strict=True):
            bucket.setdefault(key, array("I")).append(len(self._names))
        self._hashes.extend(words)
        self._names.append(name)
        return None
