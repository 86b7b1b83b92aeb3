"""The page itself, of Gradio's parts; the rest of this folder does without."""

import os
import secrets
import signal
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from threading import Event
from typing import Any

import gradio as gr
import numpy as np
import torch
from gradio.themes import Default

from contar._errors import bad
from recipes._serve import html
from recipes._serve.guard import Guard
from recipes._serve.making import Maker
from recipes._serve.pictures import draw_tokens, picture_url, sets_of, thumbnail_url
from recipes._serve.uploads import read_mask, read_upload
from recipes._serve.visitors import Visitor, Visitors
from recipes._serve.watching import FramesMade
from recipes._serve.wish import Given, Wish

_HERE = Path(__file__).parent
_MEBIBYTES = 20  # of a file that is sent
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
                mask = read_mask(painted, bounds.height, bounds.width)
                given = Given(visitor.given, mask)
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
        empty = html.figure("", "the last frame that is finished", "screen")
        yield same, html.figure("", "tokens, set by set", "tokens"), empty, html.strip([])
        sizes = self.maker.pipe.transformer.sizes
        made, small, sets, where = [], [], None, ""
        events = self.maker.make(wish, given, stop)
        try:
            for event in events:
                if isinstance(event, FramesMade):
                    made += [*event.pixels]
                    small += [thumbnail_url(frame) for frame in event.pixels]
                    last = html.figure(picture_url(made[-1]), f"frame {len(made)}", "screen")
                    yield same, same, last, html.strip(small)
                    continue
                sets = sets_of(
                    None if event.set == 0 else sets, event.tokens, event.current, event.set
                )
                picture = draw_tokens(event.tokens, sets, self.maker.grid, sizes.patch)
                where = f"latent frame {event.frame + 1} of {event.frames}, "
                where += f"set {event.set + 1} of {event.sets}"
                shown = html.figure(picture_url(picture), where, "tokens")
                yield html.message(f"At work: {where}."), shown, same, same
        except ValueError as error:
            yield html.message(str(error), kind="alert"), same, same, same
            return
        finally:
            events.close()
        said = f"Made with seed {wish.seed}: {len(made)} of {wish.frames} frames."
        said += self.maker.remark(wish, given)
        if stop.is_set() and len(made) < wish.frames:
            finished = html.counted(len(made), "finished")
            said = f"Stopped at {where or 'the beginning'}; {finished}"
        if not made:
            yield html.message(said), same, same, same
            return
        visitor.made = np.stack(made)
        yield html.message(said), same, html.film(visitor.made, self.fps, "contar"), same

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


