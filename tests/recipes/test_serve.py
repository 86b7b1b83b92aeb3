"""What the page of `contar serve` does, without Gradio: bounds, watching, uploads, visitors."""

import asyncio
import base64
import io
import re
import sys
import tempfile
import threading
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from threading import Event, Semaphore
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from contar.generation import Progress
from contar.media import write_video
from recipes import nova
from recipes._serve import html
from recipes._serve.guard import Guard
from recipes._serve.making import Maker
from recipes._serve.pictures import (
    GIVEN,
    TO_COME,
    draw_tokens,
    film_suffix,
    film_url,
    picture_url,
    sets_of,
    thumbnail_url,
)
from recipes._serve.uploads import read_mask, read_upload
from recipes._serve.visitors import Visitors
from recipes._serve.wish import PAUSES, Bounds, Given, Wish, bounds_of, options
from recipes.moving_digits import left_open

WISH = {"prompt": "a seven moves left", "frames": 5, "sets": 4, "steps": 2, "guidance": 1.5}


def wish(**changes: Any) -> Wish:
    return Wish(**{**WISH, "seed": 3, **changes})


@pytest.fixture(scope="module")
def maker() -> Maker:
    pipe = nova.from_pretrained("moving-digits", dtype=torch.float32)
    return Maker(pipe, bounds_of(pipe))


@pytest.fixture(scope="module")
def bounds(maker) -> Bounds:
    return maker.bounds


def see(maker: Maker, asked: Wish, given: Given | None = None) -> list[Progress | np.ndarray]:
    return [*maker.make(asked, given, Event())]


def pixels(events: list[Progress | np.ndarray]) -> np.ndarray:
    return np.concatenate([event for event in events if not isinstance(event, Progress)])


def working() -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if thread.name == "generation"]


def test_a_result_may_be_four_times_as_long_as_learned_or_as_the_host_says(maker):
    assert (maker.bounds.frames, maker.bounds.sets, maker.bounds.height) == (65, 16, 64)
    assert bounds_of(maker.pipe, frames=12).frames == 9  # 12 the tokenizer cannot make


@pytest.mark.parametrize(
    ("name", "value", "said"),
    [
        ("prompt", "a" * 301, "at most 300"),
        ("prompt", "\udc80", "surrogates"),
        ("frames", 69, "to 65"),
        ("frames", 6, "5 or 9 frames"),
        ("frames", None, "an integer"),
        ("sets", 17, "to 16"),
        ("sets", 0, "at least 1"),
        ("steps", 101, "to 100"),
        ("guidance", 21.0, "[0, 20.0]"),
        ("seed", -1, "at least 0"),
        ("seed", 2**63, "to 9223372036854775807"),
        ("grow", 5, "to 4"),
        ("pause", 1.5, "[0, 1.0]"),
    ],
)
def test_a_wish_beyond_the_bounds_is_refused_before_its_turn(maker, refuses, name, value, said):
    with refuses(name, said):
        maker.check(wish(**{name: value}), None)
    assert not working()


def test_longer_than_learned_is_made_in_chunks_and_fast_takes_another_solver(maker):
    assert options(maker.pipe, wish(), None)["plan_changes"] is None
    long = options(maker.pipe, wish(frames=65, fast=True), None)["plan_changes"]
    assert (long["chunk"], long["overlap"], long["diffusion_steps"]) == (5, 2, 3)
    assert len(pixels(see(maker, wish(frames=21, sets=1, steps=1)))) == 21
    assert len(pixels(see(maker, wish(fast=True)))) == 5


def test_a_clip_is_gone_on_from_by_its_end_and_a_picture_by_itself(maker):
    clip = torch.arange(20, dtype=torch.uint8)[:, None, None, None].expand(-1, 64, 64, 3)
    given = options(maker.pipe, wish(frames=17), Given(clip))["video"]
    assert given[:, 0, 0, 0].tolist() == [15, 16, 17, 18, 19]  # 2 of 5 latent frames
    blank = torch.zeros(64, 64, dtype=torch.bool)
    assert options(maker.pipe, wish(), Given(clip[:1], blank))["video"].equal(clip[:1])
    painted = options(maker.pipe, wish(frames=9), Given(clip, ~blank))
    assert painted["video"][:, 0, 0, 0].tolist() == [*range(9)]  # what is edited begins at 0


