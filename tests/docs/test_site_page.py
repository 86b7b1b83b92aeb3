"""The site in a real browser; skipped where one is missing, or the site is (`make browser`)."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from browsing import chromium, missing

SITE = Path(__file__).parents[2] / "site"
MISSING = missing() + ([] if (SITE / "index.html").is_file() else ["the site in site/"])
pytestmark = pytest.mark.skipif(bool(MISSING), reason=f"needs {', '.join(MISSING)}: make browser")
WIDTHS = {"phone": 390, "desk": 1280}


def address(page: str) -> str:
    return (SITE / page).as_uri()


@pytest.fixture(scope="module")
def browser(tmp_path_factory) -> Iterator[Any]:
    size = {"width": WIDTHS["desk"], "height": 844}
    with chromium(tmp_path_factory.mktemp("profile"), viewport=size) as context:
        yield context


@pytest.fixture
def tab(browser) -> Iterator[Any]:
    page = browser.new_page()
    yield page
    page.evaluate("localStorage.clear()")
    page.close()


def wait_for(tab: Any, scheme: str) -> None:
    """Wait until the page's ground is light or dark."""
    ground = "getComputedStyle(document.body).backgroundColor.match(/[0-9.]+/g)"
    tab.wait_for_function(f"scheme => ({ground}[0] > 128) === (scheme === 'light')", arg=scheme)


def test_every_page_fits_a_phone_and_a_desk_says_no_error_and_asks_no_other_server(tab):
    wrong: list[str] = []
    tab.on("pageerror", lambda error: wrong.append(f"{tab.url}: {error}"))
    tab.on("console", lambda said: said.type == "error" and wrong.append(f"{tab.url}: {said.text}"))
    tab.on(
        "request",
        lambda request: (
            request.url.startswith(("file:", "data:", "blob:"))
            or wrong.append(f"{tab.url} asks for {request.url}")
        ),
    )
    pages = sorted({*SITE.rglob("*.html")} - {SITE / "404.html"})  # which a server shows
    assert len(pages) > 50
    for number, page in enumerate(pages):
        tab.goto(page.as_uri())
        assert tab.locator("h1").count(), page
        for width in sorted(WIDTHS.values(), reverse=bool(number % 2)):
            tab.set_viewport_size({"width": width, "height": 844})
            if tab.evaluate("document.documentElement.scrollWidth") > width:
                wrong.append(f"{tab.url} is wider than {width}")
    assert not wrong


def test_the_search_finds_a_name_and_leads_to_its_reference(tab):
    tab.goto(address("index.html"))
    tab.keyboard.press("Control+k")
    tab.locator("input[aria-label=Search]").fill("BlockLayout")
    tab.get_by_role("option", name="BlockLayout").first.click()
    tab.wait_for_url("**/reference/attention.html**")
    assert tab.url.endswith("#contar.attention.BlockLayout")
    assert tab.locator('[id="contar.attention.BlockLayout"]').is_visible()


def test_light_and_dark_follow_the_system_also_when_it_changes(tab):
    tab.emulate_media(color_scheme="light")
    tab.goto(address("gallery.html"))
    for scheme in ("light", "dark", "light"):
        tab.emulate_media(color_scheme=scheme)
        wait_for(tab, scheme)
    tab.emulate_media(color_scheme="dark")
    tab.goto(address("reference/heads.html"))
    wait_for(tab, "dark")


@pytest.mark.parametrize("system", ["light", "dark"])
def test_a_button_chooses_light_or_dark_and_is_remembered(tab, system):
    tab.emulate_media(color_scheme=system)
    tab.goto(address("gallery.html"))
    for button, scheme in (("Light", "light"), ("Dark", "dark"), ("As the system", system)):
        tab.locator(f"label[title='{button}']:visible").click()
        wait_for(tab, scheme)
        tab.goto(address("reference/heads.html"))
        wait_for(tab, scheme)


def test_on_a_phone_the_menu_leads_to_a_page(tab):
    tab.set_viewport_size({"width": WIDTHS["phone"], "height": 844})
    tab.goto(address("index.html"))
    tab.locator("label[for=__drawer]:visible").first.click()
    tab.locator("nav label:visible", has_text="Start").click()
    tab.get_by_role("link", name="Gallery", exact=True).first.click()
    tab.wait_for_url("**/gallery.html")
    assert tab.locator("article img").count() > 3
