"""What the lines of a Python config do: names get values, dicts and lists change."""

import ast
from collections.abc import Callable, Mapping
from pathlib import Path

from settings.nodes import Node
from settings.python_config.calls import call, container_of
from settings.python_config.expressions import Evaluator, binary, key_of, unpacked
from settings.python_config.values import (
    Budget,
    Imported,
    Row,
    Table,
    Unreadable,
    Value,
    from_node,
    iterated,
)

MOST_FAULTS = 20  # of one file
_SHOWN = 80  # letters of an expression in a message

BaseReader = Callable[[str, str], Node | None]  # (file name, where) to a tree; None: told


class _Break(Exception):
    pass


class _Continue(Exception):
    pass


class Statements(Evaluator):
    """Reads the lines of a file in turn.

    A line that cannot be read is a fault, and the names that it would have set are lost: what
    stands on them is not told again.
    """

    def __init__(self, path: Path, budget: Budget, lines: list[str], faults: list[str],
                 read_base: BaseReader):
        super().__init__(path, Table(f"{path}:1"), budget)
        self.source = lines
        self.faults = faults
        self.read_base = read_base
        self.variables: dict[str, str] = {}  # of files that `read_base` brought in
        self.at = f"{path}:1"  # the line that is read now

    def run(self, body: list[ast.stmt]) -> None:
        """Read all lines. Raises TooMuch."""
        before = len(self.faults)
        for line in body:
            self.at = self.where(line)
            try:
                self.line(line)
            except Unreadable as error:
                if error.why:
                    self.tell(error)
                self.used |= {node.id for node in ast.walk(line) if isinstance(node, ast.Name)
                              and isinstance(node.ctx, ast.Load)}
                self.lost |= _names_set_in(line)
                for name in _names_set_in(line):
                    self.names.pop(name, None)
            except RecursionError:
                self.faults.append(f"{self.where(line)}: nested too deep to be a config")
            except (_Break, _Continue):
                self.faults.append(f"{self.where(line)}: not a valid Python file: break or "
                                   "continue outside a loop")
            if len(self.faults) - before > MOST_FAULTS:
                break

    def tell(self, error: Unreadable) -> None:
        """Append the fault's line, with the expression as it is written."""
        text = self.text_between(error.node)
        self.faults.append(f"{self.where(error.node)}: cannot read {text}: {error.why}")

    def text_between(self, node: ast.AST) -> str:
        """The source of an expression, on one line and not too long."""
        first, last = getattr(node, "lineno", 1) - 1, getattr(node, "end_lineno", 1) - 1
        start, end = getattr(node, "col_offset", 0), getattr(node, "end_col_offset", 0)
        words = []
        for i in range(first, min(last + 1, first + 5, len(self.source))):
            line = self.source[i].encode()[:10_000]
            part = line[start if i == first else 0:end if i == last else None]
            words.append(part.decode(errors="replace").strip())
        text = " ".join(words)
        return text if len(text) <= _SHOWN else f"{text[:_SHOWN]}..."

    def line(self, node: ast.stmt) -> None:
        """One statement."""
        self.budget.spend(5)
        read = _LINES.get(type(node))
        if read is None:
            raise Unreadable(node, _NOT_READ.get(type(node), "such a line has no meaning here"))
        try:
            read(self, node)
        except (TypeError, ValueError, ArithmeticError, LookupError) as error:
            raise Unreadable(node, str(error)) from None

    def assign(self, target: ast.AST, value: Value) -> None:
        """Set a name, a key, an item, or several of them."""
        for place, item in unpacked(self, target, value):
            where = self.where(place)
            if isinstance(place, ast.Name):
                if place.id == "_base_":
                    raise Unreadable(place, "it stands at the top, in a line of its own")
                self.names.put(place.id, item, where)
                self.changed.add(place.id)
                self.lost.discard(place.id)
            elif isinstance(place, ast.Attribute):
                owner = container_of(self, place.value)
                if not isinstance(owner, Table):
                    raise Unreadable(place, "attributes of values have no value here")
                owner.put(place.attr, item, where)
            elif isinstance(place, ast.Subscript):
                self.set_item(place, item, where)
            else:
                raise Unreadable(place, "a name, a key or an item is set")

    def bind_import(self, name: str, dotted: str) -> None:
        """A name stands for something of a package, which is never imported."""
        self.imports[name] = Imported(dotted)
        self.names.pop(name, None)
        self.lost.discard(name)

    def set_item(self, place: ast.Subscript, value: Value, where: str) -> None:
        """container[key] = value"""
        owner, key = container_of(self, place.value), key_of(self, place.slice)
        if isinstance(owner, Table):
            owner.put(key, value, where)
        elif isinstance(owner, Row) and isinstance(key, int) and not owner.is_tuple:
            owner[key] = value
            owner.lines[key] = where
        else:
            raise Unreadable(place, "an item of a list or a key of a dict is set")


def _names_set_in(line: ast.stmt) -> set[str]:
    return {node.id for node in ast.walk(line)
            if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store)} | {
        name.asname or name.name.partition(".")[0] for node in ast.walk(line)
        if isinstance(node, (ast.Import, ast.ImportFrom)) for name in node.names} | {
        node.name for node in ast.walk(line)
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef))}


def _assign(self: Statements, node: ast.Assign) -> None:
    value = self.value(node.value)
    for target in node.targets:
        self.assign(target, value)


