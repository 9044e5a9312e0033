"""Reads a checkpoint's pickle without running it, and refuses whatever weights do not need.

`torch.load(weights_only=True)` keeps code from running, but not a small file from claiming a
terabyte: `bytearray(10**10)`, storages and tensors larger than the file, tuples that double forty
times. Here the opcodes drive a machine of place-holders that allocates nothing, and the caller
compares what the pickle claims with the bytes that are there.
"""

import io
import math
import pickletools
from dataclasses import dataclass, field
from typing import Any

MAX_PICKLE_BYTES = 32 << 20  # 700 tensors with optimizer state take 0.3 MB
MAX_OPCODES = 400_000  # about 40 a tensor; keeps this scan and torch's own pass under 5 s
MAX_DEPTH = 64  # of containers in containers
MAX_EXPANDED = 2_000_000  # values, counting a shared one each time it is reached
MAX_INT_BYTES = 32
MAX_VIEW = 1 << 20  # elements that a view with stride 0 may have beyond its storage

ITEM_BYTES = {
    "torch.BoolStorage": 1,
    "torch.ByteStorage": 1,
    "torch.CharStorage": 1,
    "torch.ShortStorage": 2,
    "torch.HalfStorage": 2,
    "torch.BFloat16Storage": 2,
    "torch.IntStorage": 4,
    "torch.FloatStorage": 4,
    "torch.LongStorage": 8,
    "torch.DoubleStorage": 8,
    "torch.ComplexFloatStorage": 8,
    "torch.ComplexDoubleStorage": 16,
}
_INTEGERS = ("bool", "uint8", "int8", "int16", "int32", "int64")
_FLOATS = ("float16", "bfloat16", "float32", "float64", "complex64", "complex128")
_DTYPES = {f"torch.{name}" for name in _INTEGERS + _FLOATS}
# Files of 2017 hold their parameters as objects of these classes.
_OLD_TENSORS = {name.replace("Storage", "Tensor") for name in ITEM_BYTES}
_PARAMETER = "torch.nn.parameter.Parameter"
_GLOBALS = {
    "collections.OrderedDict",
    "torch.Size",
    "torch.device",
    "torch._utils._rebuild_tensor",
    "torch._utils._rebuild_tensor_v2",
    "torch._utils._rebuild_parameter",
    _PARAMETER,
    *ITEM_BYTES,
    *_DTYPES,
    *_OLD_TENSORS,
}
_CONSTANTS = {"NONE": None, "NEWTRUE": True, "NEWFALSE": False}
_NUMBERS = ("BININT", "BININT1", "BININT2", "LONG1", "BINFLOAT")
_MARK = object()


class BadFile(Exception):
    """A checkpoint file is damaged, hostile, or none at all; the text says which."""


class ForeignName(BadFile):
    """The file asks for a class or function that weights do not need."""


@dataclass(frozen=True, slots=True)
class Global:
    name: str


@dataclass(frozen=True, slots=True)
class Storage:
    key: str
    numel: int
    kind: str  # for example torch.FloatStorage

    @property
    def item_bytes(self) -> int:
        return ITEM_BYTES[self.kind]


@dataclass(slots=True)
class Box:
    """A container, or a tensor (`kind` "tensor", no items).

    items:    a dict's are key, value, key, value, ...
    expanded: values inside, counted anew for each reference
    sealed:   it lies in another container; changing it now could only close a circle
    """

    kind: str
    items: list[Any] = field(default_factory=list)
    depth: int = 1
    expanded: int = 1
    sealed: bool = False


@dataclass
class Pickle:
    """What a pickle builds: its value (a scalar or a Box), its storages, and where it ends."""

    value: Any
    storages: dict[str, Storage]
    end: int


def scan_pickle(
    data: bytes,
    start: int = 0,
    max_opcodes: int = MAX_OPCODES,
    machine_type: "type[Machine] | None" = None,
) -> Pickle:
    """Walk the pickle at `start` of `data` without building anything of the size it claims.

    machine_type: how globals and calls are taken; None: only what weights use is
    Raises BadFile for opcodes and globals that weights do not use, and for sizes beyond the limits.
    """
    file = io.BytesIO(data)
    file.seek(start)
    machine = (machine_type or Machine)()
    try:
        for count, (opcode, argument, _) in enumerate(pickletools.genops(file)):
            if count >= max_opcodes:
                raise BadFile(f"its pickle has more than {max_opcodes} steps")
            machine.step(opcode.name, argument)
    except BadFile as error:
        raise type(error)(f"refused: {error}") from error
    except (ValueError, IndexError, KeyError, AttributeError, TypeError, OverflowError) as error:
        raise BadFile(
            f"damaged: its pickle makes no sense ({error or type(error).__name__})"
        ) from error
    if len(machine.stack) != 1:
        raise BadFile("damaged: its pickle leaves values over")
    return Pickle(machine.stack[0], machine.storages, file.tell())


