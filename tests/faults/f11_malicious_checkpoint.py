"""F11: a malicious checkpoint is refused with a sentence, and nothing in it is run."""

from __future__ import annotations

import contextlib
import io
import pickle
import random
import zipfile
from collections.abc import Callable, Iterator
from itertools import product
from pathlib import Path
from typing import Any, Final

from learners.convert.__main__ import convert
from learners.convert.identify import GivenFlags
from learners.networks import backbone
from learners.networks.torch_file import OLD_MAGIC, OLD_PROTOCOL
from learners.runs import load_run
from learners.use.classifier import PortableClassifier
from pipeline.errors import PipelineError
from tests.faults.rows import FaultRow

SHORT = 60
LONG = 2000
SEED: Final = 11
NAMED: Final = 3  # failed points that the figure names
CLASSES_ALONE: Final = (
    "NEWOBJ"  # the form that pickle.load takes for classes alone, which these calls are not
)
CALLS: Final[dict[str, Callable[[str], tuple[Any, ...]]]] = {
    "os mkdir": lambda mark: (mark,),
    "posix mkdir": lambda mark: (mark,),
    "os system": lambda mark: (f"mkdir {mark}",),
    "builtins exec": lambda mark: (f"import os; os.mkdir({mark!r})",),
    "builtins eval": lambda mark: (f"__import__('os').mkdir({mark!r})",),
    "subprocess check_call": lambda mark: (["mkdir", mark],),
}
"""What would leave a mark, and the arguments that it is called with."""


def _arguments(values: tuple[Any, ...]) -> bytes:
    return pickle.dumps(values, 2)[2:-1]


def _items(values: tuple[Any, ...]) -> bytes:
    return b"".join(pickle.dumps(value, 2)[2:-1] for value in values)


def _two_lines(name: str) -> bytes:
    return name.replace(" ", "\n").encode() + b"\n"


def _texts(name: str) -> bytes:
    return b"".join(b"\x8c" + bytes([len(part)]) + part.encode() for part in name.split())


FORMS: Final[dict[str, Callable[[str, tuple[Any, ...]], bytes]]] = {
    "REDUCE": lambda name, values: b"c" + _two_lines(name) + _arguments(values) + b"R",
    "STACK_GLOBAL": lambda name, values: _texts(name) + b"\x93" + _arguments(values) + b"R",
    "MEMO": lambda name, values: b"c" + _two_lines(name) + b"q\x7f0h\x7f" + _arguments(values) + b"R",
    "NEWOBJ": lambda name, values: b"c" + _two_lines(name) + _arguments(values) + b"\x81",
    "OBJ": lambda name, values: b"(c" + _two_lines(name) + _items(values) + b"o",
    "INST": lambda name, values: b"(" + _items(values) + b"i" + _two_lines(name),
}
PLACES: Final[dict[str, Callable[[bytes], bytes]]] = {
    "alone": lambda call: call,
    "a weight": lambda call: b"}X\x01\0\0\0a" + call + b"s",
    "in state_dict": lambda call: b"}X\x0a\0\0\0state_dict}X\x01\0\0\0a" + call + b"ss",
    "a key": lambda call: b"}" + call + b"Ns",
    "a storage": lambda call: b"(X\x07\0\0\0storage" + call + b"X\x01\0\0\x000X\x03\0\0\0cpuK\x01tQ",
    "attributes": lambda call: b"ccollections\nOrderedDict\n)R" + call + b"b",
    "an argument": lambda call: b"ctorch._utils\n_rebuild_parameter\n" + call + b"\x88N\x87R",
}


def _zip(program: bytes) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for name, data in (("data.pkl", program), ("byteorder", b"little"), ("version", b"3\n")):
            archive.writestr(f"w/{name}", data)
    return buffer.getvalue()


def _old(program: bytes) -> bytes:
    head = (OLD_MAGIC, OLD_PROTOCOL, {"little_endian": True})
    return b"".join(pickle.dumps(value, 2) for value in head) + program + pickle.dumps([], 2)


CONTAINERS: Final[dict[str, Callable[[bytes], bytes]]] = {"pickle": bytes, "zip": _zip, "old torch": _old}
READERS: Final[dict[str, Callable[[Path], object]]] = {
    "weights": lambda path: backbone("conv4", weights=path),
    "convert": lambda path: convert(path, GivenFlags(learner="protonets")),
    "run": load_run,
    "classifier": lambda path: PortableClassifier.load(path, "cpu"),
}
ENDINGS: Final = (".pth", ".safetensors")


def run(points: int, folder: Path) -> FaultRow:
    """Try so many combinations of a call, its form, its place, a container, a file name and a reader."""
    mark = folder / "executed"
    attacks = [*product(CALLS, [form for form in FORMS if form != CLASSES_ALONE])]
    working = sum(_leaves_mark(_program(name, form, mark), mark) for name, form in attacks)
    every = [*product(CALLS, FORMS, PLACES, CONTAINERS, ENDINGS, READERS)]
    chosen = random.Random(SEED).sample(every, min(points, len(every)))
    failures = [" / ".join(point) for point in chosen if not _refused(point, folder, mark)]
    named = f"; not refused: {'; '.join(failures[:NAMED])}" if failures else ""
    return FaultRow(
        tried=len(chosen),
        failed=len(failures) + len(attacks) - working,
        figure=f"0 executions in {len(chosen) - len(failures)} of {len(chosen)} files, each refused in one "
        f"sentence; {working} of {len(attacks)} attacks leave their mark where pickle.load reads them{named}",
    )


def _program(name: str, form: str, mark: Path, place: str = "alone") -> bytes:
    """A pickle that would leave the mark."""
    return b"\x80\x02" + PLACES[place](FORMS[form](name, CALLS[name](str(mark)))) + b"."


def _leaves_mark(program: bytes, mark: Path) -> bool:
    """Whether a call of ours works: an attack that cannot succeed shows nothing."""
    pickle.loads(program)  # our own
    return _take_mark(mark)


def _refused(point: tuple[str, ...], folder: Path, mark: Path) -> bool:
    """Whether one file is refused with one line, and nothing of it is run."""
    name, form, place, container, ending, reader = point
    path = folder / f"model{ending}"
    path.write_bytes(CONTAINERS[container](_program(name, form, mark, place)))
    refused = False
    with _silence():
        try:
            READERS[reader](path)
        except PipelineError as error:
            refused = str(path) in str(error) and "\n" not in str(error)
        except BaseException:  # noqa: BLE001 - an attack may raise anything
            refused = False
    return not _take_mark(mark) and refused


@contextlib.contextmanager
def _silence() -> Iterator[None]:
    """No output of a shell that an attack may start."""
    with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
        yield


def _take_mark(mark: Path) -> bool:
    """Whether there is a mark; it is gone afterwards."""
    if not mark.exists():
        return False
    mark.rmdir()
    return True
