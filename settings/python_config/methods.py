"""The methods of dicts, lists and texts that a Python config may call."""

import ast
import re
import string
from collections.abc import Callable, Mapping

from settings.python_config.expressions import Evaluator
from settings.python_config.functions import new_dict, one
from settings.python_config.values import (
    CONTAINER_WORK,
    Imported,
    Row,
    Table,
    Value,
    iterated,
    weigh,
)

_PERCENT = re.compile(r"%(?:\((\w+)\))?([-+ #0]*\d{0,3}(?:\.\d{1,2})?[a-zA-Z%])")


# --- methods of dicts

def _update(self: Evaluator, node: ast.Call, own: Table, values: list[Value],
            keywords: Table) -> Value:
    new = new_dict(self, node, values, keywords)
    if own.deep:
        own.merge(new, self.budget)
    else:
        self.budget.spend(len(new))
        own.take(new)
    return None


def _get(self: Evaluator, node: ast.Call, own: Table, values: list[Value], _: Table) -> Value:
    key, default = one(values, 1, 2)
    return own[key] if _key(key) in own else default


def _key(key: Value) -> Value:
    if isinstance(key, (Row, Table)):
        raise TypeError("a key is a text or a number")
    return key


def _setdefault(self: Evaluator, node: ast.Call, own: Table, values: list[Value],
                _: Table) -> Value:
    key, default = one(values, 1, 2)
    if _key(key) not in own:
        own.put(key, default, self.where(node))
    return own[key]


def _pop_key(self: Evaluator, node: ast.Call, own: Table, values: list[Value], _: Table) -> Value:
    key, default = one(values, 1, 2)
    if _key(key) not in own and len(values) == 1:
        raise LookupError(f"there is no key {key}")
    own.lines.pop(key, None)
    return own.pop(key, default)


def _keys(self: Evaluator, node: ast.Call, own: Table, values: list[Value], _: Table) -> Value:
    self.budget.spend(len(own))
    return Row(self.where(node), own.keys())


def _values(self: Evaluator, node: ast.Call, own: Table, values: list[Value], _: Table) -> Value:
    self.budget.spend(len(own))
    return Row(self.where(node), own.values())


def _items(self: Evaluator, node: ast.Call, own: Table, values: list[Value], _: Table) -> Value:
    self.budget.spend((CONTAINER_WORK + 2) * len(own))
    return Row(self.where(node), (Row(own.lines[key], pair, True) for key, pair in
                                  zip(own, own.items(), strict=True)))


def _copy_dict(self: Evaluator, node: ast.Call, own: Table, values: list[Value],
               _: Table) -> Value:
    self.budget.spend(len(own))
    return own.copied()


# --- methods of lists

def _changed(own: Row) -> None:
    if own.is_tuple:
        raise TypeError("a tuple cannot be changed")


def _append(self: Evaluator, node: ast.Call, own: Row, values: list[Value], _: Table) -> Value:
    _changed(own)
    own.add(one(values)[0], self.where(node))


def _extend(self: Evaluator, node: ast.Call, own: Row, values: list[Value], _: Table) -> Value:
    _changed(own)
    (other,) = one(values)
    items = other if isinstance(other, Row) else list(iterated(other, self.budget))
    self.budget.spend(len(items))
    own.take(items, self.where(node))