class Machine:
    """The unpickler's stack and memo, filled with place-holders."""

    def __init__(self) -> None:
        self.stack: list[Any] = []
        self.memo: dict[int, Any] = {}
        self.storages: dict[str, Storage] = {}

    def step(self, name: str, argument: Any) -> None:
        stack = self.stack
        if name in ("BINPUT", "LONG_BINPUT"):
            self.memo[argument] = stack[-1]
        elif name in ("BINGET", "LONG_BINGET"):
            stack.append(self.memo[argument])
        elif name in _NUMBERS:
            if name == "LONG1" and argument.bit_length() > 8 * MAX_INT_BYTES:
                raise BadFile("it holds an integer of absurd size")
            stack.append(argument)
        elif name in ("BINUNICODE", "SHORT_BINSTRING"):
            stack.append(argument)
        elif name in _CONSTANTS:
            stack.append(_CONSTANTS[name])
        elif name == "MARK":
            stack.append(_MARK)
        elif name in ("EMPTY_TUPLE", "EMPTY_LIST", "EMPTY_DICT"):
            stack.append(Box(name[6:].lower()))
        elif name == "TUPLE":
            items = self.pop_to_mark()
            stack.append(_fill(Box("tuple"), items))
        elif name in ("TUPLE1", "TUPLE2", "TUPLE3"):
            items = self.pop(int(name[5]))
            stack.append(_fill(Box("tuple"), items))
        elif name in ("APPEND", "APPENDS"):
            items = self.pop(1) if name == "APPEND" else self.pop_to_mark()
            self.extend(stack[-1], items, "list")
        elif name in ("SETITEM", "SETITEMS"):
            items = self.pop(2) if name == "SETITEM" else self.pop_to_mark()
            _check_keys(items)
            self.extend(stack[-1], items, "dict", "ordered dict")
        elif name == "GLOBAL":
            stack.append(self.named(argument.replace(" ", ".", 1)))
        elif name == "BINPERSID":
            stack.append(self.storage(stack.pop()))
        elif name in ("REDUCE", "NEWOBJ"):
            function, arguments = self.pop(2)
            stack.append(self.call(function, _expect(arguments, "tuple").items))
        elif name == "BUILD":
            state = stack.pop()
            self.build(stack[-1], state)
        elif name == "PROTO":
            if argument != 2:
                raise BadFile(f"it is written in pickle protocol {argument}; only 2 is read")
        elif name != "STOP":
            raise BadFile(f"its pickle uses {name}, which weights do not need")

    def named(self, name: str) -> Global:
        """The place-holder of a global."""
        if name not in _GLOBALS:
            raise ForeignName(f"it asks for {name}, which is neither a tensor nor a plain value")
        return Global(name)

    def call(self, function: Any, arguments: list[Any]) -> Any:
        """What REDUCE and NEWOBJ build."""
        return _call(function, arguments)

    def build(self, target: Any, state: Any) -> None:
        """BUILD gives `target` its `state`."""
        _build(target, state)

    def extend(self, target: Any, items: list[Any], *kinds: str) -> None:
        """APPENDS or SETITEMS put `items` into `target`, which must be of one of the kinds."""
        _fill(_expect(target, *kinds), items)

    def pop(self, count: int) -> list[Any]:
        if len(self.stack) < count or _MARK in self.stack[-count:]:
            raise IndexError("stack underflow")
        items = self.stack[-count:]
        del self.stack[-count:]
        return items

    def pop_to_mark(self) -> list[Any]:
        items = []
        while (value := self.stack.pop()) is not _MARK:
            items.append(value)
        items.reverse()
        return items

    def storage(self, saved_id: Any) -> Storage:
        """The storage that a persistent id names. Legacy ids have a sixth item, for old views."""
        items = _expect(saved_id, "tuple").items
        tag, kind, key, location, numel = items[:5]
        is_plain = tag == "storage" and isinstance(kind, Global) and kind.name in ITEM_BYTES
        has_view = len(items) != 5 and items[5:] != [None]
        if not is_plain or has_view or not isinstance(location, str) or not _is_size(numel):
            raise BadFile("it names a storage in a form that weights do not use")
        storage = Storage(str(key), numel, kind.name)
        if self.storages.setdefault(storage.key, storage) != storage:
            raise BadFile(f"it gives storage {storage.key} two sizes")
        return storage


def _expect(value: Any, *kinds: str) -> Box:
    if not isinstance(value, Box) or value.kind not in kinds:
        raise BadFile(f"its pickle makes no sense (a {' or '.join(kinds)} was expected)")
    return value


