"""Contenders with their own engines in C++: DALI and FFCV."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from itertools import count
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from benchmarks.loader_cases import (
    PLAIN_BATCH,
    READER_THREADS,
    SHUFFLE_BUFFER,
    LoadedImages,
    LoaderCase,
    loaded_images,
)
from benchmarks.loader_data import peer_copy
from benchmarks.loader_peers import jpeg_files, our_tars

FFCV_EPISODES: Final = 500  # in each of its epochs


def _batches(source: Callable[[], Any], most: int) -> Iterator[NDArray[np.uint8]]:
    """Batches that DALI decodes on the CPU; `source` is called while its graph is built."""
    from nvidia.dali import fn  # noqa: PLC0415
    from nvidia.dali.pipeline import Pipeline  # noqa: PLC0415

    pipeline = Pipeline(batch_size=most, num_threads=READER_THREADS, device_id=None)
    with pipeline:
        pipeline.set_outputs(fn.decoders.image(source(), device="cpu"))
    pipeline.build()
    while True:
        (pixels,) = pipeline.run()
        yield np.asarray(pixels.as_tensor())


def dali_files(case: LoaderCase) -> Iterator[LoadedImages]:
    """Episodes as DALI does them: an external source reads an episode's files."""
    from nvidia.dali import fn  # noqa: PLC0415

    files = jpeg_files(case)
    case.wait_for_start()
    episodes = case.episodes()
    numbers = iter(count())

    def read() -> list[NDArray[np.uint8]]:
        return [np.fromfile(files[row], np.uint8) for row in episodes[next(numbers)]]

    def source() -> Any:
        return fn.external_source(source=read, batch=True, no_copy=True)

    for number, pixels in enumerate(_batches(source, case.images)):
        yield loaded_images(pixels, episodes[number] if number == 0 else None)


def dali_reader(case: LoaderCase) -> Iterator[LoadedImages]:
    """DALI's webdataset reader, without episodes, from our tars and their .idx."""
    from nvidia.dali import fn  # noqa: PLC0415

    paths = our_tars(case)
    case.wait_for_start()

    def source() -> Any:
        return fn.readers.webdataset(
            paths=paths, index_paths=[path.replace(".tar", ".idx") for path in paths],
            ext=["jpg"], random_shuffle=True, initial_fill=SHUFFLE_BUFFER,
        )  # fmt: skip

    for pixels in _batches(source, PLAIN_BATCH):
        yield loaded_images(pixels, None)


def ffcv(case: LoaderCase, encoding: str = "jpeg") -> Iterator[LoadedImages]:
    """FFCV with episodes as its traversal order; they must be of one size."""
    from ffcv.fields.basics import IntDecoder  # noqa: PLC0415
    from ffcv.fields.rgb_image import SimpleRGBImageDecoder  # noqa: PLC0415
    from ffcv.loader import Loader  # noqa: PLC0415
    from ffcv.traversal_order.base import TraversalOrder  # noqa: PLC0415

    name = "ffcv" if encoding == "jpeg" else "ffcv_raw"
    file = peer_copy(name, case.size) / "all.beton"
    case.wait_for_start()
    episodes = case.episodes(encoding)

    class EpisodeOrder(TraversalOrder):  # type: ignore[misc]
        def __init__(self) -> None:
            """FFCV 1.0.2's Loader takes an instance, and calls it."""

        def __call__(self, loader: object) -> EpisodeOrder:
            super().__init__(loader)
            return self

        def sample_order(self, epoch: int) -> NDArray[np.int64]:
            numbers = range(epoch * FFCV_EPISODES, (epoch + 1) * FFCV_EPISODES)
            return np.concatenate([episodes[number] for number in numbers])

    loader = Loader(
        str(file), batch_size=case.images, num_workers=READER_THREADS, order=EpisodeOrder(), os_cache=True,
        pipelines={"image": [SimpleRGBImageDecoder()], "label": [IntDecoder()]},
    )  # fmt: skip
    for epoch in count():
        for number, (pixels, _) in enumerate(loader):
            at = epoch * FFCV_EPISODES + number
            yield loaded_images(np.asarray(pixels), episodes[at] if at == 0 else None)


ENGINE_STREAMS: Final[dict[str, Callable[[LoaderCase], Iterator[LoadedImages]]]] = {
    "dali-files": dali_files,
    "dali-reader": dali_reader,
    "ffcv": ffcv,
    "ffcv-raw": partial(ffcv, encoding="raw"),
}