def test_every_set_and_every_frame_is_seen_as_it_is_made(maker):
    events = see(maker, wish())
    kinds = [type(event) for event in events]
    assert kinds == [*[Progress] * 4, np.ndarray] * 2
    drawn = [event for event in events if isinstance(event, Progress)]
    assert [(e.frame, e.set, e.frames, e.sets) for e in drawn] == [
        (t, k, 2, 4) for t in range(2) for k in range(4)
    ]
    for event, later in pairwise(drawn[:4]):
        shown = event.tokens[0].any(1)
        assert later.tokens[0, shown].equal(event.tokens[0, shown])
        assert not shown[later.current[0]].any()
    whole = maker.pipe(
        "a seven moves left", num_frames=5, num_inference_steps=4, num_diffusion_steps=2,
        guidance_scale=1.5, generator=torch.Generator().manual_seed(3),
    ).frames[0]  # fmt: skip
    assert np.abs(pixels(events).astype(int) - whole).max() <= 1  # rounding of pieces
    assert not working()


class Paced(Event):
    """Has each set wait until the one before was seen."""

    def __init__(self) -> None:
        super().__init__()
        self.seen = Semaphore(0)

    def wait(self, timeout: float | None = None) -> bool:
        assert self.seen.acquire(timeout=60)
        return self.is_set()


def test_a_generation_ends_after_the_set_at_work_when_it_is_stopped(maker):
    stop, events = Paced(), []
    for event in maker.make(wish(frames=17, pause=0.02), None, stop):
        events.append(event)
        if len(events) == 7:
            stop.set()
        if isinstance(event, Progress):
            stop.seen.release()
    assert len(events) == 7
    assert len(pixels(events)) == 1
    assert not working()


def test_a_generation_that_is_left_is_over_and_the_next_one_is_as_ever(maker):
    events = maker.make(wish(frames=17, pause=1.0), None, Event())
    next(events)
    assert working()
    events.close()
    assert not working()
    assert len(pixels(see(maker, wish(sets=1)))) == 5


def test_all_pauses_of_a_result_are_bounded(maker, monkeypatch):
    seen = []

    def watch(*_: Any, pause: float):
        seen.append(pause)
        yield from ()

    monkeypatch.setattr("recipes._serve.making.watch", watch)
    assert not [*maker.make(wish(frames=65, sets=16, pause=1.0), None, Event())]
    sets = 17 * 16
    assert sets * seen[0] <= PAUSES


def test_what_a_generation_raises_comes_to_the_one_who_watches(maker):
    def broken(*_: Any, **__: Any):
        raise RuntimeError("out of memory")
        yield

    real, maker.pipe.stream = maker.pipe.stream, broken
    try:
        with pytest.raises(RuntimeError, match="out of memory"):
            see(maker, wish())
    finally:
        maker.pipe.stream = real
    assert not working()


def test_what_a_prompt_leaves_to_the_model_is_said(maker):
    plain, digits = maker, Maker(maker.pipe, maker.bounds, left_open)
    assert plain.remark(wish(prompt="a cat"), None) == ""
    assert digits.remark(wish(), None) == ""
    said = digits.remark(wish(prompt="a cat"), None)
    assert said.startswith(" 'a cat' says no digit")
    assert said.endswith(": the model makes what it likes.")
    frames = torch.zeros(1, 64, 64, 3, dtype=torch.uint8)
    assert "no digit" not in digits.remark(wish(prompt="it"), Given(frames))
    assert digits.remark(wish(prompt="a three", frames=1), None) == ""


