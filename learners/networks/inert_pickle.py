"""Read a pickle as inert values: nothing in it is imported, called or built, and its limits are known beforehand.

A pickle is a program for a small machine with a stack. The machine here knows the instructions that a `state_dict`
needs. A name of Python's stays a name; calling one is refused, but for the few whose result is written down in
`CALLS`. torch's `weights_only=True` refuses the same files, but looks up classes, hashes tuples of tuples
without end and takes memory by sizes that the file invents.
"""

from __future__ import annotations

import math
import pickletools
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from types import MappingProxyType
from typing import IO, Any, Final, NamedTuple

INSTRUCTION_LIMIT: Final = 2_000_000  # of one pickle; a state_dict has 25 for each tensor
DIMENSION_LIMIT: Final = 16  # of a tensor; those of weights have five at the most
ELEMENT_LIMIT: Final = 1 << 62  # beyond it torch's arithmetic overflows
TORCH_DTYPES: Final = MappingProxyType({
    "torch.FloatStorage": "float32", "torch.DoubleStorage": "float64", "torch.HalfStorage": "float16",
    "torch.BFloat16Storage": "bfloat16", "torch.LongStorage": "int64", "torch.IntStorage": "int32",
    "torch.ShortStorage": "int16", "torch.CharStorage": "int8", "torch.ByteStorage": "uint8",
    "torch.BoolStorage": "bool", "torch.ComplexFloatStorage": "complex64",
    "torch.ComplexDoubleStorage": "complex128",
})  # fmt: skip
VALUE_INSTRUCTIONS: Final = frozenset({
    "INT", "BININT", "BININT1", "BININT2", "LONG", "LONG1", "LONG4", "FLOAT", "BINFLOAT", "STRING", "BINSTRING",
    "SHORT_BINSTRING", "BINBYTES", "SHORT_BINBYTES", "UNICODE", "SHORT_BINUNICODE", "BINUNICODE", "BINUNICODE8",
})  # fmt: skip


@dataclass(frozen=True, slots=True)
class PythonName:
    """A class or function that a pickle names; it is not looked up."""

    name: str


class StoredNumbers(NamedTuple):
    """A row of numbers that lies in the file beside the pickle."""

    dtype: str
    key: str
    length: int


class StoredTensor(NamedTuple):
    """A tensor as a view of stored numbers."""

    numbers: StoredNumbers
    offset: int
    size: tuple[int, ...]
    stride: tuple[int, ...]


def read_pickle(stream: IO[bytes]) -> Any:
    """The value of the pickle at the stream's position; ValueError says what it holds that is no weights."""
    machine = _PickleMachine()
    try:
        for count, (instruction, argument, _) in enumerate(pickletools.genops(stream)):
            if count == INSTRUCTION_LIMIT:
                raise ValueError(f"it has more than {INSTRUCTION_LIMIT:,} instructions")
            if instruction.name == "STOP":
                break
            machine.do(instruction.name, argument)
        return machine.result()
    except (IndexError, KeyError, TypeError, OverflowError, AttributeError) as error:
        raise ValueError(f"its pickle is damaged ({error!r})") from error


