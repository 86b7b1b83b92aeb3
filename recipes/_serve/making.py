"""A pipeline that several visitors use in turns."""

from collections.abc import Callable, Generator, Iterator
from threading import Event, Lock

from contar.generation import Progress
from contar.tokenizers import VAETokenizer
from recipes._serve.watching import Frames, watch
from recipes._serve.wish import PAUSES, Bounds, Given, Wish, check_wish, options
from recipes.nova import NovaPipeline


class Maker:
    """Makes what is wished, one thing at a time.

    Args:
        pipe: at work.
        bounds: of what is made.
        left_open: says what a prompt leaves to the model, or None, given whether frames are
            `shown` and whether it is `moving`; of a model that understands few words.
    """

    def __init__(
        self,
        pipe: NovaPipeline,
        bounds: Bounds,
        left_open: Callable[..., str | None] | None = None,
    ) -> None:
        self.pipe, self.bounds, self._alone = pipe, bounds, Lock()
        self._left_open = left_open
        pipe.set_progress_bar_config(disable=True)

    def check(self, wish: Wish, given: Given | None) -> None:
        """Raise the ValueError that `make` would, before a turn is waited for."""
        check_wish(wish, self.bounds)
        self.pipe.stream(wish.prompt, **options(self.pipe, wish, given))

    def remark(self, wish: Wish, given: Given | None) -> str:
        """Return what the prompt leaves to the model, as a sentence, or ""."""
        if self._left_open is None:
            return ""
        shown, moving = given is not None, wish.frames > 1
        lacks = self._left_open(wish.prompt, shown=shown, moving=moving)
        return f" {lacks}: the model makes what it likes." if lacks else ""

    def make(
        self, wish: Wish, given: Given | None, stop: Event
    ) -> Generator[Progress | Frames, None, None]:
        """Yield what is to be seen of a wish that was checked; `stop` as in `watch`."""
        found = options(self.pipe, wish, given)
        sets = VAETokenizer(self.pipe.vae).latent_frames(wish.frames) * wish.sets

        def stream(after_set: Callable[..., None]) -> Iterator[Frames]:
            with self._alone:
                yield from self.pipe.stream(wish.prompt, callback_on_step_end=after_set, **found)

        return watch(stream, stop, pause=min(wish.pause, PAUSES / sets))