def _fill(box: Box, items: list[Any]) -> Box:
    """Put `items` into `box`, keeping its depth and expanded size within the limits."""
    if box.sealed:
        raise BadFile("it changes a container that already lies in another one")
    for item in items:
        if isinstance(item, Box):
            item.sealed = item.kind != "tensor"
            box.depth = max(box.depth, item.depth + 1)
            box.expanded += item.expanded
        else:
            box.expanded += 1
    if box.sealed:
        raise BadFile("it holds a container that contains itself")
    if box.depth > MAX_DEPTH or box.expanded > MAX_EXPANDED:
        raise BadFile("its containers are nested too deep or repeat too often")
    box.items += items
    return box


def _check_keys(items: list[Any]) -> None:
    """Only keys whose hash is quick and hard to make collide."""
    for key in items[::2]:
        if not (key is None or isinstance(key, str) or (isinstance(key, int) and abs(key) < 2**60)):
            raise BadFile("it holds a mapping whose keys are neither words nor numbers")
    if len(items) % 2:
        raise BadFile("its pickle makes no sense (a key without value)")


def _is_size(value: Any) -> bool:
    return type(value) is int and 0 <= value < 2**63


def _call(function: Any, arguments: list[Any]) -> Any:
    """What REDUCE and NEWOBJ build, with the arguments that torch's own files have."""
    name = function.name if isinstance(function, Global) else None
    is_fine = True
    box = Box("tensor")
    if name == "collections.OrderedDict":
        box = Box("ordered dict")
        for item in _expect(arguments[0], "list").items if arguments else []:  # Python 2's form
            pair = _expect(item, "list", "tuple").items
            _check_keys(pair)
            _fill(box, pair)
    elif name == "torch.Size":
        sizes = _expect(arguments[0], "tuple").items
        box, is_fine = _fill(Box("size"), sizes), all(_is_size(size) for size in sizes)
    elif name == "torch.device":
        box, is_fine = Box("device"), all(isinstance(part, (str, int)) for part in arguments)
    elif name == "torch._utils._rebuild_tensor":
        _check_view(*arguments)
    elif name == "torch._utils._rebuild_tensor_v2":
        _check_view(*arguments[:4])
        is_fine = len(arguments) in (6, 7) and _is_bool_and_no_hooks(arguments[4:6])
        is_fine = is_fine and arguments[6:] in ([], [None])
    elif name == "torch._utils._rebuild_parameter":
        _expect(arguments[0], "tensor")
        is_fine = _is_bool_and_no_hooks(arguments[1:])
    elif name == _PARAMETER:
        _expect(arguments[0], "tensor")
        is_fine = all(isinstance(flag, bool) for flag in arguments[1:])
    else:
        is_fine = name in _OLD_TENSORS and not arguments
    if not is_fine:
        raise BadFile(f"it calls {name} in a way that weights do not need")
    return box


def _is_bool_and_no_hooks(values: list[Any]) -> bool:
    requires_grad, hooks = values
    is_empty = hooks is None or (isinstance(hooks, Box) and not hooks.items)
    return isinstance(requires_grad, bool) and is_empty


def _build(target: Any, state: Any) -> None:
    """Accept a state dict's `_metadata`, and the two ways in which files of 2017 fill tensors."""
    box = _expect(target, "ordered dict", "tensor")
    if box.kind == "ordered dict":
        items = _expect(state, "dict").items
        if items[::2] != ["_metadata"] or not isinstance(items[1], Box):
            raise BadFile("it gives a mapping attributes that weights do not have")
        _fill(box, items)
        return
    values = _expect(state, "tuple").items
    if values and isinstance(values[0], Storage):
        _check_view(*values)
    elif len(values) != 3 or not all(isinstance(flag, bool) for flag in values[:2]):
        raise BadFile("it gives a tensor a state that weights do not have")


def _check_view(storage: Any, offset: Any, size: Any, stride: Any) -> None:
    """Refuse a tensor that reaches beyond its storage, or repeats it a billion times."""
    sizes = _expect(size, "tuple", "size").items
    strides = _expect(stride, "tuple").items
    numbers = [offset, *sizes, *strides]
    is_plain = len(sizes) <= 64 and all(_is_size(number) for number in numbers)
    if not isinstance(storage, Storage) or not is_plain:
        raise BadFile("it holds a tensor without sizes or storage")
    numel = math.prod(sizes)
    last = sum((n - 1) * s for n, s in zip(sizes, strides, strict=True)) if numel else -1
    if offset + last >= storage.numel and numel:
        raise BadFile(f"a tensor of shape {tuple(sizes)} reaches beyond its storage")
    if offset > storage.numel or numel > max(storage.numel, MAX_VIEW):
        raise BadFile(f"a tensor of shape {tuple(sizes)} is larger than its storage")
