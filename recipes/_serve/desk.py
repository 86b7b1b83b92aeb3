"""What happens when a visitor does something on the page."""

import secrets
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from threading import Event
from typing import Any

import gradio as gr
import numpy as np
import torch

from contar.generation import Progress
from recipes._serve import html
from recipes._serve.making import Maker
from recipes._serve.pictures import draw_tokens, picture_url, sets_of, thumbnail_url
from recipes._serve.uploads import read_mask, read_upload
from recipes._serve.visitors import Visitor, Visitors
from recipes._serve.wish import Given, Wish

_UNBEGUN = "Stopped before it began."


class Desk:
    """What happens when a visitor does something; the page's parts call it by name.

    Args:
        maker: at work for all.
        visitors: who is here.
    """

    def __init__(self, maker: Maker, visitors: Visitors) -> None:
        self.maker, self.visitors = maker, visitors
        self.fps = maker.bounds.usual["fps"]

    def visitor(self, request: gr.Request) -> Visitor:
        return self.visitors.of(str(request.session_hash))

    def ask(
        self, prompt: str, frames: float, anew: bool, seed: float, fast: bool, sets: float,
        steps: float, guidance: float, pause: float, grow: float, painted: str,
        request: gr.Request,
    ) -> tuple[str, Any]:  # fmt: skip
        """Check a wish at once, and keep it for its turn; return a message and the seed."""
        visitor, bounds = self.visitor(request), self.maker.bounds
        visitor.begin()
        if anew:
            seed = secrets.randbelow(2**31)
        try:
            given = None
            if visitor.given is not None:
                given = Given(visitor.given, read_mask(painted, bounds.height, bounds.width))
            wish = Wish(
                prompt=prompt, frames=_whole(frames), sets=_whole(sets), steps=_whole(steps),
                guidance=guidance, seed=_whole(seed), fast=fast, grow=_whole(grow), pause=pause,
            )  # fmt: skip
            self.maker.check(wish, given)
        except ValueError as error:
            return html.message(str(error), kind="alert"), seed
        visitor.wish = wish, given
        return html.message("Waiting for a turn."), seed

    def make(self, request: gr.Request) -> Iterator[tuple[Any, Any, Any, Any]]:
        """Make what was asked for; yield message, tokens, screen and strip as they change."""
        visitor = self.visitor(request)
        wish, visitor.wish = visitor.wish, None
        if wish is None:  # it was refused, or another one came after it
            yield gr.skip(), gr.skip(), gr.skip(), gr.skip()
            return
        stop, visitor.busy = visitor.stop, True
        try:
            yield from self._make(visitor, *wish, stop)
        except ValueError as error:  # as of a model that makes what is no number
            yield html.message(str(error), kind="alert"), gr.skip(), gr.skip(), gr.skip()
        finally:
            visitor.busy = False
            self.visitors.make_room(str(request.session_hash))

    def _make(
        self, visitor: Visitor, wish: Wish, given: Given | None, stop: Event
    ) -> Iterator[tuple[Any, Any, Any, Any]]:
        same = gr.skip()
        if stop.is_set():
            yield html.message(_UNBEGUN), same, same, same
            return
        yield same, *html.UNMADE
        sizes = self.maker.pipe.transformer.sizes
        grid = sizes.latent[0] // sizes.patch, sizes.latent[1] // sizes.patch
        made, small, sets, where = [], [], None, ""
        with closing(self.maker.make(wish, given, stop)) as events:
            for event in events:
                if not isinstance(event, Progress):
                    made += [*event]
                    small += [thumbnail_url(frame) for frame in event]
                    last = html.figure(picture_url(made[-1]), f"frame {len(made)}", "screen")
                    yield same, same, last, html.strip(small)
                    continue
                sets = sets_of(sets, event)
                picture = draw_tokens(event.tokens[0], sets, grid, sizes.patch)
                where = f"latent frame {event.frame + 1} of {event.frames}, "
                where += f"set {event.set + 1} of {event.sets}"
                shown = html.figure(picture_url(picture), where, "tokens")
                yield html.message(f"At work: {where}."), shown, same, same
        said = f"Made with seed {wish.seed}: {len(made)} of {wish.frames} frames."
        said += self.maker.remark(wish, given)
        if stop.is_set() and len(made) < wish.frames:
            finished = html.counted(len(made), "finished")
            said = f"Stopped at {where or 'the beginning'}; {finished}"
        if not made:
            yield html.message(said), same, same, same
            return
        visitor.made = np.stack(made)
        yield html.message(said), same, html.film(visitor.made, self.fps), same

    def stop(self, request: gr.Request) -> Any:
        """End what is made for a visitor, or what waits to be; what is at work says so itself."""
        visitor = self.visitor(request)
        visitor.stop.set()
        if visitor.busy:
            return gr.skip()
        return html.message("Nothing is at work." if visitor.wish is None else _UNBEGUN)

    def bring(self, path: str, request: gr.Request) -> tuple[str, Any]:
        """Read a file that was sent, and remove it; return a message and the easel."""
        try:
            given = read_upload(path, self.maker.bounds)
        except (ValueError, ImportError) as error:
            return html.message(str(error), kind="alert"), gr.skip()
        finally:
            Path(path).unlink(missing_ok=True)
        self.visitor(request).given = given
        self.visitors.make_room(str(request.session_hash))
        return html.message(html.counted(len(given), "here")), html.easel(given, self.fps)

    def take(self, request: gr.Request) -> tuple[str, Any]:
        """Take what was made last for what is given."""
        visitor = self.visitor(request)
        if visitor.made is None:
            return html.message("Nothing is made yet.", kind="alert"), gr.skip()
        visitor.given = torch.from_numpy(visitor.made)
        return html.message("What was made is here."), html.easel(visitor.given, self.fps)

    def drop(self, request: gr.Request) -> str:
        """Forget what a visitor brought."""
        self.visitor(request).given = None
        return html.easel(None, self.fps)

    def leave(self, request: gr.Request) -> None:
        """Forget a visitor whose tab is closed."""
        self.visitors.leave(str(request.session_hash))


def _whole(number: Any) -> Any:
    """Return a number of the page as an int where it is one; another is refused by its check."""
    return int(number) if isinstance(number, float) and number.is_integer() else number
