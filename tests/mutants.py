"""Change one small thing in contar at a time, and list the changes that no test notices.

`make mutants`, or `python tests/mutants.py --count 20 --only heads`. Mutants live in a copy of the
checkout. The results are written after each of them, and `--resume` goes on where a run stopped.
"""

import argparse
import ast
import io
import itertools
import json
import multiprocessing
import os
import random
import shutil
import subprocess
import sys
import tempfile
import time
import tokenize
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

import pytest
import typechecking

FORKED = multiprocessing.get_context("fork")  # what is imported here, no mutant imports again
ROOT = Path(__file__).parents[1]
_QUICK = [  # of heads: one file trains, for a minute
    f"heads/{path.name}"
    for path in sorted((ROOT / "tests/heads").glob("test_*.py"))
    if path.name != "test_density.py"
]
TESTS = {  # of each room, fastest first: a mutant's tests end at the first that fails
    "attention": """attention laws/test_failed_calls.py laws/test_attention_laws.py backbones
        laws/test_generation_laws.py""",
    "ordering": "ordering laws/test_ordering_laws.py laws/test_generation_laws.py",
    "conditioning": "conditioning laws/test_conditioning_laws.py laws/test_head_laws.py parity",
    "diffusion": """diffusion training/test_draws.py laws/test_diffusion_laws.py
        laws/test_head_laws.py parity""",
    "heads": f"""{" ".join(_QUICK)} laws/test_head_laws.py
        recipes/test_any_head.py parity heads/test_density.py""",
    "generation": """generation recipes/test_mar.py recipes/test_times.py laws/test_reuse_laws.py
        laws/test_generation_laws.py parity""",
    "backbones": """backbones laws/test_failed_calls.py laws/test_attention_laws.py
        laws/test_head_laws.py laws/test_generation_laws.py laws/test_reuse_laws.py parity""",
}
SWAPPED = {
    "+": "-", "-": "+", "*": "/", "/": "*", "//": "*", "+=": "-=", "-=": "+=", "*=": "/=",
    "/=": "*=", "<": "<=", "<=": "<", ">": ">=", ">=": ">", "==": "!=", "!=": "==",
    "and": "or", "or": "and",
}  # fmt: skip
DROPPED = ("detach", "clone")  # methods that give the same values back
PLAIN = ("isinstance", "getattr", "hasattr", "setattr")  # cannot take their arguments in turn
EITHER = ("max", "min", "maximum", "minimum", "promote_types", "transpose")  # same both ways round
MESSAGES = ("bad", "warn")  # functions whose arguments are texts for a reader


@dataclass(frozen=True, order=True)
class Mutant:
    """A file, and what stands in it instead of one of its spans."""

    file: str
    line: int
    start: int  # of the span, in characters
    before: str
    after: str

    def __str__(self) -> str:
        return f"{self.file}:{self.line}: {self.before!r} -> {self.after!r}"

    def of(self, source: str) -> str:
        return source[: self.start] + self.after + source[self.start + len(self.before) :]


def visited(node: ast.AST) -> Iterator[ast.AST]:
    """Yield the node and what is in it, but for annotations, errors and texts."""
    named = isinstance(node, ast.Call) and ast.unparse(node.func).split(".")[-1] in MESSAGES
    if named or isinstance(node, ast.Raise | ast.JoinedStr):
        return
    yield node
    for name, value in ast.iter_fields(node):
        for child in value if isinstance(value, list) else [value]:
            if isinstance(child, ast.AST) and name not in ("annotation", "returns"):
                yield from visited(child)


class Source:
    """A file's text, with the places of its nodes."""

    def __init__(self, text: str) -> None:
        self.text, self.tree = text, ast.parse(text)
        self.lines = [0]  # where each begins, in characters
        for line in text.splitlines(keepends=True):
            self.lines.append(self.lines[-1] + len(line))
        self.tokens = [
            (self.lines[token.start[0] - 1] + token.start[1], token.string)
            for token in tokenize.generate_tokens(io.StringIO(text).readline)
        ]

    def span(self, node: ast.AST) -> tuple[int, int]:
        place: list[int] = []
        for end in ("", "end_"):
            line, column = (getattr(node, end + name) for name in ("lineno", "col_offset"))
            begin, behind = self.lines[line - 1], self.lines[line]
            in_bytes = self.text[begin:behind].encode()[:column]  # as the tree counts
            place.append(begin + len(in_bytes.decode()))
        return place[0], place[1]

    def of(self, node: ast.AST) -> str:
        start, end = self.span(node)
        return self.text[start:end]

    def changes(self) -> Iterator[tuple[int, int, str]]:
        """Yield the start, the end and the new text of everything that could be another way."""
        for node in visited(self.tree):
            match node:
                case ast.BinOp(left=left, right=right):
                    yield from self.swaps(left, right)
                case ast.AugAssign(target=target, value=value):
                    yield from self.swaps(target, value)
                case ast.Compare(left=left, comparators=others):
                    yield from self.swaps(left, *others)
                case ast.BoolOp(values=values):
                    yield from self.swaps(*values)
                case ast.UnaryOp(op=ast.Not(), operand=operand):
                    yield self.span(node)[0], self.span(operand)[0], ""
                case ast.Constant(value=int(number)) if not isinstance(number, bool):
                    yield (*self.span(node), f"({number - 1})")
                    yield (*self.span(node), f"({number + 1})")
                case ast.Call(func=ast.Attribute(value=value, attr=name), args=[]):
                    if name in DROPPED:
                        yield self.span(value)[1], self.span(node)[1], ""
                case ast.Call(func=function, args=[first, second, *_]):
                    starred = isinstance(first, ast.Starred) or isinstance(second, ast.Starred)
                    text = first.value if isinstance(first, ast.Constant) else first
                    named = isinstance(text, str | ast.JoinedStr)
                    kept = self.of(function).split(".")[-1] in (*PLAIN, *EITHER)
                    if not (starred or named or kept):
                        start, end = self.span(first)[0], self.span(second)[1]
                        between = self.text[self.span(first)[1] : self.span(second)[0]]
                        yield start, end, self.of(second) + between + self.of(first)
                case ast.FunctionDef(body=body):
                    inner = [n for statement in body for n in visited(statement)]
                    given = [n.value for n in inner if isinstance(n, ast.Return) and n.value]
                    for mine, other in zip(given, given[1:] + given[:1], strict=True):
                        yield (*self.span(mine), f"({self.of(other)})")

    def swaps(self, *operands: ast.AST) -> Iterator[tuple[int, int, str]]:
        """Yield other operators between the operands, where brackets may stand, too."""
        for left, right in itertools.pairwise(operands):
            end, start = self.span(left)[1], self.span(right)[0]
            for place, token in self.tokens:
                if end <= place < start and token in SWAPPED:
                    yield place, place + len(token), SWAPPED[token]


