"""What an expression of a Python config is worth, found from its syntax tree."""

import ast
import operator
import re
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

from runtime.errors import did_you_mean, nearest
from settings.python_config.values import (
    EXPRESSION_WORK,
    MAX_BITS,
    MAX_LEVELS,
    MAX_TEXT,
    PACKAGES,
    Budget,
    Imported,
    Row,
    Table,
    Unreadable,
    Value,
    iterated,
    shown,
    weigh,
)

FILE_WORDS = ("fileDirname", "fileBasename", "fileBasenameNoExtension", "fileExtname")
_WORD = re.compile(r"\{\{\s*([\w.]+)\s*\}\}")  # in a text
_WORD_OF_F_STRING = re.compile(r"\{\s*(\w+)\s*\}")  # there, Python has read a pair as one brace
_SPEC = re.compile(r"[^{}]?[<>=^]?[-+ ]?#?0?\d{0,3}[,_]?(\.\d{1,2})?[a-zA-Z%]?")
_MOST_SHIFTED = 1024

_NOT_READ = {  # what a message calls them; anything else is named by its own text alone
    ast.Lambda: "functions have no value here",
    ast.NamedExpr: "an assignment stands in a line of its own",
    ast.Await: "nothing is waited for",
    ast.Yield: "nothing is generated",
    ast.YieldFrom: "nothing is generated",
}