def test_tokens_have_the_number_of_their_set_and_given_ones_none(maker):
    mask = torch.zeros(64, 64, dtype=torch.bool)
    mask[32:] = True  # two of four rows of tokens
    clip = torch.full((1, 64, 64, 3), 200, dtype=torch.uint8)
    sets: Any = None
    for event in see(maker, wish(frames=1, sets=3, grow=0), Given(clip, mask)):
        if isinstance(event, Progress):
            sets = sets_of(sets, event)
            assert sets.view(4, 4)[:2].eq(GIVEN).all()
            assert (sets == TO_COME).equal(~event.tokens[0].any(1))
    assert sorted(set(sets.view(4, 4)[2:].flatten().tolist())) == [0, 1, 2]


def test_what_was_not_painted_comes_back_as_it_was(maker):
    mask = torch.zeros(64, 64, dtype=torch.bool)
    mask[32:] = True
    clip = torch.randint(256, (5, 64, 64, 3), dtype=torch.uint8)
    made = pixels(see(maker, wish(grow=0), Given(clip, mask)))
    assert torch.from_numpy(made)[:, :32].equal(clip[:, :32])
    assert not torch.from_numpy(made)[:, 32:].equal(clip[:, 32:])


def test_the_picture_of_tokens_has_grey_for_what_is_to_come_and_orange_for_what_is_new():
    tokens = torch.zeros(4, 16)
    tokens[:2] = 8.0  # beyond the range: white
    picture = draw_tokens(tokens, torch.tensor([GIVEN, 1, TO_COME, TO_COME]), (2, 2), 2)
    assert picture.size == (384, 384)
    assert picture.getpixel((96, 96)) == (255, 255, 255)
    assert picture.getpixel((96, 288)) == (128, 128, 136)
    assert picture.getpixel((2, 2)) == (255, 255, 255)  # given: no frame
    assert picture.getpixel((194, 2)) == (255, 120, 30)
    many = draw_tokens(torch.randn(1440, 16), torch.zeros(1440, dtype=torch.int64), (30, 48), 2)
    assert many.size == (384, 240)


def test_pictures_and_films_are_data_urls_and_leave_no_file(tmp_path, monkeypatch):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    frames = np.random.default_rng(0).integers(0, 256, (5, 32, 48, 3), dtype=np.uint8)
    shown = [picture_url(frames[0]), thumbnail_url(frames[0]), film_url(frames[:1], 8, ".png")]
    for url in shown:
        assert url.startswith("data:image/png;base64,")
        content = base64.b64decode(url.split(",")[1])
        with Image.open(io.BytesIO(content)) as picture:
            assert np.array_equal(np.asarray(picture), frames[0])
    assert picture_url(np.zeros((480, 768, 3), np.uint8)).startswith("data:image/jpeg")
    assert [film_suffix(frames[:1]), film_suffix(frames)] == [".png", ".mp4"]
    url = film_url(frames, 8, ".mp4")
    assert b"ftyp" in base64.b64decode(url.split(",")[1])[:16]
    assert not [*tmp_path.iterdir()]


def test_without_av_a_film_is_an_animation(monkeypatch):
    monkeypatch.setitem(sys.modules, "av", None)
    shown = html.film(np.zeros((5, 32, 48, 3), np.uint8), 60)
    assert 'download="contar.gif"' in shown
    url = re.search(r'<img src="data:image/gif;base64,([^"]*)"', shown)
    assert url is not None
    assert base64.b64decode(url[1]).startswith(b"GIF8")


def test_a_picture_is_cut_to_the_models_shape(bounds, tmp_path):
    Image.new("RGB", (300, 200), (10, 200, 30)).save(tmp_path / "green.jpg", quality=95)
    frames = read_upload(tmp_path / "green.jpg", bounds)
    assert frames.shape == (1, 64, 64, 3)
    assert (frames[0, 0, 0] - torch.tensor([10, 200, 30])).abs().max() <= 3


def test_of_a_clip_the_last_frames_are_taken_at_the_models_rate(bounds, tmp_path):
    frames = np.arange(200, dtype=np.uint8)[:, None, None, None]
    frames = np.broadcast_to(frames, (200, 48, 64, 3)).copy()
    write_video(frames, tmp_path / "grey.mp4", fps=16)
    got = read_upload(tmp_path / "grey.mp4", bounds)
    assert got.shape == (65, 64, 64, 3)
    steps = got[:, 32, 32, 0].int().diff().float()
    assert abs(float(steps.mean()) - 2) < 0.05  # every second frame
    assert abs(int(got[-1, 32, 32, 0]) - 198) <= 2


