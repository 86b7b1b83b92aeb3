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


def brightness(tab: Any) -> float:
    """Return how bright the page's ground is, from 0 to 255."""
    color = tab.evaluate("getComputedStyle(document.body).backgroundColor")
    red, green, blue = (float(x) for x in color[color.index("(") + 1 : -1].split(",")[:3])
    return (red + green + blue) / 3


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


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_light_and_dark_follow_the_system_and_a_button_that_is_remembered(tab, scheme):
    tab.emulate_media(color_scheme=scheme)
    tab.goto(address("gallery.html"))
    assert (brightness(tab) < 60) is (scheme == "dark")
    other = {"light": "Dark", "dark": "Light"}[scheme]
    tab.locator(f"label[title={other}]:visible").click()
    assert (brightness(tab) < 60) is (scheme == "light")
    tab.goto(address("reference/heads.html"))
    assert (brightness(tab) < 60) is (scheme == "light")


def test_on_a_phone_the_menu_leads_to_a_page(tab):
    tab.set_viewport_size({"width": WIDTHS["phone"], "height": 844})
    tab.goto(address("index.html"))
    tab.locator("label[for=__drawer]:visible").first.click()
    tab.locator("nav label:visible", has_text="Start").click()
    tab.get_by_role("link", name="Gallery", exact=True).first.click()
    tab.wait_for_url("**/gallery.html")
    assert tab.locator("article img").count() > 3
