"""A room's `__all__` is its API: complete, and in nobody's way."""

import ast
import importlib
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
ROOMS = sorted(
    ".".join(file.parent.relative_to(ROOT).parts)
    for top in ("contar/*", "recipes/moving_digits", "recipes/compare")
    for file in ROOT.glob(f"{top}/__init__.py")
)
PARTS = [room for room in ROOMS if room.startswith("contar.")]
BLOCK = re.compile(r"^```python.*?\n(.*?)^```$", re.MULTILINE | re.DOTALL)


def sources() -> Iterator[tuple[Path, ast.Module]]:
    """Yield all code of the project, that of its pages too."""
    for top in ("contar", "recipes", "benchmarks", "tests"):
        for file in (ROOT / top).rglob("*.py"):
            if "goldens" not in file.parts:
                yield file, ast.parse(file.read_text(encoding="utf-8"))
    for page in [*ROOT.glob("*.md"), *ROOT.glob("docs/*.md"), *ROOT.glob("recipes/**/*.md")]:
        for block in BLOCK.findall(page.read_text(encoding="utf-8")):
            yield page, ast.parse(block)


def imports() -> list[tuple[Path, str, str]]:
    """Return (file, module, name) of everything that is imported from a room."""
    return [
        (file, node.module, name.name)
        for file, tree in sources()
        for node in ast.walk(tree)
        if isinstance(node, ast.ImportFrom) and node.module and not node.level
        for name in node.names
    ]


IMPORTS = imports()


def folder_of(room: str) -> Path:
    return ROOT.joinpath(*room.split("."))


def is_module(module: str, name: str) -> bool:
    place = ROOT.joinpath(*module.split("."), name)
    return place.is_dir() or place.with_suffix(".py").is_file()


@pytest.mark.parametrize("room", PARTS)
def test_what_others_import_from_a_room_is_in_its_all_or_private(room):
    public = set(importlib.import_module(room).__all__)
    taken = {
        f"{module}.{name} in {file.relative_to(ROOT)}"
        for file, module, name in IMPORTS
        if f"{module}.".startswith(f"{room}.") and not file.is_relative_to(folder_of(room))
        if not name.startswith("_") and "._" not in module and not is_module(module, name)
        if name not in public
    }
    assert not taken


@pytest.mark.parametrize("room", ROOMS)
def test_every_name_of_a_room_is_there_and_hides_no_file(room):
    module = importlib.import_module(room)
    if room == "contar.preparation":  # whose steps are datatrove's, of the extra scale
        pytest.importorskip("datatrove")
    assert list(module.__all__) == sorted(set(module.__all__), key=rank)
    for name in module.__all__:
        assert getattr(module, name) is not None
        assert not is_module(room, name), f"{room}.{name} hides a file"
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        module.nothing  # noqa: B018


def rank(name: str) -> tuple[bool, bool, str]:
    return not name.isupper(), not name[0].isupper(), name


@pytest.mark.parametrize("room", PARTS)
def test_recipes_tests_and_pages_take_a_rooms_names_from_the_room(room):
    public = set(importlib.import_module(room).__all__)
    deep = {
        f"{module}.{name} in {file.relative_to(ROOT)}"
        for file, module, name in IMPORTS
        if module.startswith(f"{room}.") and not file.is_relative_to(folder_of(room))
        if name in public
    }
    assert not deep
