"""Contenders on PyTorch's DataLoader, each used as in its documentation.

Those that leave the choice of decoder to the user get the fastest.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import count
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from benchmarks.contenders import stand_in_for_torchvision
from benchmarks.loader_cases import (
    PLAIN_BATCH,
    READER_THREADS,
    SHUFFLE_BUFFER,
    EpisodeRows,
    LoadedImages,
    LoaderCase,
    loaded_images,
)
from benchmarks.loader_data import peer_copy, shard_set
from pipeline.shardset import ShardSet


def decode_fastest(data: bytes) -> NDArray[np.uint8]:
    """Decode by the fastest decoder in Python, for contenders that leave the choice."""
    import simplejpeg  # noqa: PLC0415

    pixels: NDArray[np.uint8] = simplejpeg.decode_jpeg(data, "RGB")
    return pixels


class WholeEpisodes:
    """A map-style dataset of whole episodes, over a dataset that gives a sample's bytes by number."""

    def __init__(self, episodes: EpisodeRows, samples: Any) -> None:
        self._episodes, self._samples = episodes, samples

    def __getitem__(self, number: int) -> tuple[Any, Any]:
        import torch  # noqa: PLC0415

        rows = self._episodes[number]
        pixels = np.stack([decode_fastest(self._samples[int(row)]["image"]) for row in rows])
        return torch.from_numpy(pixels), torch.from_numpy(rows)


def _load_episodes(episodes: EpisodeRows, samples: Any) -> Iterator[LoadedImages]:
    from torch.utils.data import DataLoader  # noqa: PLC0415

    dataset: Any = WholeEpisodes(episodes, samples)
    loader = DataLoader(dataset, batch_size=None, sampler=EndlessNumbers(), num_workers=READER_THREADS)
    for pixels, rows in loader:
        yield loaded_images(pixels.numpy(), rows.numpy())


class EndlessNumbers:
    """A sampler that yields 0, 1, 2, ... without end."""

    def __iter__(self) -> Iterator[int]:
        return count()


def litdata(case: LoaderCase) -> Iterator[LoadedImages]:
    """litdata's StreamingDataset by number, in DataLoader workers."""
    from litdata import StreamingDataset  # noqa: PLC0415

    folder = peer_copy("litdata", case.size)
    case.wait_for_start()
    yield from _load_episodes(case.episodes(), StreamingDataset(str(folder)))


def mosaicml(case: LoaderCase) -> Iterator[LoadedImages]:
    """MosaicML's StreamingDataset by number, in DataLoader workers."""
    stand_in_for_torchvision()
    from streaming import StreamingDataset  # noqa: PLC0415

    folder = peer_copy("mosaicml", case.size)
    case.wait_for_start()
    yield from _load_episodes(case.episodes(), StreamingDataset(local=str(folder), batch_size=1))


class ImageFiles:
    """Does what torchvision's ImageFolder does, without torchvision: open, convert, to a tensor."""

    def __init__(self, files: list[str]) -> None:
        self._files = files

    def __getitem__(self, row: int) -> tuple[Any, int]:
        import torch  # noqa: PLC0415
        from PIL import Image  # noqa: PLC0415

        with open(self._files[row], "rb") as file:  # noqa: PTH123 - as ImageFolder does
            pixels = np.array(Image.open(file).convert("RGB"))
        return torch.from_numpy(pixels), row


def jpeg_files(case: LoaderCase) -> list[str]:
    """The JPEG file of each row, in order."""
    return sorted(map(str, peer_copy("image_folder", case.size).glob("*/*.jpg")), key=lambda f: f[-10:])


def image_folder(case: LoaderCase) -> Iterator[LoadedImages]:
    """An ImageFolder with an episodic batch sampler, as in EasyFSL's examples, but in uint8."""
    from torch.utils.data import DataLoader  # noqa: PLC0415

    files = jpeg_files(case)
    case.wait_for_start()
    dataset: Any = ImageFiles(files)
    episodes: Any = map(np.ndarray.tolist, case.episodes())
    loader = DataLoader(dataset, batch_sampler=episodes, num_workers=READER_THREADS)
    for pixels, rows in loader:
        yield loaded_images(pixels.numpy(), rows.numpy())


def our_tars(case: LoaderCase) -> list[str]:
    """The tars of our shards, for contenders that can read them."""
    (dataset,) = ShardSet.open(shard_set("jpeg"))
    numbers = range(len(dataset.manifest.shards[case.size]))
    return [str(dataset.tar(case.size, number)) for number in numbers]


def webdataset(case: LoaderCase) -> Iterator[LoadedImages]:
    """webdataset's own pipeline, without episodes, from our tars."""
    import webdataset as wds  # noqa: PLC0415

    tars = our_tars(case)
    case.wait_for_start()
    dataset = (
        wds.WebDataset(tars, resampled=True, shardshuffle=False)
        .shuffle(SHUFFLE_BUFFER)
        .to_tuple("jpg", "__key__")
        .map_tuple(decode_fastest, int)
        .batched(PLAIN_BATCH)
    )
    for pixels, rows in wds.WebLoader(dataset, batch_size=None, num_workers=READER_THREADS):
        yield loaded_images(np.asarray(pixels), np.asarray(rows))


PEER_STREAMS: Final[dict[str, Callable[[LoaderCase], Iterator[LoadedImages]]]] = {
    "webdataset": webdataset,
    "litdata": litdata,
    "mosaicml": mosaicml,
    "image-folder": image_folder,
}
