"""Every function of contar and recipes is read in one look, and keeps nothing for its next call."""

import ast
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[1]
LINES = 60
# Doors whose arguments are many, each said in a line or two: only their own lines are counted.
DOORS = {
    "contar/backbones/temporal.py:TemporalTower.forward",
    "contar/heads/_likelihood.py:flow_log_density",
    "contar/training/distilling.py:distill_head",
    "contar/training/loop.py:train",
    "recipes/_cli/generating.py:generate",
    "recipes/_cli/suites.py:sample",
    "recipes/_nova/pipeline.py:NovaPipeline.__call__",
    "recipes/moving_digits/evaluation/drift.py:measure_drift",
    "recipes/moving_digits/evaluation/scoring.py:evaluate",
    "recipes/nova.py:stream",
    "recipes/nova.py:training_losses",
}
# They run once, in each process, and hand what they read to the function that they are in.
ONCE = {
    "contar/training/saves.py:load.read",
    "contar/training/sharding.py:read_shards.glance",
}
CHANGES = ("append", "pop", "popleft", "add", "update", "extend", "insert", "setdefault", "clear")
Function = ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda


@cache
def functions() -> list[tuple[str, tuple[Function, ...]]]:
    """Return every function's place, and it behind the functions that it is in."""
    files = [file for room in ("contar", "recipes") for file in sorted((ROOT / room).rglob("*.py"))]
    trees = ((file, ast.parse(file.read_text(encoding="utf-8"))) for file in files)
    return [each for file, tree in trees for each in found(tree, f"{file.relative_to(ROOT)}:", ())]


def found(
    node: ast.AST, place: str, outer: tuple[Function, ...]
) -> Iterator[tuple[str, tuple[Function, ...]]]:
    for child in ast.iter_child_nodes(node):
        name = f"{place}{getattr(child, 'name', '<lambda>')}"
        if isinstance(child, Function):
            yield name, (*outer, child)
            yield from found(child, f"{name}.", (*outer, child))
        elif isinstance(child, ast.ClassDef):
            yield from found(child, f"{name}.", ())
        else:
            yield from found(child, place, outer)


def length(function: Any, *, documented: bool) -> int:
    """Return how many lines a function has, its docstring counted or not."""
    lines = function.end_lineno - function.lineno + 1
    if documented or isinstance(function, ast.Lambda) or ast.get_docstring(function) is None:
        return lines
    text = function.body[0]
    return lines - (text.end_lineno - text.lineno + 1)


def own_names(function: Function) -> set[str]:
    """Return arguments and variables of a function."""
    given = {node.arg for node in ast.walk(function.args) if isinstance(node, ast.arg)}
    made = (node for node in ast.walk(function) if isinstance(node, ast.Name))
    return given | {node.id for node in made if isinstance(node.ctx, ast.Store)}


def changed(function: Function) -> Iterator[str]:
    """Yield the names of what a function changes in place."""
    for node in ast.walk(function):
        match node:
            case ast.Nonlocal(names):
                yield from names
            case ast.Call(ast.Attribute(ast.Name(name), method)) if method in CHANGES:
                yield name
            case ast.Call(ast.Name("next"), [ast.Name(name), *_]):
                yield name
            case ast.Subscript(ast.Name(name), _, ast.Store() | ast.Del()):
                yield name
            case ast.Attribute(ast.Name(name), _, ast.Store() | ast.Del()):
                yield name


def test_no_function_is_longer_than_sixty_lines():
    long = {
        place
        for place, (*_, function) in functions()
        if length(function, documented=place not in DOORS) > LINES
    }
    assert not long


def test_every_door_is_one():
    lengths = {place: length(which[-1], documented=True) for place, which in functions()}
    assert all(lengths[door] > LINES for door in DOORS)


def test_no_function_is_within_two_others():
    named = (ast.FunctionDef, ast.AsyncFunctionDef)
    deep = [
        place
        for place, which in functions()
        if isinstance(which[-1], named) and sum(isinstance(each, named) for each in which) > 2
    ]
    assert not deep


def test_no_closure_keeps_state():
    keeping = {
        place
        for place, (*outer, function) in functions()
        if outer and (set().union(*map(own_names, outer)) - own_names(function) - {"bar"})
        & set(changed(function))  # a bar of progress is shown, and nothing reads it
    }  # fmt: skip
    assert keeping == ONCE


@pytest.mark.parametrize(
    ("code", "seen"),
    [
        ("lambda: next(rows)", {"rows"}),
        ("lambda: rows.append(1)", {"rows"}),
        ("lambda rows: rows.append(1)", set()),
        ("lambda: sum(rows)", set()),
    ],
)
def test_a_closure_with_state_is_seen(code, seen):
    tree = ast.parse(f"def f(x):\n    rows = iter(x)\n    return {code}")
    (_, (outer,)), (_, (_, inner)) = found(tree, "", ())
    assert (own_names(outer) - own_names(inner)) & set(changed(inner)) == seen