class _PickleMachine:
    """The stack and memory of one pickle."""

    def __init__(self) -> None:
        self._stack: list[Any] = []
        self._outer: list[list[Any]] = []
        """The stacks below marks."""
        self._memory: dict[int, Any] = {}
        self._instructions: dict[str, Callable[[], object]] = {
            "MARK": self._mark,
            "POP": lambda: self._last(1),
            "POP_MARK": self._since_mark,
            "NONE": lambda: self._stack.append(None),
            "NEWTRUE": lambda: self._stack.append(True),
            "NEWFALSE": lambda: self._stack.append(False),
            "EMPTY_LIST": lambda: self._stack.append([]),
            "EMPTY_DICT": lambda: self._stack.append({}),
            "EMPTY_TUPLE": lambda: self._stack.append(()),
            "LIST": lambda: self._push(self._since_mark()),
            "DICT": lambda: self._push(as_dict(pairs_of(self._since_mark()))),
            "TUPLE": lambda: self._push(tuple(self._since_mark())),
            "TUPLE1": lambda: self._push(tuple(self._last(1))),
            "TUPLE2": lambda: self._push(tuple(self._last(2))),
            "TUPLE3": lambda: self._push(tuple(self._last(3))),
            "APPEND": lambda: self._extend(self._last(1)),
            "APPENDS": lambda: self._extend(self._since_mark()),
            "SETITEM": lambda: self._update(self._last(2)),
            "SETITEMS": lambda: self._update(self._since_mark()),
            "MEMOIZE": lambda: self._memory.__setitem__(len(self._memory), self._stack[-1]),
            "STACK_GLOBAL": lambda: self._push(PythonName(".".join(self._last(2)))),
            "BINPERSID": lambda: self._push(_stored_numbers(*self._last(1))),
            "REDUCE": self._call,
            "BUILD": self._set_attributes,
            "PROTO": lambda: None,
            "FRAME": lambda: None,
        }

    def do(self, instruction: str, argument: Any) -> None:
        """Do one instruction."""
        if instruction in VALUE_INSTRUCTIONS:
            self._push(argument)
        elif instruction in ("GET", "BINGET", "LONG_BINGET"):
            self._push(self._memory[int(argument)])
        elif instruction in ("PUT", "BINPUT", "LONG_BINPUT"):
            self._memory[int(argument)] = self._stack[-1]
        elif instruction == "GLOBAL":
            self._push(PythonName(argument.replace(" ", ".")))
        elif instruction in self._instructions:
            self._instructions[instruction]()
        else:
            raise ValueError(f"its pickle has the instruction {instruction}, which weights do not need")

    def result(self) -> Any:
        """The one value that is left."""
        (value,) = self._stack
        return value

    def _push(self, value: Any) -> None:
        self._stack.append(value)

    def _mark(self) -> None:
        self._outer.append(self._stack)
        self._stack = []

    def _since_mark(self) -> list[Any]:
        values, self._stack = self._stack, self._outer.pop()
        return values

    def _last(self, count: int) -> list[Any]:
        """Take the last values from the stack."""
        return [self._stack.pop() for _ in range(count)][::-1]

    def _extend(self, values: list[Any]) -> None:
        if not isinstance(self._stack[-1], list):
            raise TypeError("values are added to what is no list")
        self._stack[-1].extend(values)

    def _update(self, values: list[Any]) -> None:
        if not isinstance(self._stack[-1], dict):
            raise TypeError("values are set in what is no dict")
        self._stack[-1].update(as_dict(pairs_of(values)))

    def _call(self) -> None:
        name, arguments = self._last(2)
        if not isinstance(name, PythonName) or name.name not in CALLS:
            raise ValueError(f"it asks Python for {getattr(name, 'name', type(name).__name__)}")
        self._push(CALLS[name.name](*arguments))

    def _set_attributes(self) -> None:
        """Skip the attributes of a dict, such as the version of each module in a state_dict."""
        self._stack.pop()
        if not isinstance(self._stack[-1], dict):
            raise ValueError(f"it sets attributes of {type(self._stack[-1]).__name__}")  # noqa: TRY004


def pairs_of(values: list[Any]) -> Iterable[tuple[Any, Any]]:
    """Keys and values that follow one another."""
    return zip(values[::2], values[1::2], strict=True)


def as_dict(pairs: Iterable[tuple[Any, Any]] = ()) -> dict[str | int, Any]:
    """A dict whose keys are texts or numbers; the hash of others can take time without end."""
    found = {}
    for key, value in pairs:
        if not isinstance(key, str | int):
            raise TypeError(f"a key is {type(key).__name__}, neither a text nor a number")
        found[key] = value
    return found


def _stored_numbers(described: Any) -> StoredNumbers:
    """What torch writes in the place of a storage."""
    kind, storage, key, _, count, *view = described
    if kind != "storage" or not isinstance(key, str) or any(part is not None for part in view):
        raise ValueError("it refers to something that is no plain storage")
    if storage.name not in TORCH_DTYPES:
        raise ValueError(f"it holds a {storage.name}, which no weights are made of")
    return StoredNumbers(TORCH_DTYPES[storage.name], key, _whole(count))


def _stored_tensor(
    numbers: Any, offset: Any, size: Any, stride: Any, _requires_grad: Any = None, _hooks: Any = None,
    metadata: Any = None,
) -> StoredTensor:  # fmt: skip
    """What torch's `_rebuild_tensor_v2` is called with, after checking that it stays within the numbers."""
    if not isinstance(numbers, StoredNumbers) or metadata or len(size) > DIMENSION_LIMIT:
        raise ValueError("it holds a tensor of a kind that no weights have")
    begin, sides, steps = _whole(offset), tuple(map(_whole, size)), tuple(map(_whole, stride))
    elements = math.prod(sides)
    last = begin + sum((side - 1) * step for side, step in zip(sides, steps, strict=True))
    empty = elements == 0 and math.prod(filter(None, sides)) < ELEMENT_LIMIT
    if not empty and not (last < numbers.length and 0 < elements <= numbers.length):
        raise ValueError(f"it holds a tensor of {[*sides]} in a storage of {numbers.length:,} numbers")
    return StoredTensor(numbers, begin, sides, steps)


def _whole(value: Any) -> int:
    if not isinstance(value, int) or not 0 <= value < ELEMENT_LIMIT:
        raise ValueError("a tensor's size, stride or place is no number that it can be")
    return value


CALLS: Final[MappingProxyType[str, Callable[..., Any]]] = MappingProxyType({
    "collections.OrderedDict": as_dict,
    "torch._utils._rebuild_tensor_v2": _stored_tensor,
    "torch._utils._rebuild_parameter": lambda tensor, *_: tensor,
})  # fmt: skip
"""What stands for a call, by the name that is called."""
