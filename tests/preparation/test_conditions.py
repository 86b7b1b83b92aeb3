"""Conditions on scores mean what Python means by them, and are no code."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from contar.preparation import Condition, Preparation

COLUMNS = Preparation(aesthetic="clips_of:brightness").columns()
NUMBERS = ("motion", "text_area", "width", "height")
ROW: dict[str, Any] = {
    "name": "a.mp4", "kind": "video", "motion": 2.0, "text_area": 0.25, "width": 64, "height": 48,
    "duplicate": False, "caption": None, "caption_length": None, "aesthetic": None,
}  # fmt: skip

numbers = st.recursive(
    st.sampled_from([*NUMBERS, "2", "0.25", "-1", "64"]),
    lambda inner: st.builds("({} {} {})".format, inner, st.sampled_from("+-*"), inner),
    max_leaves=4,
)
signs = st.sampled_from(["<", "<=", ">", ">=", "==", "!="])
conditions = st.recursive(
    st.builds("{} {} {}".format, numbers, signs, numbers)
    | st.builds("{} {} {} {} {}".format, numbers, signs, numbers, signs, numbers)
    | st.sampled_from(["duplicate", "True", "kind == 'video'", "name != 'b.mp4'"]),
    lambda inner: (
        st.builds("({} and {})".format, inner, inner)
        | st.builds("({} or {})".format, inner, inner)
        | st.builds("(not {})".format, inner)
    ),
    max_leaves=5,
)


@given(conditions, st.lists(st.integers(-2, 65), min_size=4, max_size=4))
def test_a_condition_holds_where_python_says_so(text: str, values: list[int]) -> None:
    row = {**ROW, **dict(zip(NUMBERS, values, strict=True))}
    assert Condition(text, COLUMNS)(row) is bool(eval(text, {"__builtins__": {}}, dict(row)))


@pytest.mark.parametrize(
    "text", ["aesthetic >= 5", "not aesthetic >= 5", "aesthetic + 1 != 0", "caption != 'a'",
             "motion > 1 and aesthetic >= 5", "motion / (width - width) > 1", "motion / 0 != 1"]
)  # fmt: skip
def test_what_is_missing_and_divisions_by_zero_meet_no_condition_and_not_its_opposite(text):
    assert not Condition(text, COLUMNS)(ROW)


def test_what_decides_alone_does_so_beside_what_is_missing():
    assert Condition("aesthetic >= 5 or motion > 1", COLUMNS)(ROW)
    assert Condition("not (aesthetic >= 5 and motion < 1)", COLUMNS)(ROW)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("moton > 1", "unknown column 'moton' in 'moton > 1'.*of name, shot.*motion, text_area"),
        ("__import__('os').system('false')", "allowed: comparisons of columns"),
        ("motion.real > 1", "allowed: comparisons"),
        ("[motion][0] > 1", "allowed: comparisons"),
        ("motion ** 99 > 1", "allowed: comparisons"),
        ("(lambda: True)()", "allowed: comparisons"),
        ("f'{motion}' == 'a'", "allowed: comparisons"),
        ("motion in (1, 2)", "allowed: "),
        ("motion > 1e999", "allowed: comparisons"),
        ("motion >", "allowed: comparisons"),
        ("", "allowed: comparisons"),
        ("motion > 1; width", "allowed: comparisons"),
        ("(" * 1000 + "motion" + ")" * 1000 + " > 1", "allowed: comparisons"),
        ("motion", "a condition, not a number"),
        ("name > 'a'", "numbers to compare by size"),
        ("motion == 'a'", "values of one kind"),
        ("duplicate == 1", "values of one kind"),
        ("name + 'a' == 'b'", "a number there"),
        ("motion and duplicate", "a truth there"),
        ("not motion", "a truth there"),
    ],
)
def test_what_is_no_condition_on_the_columns_is_refused(text, said):
    with pytest.raises(ValueError, match=f"(?s)^apply: got .*{said}"):
        Condition(text, COLUMNS, name="apply")
