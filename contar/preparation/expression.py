"""A condition on scores, as "motion > 1 and not duplicate": read as syntax, never run as code."""

import ast
import math
import operator
from collections.abc import Callable, Mapping
from typing import Any

from contar._errors import bad, check_text
from contar.preparation.columns import Kind

Row = Mapping[str, Any]
_Value = Callable[[Row], Any]
_ARITHMETIC = {
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: operator.mul,
    ast.Div: operator.truediv,
}
_COMPARISONS = {
    ast.Lt: operator.lt,
    ast.LtE: operator.le,
    ast.Gt: operator.gt,
    ast.GtE: operator.ge,
    ast.Eq: operator.eq,
    ast.NotEq: operator.ne,
}
_KINDS = {"text": "text", "whole": "number", "real": "number", "truth": "truth"}
_ALLOWED = "comparisons of columns and values with < <= > >= == !=, + - * /, and, or, not"


class Condition:
    """A condition on a row, which holds where all that it needs is there.

    A comparison with a value that is missing is neither true nor false, nor is its `not`; a
    condition that comes to that does not hold. So is a division by zero.

    Args:
        text: comparisons of columns, numbers, texts, True and False, with arithmetic, joined by
            `and`, `or`, `not`.
        columns: that there are.
        name: of the argument, for errors.

    Raises:
        ValueError: it has another syntax, an unknown column (the known are listed), or compares
            what is not of one kind.
    """

    def __init__(self, text: str, columns: Mapping[str, Kind], *, name: str = "condition") -> None:
        self.text = check_text(name, text)
        self._columns, self._name = columns, name
        try:
            body = ast.parse(text.strip(), mode="eval").body
            kind, self._value = self._read(body)
        except (SyntaxError, RecursionError, MemoryError) as error:  # of a thousand brackets
            raise self._bad(text, _ALLOWED) from error
        if kind != "truth":
            raise self._bad(text, f"a condition, not a {kind}")

    def __call__(self, row: Row) -> bool:
        """Return whether it holds of a row."""
        return self._value(row) is True

    def _bad(self, got: str, allowed: str) -> ValueError:
        return bad(self._name, got, allowed)

    def _read(self, node: ast.expr) -> tuple[str, _Value]:
        """Return the kind of a piece of syntax and what computes its value from a row."""
        match node:
            case ast.Constant(value=bool() as value):
                return "truth", lambda row: value
            case ast.Constant(value=str() as value):
                return "text", lambda row: value
            case ast.Constant(value=int() | float() as value) if math.isfinite(value):
                return "number", lambda row: value
            case ast.Name(id=column):
                return self._column(column)
            case ast.UnaryOp(op=ast.Not(), operand=operand):
                inner = self._of_kind(operand, "truth")
                return "truth", lambda row: None if (v := inner(row)) is None else not v
            case ast.UnaryOp(op=ast.USub(), operand=operand):
                inner = self._of_kind(operand, "number")
                return "number", lambda row: None if (v := inner(row)) is None else -v
            case ast.BoolOp(op=op, values=values):
                ends = isinstance(op, ast.Or)  # what one part decides alone
                return "truth", _joined([self._of_kind(v, "truth") for v in values], ends)
            case ast.BinOp(op=op, left=left, right=right) if type(op) in _ARITHMETIC:
                sides = self._of_kind(left, "number"), self._of_kind(right, "number")
                return "number", _applied(_ARITHMETIC[type(op)], *sides)
            case ast.Compare(left=left, ops=ops, comparators=others):
                pairs = zip([left, *others], ops, others, strict=False)
                return "truth", _joined([self._compared(*pair) for pair in pairs], False)
        raise self._bad(ast.unparse(node), _ALLOWED)

    def _column(self, column: str) -> tuple[str, _Value]:
        if column not in self._columns:
            got = f"an unknown column {column!r} in {self.text!r}"
            raise self._bad(got, "of " + ", ".join(self._columns))
        return _KINDS[self._columns[column]], lambda row: row.get(column)

    def _of_kind(self, node: ast.expr, wanted: str) -> _Value:
        kind, value = self._read(node)
        if kind != wanted:
            raise self._bad(f"{ast.unparse(node)} in {self.text!r}, a {kind}", f"a {wanted} there")
        return value

    def _compared(self, left: ast.expr, op: ast.cmpop, right: ast.expr) -> _Value:
        (kind, first), (other, second) = self._read(left), self._read(right)
        equality = isinstance(op, ast.Eq | ast.NotEq)
        if type(op) not in _COMPARISONS or not (equality or kind == other == "number"):
            got = f"{ast.unparse(left)} beside {ast.unparse(right)} in {self.text!r}"
            raise self._bad(got, "numbers to compare by size; == and != for texts and truths")
        if kind != other:
            got = f"a {kind} beside a {other} in {self.text!r}"
            raise self._bad(got, "values of one kind on both sides")
        return _applied(_COMPARISONS[type(op)], first, second)


def _applied(function: Callable[[Any, Any], Any], left: _Value, right: _Value) -> _Value:
    def value(row: Row) -> Any:
        a, b = left(row), right(row)
        if a is None or b is None:
            return None
        try:
            return function(a, b)
        except (ZeroDivisionError, OverflowError):
            return None

    return value


def _joined(parts: list[_Value], ends: bool) -> _Value:
    """Return `or` where True ends it, `and` where False does; None of parts that do not tell."""

    def value(row: Row) -> bool | None:
        known = True
        for part in parts:
            truth = part(row)
            if truth is ends:
                return ends
            known = known and truth is not None
        return (not ends) if known else None

    return value
