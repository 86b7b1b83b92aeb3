"""Chromium, for the tests of pages; where something is missing they are skipped by its name."""

import contextlib
import importlib.util
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

_NAMES = ("chromium", "chromium-browser", "google-chrome", "chrome")
CHROMIUM = next(filter(None, map(shutil.which, _NAMES)), None)
_FLAGS = (
    "--headless --no-sandbox --disable-gpu --disable-quic --no-first-run "
    "--disable-background-networking --disable-component-update --disable-sync"
)


def missing(*packages: str) -> list[str]:
    """Return which of some packages, Playwright and Chromium are not here."""
    lacks = [name for name in (*packages, "playwright") if importlib.util.find_spec(name) is None]
    return lacks if CHROMIUM else [*lacks, "Chromium"]


@contextlib.contextmanager
def chromium(profile: Path, **options: Any) -> Iterator[Any]:
    """Yield a browser's context without a window, whose profile is in a folder of its own."""
    from playwright.sync_api import sync_playwright

    with sync_playwright() as play:
        context = play.chromium.launch_persistent_context(
            profile, executable_path=CHROMIUM, args=_FLAGS.split(), **options
        )
        context.set_default_timeout(120_000)  # a last bound: tests wait for what they want to see
        yield context
        context.close()
