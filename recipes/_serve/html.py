"""The pieces of the page that change, as HTML; what a visitor typed is escaped."""

from html import escape

import numpy as np

from contar._typing import Tensor, UInt8
from recipes._serve.pictures import film_suffix, film_url, picture_url


def message(text: str, *, kind: str = "status") -> str:
    """Return a line that says where things stand; of `kind` "alert", what was refused."""
    return f'<p class="message {kind}" role="{kind}">{escape(text)}</p>'


def counted(frames: int, what: str) -> str:
    """Return the sentence that so many frames are `what`."""
    return f"1 frame is {what}." if frames == 1 else f"{frames} frames are {what}."


def figure(url: str, caption: str, name: str) -> str:
    """Return a picture of class `name` with a line below it; without a URL, its empty place."""
    shown = f'<img src="{url}" alt="{escape(caption)}">' if url else '<div class="empty"></div>'
    return f'<figure class="{name}">{shown}<figcaption>{escape(caption)}</figcaption></figure>'


def film(frames: UInt8[np.ndarray, "t h w 3"], fps: float) -> str:
    """Return what was made, playing, with a link that saves it."""
    suffix = film_suffix(frames)
    url = film_url(frames, fps, suffix)
    count = "1 frame" if len(frames) == 1 else f"{len(frames)} frames, {fps:g} a second"
    save = f'<a class="save" download="contar{suffix}" href="{url}">Save {suffix}</a>'
    shown = f'<img src="{url}" alt="what was made">'
    if suffix == ".mp4":
        shown = f'<video src="{url}" autoplay loop muted playsinline></video>'
    below = f"<figcaption><span>{count}</span>{save}</figcaption>"
    return f'<figure class="screen">{shown}{below}</figure>'


def strip(thumbnails: list[str]) -> str:
    """Return all frames so far, small."""
    shown = "".join(
        f'<img src="{url}" alt="frame {number}" title="frame {number}">'
        for number, url in enumerate(thumbnails)
    )
    return f'<div class="strip">{shown}</div>'


UNMADE = (
    figure("", "tokens, set by set", "tokens"),
    figure("", "the last frame that is finished", "screen"),
    strip([]),
)
"""Tokens, the last frame and all frames, before there is one."""


def easel(given: UInt8[Tensor, "n h w 3"] | None, fps: float) -> str:
    """Return a canvas to paint on what a visitor brought, or a word where nothing was brought."""
    if given is None:
        return '<p class="hint">Nothing is brought: all is made from the words.</p>'
    frames = given.numpy()
    height, width = frames.shape[1:3]
    url = picture_url(frames[0]) if len(frames) == 1 else film_url(frames, fps, ".gif")
    what = "A picture." if len(frames) == 1 else f"A clip of {len(frames)} frames."
    return f"""<div class="easel">
<div class="paper" style="background-image: url({url}); aspect-ratio: {width} / {height}">
<canvas class="paint" width="{width}" height="{height}" aria-label="paint what is made anew">
</canvas></div>
<div class="brush"><label>brush <input type="range" class="brush-size" min="1" max="10" value="4">
</label><button type="button" class="wipe">wipe</button></div>
<p class="hint">{what} Paint what is to be made anew, in every frame alike. If nothing is painted,
what is made goes on from it.</p></div>"""