def _insert(self: Evaluator, node: ast.Call, own: Row, values: list[Value], _: Table) -> Value:
    _changed(own)
    self.budget.spend(len(own) // 10)
    place, value = one(values, 2, 2)
    own.insert(place, value)
    own.lines.insert(place, self.where(node))


def _pop(self: Evaluator, node: ast.Call, own: Row, values: list[Value], _: Table) -> Value:
    _changed(own)
    self.budget.spend(len(own) // 10)
    place = one(values, 0)[0]
    place = -1 if place is None else place
    value = own.pop(place)
    own.lines.pop(place)
    return value


def _index(self: Evaluator, node: ast.Call, own: Row, values: list[Value], _: Table) -> Value:
    self.budget.spend(weigh(own, self.budget))
    return own.index(one(values)[0])


def _remove(self: Evaluator, node: ast.Call, own: Row, values: list[Value], _: Table) -> Value:
    _changed(own)
    place = _index(self, node, own, values, _)
    del own[place], own.lines[place]


def _count(self: Evaluator, node: ast.Call, own: Row, values: list[Value], _: Table) -> Value:
    self.budget.spend(weigh(own, self.budget))
    return own.count(one(values)[0])


def _reverse(self: Evaluator, node: ast.Call, own: Row, values: list[Value], _: Table) -> Value:
    _changed(own)
    self.budget.spend(len(own))
    own.reverse()
    own.lines.reverse()


def _copy_list(self: Evaluator, node: ast.Call, own: Row, values: list[Value], _: Table) -> Value:
    self.budget.spend(len(own))
    return own.part(slice(None))


# --- methods of texts

def _plain(method: Callable[..., Value]) -> "Method":
    """A method that makes nothing longer, of texts alone."""
    def called(self: Evaluator, node: ast.Call, own: str, values: list[Value], _: Table) -> Value:
        if not all(value is None or isinstance(value, (str, int)) for value in values):
            raise TypeError("texts are wanted")
        found = method(own, *values)
        if isinstance(found, (list, tuple)):
            self.budget.spend(len(found))
            return Row(self.where(node), found, isinstance(found, tuple))
        return self.bounded(found) if isinstance(found, str) else found
    return called


def _join(self: Evaluator, node: ast.Call, own: str, values: list[Value], _: Table) -> Value:
    parts = list(iterated(one(values)[0], self.budget))
    if not all(isinstance(part, str) for part in parts):
        raise TypeError("join wants texts")
    self.check_text(sum(map(len, parts)) + len(own) * len(parts))
    return self.bounded(own.join(parts))


def _replace(self: Evaluator, node: ast.Call, own: str, values: list[Value], _: Table) -> Value:
    old, new = one(values, 2, 2)
    if not isinstance(old, str) or not isinstance(new, str):
        raise TypeError("replace wants texts")
    self.check_text(len(own) + own.count(old) * len(new))
    return self.bounded(own.replace(old, new))


def _format(self: Evaluator, node: ast.Call, own: str, values: list[Value],
            keywords: Table) -> Value:
    parts: list[str] = []
    count = 0
    for text, name, spec, conversion in string.Formatter().parse(own):
        parts.append(text)
        if name is None:
            continue
        if "{" in (spec or "") or not (name == "" or name.isidentifier() or name.isdecimal()):
            raise ValueError("only plain names and numbers stand between the braces here")
        if name.isidentifier():
            value = self.item(keywords, name)
        else:
            value = values[int(name) if name and len(name) < 5 else count]
            count += 1
        if conversion == "r" and isinstance(value, str):
            value = repr(str(value))
        parts.append(self.formatted(value, spec or ""))
        self.check_text(sum(map(len, parts)))
    return self.bounded("".join(parts))


def percent(self: Evaluator, text: str, given: Value) -> str:
    """text % given"""
    values = list(given) if isinstance(given, Row) and given.is_tuple else [given]
    parts: list[str] = []
    end = 0
    for match in _PERCENT.finditer(text):
        parts.append(text[end:match.start()])
        end = match.end()
        if match[2] == "%":
            parts.append("%")
            continue
        value = self.item(given, match[1]) if match[1] else values.pop(0)
        if isinstance(value, (Row, Table, range)) or value is None:
            value = self.text_of(value)
        parts.append(f"%{match[2]}" % (value,))
        self.check_text(sum(map(len, parts)))
    parts.append(text[end:])
    if "%" in "".join(parts[::2]) or (values and not isinstance(given, Table)):
        raise ValueError("this form of text has no value here")
    return self.bounded("".join(parts))


Method = Callable[[Evaluator, ast.Call, Value, list[Value], Table], Value]
METHODS: Mapping[type, Mapping[str, Method]] = {
    Table: {"update": _update, "get": _get, "setdefault": _setdefault, "pop": _pop_key,
            "keys": _keys, "values": _values, "items": _items, "copy": _copy_dict},
    Row: {"append": _append, "extend": _extend, "insert": _insert, "pop": _pop, "index": _index,
          "remove": _remove, "count": _count, "reverse": _reverse, "copy": _copy_list},
    Imported: {},
    str: {"format": _format, "join": _join, "replace": _replace,
          **{method.__name__: _plain(method) for method in (
              str.split, str.rsplit, str.strip, str.lstrip, str.rstrip, str.lower, str.upper,
              str.title, str.capitalize, str.startswith, str.endswith, str.removeprefix,
              str.removesuffix, str.count, str.isdigit)}},
}
