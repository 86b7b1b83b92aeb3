"""The page of `contar serve` in a real browser; skipped where one is missing (`make browser`)."""

import base64
import io
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from browsing import chromium, missing
from PIL import Image

ROOT = Path(__file__).parents[2]
MISSING = missing("gradio")
pytestmark = pytest.mark.skipif(bool(MISSING), reason=f"needs {', '.join(MISSING)}: make browser")
# Keeps every picture of tokens that comes, with what is said at the time.
RECORD = """() => {
  window.seen = [];
  new MutationObserver(() => {
    const source = document.querySelector("#tokens img")?.src;
    if (source && window.seen.at(-1)?.source !== source)
      window.seen.push({source, said: document.querySelector("#said").innerText});
  }).observe(document.querySelector("#tokens"), {subtree: true, childList: true, attributes: true});
}"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """Where the server's temporary files go."""
    return tmp_path_factory.mktemp("server")


@pytest.fixture(scope="module")
def server(folder) -> Iterator[subprocess.Popen[str]]:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [sys.executable, "-m", "recipes.cli", "serve", "--port", str(port)]
    env = {**os.environ, "TMPDIR": str(folder), "OMP_NUM_THREADS": "1"}
    with subprocess.Popen(command, cwd=ROOT, env=env, stdout=subprocess.PIPE, text=True) as process:
        process.args = port
        yield process
        process.kill()


@pytest.fixture(scope="module")
def asked() -> list[str]:
    """Addresses that any tab has asked for."""
    return []


@pytest.fixture(scope="module")
def browser(server, asked, tmp_path_factory) -> Iterator[Any]:
    profile, size = tmp_path_factory.mktemp("profile"), {"width": 1280, "height": 900}
    with chromium(profile, viewport=size) as context:
        context.on("request", lambda request: asked.append(request.url))
        line = server.stdout.readline()  # while the browser began, the server has loaded
        assert "until Ctrl-C stops it" in line
        yield context


@pytest.fixture
def tab(browser, server) -> Iterator[Any]:
    page = opened(browser, server)
    yield page
    page.close()


def opened(browser: Any, server: Any) -> Any:
    page = browser.new_page()
    page.goto(f"http://127.0.0.1:{server.args}/")
    page.wait_for_selector("#make")
    return page


def set_up(page: Any, *, prompt: str = "a seven moves left", seed: int = 3, **numbers: Any) -> None:
    """Type a prompt and what is in the settings."""
    page.fill("#prompt textarea", prompt)
    if not page.is_visible("#seed input"):
        page.click("#settings > button")
    page.uncheck("#anew input")
    for name, value in {"seed": seed, **numbers}.items():
        box = page.locator(f"#{name} input[type=number]")
        box.fill(str(value))
        box.press("Tab")


def wait_for(page: Any, words: str) -> str:
    """Wait until the page says so; return what it says."""
    page.wait_for_function(
        "words => document.querySelector('#said').innerText.includes(words)", arg=words
    )
    return page.inner_text("#said .message")


def picture(url: str) -> np.ndarray:
    with Image.open(io.BytesIO(base64.b64decode(url.split(",")[1]))) as image:
        return np.asarray(image.convert("RGB"))


def kept(folder: Path) -> list[Path]:
    """Return files in which something is; Gradio makes an empty one beside an upload."""
    return [file for file in folder.rglob("*") if file.is_file() and file.stat().st_size]


def test_a_sentence_becomes_pictures_set_by_set_and_a_film_to_save(tab, tmp_path):
    set_up(tab, prompt="a seven moves to the left", frames=9)
    tab.evaluate(RECORD)
    tab.click("#make")
    assert wait_for(tab, "Made with") == "Made with seed 3: 9 of 9 frames."
    seen = tab.evaluate("window.seen")
    before = {each["source"] for each in seen if "Made with" not in each["said"]}
    assert len(before) >= 3
    to_come = [(picture(url) == (128, 128, 136)).all(2).mean() for url in before]
    assert max(to_come) > 0.2  # grey
    assert not (picture(seen[-1]["source"]) == (128, 128, 136)).all(2).any()
    assert tab.locator("#strip img").count() == 9
    tab.wait_for_function("document.querySelector('#screen video').videoWidth === 64")
    with tab.expect_download() as saved:
        tab.click("#screen a.save")
    assert saved.value.suggested_filename == "contar.mp4"
    saved.value.save_as(tmp_path / "made.mp4")
    assert b"ftyp" in (tmp_path / "made.mp4").read_bytes()[:16]


