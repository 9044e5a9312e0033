"""The functions that a Python config may call: those that only make values."""

import ast
from collections.abc import Callable, Mapping

from settings.python_config.expressions import Evaluator, binary
from settings.python_config.values import (
    CONTAINER_WORK,
    MAX_BITS,
    Row,
    Table,
    Value,
    iterated,
    weigh,
)

_MOST_NUMBERS = 100_000  # of a range
_MOST_DIGITS = 1000  # of a number in a text


def one(values: list[Value], least: int = 1, most: int = 1) -> list[Value]:
    """The arguments, None for those left out. Raises TypeError when there are more or fewer."""
    if not least <= len(values) <= most:
        raise TypeError(f"{len(values)} values are given")
    return values + [None] * (most - len(values))


def new_dict(self: Evaluator, node: ast.Call, values: list[Value], keywords: Table) -> Table:
    """dict(...)"""
    table = Table(self.where(node))
    (first,) = one(values, 0)
    if isinstance(first, Table):
        self.budget.spend(len(first))
        table.take(first)
    elif first is not None:
        for pair in iterated(first, self.budget):
            if not isinstance(pair, Row) or len(pair) != 2:
                raise TypeError("dict wants pairs")
            table.put(pair[0], pair[1], self.where(node))
    table.take(keywords)
    return table


def _listed(is_tuple: bool, only_once: bool = False) -> "Function":
    def made(self: Evaluator, node: ast.Call, values: list[Value], _: Table) -> Value:
        (first,) = one(values, 0)
        row = Row(self.where(node), is_tuple=is_tuple)
        if isinstance(first, Row):
            self.budget.spend(len(first))
            row.take(first, row.where)
        elif first is not None:
            row.take(list(iterated(first, self.budget)), row.where)
        if only_once:
            _want_scalars(row)
            return Row(row.where, dict.fromkeys(row))
        return row
    return made


def _want_scalars(row: Row) -> None:
    if any(isinstance(item, (Row, Table)) for item in row):
        raise TypeError("texts and numbers are wanted")


def _len(self: Evaluator, node: ast.Call, values: list[Value], _: Table) -> Value:
    (first,) = one(values)
    if not isinstance(first, (str, range, Row, Table)):
        raise TypeError("this has no length")
    return len(first)


def _range(self: Evaluator, node: ast.Call, values: list[Value], _: Table) -> Value:
    if not 1 <= len(values) <= 3:
        raise TypeError("range wants one to three whole numbers")
    numbers = range(*values)
    if len(numbers) > _MOST_NUMBERS:
        raise ValueError("too many numbers for a config")
    return numbers


def _int(self: Evaluator, node: ast.Call, values: list[Value], _: Table) -> Value:
    first, base = one(values, 0, 2)
    if isinstance(first, str) and len(first) > _MOST_DIGITS:
        raise ValueError("the number is too large for a config")
    if base is not None:
        number = int(first, base)
    else:
        number = int(0 if first is None else first)
    if number.bit_length() > MAX_BITS:
        raise ValueError("the number is too large for a config")
    return number


def _float(self: Evaluator, node: ast.Call, values: list[Value], _: Table) -> Value:
    (first,) = one(values, 0)
    if isinstance(first, str) and len(first) > _MOST_DIGITS:
        raise ValueError("the number is too large for a config")
    return float(0 if first is None else first)


def _bool(self: Evaluator, node: ast.Call, values: list[Value], _: Table) -> Value:
    return bool(one(values, 0)[0])


def _str(self: Evaluator, node: ast.Call, values: list[Value], _: Table) -> Value:
    return self.text_of(one(values)[0]) if values else ""


def _abs(self: Evaluator, node: ast.Call, values: list[Value], _: Table) -> Value:
    return abs(_number(one(values)[0]))


def _round(self: Evaluator, node: ast.Call, values: list[Value], _: Table) -> Value:
    number, digits = one(values, 1, 2)
    if digits is not None and not (isinstance(digits, int) and abs(digits) < 400):
        raise ValueError("round wants a small number of digits")
    return round(_number(number), digits)


def _number(value: Value) -> Value:
    if not isinstance(value, (int, float)):
        raise TypeError("a number is wanted")
    return value


def _several(self: Evaluator, values: list[Value]) -> list[Value]:
    """The items that min, max or sorted looks at."""
    items = list(iterated(values[0], self.budget)) if len(values) == 1 else values
    self.budget.spend(4 * len(items) + sum(weigh(item, self.budget) for item in items))
    return items


def _min(self: Evaluator, node: ast.Call, values: list[Value], _: Table) -> Value:
    return min(_several(self, values))


def _max(self: Evaluator, node: ast.Call, values: list[Value], _: Table) -> Value:
    return max(_several(self, values))


def _sum(self: Evaluator, node: ast.Call, values: list[Value], _: Table) -> Value:
    items, total = one(values, 1, 2)
    total = 0 if total is None else total
    if isinstance(total, str):
        raise TypeError("texts are not summed")
    for item in iterated(items, self.budget):
        total = binary(self, ast.Add, total, item)
    return total


def _sorted(self: Evaluator, node: ast.Call, values: list[Value], keywords: Table) -> Value:
    one(values)
    if set(keywords) - {"reverse"}:
        raise TypeError("of its options only reverse has a value here")
    items = sorted(_several(self, values), reverse=bool(keywords.get("reverse")))
    return Row(self.where(node), items)


def _reversed(self: Evaluator, node: ast.Call, values: list[Value], _: Table) -> Value:
    return Row(self.where(node), list(iterated(one(values)[0], self.budget))[::-1])


def _zip(self: Evaluator, node: ast.Call, values: list[Value], _: Table) -> Value:
    where = self.where(node)
    columns = [list(iterated(value, self.budget)) for value in values]
    self.budget.spend(CONTAINER_WORK * min(map(len, columns), default=0))
    return Row(where, (Row(where, items, True) for items in zip(*columns, strict=False)))


def _enumerate(self: Evaluator, node: ast.Call, values: list[Value], keywords: Table) -> Value:
    items, start = one(values, 1, 2)
    start = keywords.get("start", 0) if start is None else start
    where = self.where(node)
    items = list(iterated(items, self.budget))
    self.budget.spend(CONTAINER_WORK * len(items))
    return Row(where, (Row(where, pair, True) for pair in enumerate(items, start)))


def _any(self: Evaluator, node: ast.Call, values: list[Value], _: Table) -> Value:
    return any(iterated(one(values)[0], self.budget))


def _all(self: Evaluator, node: ast.Call, values: list[Value], _: Table) -> Value:
    return all(iterated(one(values)[0], self.budget))


Function = Callable[[Evaluator, ast.Call, list[Value], Table], Value]
FUNCTIONS: Mapping[str, Function] = {
    "dict": new_dict, "list": _listed(False), "tuple": _listed(True), "set": _listed(False, True),
    "len": _len, "range": _range, "int": _int, "float": _float, "bool": _bool, "str": _str,
    "abs": _abs, "round": _round, "min": _min, "max": _max, "sum": _sum, "sorted": _sorted,
    "reversed": _reversed, "zip": _zip, "enumerate": _enumerate, "any": _any, "all": _all,
}