@pytest.mark.parametrize("kind", ["text", "damaged", "huge", "long", "gone"])
def test_a_file_beyond_the_bounds_is_refused_without_the_servers_folders(bounds, tmp_path, kind):
    file = tmp_path / ("a.txt" if kind == "text" else "a.png")
    file.write_bytes(b"\x89PNG\r\n\x1a\nnothing")
    if kind == "huge":
        Image.new("1", (8192, 8192)).save(file)
    elif kind == "long":
        file = write_video(np.zeros((70, 32, 32, 3), np.uint8), tmp_path / "a.mp4", fps=1)
    elif kind == "gone":
        file.unlink()
    words = {
        "text": "ends in .png", "damaged": "can be decoded", "huge": "at most 16777216",
        "long": "at most 60 s", "gone": "send it again",
    }  # fmt: skip
    with pytest.raises(ValueError, match=f"file: got .*, allowed: .*{words[kind]}") as caught:
        read_upload(file, bounds)
    assert str(tmp_path) not in str(caught.value)


def test_postscript_that_is_sent_as_a_picture_is_run_by_nothing(bounds, postscript, refuses):
    file, traces = postscript
    with refuses("file", "evil.png"):
        read_upload(file, bounds)
    assert not traces.exists()


def test_more_pixels_than_pillow_takes_are_refused_by_name(bounds, bomb, tmp_path, refuses):
    (tmp_path / "a.png").write_bytes(bomb)
    with refuses("file", "at most 16777216"):
        read_upload(tmp_path / "a.png", bounds)
    with refuses("mask", "damaged"):
        read_mask("data:image/png;base64," + base64.b64encode(bomb).decode(), 4, 6)


def test_a_mask_is_what_is_painted_and_nothing_where_nothing_is():
    canvas = Image.new("RGBA", (6, 4))
    canvas.paste((255, 255, 255, 255), (0, 0, 2, 4))
    mask = read_mask(picture_url(canvas), 4, 6)
    assert mask.shape == (4, 6)
    assert mask[:, :2].all()
    assert not mask[:, 2:].any()
    assert not read_mask("", 4, 6).any()


@pytest.mark.parametrize(
    "url",
    [
        "http://elsewhere/mask.png",
        "data:image/png;base64,%%%",
        "data:image/png;base64,aGVsbG8=",
        picture_url(Image.new("RGBA", (7, 4))),
        "data:image/png;base64," + "A" * 100_000,
    ],
)
def test_another_mask_is_refused(refuses, url):
    with refuses("mask"):
        read_mask(url, 4, 6)


def test_a_visitor_who_leaves_is_forgotten_and_what_was_made_for_it_stops():
    visitors = Visitors(most=2)
    first, second = visitors.of("a"), visitors.of("b")
    assert visitors.of("a") is first
    before = first.stop
    first.begin()
    assert before.is_set()  # what it asked for before
    assert not first.stop.is_set()
    visitors.of("c")  # b was idle longest
    assert second.stop.is_set()
    visitors.leave("a")
    assert first.stop.is_set()
    assert len(visitors) == 1
    assert visitors.of("a") is not first
    visitors.leave("nobody")
    last = [visitors.of("a"), visitors.of("d")]
    visitors.leave_all()
    assert not len(visitors)
    assert all(visitor.stop.is_set() for visitor in last)


def test_of_too_many_visitors_none_at_work_is_forgotten():
    visitors = Visitors(most=1)
    first = visitors.of("a")
    first.busy = True
    second = visitors.of("b")
    assert not first.stop.is_set()
    assert not second.stop.is_set()
    visitors.of("c")
    assert second.stop.is_set()
    assert visitors.of("a") is first


