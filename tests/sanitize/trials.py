"""Feed the sanitized modules: `python -m tests.sanitize.trials FOLDER IMAGES SEED`, started by tests.sanitize.build."""

from __future__ import annotations

import sys
import tempfile
import zlib
from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import suppress
from importlib.machinery import ExtensionFileLoader
from importlib.util import module_from_spec, spec_from_loader
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from pipeline.decoders.fill import decode_jpeg, decode_raw
from pipeline.layout import npy_header
from pipeline.samplers import pool
from tests.pipeline.decoders.mutants import mutant
from tests.pipeline.decoders.planted import SIZE, make_jpegs, npy_bytes
from tests.sanitize.guarded import GuardedMemory

BATCH: Final = 40  # images in a call
MOST_BYTES: Final = 1 << 16  # of a mutated image
PIXEL_BYTES: Final = SIZE * SIZE * 3
SHARD_BYTES: Final = 1 << 20  # that the file behind every mapping claims
WORDS: Final = (0, 1, -1, 7, 2**31, -(2**31), 2**62, 2**63 - 1, -(2**63))  # for a hostile table
DEAL_ROUNDS: Final = 10  # images for one deal
SOF2: Final = b"\xff\xc2"  # begins the header of a progressive JPEG, which native.c leaves to Python

PythonDecoder = Callable[[memoryview, Any, int, memoryview], str]


def load(folder: Path, package: str) -> ModuleType:
    """The sanitized module of a package, in the place of the usual one."""
    name = f"pipeline.{package}.native"
    loader = ExtensionFileLoader(name, str(folder / f"{package}.so"))
    spec = spec_from_loader(name, loader)
    assert spec is not None
    module = module_from_spec(spec)
    loader.exec_module(module)
    return module


class DecoderTrials:
    """Batches of images through native.fill and through Python, which must agree."""

    def __init__(self, native: ModuleType, draw: np.random.Generator, shard: Path) -> None:
        self._fill, self._draw = native.fill, draw
        shard.write_bytes(bytes(SHARD_BYTES))
        self._file = shard.open("rb")
        self._stored = [GuardedMemory(MOST_BYTES) for _ in range(BATCH)]
        self._out = GuardedMemory(BATCH * PIXEL_BYTES)
        self._row = GuardedMemory(PIXEL_BYTES)
        self.verdicts: Counter[str] = Counter()

    def run(self, images: Sequence[bytes], decode: PythonDecoder, header: bytes) -> None:
        """Decode images that lie in guarded memory; a right checksum lets the decoder see all of them."""
        views = [memory.holding(data) for memory, data in zip(self._stored, images, strict=False)]
        table = np.array([[at, 0, len(data), zlib.crc32(data)] for at, data in enumerate(images)], np.int64)
        out = self._out.of(len(images) * PIXEL_BYTES)
        shards = {at: (self._file, view) for at, view in enumerate(views)}
        left = set(self._fill(shards, table, 0, len(images), out, SIZE, header, False))  # noqa: FBT003
        self._compare(views, out, left, decode)
        self._run_hostile(shards, table, out, header)

    def _compare(
        self, views: Sequence[memoryview], out: memoryview, left: set[int], decode: PythonDecoder
    ) -> None:
        about = SimpleNamespace(size=SIZE, describe=lambda at: f"image {at}")
        for at, view in enumerate(views):
            row = self._row.of(PIXEL_BYTES)
            reason = decode(view, about, at, row)
            if at not in left:
                assert not reason, f"native.c takes what Python refuses: {reason}"
                assert out[at * PIXEL_BYTES : (at + 1) * PIXEL_BYTES] == row, "other pixels than Python's"
            elif not reason:
                assert _is_left_to_python(bytes(view)), "native.c leaves a sound image"
            self.verdicts["damaged" if reason else "left to Python" if at in left else "sound"] += 1

    def _run_hostile(
        self, shards: dict[int, Any], table: NDArray[np.int64], out: memoryview, header: bytes
    ) -> None:
        """A table whose offsets, lengths and checksums are anything at all."""
        wrong = table.copy()
        for _ in range(4):
            wrong[self._draw.integers(len(wrong)), self._draw.integers(1, 4)] = self._draw.choice(WORDS)
        for files in (shards, dict.fromkeys(shards, self._file)):
            with suppress(MemoryError):  # for a length that no machine has; opening an index refuses it
                self._fill(files, wrong, 0, len(wrong), out, SIZE, header, True)  # noqa: FBT003


def _is_left_to_python(data: bytes) -> bool:
    """Whether an image is progressive, or of four colours."""
    return SOF2 in data or any(data[at + 9] == 4 for at in _frames(data) if at + 9 < len(data))


def _frames(data: bytes) -> list[int]:
    return [at for at in range(len(data) - 1) if data[at] == 0xFF and 0xC0 <= data[at + 1] <= 0xCF]


def draw_cards(native: ModuleType, draw: np.random.Generator) -> None:
    """Draws with the sanitized `deal` and without any are equal; negative places are an error."""
    sizes = draw.integers(1, draw.choice([2, 100, 10**6]), draw.integers(1, 40))
    counts = np.minimum(sizes, draw.integers(0, 40, len(sizes)))
    counts[0] = max(counts[0], 1)
    drawn = []
    for deal in (native.deal, None):
        setattr(pool, "deal", deal)  # noqa: B010 - mypy knows one type of it
        drawn.append(pool.draw_distinct(np.random.RandomState(0), sizes, counts))
    assert np.array_equal(drawn[0], drawn[1]), "other cards than Python's"
    tops, places = (draw.choice(np.array(WORDS), 9) for _ in range(2))
    try:
        native.deal(tops, places)
    except ValueError:
        return
    assert min(tops.min(), places.min()) >= -1 << 63


def main() -> None:
    folder, images, seed = Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3])
    decoders, samplers, draw = load(folder, "decoders"), load(folder, "samplers"), np.random.default_rng(seed)
    kinds: list[dict[str, Any]] = [{"subsampling": kind} for kind in ("4:2:0", "4:2:2", "4:4:4")]
    kinds += [{"progressive": True}, {"restart_marker_blocks": 2}, {"optimize": True}]
    sound = [data for kind in kinds for data in make_jpegs(6, **kind)]
    header = npy_header(SIZE, SIZE)
    raw = [npy_bytes(draw.integers(0, 256, (SIZE, SIZE, 3), dtype=np.uint8)) for _ in range(4)]
    with tempfile.TemporaryDirectory() as scratch:
        trials = DecoderTrials(decoders, draw, Path(scratch) / "shard")
        while trials.verdicts.total() < images:
            chosen = [sound[picked] for picked in draw.integers(len(sound), size=BATCH)]
            trials.run([mutant(data, draw)[:MOST_BYTES] for data in chosen], decode_jpeg, b"")
        jpegs = dict(trials.verdicts)
        for _ in range(images // BATCH // 10 + 1):
            some = [mutant(raw[picked], draw) if draw.random() < 1 / 2 else raw[picked] for picked in
                    draw.integers(len(raw), size=BATCH)]  # fmt: skip
            trials.run(some, decode_raw, header)
    for _ in range(images // DEAL_ROUNDS):
        draw_cards(samplers, draw)
    print(
        f"JPEGs: {jpegs}; raw: {dict(trials.verdicts - Counter(jpegs))}; {images // DEAL_ROUNDS} draws of cards"
    )


if __name__ == "__main__":
    main()