def build(desk: Desk, *, name: str, examples: Sequence[str]) -> gr.Blocks:
    """Return the page.

    Args:
        desk: what its parts call.
        name: of the model.
        examples: prompts to begin with.
    """
    bounds = desk.maker.bounds
    usual, plain = bounds.usual, {"queue": False, "show_progress": "hidden"}
    options: dict[str, Any] = {"api_visibility": "private"}
    with gr.Blocks(
        title=f"contar: {name}", analytics_enabled=False, delete_cache=(60, 600)
    ) as page:
        gr.HTML(
            f"<h1>contar: {name}</h1><p>Video frame by frame, each frame set by set of its "
            "tokens, in an order drawn by chance.</p>",
            elem_classes="contar-head",
        )
        with gr.Row():
            with gr.Column(scale=2, min_width=300):
                prompt = gr.Textbox(
                    label="What is to be seen", value=examples[0] if examples else "", lines=2,
                    elem_id="prompt",
                )  # fmt: skip
                with gr.Row():
                    make = gr.Button("Make", variant="primary", elem_id="make", min_width=100)
                    stop = gr.Button("Stop", variant="stop", elem_id="stop", min_width=100)
                said = gr.HTML(html.message("Nothing is made yet."), elem_id="said")
                if examples:
                    gr.Examples([[text] for text in examples], prompt, label="for example")
                with gr.Accordion(
                    "Go on from a picture or a clip, or change a part", open=False, elem_id="bring"
                ):
                    with gr.Row():
                        bring = gr.UploadButton(
                            "Choose a file", size="sm", elem_id="file", min_width=80
                        )
                        take = gr.Button("Take the result", size="sm", elem_id="take", min_width=80)
                        drop = gr.Button("Remove", size="sm", elem_id="drop", min_width=80)
                    easel = gr.HTML(html.easel(None, desk.fps), elem_id="easel")
                    grow = gr.Slider(
                        0, bounds.grow, value=1, step=1, elem_id="grow",
                        label="tokens that are made anew around what is painted",
                    )  # fmt: skip
                with gr.Accordion("Settings", open=False, elem_id="settings"):
                    frames = gr.Number(
                        usual["num_frames"], label="frames", info=f"at most {bounds.frames}",
                        elem_id="frames",
                    )  # fmt: skip
                    with gr.Row():
                        seed = gr.Number(0, label="seed", elem_id="seed", min_width=120)
                        anew = gr.Checkbox(
                            True, label="new each time", elem_id="anew", min_width=120
                        )
                    fast = gr.Checkbox(False, label="fast, not exact", elem_id="fast")
                    sets = gr.Slider(
                        1, bounds.sets, value=usual["num_inference_steps"], step=1, elem_id="sets",
                        label="sets of a frame",
                    )  # fmt: skip
                    steps = gr.Slider(
                        1, max(1, bounds.steps), value=usual["num_diffusion_steps"], step=1,
                        label="diffusion steps of a set", visible=bool(bounds.steps),
                    )  # fmt: skip
                    guidance = gr.Slider(
                        0, bounds.guidance, value=usual["guidance_scale"], step=0.05,
                        label="guidance, how closely the words are kept to",
                    )  # fmt: skip
                    pause = gr.Slider(
                        0, bounds.pause, value=0.1, step=0.05, elem_id="pause",
                        label="pause after a set, in seconds, to follow it",
                    )  # fmt: skip
            with gr.Column(scale=3, min_width=300):
                with gr.Row():
                    tokens = gr.HTML(
                        html.figure("", "tokens, set by set", "tokens"), elem_id="tokens",
                        min_width=140,
                    )  # fmt: skip
                    screen = gr.HTML(
                        html.figure("", "the last frame that is finished", "screen"),
                        elem_id="screen", min_width=140,
                    )  # fmt: skip
                strip = gr.HTML(html.strip([]), elem_id="strip")
        painted = gr.Textbox(visible=False)
        asked = [prompt, frames, anew, seed, fast, sets, steps, guidance, pause, grow, painted]
        paint = "(...asked) => [...asked.slice(0, -1), window.contarPainted()]"
        gr.on(
            [make.click, prompt.submit], desk.ask, asked, [said, seed], js=paint, **plain, **options
        ).then(
            desk.make, None, [said, tokens, screen, strip], concurrency_limit=1,
            show_progress="minimal", show_progress_on=said, **options,
        )  # fmt: skip
        stop.click(desk.stop, None, said, **plain, **options)
        bring.upload(desk.bring, bring, [said, easel], show_progress="minimal", **options)
        take.click(desk.take, None, [said, easel], **plain, **options)
        drop.click(desk.drop, None, easel, **plain, **options)
        page.unload(desk.leave)
    return page


def serve(
    maker: Maker, *, name: str, examples: Sequence[str], host: str, port: int, waiting: int
) -> None:
    """Open the page at `http://host:port`, say so, and return when Ctrl-C or SIGTERM stops it.

    Files that are sent are in a folder of this process until they are read, and go with it.

    Args:
        maker: at work for all who come.
        name: of the model.
        examples: prompts to begin with.
        host: address to listen at.
        port: likewise.
        waiting: visitors that may wait for a turn.

    Raises:
        ValueError: the port is taken, or the host is none of this machine's.
    """
    with tempfile.TemporaryDirectory(prefix="contar-serve-") as folder:
        os.environ["GRADIO_TEMP_DIR"] = folder
        page = build(Desk(maker, Visitors()), name=name, examples=examples).queue(max_size=waiting)
        shape = f":root {{ --shape: {maker.bounds.width} / {maker.bounds.height}; }}\n"
        guard = (Guard, (), {"most": (_MEBIBYTES + 1) * 2**20})
        font = ["system-ui", "sans-serif"]
        try:
            page.launch(
                server_name=host, server_port=port, share=False, inbrowser=False, quiet=True,
                prevent_thread_lock=True, footer_links=[], max_file_size=f"{_MEBIBYTES}mb",
                app_kwargs={"middleware": [guard]}, ssr_mode=False, enable_monitoring=False,
                theme=Default(font=font, font_mono=["ui-monospace", "monospace"]),
                css=shape + (_HERE / "page.css").read_text(encoding="utf-8"),
                head=f"<script>{(_HERE / 'painting.js').read_text(encoding='utf-8')}</script>",
            )  # fmt: skip
        except OSError as error:
            raise bad("port", port, f"one that is free at {host}") from error
        print(f"{name} is at http://{host}:{port} until Ctrl-C stops it.", flush=True)
        usual = signal.signal(signal.SIGTERM, signal.default_int_handler)
        try:
            page.block_thread()
        finally:
            signal.signal(signal.SIGTERM, usual)
            page.close(verbose=False)