def draw(rooms: list[str], count: int, seed: int) -> list[Mutant]:
    """Draw mutants of the rooms, each equally likely; of equal seeds, fewer are the first ones."""
    sources: dict[str, Source] = {}
    found: set[Mutant] = set()
    for path in (path for room in rooms for path in (ROOT / "contar" / room).glob("*.py")):
        file = path.relative_to(ROOT).as_posix()
        sources[file] = source = Source(path.read_text())
        for start, end, after in source.changes():
            line = source.text.count("\n", 0, start) + 1
            found.add(Mutant(file, line, start, source.text[start:end], after))

    def differs(mutant: Mutant) -> bool:
        """Whether it is Python, and another program."""
        source = sources[mutant.file]
        try:
            return ast.dump(ast.parse(mutant.of(source.text))) != ast.dump(source.tree)
        except SyntaxError:
            return False

    shuffled = random.Random(seed).sample(sorted(found), len(found))
    return list(itertools.islice(filter(differs, shuffled), count))


def copy_to(folder: Path) -> None:
    """Copy what git knows or would add, as it is now."""
    command = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    listed = subprocess.run(command, cwd=ROOT, check=True, capture_output=True, text=True).stdout
    for name in listed.strip("\0").split("\0"):
        if (ROOT / name).is_file():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(ROOT / name, folder / name)


def run_tests(folder: Path, tests: list[str], printed: Path) -> None:
    """Run the tests of a copy, in a process of its own that has not imported contar."""
    with printed.open("w") as file:
        os.dup2(file.fileno(), 1)
        os.dup2(file.fileno(), 2)
    os.chdir(folder)
    os.environ.update(PYTHONPATH=str(folder), OMP_NUM_THREADS="1")
    sys.path[0] = str(folder)
    quiet = ["-q", "--tb=no", "-rfE", "-p", "no:cacheprovider"]
    sys.exit(pytest.main(["-x", *quiet, "-W", "ignore:Module already imported", *tests]))


def outcome(folder: Path, room: str, timeout: float | None = None) -> str:
    """Run the room's tests in the copy: "survived", or what killed the mutant."""
    tests, printed = [f"tests/{name}" for name in TESTS[room].split()], folder / "printed.txt"
    process = FORKED.Process(target=run_tests, args=(folder, tests, printed))
    process.start()
    process.join(timeout)
    if process.exitcode is None:
        process.kill()
        return "killed by the clock"
    if process.exitcode == 0:
        return "survived"
    lines = printed.read_text().splitlines()
    failed = [line for line in lines if line.startswith(("FAILED", "ERROR"))]
    return "killed by " + (failed or lines or [f"exit {process.exitcode}"])[-1].split(" - ")[0]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--count", type=int, default=100, help="how many mutants")
    parser.add_argument("--seed", type=int, default=0, help="of the sample")
    parser.add_argument("--only", choices=TESTS, help="one room of contar")
    parser.add_argument("--results", type=Path, default=Path("mutants.json"), help="file to write")
    parser.add_argument("--resume", action="store_true", help="keep what the file holds, go on")
    options = parser.parse_args()
    if options.results.exists() and not options.resume:
        parser.error(f"{options.results} exists: --resume, or another --results")
    results = json.loads(options.results.read_text()) if options.results.exists() else {}
    seconds, entries = results.setdefault("seconds", {}), results.setdefault("mutants", [])
    known = {Mutant(**entry["mutant"]) for entry in entries}
    drawn = draw([options.only] if options.only else list(TESTS), options.count, options.seed)

    typechecking.import_large()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name).resolve()
        copy_to(folder)
        for mutant in drawn:
            if mutant in known:
                continue
            room, file = mutant.file.split("/")[1], folder / mutant.file
            if room not in seconds:  # how long the tests take, which have to pass as things are
                began = time.perf_counter()
                if (said := outcome(folder, room)) != "survived":
                    parser.error(f"the tests of {room} fail before any change: {said}")
                seconds[room] = time.perf_counter() - began
            source = file.read_text()
            file.write_text(mutant.of(source))
            said = outcome(folder, room, timeout=3 * seconds[room] + 30)
            file.write_text(source)
            entries.append({"mutant": asdict(mutant), "outcome": said})
            part = options.results.with_suffix(".part")
            part.write_text(json.dumps(results, indent=1) + "\n")
            part.replace(options.results)
            print(f"{mutant}: {said}", flush=True)
    lost = [Mutant(**e["mutant"]) for e in entries if e["outcome"] == "survived"]
    print(f"\n{len(lost)} of {len(entries)} mutants survived", *sorted(lost), sep="\n")


if __name__ == "__main__":
    main()
