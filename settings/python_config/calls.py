"""Calls in a Python config: of the functions and methods that only make values."""

import ast

from settings.python_config.expressions import Evaluator
from settings.python_config.functions import FUNCTIONS
from settings.python_config.methods import METHODS
from settings.python_config.values import (
    Row,
    Table,
    Unreadable,
    Value,
    deep_copy,
    iterated,
)

_COPIES = ("copy.copy", "copy.deepcopy")


def call(self: Evaluator, node: ast.Call, counts: bool = True) -> Value:
    """The value of a call. counts: whether the name before a method is used by it"""
    if isinstance(node.func, ast.Attribute):
        dotted = _imported(self, node.func)
        if dotted in _COPIES:
            return _copy(self, node, dotted)
        if dotted:
            raise Unreadable(node, f"{dotted} is a function, and none of a package is called")
        return _method(self, node, node.func, counts)
    if not isinstance(node.func, ast.Name):
        raise Unreadable(node, "this is not called")
    name = node.func.id
    if name in self.lost:
        raise Unreadable(node, "")
    given = self.imports.get(name)
    if given is not None and given.dotted in _COPIES:
        return _copy(self, node, given.dotted)
    if given is not None or name in self.names:
        raise Unreadable(node, f"{name} is not called")
    function = FUNCTIONS.get(name)
    if function is None:
        raise Unreadable(node, f"the function {name} is not called")
    return function(self, node, *_arguments(self, node))


def _imported(self: Evaluator, node: ast.Attribute) -> str:
    """The dotted name of a function of a package, "" for a method of a value."""
    names = [node.attr]
    inner: ast.AST = node.value
    while isinstance(inner, ast.Attribute):
        names.append(inner.attr)
        inner = inner.value
    if isinstance(inner, ast.Name) and inner.id in self.imports and inner.id not in self.names:
        return ".".join([self.imports[inner.id].dotted, *reversed(names)])
    return ""


def _copy(self: Evaluator, node: ast.Call, dotted: str) -> Value:
    values, keywords = _arguments(self, node)
    if len(values) != 1 or keywords:
        raise Unreadable(node, "one value is copied")
    if dotted == "copy.deepcopy":
        return deep_copy(values[0], self.budget)
    if isinstance(values[0], (Row, Table)):
        self.budget.spend(len(values[0]))
    if isinstance(values[0], Row):
        return values[0].part(slice(None))
    return values[0].copied() if isinstance(values[0], Table) else values[0]


def _arguments(self: Evaluator, node: ast.Call) -> tuple[list[Value], Table]:
    values: list[Value] = []
    for argument in node.args:
        if isinstance(argument, ast.Starred):
            values += iterated(self.value(argument.value), self.budget)
        else:
            values.append(self.value(argument))
    keywords = Table(self.where(node))
    written = set()
    for keyword in node.keywords:
        value = self.value(keyword.value)
        if keyword.arg is None:
            if not isinstance(value, Table):
                raise TypeError("** wants a dict")
            self.budget.spend(len(value))
            keywords.take(value)
        elif keyword.arg in written:
            raise TypeError(f"{keyword.arg} stands twice")
        else:
            written.add(keyword.arg)
            keywords.put(keyword.arg, value, self.where(keyword))
    return values, keywords


def _method(self: Evaluator, node: ast.Call, func: ast.Attribute, counts: bool) -> Value:
    if isinstance(func.value, ast.Name):
        owner = self.lookup(func.value, counts)
    else:
        owner = container_of(self, func.value) if not counts else self.value(func.value)
    kind = next((kind for kind in METHODS if isinstance(owner, kind)), None)
    method = METHODS[kind].get(func.attr) if kind else None
    if method is None:
        raise Unreadable(node, f"{func.attr} is not called")
    values, keywords = _arguments(self, node)
    return method(self, node, owner, values, keywords)


def container_of(self: Evaluator, node: ast.AST) -> Value:
    """A container that is changed: the name that it hangs on does not count as used."""
    if isinstance(node, ast.Name):
        return self.lookup(node, counts=False)
    if isinstance(node, ast.Attribute):
        return self.attribute(container_of(self, node.value), node.attr)
    if isinstance(node, ast.Subscript) and not isinstance(node.slice, ast.Slice):
        return self.item(container_of(self, node.value), self.value(node.slice))
    return self.value(node)
