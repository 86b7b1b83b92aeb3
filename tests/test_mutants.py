"""The mutants are all small changes of code, and of nothing that only a reader sees."""

import mutants

SOURCE = '''"""Doc of 1 + 1."""


def f(x: int = 4, y: "Float[Tensor, 'a 2']" = None) -> "1 + 1":
    """Doc of 2 - 2."""
    ä = "1 + 1, ü"; b = g(x, y).detach()
    if not x < ä and f"{x + 1}":
        raise ValueError(x - 1)
    check("b", b, isinstance(x, int)), check(f"{x} b", b), torch.maximum(x, b)
    return (b) + (  # - more
        x)
    return b
'''
EXPECTED = {
    (4, "4", "(3)"), (4, "4", "(5)"),
    (6, "x, y", "y, x"), (6, ".detach()", ""),
    (7, "not ", ""), (7, "<", "<="), (7, "and", "or"),
    (10, "+", "-"),
    (10, "(b) + (  # - more\n        x)", "(b)"), (12, "b", "((b) + (  # - more\n        x))"),
}  # fmt: skip


def test_each_mutant_changes_one_span_and_none_is_of_a_text_an_annotation_or_an_error():
    source = mutants.Source(SOURCE)
    found = set()
    for start, end, after in source.changes():
        before = SOURCE[start:end]
        found.add((SOURCE.count("\n", 0, start) + 1, before, after))
        mutant = mutants.Mutant("f.py", 1, start, before, after).of(SOURCE)
        compile(mutant, "f.py", "exec")
        assert mutant != SOURCE
    assert found == EXPECTED


def test_equal_seeds_draw_equal_mutants_of_which_fewer_are_the_first():
    drawn = mutants.draw(["ordering"], 20, seed=3)
    assert len(set(drawn)) == 20
    assert mutants.draw(["ordering"], 5, seed=3) == drawn[:5]
    assert mutants.draw(["ordering"], 20, seed=4) != drawn
    for mutant in drawn:
        text = (mutants.ROOT / mutant.file).read_text()
        assert text[mutant.start :].startswith(mutant.before)


def test_every_room_has_tests_that_are_there_and_its_own_are_among_them():
    for room, tests in mutants.TESTS.items():
        assert (mutants.ROOT / "contar" / room).is_dir()
        for name in tests.split():
            assert (mutants.ROOT / "tests" / name).exists(), name
        own = {path.name for path in (mutants.ROOT / "tests" / room).glob("test_*.py")}
        assert room in tests.split() or own <= {name.split("/")[-1] for name in tests.split()}
