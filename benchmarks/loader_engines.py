"""Peers with engines of their own in C++: DALI and FFCV."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from itertools import count
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from benchmarks.loader_cases import BATCH, SHUFFLED, THREADS, Case, Seen, shown
from benchmarks.loader_data import export
from benchmarks.loader_peers import jpeg_files, our_tars

FFCV_EPISODES: Final = 500  # in one of its epochs


def _batches(source: Callable[[], Any], most: int) -> Iterator[NDArray[np.uint8]]:
    """What DALI makes of JPEGs, on the CPU; `source` is called while its graph is made."""
    from nvidia.dali import fn  # noqa: PLC0415
    from nvidia.dali.pipeline import Pipeline  # noqa: PLC0415

    pipeline = Pipeline(batch_size=most, num_threads=THREADS, device_id=None)
    with pipeline:
        pipeline.set_outputs(fn.decoders.image(source(), device="cpu"))
    pipeline.build()
    while True:
        (pixels,) = pipeline.run()
        yield np.asarray(pixels.as_tensor())


def dali_files(case: Case) -> Iterator[Seen]:
    """DALI's own way to episodes: an external source that reads an episode's files."""
    from nvidia.dali import fn  # noqa: PLC0415

    files = jpeg_files(case)
    case.ready()
    episodes = case.episodes()
    numbers = iter(count())

    def read() -> list[NDArray[np.uint8]]:
        return [np.fromfile(files[row], np.uint8) for row in episodes[next(numbers)]]

    def source() -> Any:
        return fn.external_source(source=read, batch=True, no_copy=True)

    for number, pixels in enumerate(_batches(source, case.images)):
        yield shown(pixels, episodes[number] if number == 0 else None)


def dali_reader(case: Case) -> Iterator[Seen]:
    """DALI's webdataset reader, plain, from our tars and their .idx."""
    from nvidia.dali import fn  # noqa: PLC0415

    paths = our_tars(case)
    case.ready()

    def source() -> Any:
        return fn.readers.webdataset(
            paths=paths, index_paths=[path.replace(".tar", ".idx") for path in paths],
            ext=["jpg"], random_shuffle=True, initial_fill=SHUFFLED,
        )  # fmt: skip

    for pixels in _batches(source, BATCH):
        yield shown(pixels, None)


def ffcv(case: Case, encoding: str = "jpeg") -> Iterator[Seen]:
    """FFCV with episodes as the order of its traversal: they must be of one size."""
    from ffcv.fields.basics import IntDecoder  # noqa: PLC0415
    from ffcv.fields.rgb_image import SimpleRGBImageDecoder  # noqa: PLC0415
    from ffcv.loader import Loader  # noqa: PLC0415
    from ffcv.traversal_order.base import TraversalOrder  # noqa: PLC0415

    name = "ffcv" if encoding == "jpeg" else "ffcv_raw"
    file = export(name, case.size) / "all.beton"
    case.ready()
    episodes = case.episodes(encoding)

    class Order(TraversalOrder):  # type: ignore[misc]
        def __init__(self) -> None:
            """Loader (of 1.0.2) takes an instance, and calls it."""

        def __call__(self, loader: object) -> Order:
            super().__init__(loader)
            return self

        def sample_order(self, epoch: int) -> NDArray[np.int64]:
            numbers = range(epoch * FFCV_EPISODES, (epoch + 1) * FFCV_EPISODES)
            return np.concatenate([episodes[number] for number in numbers])

    loader = Loader(
        str(file), batch_size=case.images, num_workers=THREADS, order=Order(), os_cache=True,
        pipelines={"image": [SimpleRGBImageDecoder()], "label": [IntDecoder()]},
    )  # fmt: skip
    for epoch in count():
        for number, (pixels, _) in enumerate(loader):
            at = epoch * FFCV_EPISODES + number
            yield shown(np.asarray(pixels), episodes[at] if at == 0 else None)


CONTENDERS: Final[dict[str, Callable[[Case], Iterator[Seen]]]] = {
    "dali-files": dali_files,
    "dali-reader": dali_reader,
    "ffcv": ffcv,
    "ffcv-raw": partial(ffcv, encoding="raw"),
}
