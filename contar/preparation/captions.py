"""What is said of a shot, and what a function of one's own makes of it."""

import importlib
from collections.abc import Callable
from typing import Any

from contar._errors import bad, check_number, check_text
from contar.preparation.step import Step


class CaptionLength(Step):
    """The length of the caption in characters; and in tokens, if a tokenizer is given.

    Args:
        tokenizer: a folder or name of transformers; None counts characters alone.
    """

    name = "caption_length"

    def __init__(self, tokenizer: str | None = None) -> None:
        super().__init__()
        self.adds = (
            ("caption_length",) if tokenizer is None else ("caption_length", "caption_tokens")
        )
        self._tokenizer = tokenizer
        self._words: Any = None

    def score(self, shot: dict[str, Any]) -> None:
        """Measure a caption; None has no length."""
        caption = shot["caption"]
        shot |= dict.fromkeys(self.adds)
        if caption is None:
            return
        shot["caption_length"] = len(caption)
        if self._tokenizer is not None:
            if self._words is None:
                from transformers import AutoTokenizer

                self._words = AutoTokenizer.from_pretrained(self._tokenizer)
            shot["caption_tokens"] = len(self._words(caption)["input_ids"])


class Aesthetic(Step):
    """A score by a function of one's own.

    Args:
        function: "package:function", which returns a number, given a shot's stills: a list of uint8
            arrays [h, w, 3].

    Raises:
        ValueError: there is no such function, or what it returns is no finite number.
    """

    name = "aesthetic"
    adds = ("aesthetic",)
    costly = True

    def __init__(self, function: str) -> None:
        super().__init__()
        load_function("aesthetic", function)
        self.function = function

    def score(self, shot: dict[str, Any]) -> None:
        """Ask the function."""
        answer = load_function("aesthetic", self.function)(shot["stills"])
        shot["aesthetic"] = check_number("aesthetic", answer)


class Captioner(Step):
    """A caption by a function of one's own, in place of the one that there was.

    Args:
        function: "package:function", which returns a text, given a shot's stills: a list of uint8
            arrays [h, w, 3].

    Raises:
        ValueError: there is no such function, or what it returns is no text.
    """

    name = "captioner"
    costly = True

    def __init__(self, function: str) -> None:
        super().__init__()
        load_function("captioner", function)
        self.function = function

    def score(self, shot: dict[str, Any]) -> None:
        """Ask the function."""
        answer = load_function("captioner", self.function)(shot["stills"])
        caption = " ".join(check_text("captioner", answer).split())
        if not caption:
            raise bad("captioner", answer, "a text with a word")
        shot["caption"] = caption


def load_function(name: str, place: str) -> Callable[..., Any]:
    """Return a function by "package:function".

    Raises:
        ValueError: there is none.
        ImportError: its module misses another.
    """
    module, sign, function = place.partition(":")
    allowed = "package:function, of a module that can be imported"
    if not sign or not module or not function:
        raise bad(name, place, allowed)
    try:
        found = getattr(importlib.import_module(module), function, None)
    except ModuleNotFoundError as error:
        if error.name and (module == error.name or module.startswith(f"{error.name}.")):
            raise bad(name, f"{place} ({error})", allowed) from None
        raise
    if not callable(found):
        raise bad(name, place, allowed)
    return found