def _annotated(self: Statements, node: ast.AnnAssign) -> None:
    if node.value is not None:
        self.assign(node.target, self.value(node.value))


def _augmented(self: Statements, node: ast.AugAssign) -> None:
    old = container_of(self, node.target)
    new = self.value(node.value)
    kind = type(node.op)
    if isinstance(old, Row) and kind is ast.Add and not old.is_tuple:
        items = list(iterated(new, self.budget))
        old.take(new if isinstance(new, Row) else items, self.where(node))
    elif isinstance(old, Table) and kind is ast.BitOr and isinstance(new, Table):
        self.budget.spend(len(new))
        old.take(new)
    else:
        self.assign(node.target, binary(self, kind, old, new))


def _expression(self: Statements, node: ast.Expr) -> None:
    if isinstance(node.value, ast.Constant):
        return  # a text that stands alone is a comment
    if isinstance(node.value, ast.Call) and isinstance(node.value.func, ast.Attribute):
        self.budget.spend(5)
        try:
            call(self, node.value, counts=False)
        except (TypeError, ValueError, ArithmeticError, LookupError) as error:
            raise Unreadable(node.value, str(error)) from None
    else:
        self.value(node.value)


def _delete(self: Statements, node: ast.Delete) -> None:
    for target in node.targets:
        if isinstance(target, ast.Name):
            self.lookup(target, counts=False)
            self.names.pop(target.id, None)
        elif isinstance(target, (ast.Subscript, ast.Attribute)):
            owner = container_of(self, target.value)
            key = key_of(self, target.slice) if isinstance(target, ast.Subscript) else target.attr
            self.item(owner, key)
            if not isinstance(owner, (Row, Table)):
                raise Unreadable(target, "an item of a list or a key of a dict is deleted")
            del owner[key], owner.lines[key]
        else:
            raise Unreadable(target, "a name, a key or an item is deleted")


def _if(self: Statements, node: ast.If) -> None:
    for line in node.body if self.value(node.test) else node.orelse:
        self.line(line)


def _for(self: Statements, node: ast.For) -> None:
    for item in iterated(self.value(node.iter), self.budget):
        self.assign(node.target, item)
        self.used |= {name.id for name in ast.walk(node.target) if isinstance(name, ast.Name)}
        try:
            for line in node.body:
                self.line(line)
        except _Continue:
            continue
        except _Break:
            return
    for line in node.orelse:
        self.line(line)


def _break(self: Statements, node: ast.Break) -> None:
    raise _Break


def _continue(self: Statements, node: ast.Continue) -> None:
    raise _Continue


def _pass(self: Statements, node: ast.Pass) -> None:
    pass


def _import(self: Statements, node: ast.Import) -> None:
    for name in node.names:
        dotted = name.name if name.asname else name.name.partition(".")[0]
        self.bind_import(name.asname or dotted, dotted)


def _import_from(self: Statements, node: ast.ImportFrom) -> None:
    package = "." * node.level + (node.module or "")
    for name in node.names:
        if name.name != "*":  # of a star's names none is known; they are missed where they stand
            self.bind_import(name.asname or name.name, f"{package}.{name.name}")


def _with(self: Statements, node: ast.With) -> None:
    context = node.items[0].context_expr
    is_read_base = (len(node.items) == 1 and isinstance(context, ast.Call)
                    and isinstance(context.func, ast.Name) and context.func.id == "read_base")
    if not is_read_base:
        raise Unreadable(context, "of all that `with` may open only read_base() has a value here")
    for line in node.body:
        if isinstance(line, ast.ImportFrom):
            _import_base(self, line)
        elif not isinstance(line, ast.Pass):
            raise Unreadable(line, "below read_base() stands from .FILE import NAMES")


def _import_base(self: Statements, node: ast.ImportFrom) -> None:
    """`from ..folder.file import *`: the names of another config."""
    if not node.level or not node.module:
        raise Unreadable(node, "the config of a package: give its file, from .FILE import *")
    name = "/".join([".", *[".."] * (node.level - 1), *node.module.split(".")]) + ".py"
    tree = self.read_base(name, self.where(node))
    if tree is None:
        raise Unreadable(node, "")
    self.variables |= tree.variables
    table = from_node(tree, self.budget)
    for each in node.names:
        names = list(table) if each.name == "*" else [each.name]
        for key in names:
            if key not in table:
                raise Unreadable(node, f"there is no {key} in {name}")
            mine = each.asname or key
            self.names.put(mine, table[key], table.lines[key])
            self.lost.discard(mine)
            if each.asname and key in tree.variables:
                self.variables[mine] = ""


_NOT_READ = {
    ast.FunctionDef: "functions are not read", ast.AsyncFunctionDef: "functions are not read",
    ast.ClassDef: "classes are not read", ast.While: "a loop without an end is not read",
    ast.Try: "nothing is tried", ast.Raise: "nothing is raised",
    ast.Global: "all names are the file's",
}
_LINES: Mapping[type, Callable[..., None]] = {
    ast.Assign: _assign, ast.AnnAssign: _annotated, ast.AugAssign: _augmented,
    ast.Expr: _expression, ast.Delete: _delete, ast.If: _if, ast.For: _for, ast.Break: _break,
    ast.Continue: _continue, ast.Pass: _pass, ast.Import: _import,
    ast.ImportFrom: _import_from, ast.With: _with,
}
