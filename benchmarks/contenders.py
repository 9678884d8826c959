"""Run one contender once: build images at every size with our builder, a bare loop or a peer's writer.

    python -m benchmarks.contenders builder PICTURES.tar OUT READY --images 500 --workers 2

benchmarks/build.py starts these processes and measures their time from outside.
"""

from __future__ import annotations

import io
import multiprocessing
import sys
import time
from argparse import ArgumentParser
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache, partial
from importlib.machinery import ModuleSpec
from importlib.util import module_from_spec
from pathlib import Path
from typing import Any, Final

import simplejpeg
from PIL import Image

from benchmarks.workloads import CycledFolder
from pipeline.build.builder import Run, build_shards
from pipeline.build.images import RESAMPLING_FILTERS
from pipeline.records import Encoding, Item, Recipe
from pipeline.sources.spans import SpanReader


@dataclass(frozen=True)
class BuildOrder:
    """What a contender builds, and where to."""

    source: CycledFolder
    out: Path
    recipe: Recipe
    workers: int
    ready: Path

    def begin(self) -> None:
        """Write down the time: all is imported, and what follows is measured."""
        self.ready.write_text(f"{time.process_time()} {time.monotonic()}")


def build_ours(order: BuildOrder) -> None:
    """Our builder, with plan, checks, hashes and index."""
    order.begin()
    build_shards(order.source, order.out, order.recipe, Run(workers=order.workers))


def build_bare(order: BuildOrder, *, read_back: bool = False) -> None:
    """The upper bound: read, decode, resize, encode, discard."""
    order.begin()
    if order.workers == 1:
        _bare_part(order, 0, read_back)
        return
    context = multiprocessing.get_context("spawn")
    parts = [
        context.Process(target=_bare_part, args=(order, part, read_back)) for part in range(order.workers)
    ]
    for process in parts:
        process.start()
    for process in parts:
        process.join()
        if process.exitcode:
            raise RuntimeError(f"a part of the bare loop ended with {process.exitcode}")


def _bare_part(order: BuildOrder, part: int, read_back: bool) -> None:  # noqa: FBT001  (args= has no keywords)
    items = list_items(order.source)[part :: order.workers]
    with SpanReader(order.source.root) as reader:
        for item in items:
            encoded = encode_by_hand(reader.read(item), order.recipe)
            if read_back:
                for data, encoding in zip(encoded, order.recipe.encodings, strict=True):
                    if encoding.format == "jpeg":
                        simplejpeg.decode_jpeg(data, "GRAY", fastdct=True, min_height=1, min_width=1)


def encode_by_hand(data: bytes, recipe: Recipe) -> list[bytes]:
    """Decode, resize and encode as one would write it by hand with Pillow."""
    image = Image.open(io.BytesIO(data)).convert("RGB")
    return [
        _encoded(image.resize((size, size), RESAMPLING_FILTERS[recipe.filter]), encoding)
        for size, encoding in zip(recipe.sizes, recipe.encodings, strict=True)
    ]


def _encoded(image: Image.Image, encoding: Encoding) -> bytes:
    if encoding.format == "raw":
        return image.tobytes()
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=encoding.quality)
    return buffer.getvalue()


def list_items(source: CycledFolder) -> list[Item]:
    """The items, for contenders without a plan."""
    return [item for item in source.survey().items if isinstance(item, Item)]


@cache
def _opened(root: Path) -> SpanReader:
    return SpanReader(root)


def peer_sample(order: BuildOrder, item: Item) -> dict[str, Any]:
    """One sample as the peers take it: the encoded image of each size, and the class."""
    encoded = encode_by_hand(_opened(order.source.root).read(item), order.recipe)
    images = {str(size): data for size, data in zip(order.recipe.sizes, encoded, strict=True)}
    return {"name": item.name, "class_id": item.class_id, **images}


def build_litdata(order: BuildOrder) -> None:
    """litdata's `optimize`, as in its README."""
    from litdata import optimize  # noqa: PLC0415

    order.begin()
    optimize(
        fn=partial(peer_sample, order), inputs=list_items(order.source), output_dir=str(order.out),
        num_workers=order.workers, chunk_bytes="64MB",
    )  # fmt: skip


def build_mosaicml(order: BuildOrder) -> None:
    """MosaicML streaming's `MDSWriter`, as in its documentation; one process."""
    stand_in_for_torchvision()
    from streaming import MDSWriter  # noqa: PLC0415

    order.begin()
    columns = {"name": "str", "class_id": "int", **{str(s): "bytes" for s in order.recipe.sizes}}
    with MDSWriter(out=str(order.out), columns=columns) as writer:
        for item in list_items(order.source):
            writer.write(peer_sample(order, item))


def stand_in_for_torchvision() -> None:
    """Streaming needs torchvision for its readers only, whose wheels do not load beside a CPU-only torch."""
    contents: dict[str, dict[str, object]] = {
        "torchvision": {},
        "torchvision.datasets": {"VisionDataset": object},
        "torchvision.transforms": {},
        "torchvision.transforms.functional": {"to_tensor": None},
    }
    for name, content in contents.items():
        sys.modules[name] = module_from_spec(ModuleSpec(name, None))
        vars(sys.modules[name]).update(content)


def build_webdataset(order: BuildOrder) -> None:
    """webdataset's `ShardWriter`, as in its documentation; one process."""
    from webdataset import ShardWriter  # noqa: PLC0415

    order.begin()
    order.out.mkdir(parents=True)
    with ShardWriter(str(order.out / "shard-%06d.tar"), maxcount=4096, verbose=0) as writer:
        for number, item in enumerate(list_items(order.source)):
            values = peer_sample(order, item)
            images = {f"{size}.bin": values[str(size)] for size in order.recipe.sizes}
            about = {"name": item.name, "class_id": item.class_id}
            writer.write({"__key__": f"{number:09d}", "cls": item.class_id, **images, "json": about})


CONTENDERS: Final[dict[str, Callable[[BuildOrder], None]]] = {
    "builder": build_ours,
    "bare": build_bare,
    "bare+check": partial(build_bare, read_back=True),
    "litdata": build_litdata,
    "mosaicml": build_mosaicml,
    "webdataset": build_webdataset,
}


def main(argv: Sequence[str] | None = None) -> None:
    parser = ArgumentParser(description=__doc__, allow_abbrev=False)
    parser.add_argument("contender", choices=CONTENDERS)
    parser.add_argument("pictures", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("ready", type=Path, help="file for the moment when the imports are done")
    parser.add_argument("--images", type=int, required=True)
    parser.add_argument("--workers", type=int, default=1)
    parser.add_argument("--small", default="raw", help="encoding at 84 pixels")
    parser.add_argument("--shard-samples", type=int, default=0)
    arguments = parser.parse_args(argv)
    encodings = (Encoding.parse(arguments.small), Encoding.parse("jpeg:95"))
    order = BuildOrder(
        source=CycledFolder(name="bench", root=arguments.pictures, images=arguments.images),
        out=arguments.out,
        recipe=Recipe(encodings=encodings, shard_samples=arguments.shard_samples),
        workers=arguments.workers,
        ready=arguments.ready,
    )
    CONTENDERS[arguments.contender](order)


if __name__ == "__main__":
    main()