class Evaluator:
    """Reads expressions of one file.

    names: the file's names so far; base: what its `_base_` files give, None without any
    """

    def __init__(self, path: Path, names: Table, budget: Budget):
        self.path = path
        self.names = names
        self.budget = budget
        self.base: Table | None = None
        self.imports: dict[str, Imported] = {}
        self.inner: list[dict[str, Value]] = []  # variables of comprehensions
        self.used: set[str] = set()  # names that stand in an expression
        self.changed: set[str] = set()  # names that a line sets, or whose value it changes
        self.used_of_base: set[str] = set()
        self.lost: set[str] = set()  # names whose line could not be read
        self.level = 0
        self._wheres: dict[int, str] = {}

    def where(self, node: ast.AST) -> str:
        """file:line"""
        line = getattr(node, "lineno", 1)
        return self._wheres.setdefault(line, f"{self.path}:{line}")

    def value(self, node: ast.AST) -> Value:
        """What the expression is worth. Raises Unreadable, TooMuch."""
        self.budget.spend(EXPRESSION_WORK)
        read = _READERS.get(type(node))
        if read is None:
            raise Unreadable(node, _NOT_READ.get(type(node), "this has no value here"))
        self.level += 1
        try:
            if self.level > MAX_LEVELS:
                raise Unreadable(node, "nested too deep to be a config")
            return read(self, node)
        except OverflowError:
            raise Unreadable(node, "the number is too large for a config") from None
        except (TypeError, ValueError, ArithmeticError, LookupError) as error:
            raise Unreadable(node, str(error)) from None
        finally:
            self.level -= 1

    def lookup(self, node: ast.Name, counts: bool = True) -> Value:
        """The value of a name. counts: whether it is used, and not changed"""
        name = node.id
        for scope in reversed(self.inner):
            if name in scope:
                return scope[name]
        if name in self.lost:
            raise Unreadable(node, "")
        if name == "_base_":
            if self.base is None:
                raise Unreadable(node, "the file has no _base_")
            return self.base
        if name in self.names:
            (self.used if counts else self.changed).add(name)
            return self.names[name]
        if name in self.imports:
            return self.imports[name]
        near = nearest(name, self.names)
        self.used |= {near} if near else set()
        hint = f" Did you mean {near}?" if near else ""
        raise Unreadable(node, f"nothing above gives {name} a value.{hint}")

    def item(self, container: Value, key: Value) -> Value:
        """container[key]"""
        if isinstance(container, Table):
            if isinstance(key, (Row, Table)) or key not in container:
                raise LookupError(f"there is no key {shown(key)}")
            return container[key]
        if isinstance(container, Row) and isinstance(key, slice):
            part = container.part(key)
            self.budget.spend(len(part))
            return part
        if isinstance(container, (Row, str, range)) and isinstance(key, (int, slice)):
            return container[key]
        raise TypeError("this has no items" if not isinstance(container, (Row, str, range))
                        else "an item's number is wanted")

    def attribute(self, container: Value, name: str) -> Value:
        """container.name: a key, or a name of a package"""
        if isinstance(container, Imported):
            return Imported(f"{container.dotted}.{name}")
        if isinstance(container, Table) and not name.startswith("__"):
            if container is self.base:
                self.used_of_base.add(name)
            if name not in container:
                near = did_you_mean(name, map(str, container))
                raise LookupError(f"there is no key {name}.{near}")
            return container[name]
        raise TypeError("attributes of values have no value here")

    def template(self, text: str) -> Value:
        """`text` with mmengine's words in double braces filled in; a word alone keeps its type."""
        alone = _WORD.fullmatch(text.strip())
        if alone:
            found = self.word(alone[1])
            return text if found is None else found
        parts = []
        end = 0
        for match in _WORD.finditer(text):
            found = self.word(match[1])
            if found is not None:
                parts += [text[end:match.start()], self.text_of(found)]
                end = match.end()
        return self.bounded("".join([*parts, text[end:]])) if parts else text

    def word(self, word: str) -> Value:
        """What `{{word}}` stands for, None when it is none of mmengine's."""
        if word in FILE_WORDS:
            place = Path(self.path).absolute()
            return {"fileDirname": str(place.parent), "fileBasename": place.name,
                    "fileBasenameNoExtension": place.stem, "fileExtname": place.suffix}[word]
        first, *keys = word.split(".")
        if first != "_base_" or not keys:
            return None
        if self.base is None:
            raise LookupError("the file has no _base_")
        found: Value = self.base
        for key in keys:
            is_number = isinstance(found, Row) and key.isdecimal()
            found = self.item(found, int(key)) if is_number else self.attribute(found, key)
        return found

    def text_of(self, value: Value) -> str:
        """str(value)"""
        weight = weigh(value, self.budget)
        if weight > MAX_TEXT // 10:
            raise ValueError("too long to be text of a config")
        self.budget.spend(weight)
        return self.bounded(shown(value))

    def bounded(self, text: str) -> str:
        """`text`, when it is not too long."""
        self.check_text(len(text))
        self.budget.spend(len(text) // 10)
        return text

    def check_text(self, letters: int) -> None:
        """Raises ValueError when a text of a config has not that many letters."""
        if letters > MAX_TEXT:
            raise ValueError("too long to be text of a config")

    def formatted(self, value: Value, spec: str) -> str:
        """format(value, spec)"""
        if not spec:
            return self.text_of(value)
        if not _SPEC.fullmatch(spec) or not isinstance(value, (int, float, str)):
            raise ValueError("this form of text has no value here")
        return self.bounded(format(value, spec))


def _constant(self: Evaluator, node: ast.Constant) -> Value:
    value = node.value
    if isinstance(value, str):
        self.check_text(len(value))
        self.budget.spend(len(value) // 10)
        return self.template(value) if "{{" in value else value
    if value is None or isinstance(value, (bool, float)):
        return value
    if isinstance(value, int) and value.bit_length() <= MAX_BITS:
        return value
    raise ValueError("no value of a config")


def _name(self: Evaluator, node: ast.Name) -> Value:
    value = self.lookup(node)
    if isinstance(value, Imported) and value.package not in PACKAGES:
        raise Unreadable(node, f"what {value.dotted.strip('.')} has is not known, because nothing "
                               "is imported")
    return value


def _attribute(self: Evaluator, node: ast.Attribute) -> Value:
    return self.attribute(self.value(node.value), node.attr)


def _sequence(self: Evaluator, node: ast.List | ast.Tuple | ast.Set) -> Value:
    if isinstance(node, ast.Set) and len(node.elts) == 1:
        return _set_of_one(self, node)
    row = Row(self.where(node), is_tuple=isinstance(node, ast.Tuple))
    for element in node.elts:
        if isinstance(element, ast.Starred):
            items = Row("", iterated(self.value(element.value), self.budget))
            row.take(items, self.where(element))
        else:
            row.add(self.value(element), self.where(element))
    if isinstance(node, ast.Set) and any(isinstance(item, (Row, Table)) for item in row):
        raise TypeError("a set holds texts and numbers only")
    return _without_repeats(row) if isinstance(node, ast.Set) else row


def _set_of_one(self: Evaluator, node: ast.Set) -> Value:
    """`{{_base_.x}}`, which Python reads as a set in a set."""
    inner = node.elts[0]
    if isinstance(inner, ast.Set) and len(inner.elts) == 1:
        root: ast.AST = inner.elts[0]
        while isinstance(root, (ast.Attribute, ast.Subscript)):
            root = root.value
        if isinstance(root, ast.Name) and root.id == "_base_":
            return self.value(inner.elts[0])
    value = self.value(inner)
    if isinstance(value, (Row, Table)):
        raise TypeError("a set holds texts and numbers only")
    return Row(self.where(node), [value])


def _without_repeats(row: Row) -> Row:
    return Row(row.where, dict.fromkeys(row))


def _dict(self: Evaluator, node: ast.Dict) -> Value:
    table = Table(self.where(node))
    for key, item in zip(node.keys, node.values, strict=True):
        value = self.value(item)
        if key is not None:
            table.put(self.value(key), value, self.where(key))
        elif isinstance(value, Table):
            self.budget.spend(len(value))
            table.take(value)
        else:
            raise TypeError("** wants a dict")
    return table


def _subscript(self: Evaluator, node: ast.Subscript) -> Value:
    return self.item(self.value(node.value), key_of(self, node.slice))


def key_of(self: Evaluator, node: ast.AST) -> Value:
    """The value between square brackets, a slice too."""
    if not isinstance(node, ast.Slice):
        return self.value(node)
    ends = [None if end is None else self.value(end) for end in (node.lower, node.upper, node.step)]
    return slice(*ends)


def _bits(value: int) -> int:
    return int(value).bit_length()


def binary(self: Evaluator, kind: type[ast.operator], left: Value, right: Value) -> Value:
    """left <operator> right. Raises ValueError for what would be too large."""
    if kind is ast.Mod and isinstance(left, str):
        from settings.python_config.methods import percent

        return percent(self, left, right)
    if isinstance(left, Row) or isinstance(right, Row):
        return _of_rows(self, kind, left, right)
    if isinstance(left, Table) and isinstance(right, Table) and kind is ast.BitOr:
        self.budget.spend(len(left) + len(right))
        both = left.copied()
        both.take(right)
        return both
    if isinstance(left, str) or isinstance(right, str):
        return _of_texts(self, kind, left, right)
    if not isinstance(left, (int, float)) or not isinstance(right, (int, float)):
        raise TypeError("numbers are wanted on both sides")
    operation = _OPERATORS.get(kind)
    if operation is None:
        raise TypeError("this operator has no value here")
    whole = isinstance(left, int) and isinstance(right, int)
    if whole and (
        (kind is ast.Pow and (right > MAX_BITS or _bits(left) * max(right, 1) > MAX_BITS))
        or (kind is ast.LShift and right + _bits(left) > _MOST_SHIFTED)
        or _bits(left) + _bits(right) > 2 * MAX_BITS
    ):
        raise ValueError("the number is too large for a config")
    result = operation(left, right)
    if isinstance(result, complex):
        raise ValueError("no number of a config")
    if isinstance(result, int) and _bits(result) > MAX_BITS:
        raise ValueError("the number is too large for a config")
    return result


def _of_rows(self: Evaluator, kind: type[ast.operator], left: Value, right: Value) -> Row:
    if kind is ast.Mult:
        row, times = (left, right) if isinstance(left, Row) else (right, left)
        if isinstance(times, int):
            times = max(int(times), 0)
            self.budget.spend(len(row) * times)
            made = Row(row.where, list(row) * times, row.is_tuple)
            made.lines = row.lines * times
            return made
    if kind is ast.Add and isinstance(left, Row) and isinstance(right, Row):
        self.budget.spend(len(left) + len(right))
        both = left.part(slice(None))
        both.take(right, right.where)
        return both
    raise TypeError("lists have no such operator")


def _of_texts(self: Evaluator, kind: type[ast.operator], left: Value, right: Value) -> str:
    if kind is ast.Add and isinstance(left, str) and isinstance(right, str):
        self.check_text(len(left) + len(right))
        return self.bounded(str(left) + str(right))
    if kind is ast.Mult and isinstance(left, (str, int)) and isinstance(right, (str, int)):
        text, times = (left, right) if isinstance(left, str) else (right, left)
        if isinstance(times, int):
            self.check_text(len(text) * max(int(times), 0))
            return self.bounded(str(text) * times)
    raise TypeError("text has no such operator")


def _binary(self: Evaluator, node: ast.BinOp) -> Value:
    return binary(self, type(node.op), self.value(node.left), self.value(node.right))


def _unary(self: Evaluator, node: ast.UnaryOp) -> Value:
    value = self.value(node.operand)
    if isinstance(node.op, ast.Not):
        return not value
    if not isinstance(value, (int, float)):
        raise TypeError("a number is wanted")
    if isinstance(node.op, ast.Invert):
        if isinstance(value, float):
            raise TypeError("a whole number is wanted")
        return ~int(value)
    return -value if isinstance(node.op, ast.USub) else +value


def _boolean(self: Evaluator, node: ast.BoolOp) -> Value:
    wants = isinstance(node.op, ast.Or)
    value: Value = None
    for part in node.values:
        value = self.value(part)
        if bool(value) is wants:
            return value
    return value


def _compare(self: Evaluator, node: ast.Compare) -> Value:
    left = self.value(node.left)
    for kind, part in zip(node.ops, node.comparators, strict=True):
        right = self.value(part)
        self.budget.spend(weigh(left, self.budget) + weigh(right, self.budget))
        operation = _COMPARISONS[type(kind)]
        if isinstance(kind, (ast.In, ast.NotIn)) and isinstance(left, (Row, Table)) and isinstance(
                right, Table):
            raise TypeError("a key is a text or a number")
        if not operation(left, right):
            return False
        left = right
    return True


def _conditional(self: Evaluator, node: ast.IfExp) -> Value:
    return self.value(node.body if self.value(node.test) else node.orelse)


def _f_string(self: Evaluator, node: ast.JoinedStr) -> Value:
    parts = []
    for part in node.values:
        if isinstance(part, ast.Constant):
            text = str(part.value)
            parts.append(_WORD_OF_F_STRING.sub(
                lambda match: str(self.word(match[1]) or match[0]), text))
        else:
            parts.append(self.value(part))
        self.check_text(sum(map(len, parts)))
    return self.bounded("".join(parts))


def _formatted(self: Evaluator, node: ast.FormattedValue) -> Value:
    value = self.value(node.value)
    if node.conversion in (ord("r"), ord("a")):
        value = repr(str(value)) if isinstance(value, str) else self.text_of(value)
    spec = "" if node.format_spec is None else str(self.value(node.format_spec))
    return self.formatted(value, spec)


def loops(self: Evaluator, generators: list[ast.comprehension], then: Callable[[], None],
          depth: int = 0) -> None:
    """Call `then` for each round of a comprehension, with its variables set."""
    if depth == len(generators):
        then()
        return
    generator = generators[depth]
    if generator.is_async:
        raise Unreadable(generator.iter, "nothing is waited for")
    scope: dict[str, Value] = {}
    for item in iterated(self.value(generator.iter), self.budget):
        _bind(self, generator.target, item, scope)
        self.inner.append(scope)
        try:
            if all(self.value(test) for test in generator.ifs):
                loops(self, generators, then, depth + 1)
        finally:
            self.inner.pop()


def _bind(self: Evaluator, target: ast.AST, value: Value, scope: dict[str, Value]) -> None:
    for name, item in unpacked(self, target, value):
        if not isinstance(name, ast.Name):
            raise Unreadable(target, "a comprehension sets plain names")
        scope[name.id] = item


def unpacked(self: Evaluator, target: ast.AST, value: Value) -> Iterator[tuple[ast.AST, Value]]:
    """(single target, its value) of `a, (b, c) = value`."""
    if not isinstance(target, (ast.Tuple, ast.List)):
        yield target, value
        return
    items = list(iterated(value, self.budget))
    if len(items) != len(target.elts) or any(isinstance(t, ast.Starred) for t in target.elts):
        raise Unreadable(target, f"{len(target.elts)} names for {len(items)} values")
    for inner, item in zip(target.elts, items, strict=True):
        yield from unpacked(self, inner, item)


def comprehended(self: Evaluator, node: ast.ListComp | ast.SetComp | ast.GeneratorExp) -> Row:
    """The items of a comprehension."""
    row = Row(self.where(node))
    where = self.where(node.elt)
    loops(self, node.generators, lambda: row.add(self.value(node.elt), where))
    if isinstance(node, ast.SetComp):
        if any(isinstance(item, (Row, Table)) for item in row):
            raise TypeError("a set holds texts and numbers only")
        return _without_repeats(row)
    return row


def _dict_comprehension(self: Evaluator, node: ast.DictComp) -> Value:
    table = Table(self.where(node))
    where = self.where(node.key)
    loops(self, node.generators,
          lambda: table.put(self.value(node.key), self.value(node.value), where))
    return table


def _call(self: Evaluator, node: ast.Call) -> Value:
    from settings.python_config.calls import call

    return call(self, node)


_OPERATORS: Mapping[type, Callable[[Value, Value], Value]] = {
    ast.Add: operator.add, ast.Sub: operator.sub, ast.Mult: operator.mul,
    ast.Div: operator.truediv, ast.FloorDiv: operator.floordiv, ast.Mod: operator.mod,
    ast.Pow: operator.pow, ast.LShift: operator.lshift, ast.RShift: operator.rshift,
    ast.BitAnd: operator.and_, ast.BitOr: operator.or_, ast.BitXor: operator.xor,
}
_COMPARISONS: Mapping[type, Callable[[Value, Value], bool]] = {
    ast.Eq: operator.eq, ast.NotEq: operator.ne, ast.Lt: operator.lt, ast.LtE: operator.le,
    ast.Gt: operator.gt, ast.GtE: operator.ge, ast.Is: operator.is_, ast.IsNot: operator.is_not,
    ast.In: lambda left, right: left in right, ast.NotIn: lambda left, right: left not in right,
}
_READERS: Mapping[type, Callable[[Evaluator, ast.AST], Value]] = {
    ast.Constant: _constant, ast.Name: _name, ast.Attribute: _attribute, ast.List: _sequence,
    ast.Tuple: _sequence, ast.Set: _sequence, ast.Dict: _dict, ast.Subscript: _subscript,
    ast.BinOp: _binary, ast.UnaryOp: _unary, ast.BoolOp: _boolean, ast.Compare: _compare,
    ast.IfExp: _conditional, ast.JoinedStr: _f_string, ast.FormattedValue: _formatted,
    ast.ListComp: comprehended, ast.SetComp: comprehended, ast.GeneratorExp: comprehended,
    ast.DictComp: _dict_comprehension, ast.Call: _call,
}
