"""The page itself, of Gradio's parts, which call a `Desk`; the rest of this folder does without."""

import os
import signal
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import gradio as gr
from gradio.themes import Default

from contar._errors import bad
from recipes._serve import html
from recipes._serve.desk import Desk
from recipes._serve.guard import Guard
from recipes._serve.making import Maker
from recipes._serve.visitors import Visitors
from recipes._serve.wish import GROW, GUIDANCE, PAUSE, Bounds

Parts = dict[str, Any]  # of the page, by name

_HERE = Path(__file__).parent
_MEBIBYTES = 20  # of a file that is sent
# What `Desk.ask` is given, in its order.
_ASKED = (
    "prompt", "frames", "anew", "seed", "fast", "sets", "steps", "guidance", "pause", "grow",
    "painted",
)  # fmt: skip


def build(desk: Desk, *, name: str, examples: Sequence[str]) -> gr.Blocks:
    """Return the page of a model of that name, whose parts call the desk; examples are prompts."""
    bounds = desk.maker.bounds
    with gr.Blocks(
        title=f"contar: {name}", analytics_enabled=False, delete_cache=(60, 600)
    ) as page:
        gr.HTML(
            f"<h1>contar: {name}</h1><p>Video frame by frame, each frame set by set of its "
            "tokens, in an order drawn by chance.</p>",
            elem_classes="contar-head",
        )
        with gr.Row():
            with gr.Column(scale=2, min_width=300, elem_classes="contar-asked"):
                parts = _sentence(examples) | _own_frames(desk.fps) | _settings(bounds)
            with gr.Column(scale=3, min_width=300, elem_classes="contar-made"):
                parts |= _results()
        parts["painted"] = gr.Textbox(visible=False)
        _connect(parts, desk)
        page.unload(desk.leave)
    return page


def _sentence(examples: Sequence[str]) -> Parts:
    """Place what is to be seen, the buttons, and what is said of it."""
    first = examples[0] if examples else ""
    prompt = gr.Textbox(first, label="What is to be seen", lines=2, elem_id="prompt")
    parts: Parts = {"prompt": prompt}
    with gr.Row():
        parts["make"] = gr.Button("Make", variant="primary", elem_id="make", min_width=100)
        parts["stop"] = gr.Button("Stop", variant="stop", elem_id="stop", min_width=100)
    parts["said"] = gr.HTML(html.message("Nothing is made yet."), elem_id="said")
    if examples:
        gr.Examples([[text] for text in examples], parts["prompt"], label="for example")
    return parts


def _own_frames(fps: float) -> Parts:
    """Place what a visitor brings: a picture or a clip, and what of it is made anew."""
    parts: Parts = {}
    title, small = (
        "Go on from a picture or a clip, or change a part",
        {"size": "sm", "min_width": 80},
    )
    with gr.Accordion(title, open=False, elem_id="bring"):
        with gr.Row():
            parts["bring"] = gr.UploadButton("Choose a file", elem_id="file", **small)
            parts["take"] = gr.Button("Take the result", elem_id="take", **small)
            parts["drop"] = gr.Button("Remove", elem_id="drop", **small)
        parts["easel"] = gr.HTML(html.easel(None, fps), elem_id="easel")
        around = "tokens that are made anew around what is painted"
        parts["grow"] = gr.Slider(0, GROW, 1, step=1, elem_id="grow", label=around)
    return parts


def _settings(bounds: Bounds) -> Parts:
    """Place the numbers of a generation."""
    parts, usual = {}, bounds.usual
    with gr.Accordion("Settings", open=False, elem_id="settings"):
        parts["frames"] = gr.Number(
            usual["num_frames"], label="frames", info=f"at most {bounds.frames}", elem_id="frames"
        )
        with gr.Row():
            parts["seed"] = gr.Number(0, label="seed", elem_id="seed", min_width=120)
            parts["anew"] = gr.Checkbox(True, label="new each time", elem_id="anew", min_width=120)
        parts["fast"] = gr.Checkbox(False, label="fast, not exact", elem_id="fast")
        for name, least, most, value, step, label in (
            ("sets", 1, bounds.sets, usual["num_inference_steps"], 1, "sets of a frame"),
            ("steps", 1, max(1, bounds.steps), usual["num_diffusion_steps"], 1,
             "diffusion steps of a set"),
            ("guidance", 0, GUIDANCE, usual["guidance_scale"], 0.05,
             "guidance, how closely the words are kept to"),
            ("pause", 0, PAUSE, 0.1, 0.05,
             "pause after a set, in seconds, to follow it"),
        ):  # fmt: skip
            parts[name] = gr.Slider(
                least, most, value, step=step, label=label, elem_id=name,
                visible=name != "steps" or bool(bounds.steps),
            )  # fmt: skip
    return parts


def _results() -> Parts:
    """Place what is made: the tokens of a frame, the last frame, and all frames so far."""
    tokens, screen, strip = html.UNMADE
    with gr.Row():
        parts: Parts = {"tokens": gr.HTML(tokens, elem_id="tokens", min_width=140)}
        parts["screen"] = gr.HTML(screen, elem_id="screen", min_width=140)
    return {**parts, "strip": gr.HTML(strip, elem_id="strip")}


def _connect(parts: Parts, desk: Desk) -> None:
    """Have the parts call the desk."""
    said, easel = parts["said"], parts["easel"]
    plain: dict[str, Any] = {"queue": False, "show_progress": "hidden", "api_visibility": "private"}
    slow: dict[str, Any] = {"show_progress": "minimal", "api_visibility": "private"}
    paint = "(...asked) => [...asked.slice(0, -1), window.contarPainted()]"
    gr.on(
        [parts["make"].click, parts["prompt"].submit], desk.ask, [parts[name] for name in _ASKED],
        [said, parts["seed"]], js=paint, **plain,
    ).then(
        desk.make, None, [said, *(parts[name] for name in ("tokens", "screen", "strip"))],
        concurrency_limit=1, show_progress_on=said, **slow,
    )  # fmt: skip
    parts["stop"].click(desk.stop, None, said, **plain)
    parts["bring"].upload(desk.bring, parts["bring"], [said, easel], **slow)
    parts["take"].click(desk.take, None, [said, easel], **plain)
    parts["drop"].click(desk.drop, None, easel, **plain)


def serve(
    maker: Maker, *, name: str, examples: Sequence[str], host: str, port: int, waiting: int
) -> None:
    """Open the page at `http://host:port`, say so, and return when Ctrl-C or SIGTERM stops it.

    Files that are sent are in a folder of this process until they are read, and go with it.
    Visitors that may wait for a turn are `waiting`; the rest as in `build`.

    Raises:
        ValueError: the port is taken, or the host is none of this machine's.
    """
    usual = signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        with tempfile.TemporaryDirectory(prefix="contar-serve-") as folder:
            os.environ["GRADIO_TEMP_DIR"] = folder
            visitors = Visitors()
            page = build(Desk(maker, visitors), name=name, examples=examples)
            try:
                _launch(page.queue(max_size=waiting), maker.bounds, host, port)
                print(f"{name} is at http://{host}:{port} until Ctrl-C stops it.", flush=True)
                while True:
                    time.sleep(1)
            finally:
                visitors.leave_all()  # Python waits for threads in which something is made
                page.close(verbose=False)
    except KeyboardInterrupt:
        return
    finally:
        signal.signal(signal.SIGTERM, usual)


def _launch(page: gr.Blocks, bounds: Bounds, host: str, port: int) -> None:
    """Open the page in threads of its own."""
    shape = f":root {{ --shape: {bounds.width} / {bounds.height}; }}\n"
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