def test_stopped_what_is_finished_stays(tab):
    set_up(tab, frames=65, pause=1)  # a minute of pauses
    tab.click("#make")
    wait_for(tab, "latent frame 2")
    tab.click("#stop")
    said = wait_for(tab, "Stopped at")
    assert said.startswith("Stopped at latent frame ")
    assert said.endswith((" frames are finished.", " frame is finished."))
    assert 1 <= tab.locator("#strip img").count() < 65


def test_what_is_painted_is_made_anew_and_the_rest_comes_back(tab, tmp_path, folder):
    given = np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)
    Image.fromarray(given).save(tmp_path / "given.png")
    tab.click("#bring > button")
    tab.set_input_files("#bring input[type=file]", tmp_path / "given.png")
    wait_for(tab, "1 frame is here")
    assert not kept(folder)  # it was read and removed
    box = tab.locator("canvas.paint").bounding_box()
    x, y, side = box["x"], box["y"], box["width"]
    tab.mouse.move(x + 0.1 * side, y + 0.8 * side)
    tab.mouse.down()
    tab.mouse.move(x + 0.9 * side, y + 0.8 * side, steps=5)
    tab.mouse.up()
    set_up(tab, prompt="what it likes", frames=1, grow=0)
    tab.click("#make")
    assert "says" not in wait_for(tab, "Made with")  # a picture needs no digit and no motion
    made = picture(tab.get_attribute("#screen img", "src"))
    assert np.array_equal(made[:32], given[:32])
    assert np.abs(made[48:56, 16:48].astype(int) - given[48:56, 16:48]).mean() > 20


def test_two_tabs_take_turns_and_each_gets_its_own(browser, server):
    first, second = opened(browser, server), opened(browser, server)
    set_up(first, prompt="a one moves left", seed=1, frames=5, pause=0.2)
    set_up(second, prompt="a zero moves right", seed=2, frames=5, pause=0)
    first.click("#make")
    second.click("#make")
    assert wait_for(second, "Made with") == "Made with seed 2: 5 of 5 frames."
    assert wait_for(first, "Made with") == "Made with seed 1: 5 of 5 frames."
    sources = [page.locator("#strip img").first.get_attribute("src") for page in (first, second)]
    assert sources[0] != sources[1]
    first.close()
    second.close()


def test_a_tab_that_is_closed_gives_its_turn_to_the_next(browser, server, tab):
    leaving = opened(browser, server)
    set_up(leaving, frames=65, pause=1)  # a minute of pauses
    leaving.click("#make")
    wait_for(leaving, "latent frame")
    set_up(tab, frames=1)
    tab.click("#make")
    wait_for(tab, "Waiting for a turn")
    begin = time.monotonic()
    leaving.close()
    wait_for(tab, "Made with")
    assert time.monotonic() - begin < 45  # the other's pauses alone are longer


def test_bad_input_is_said_with_what_came_and_what_is_allowed(tab, tmp_path):
    set_up(tab, frames=6)
    tab.click("#make")
    assert "frames: got 6, allowed: 5 or 9 frames" in wait_for(tab, "frames: got 6")
    assert tab.get_attribute("#said .message", "role") == "alert"
    (tmp_path / "notes.txt").write_text("no picture", encoding="utf-8")
    tab.click("#bring > button")
    tab.set_input_files("#bring input[type=file]", tmp_path / "notes.txt")
    assert "allowed: one that ends in .png" in wait_for(tab, "file: got 'notes.txt'")
    (tmp_path / "large.png").write_bytes(bytes(21 * 2**20))
    tab.set_input_files("#bring input[type=file]", tmp_path / "large.png")
    tab.get_by_text("exceed the maximum allowed size of 20").wait_for()


def test_on_a_phone_nothing_is_wider_and_what_is_made_stands_on_the_first_screen(tab):
    tab.set_viewport_size({"width": 390, "height": 844})
    below = [tab.locator(f"#{part}").bounding_box()["y"] for part in ("tokens", "settings")]
    assert below == sorted(below)
    assert below[0] < 844
    for part in ("settings", "bring"):
        tab.click(f"#{part} > button")
    assert tab.evaluate("document.documentElement.scrollWidth") <= 390


def test_no_other_server_was_asked_and_nothing_is_left_when_it_is_stopped_at_work(
    browser, server, asked, folder
):
    at_work = opened(browser, server)
    set_up(at_work, frames=65, pause=1)  # a minute of pauses
    at_work.click("#make")
    wait_for(at_work, "latent frame")
    here = f"http://127.0.0.1:{server.args}/"
    assert len(asked) > 20
    assert {url for url in asked if not url.startswith((here, "data:", "blob:"))} == set()
    server.send_signal(signal.SIGTERM)
    assert server.wait(45) == 0  # it ends what is at work, whose pauses alone are longer
    assert not kept(folder)
    assert not [*folder.glob("contar-serve-*")]