def test_of_visitors_who_hold_too_much_the_longest_idle_is_forgotten():
    visitors = Visitors(room=100)
    first, second, third = map(visitors.of, "abc")
    first.given = torch.zeros(2, 5, 3, 3, dtype=torch.uint8)  # 90 bytes
    second.made = np.zeros((1, 1, 1, 3), np.uint8)
    visitors.make_room("b")
    assert len(visitors) == 3
    third.given = torch.zeros(1, 1, 3, 3, dtype=torch.uint8)
    visitors.make_room("c")
    assert visitors.of("b") is second
    assert visitors.of("c") is third
    assert first.stop.is_set()
    assert visitors.of("a").given is None
    for visitor in (second, third):
        visitor.given = torch.zeros(4, 5, 3, 3, dtype=torch.uint8)
    second.busy = True
    visitors.make_room("c")  # one is at work, one asks: both stay, however much they hold
    assert len(visitors) == 2
    assert not second.stop.is_set()
    assert not third.stop.is_set()


def answer(method: str, headers: list[tuple[bytes, bytes]], kind: str = "http") -> list[Any]:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": [(b"x", b"y")]})

    async def take(part: Any) -> None:
        parts.append(part)

    parts: list[Any] = []
    scope = {"type": kind, "method": method, "headers": headers}
    asyncio.run(Guard(app, 100)(scope, None, take))
    return parts


def test_the_browser_is_told_to_ask_no_other_server():
    headers = dict(answer("GET", [])[0]["headers"])
    assert headers[b"x"] == b"y"
    assert b"default-src 'self'" in headers[b"content-security-policy"]
    assert b"http" not in headers[b"content-security-policy"]


@pytest.mark.parametrize(
    ("length", "status"), [(b"100", 200), (b"101", 413), (b"", 413), (b"-1", 413)]
)
def test_a_request_that_is_too_long_is_refused(length, status):
    assert answer("POST", [(b"content-length", length)])[0]["status"] == status


def test_one_frame_is_and_others_are():
    assert html.counted(1, "here") == "1 frame is here."
    assert html.counted(0, "finished") == "0 frames are finished."


def test_what_a_visitor_typed_is_no_html():
    said = html.message("<script>alert(1)</script>", kind="alert")
    assert "<script>" not in said
    assert 'role="alert"' in said
    assert "<b>" not in html.figure("", "<b>", "screen")


def test_the_easel_shows_a_picture_or_a_clip_that_moves():
    frames = torch.zeros(3, 8, 16, 3, dtype=torch.uint8)
    assert "data:image/png" in html.easel(frames[:1], 8)
    shown = html.easel(frames, 8)
    assert "data:image/gif" in shown
    assert 'width="16" height="8"' in shown
    assert "<canvas" not in html.easel(None, 8)


def test_without_gradio_the_command_says_what_to_install(main, monkeypatch):
    monkeypatch.setitem(sys.modules, "gradio", None)
    monkeypatch.delitem(sys.modules, "recipes._serve.page", raising=False)
    with pytest.raises(SystemExit, match=r'gradio is not installed \(pip install "contar\[web\]"'):
        main("serve")


@pytest.mark.parametrize(("option", "value"), [("port", "0"), ("port", "65536"), ("waiting", "0")])
def test_the_command_refuses_by_name(main, option, value):
    with pytest.raises(SystemExit, match=f"contar: .*{option}: got {value}"):
        main("serve", f"--{option}", value)


def test_the_page_brings_its_style_and_its_script_along():
    folder = Path(html.__file__).parent
    assert "canvas.paint" in (folder / "painting.js").read_text(encoding="utf-8")
    assert (folder / "page.css").stat().st_size > 0


def test_a_visitor_is_told_what_ends_the_work(maker, monkeypatch):
    gradio = pytest.importorskip("gradio")
    from recipes._serve.desk import Desk

    desk, request = Desk(maker, Visitors()), gradio.Request(session_hash="a")
    visitor = desk.visitor(request)
    visitor.wish = wish(), None

    def fail(*given: object) -> Iterator[Any]:
        raise ValueError("pixels: got 'NaN', allowed: finite ones")
        yield

    monkeypatch.setattr(maker, "make", fail)
    told = [*desk.make(request)]
    assert "pixels: got" in told[-1][0]
    assert "alert" in told[-1][0]
    assert not visitor.busy
