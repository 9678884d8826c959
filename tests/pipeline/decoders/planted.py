"""Datasets that hold the very bytes a test wants, sound or not, with the right checksums."""

from __future__ import annotations

import io
import zlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from itertools import accumulate
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

from pipeline.decoders.base import Decoder, Fault, Job
from pipeline.decoders.choose import DecoderName, open_decoder
from pipeline.index import Dataset, Index, Manifest
from pipeline.layout import Layout
from pipeline.records import ClassRecord, Encoding, Recipe
from pipeline.store.local import LocalStore, Spots, spots_of
from pipeline.store.mapped import MappedStore
from tests.pictures import picture

SIZE = 48


def planted(
    root: Path, pictures: Sequence[bytes], encoding: str = "jpeg:95", size: int = SIZE
) -> Spots:
    """A dataset of one shard with these pictures, and where they lie."""
    shard = Layout(root).tar(size, 0)
    shard.parent.mkdir(parents=True, exist_ok=True)
    shard.write_bytes(b"".join(pictures))
    lengths = [len(data) for data in pictures]
    rows = np.arange(len(pictures))
    columns = {
        "key": rows,
        "class_id": np.zeros_like(rows),
        "shard": np.zeros_like(rows),
        f"offset_{size}": np.array([0, *accumulate(lengths[:-1])]),
        f"length_{size}": np.array(lengths),
        f"crc32_{size}": np.array([zlib.crc32(data) for data in pictures]),
    }
    index = Index(columns, {}, np.array([0, len(rows)]))
    return spots_of(Dataset(root, _manifest(len(rows), size, encoding), index), size, rows)


def _manifest(samples: int, size: int, encoding: str) -> Manifest:
    return Manifest(
        name="planted",
        plan_hash="",
        recipe=Recipe(sizes=(size,), encodings=(Encoding.parse(encoding),)),
        classes=(ClassRecord(name="all"),),
        hierarchy={},
        samples=samples,
        splits={},
        shards={},
        sources=(),
        quarantined=(),
        versions=(),
        index_sha256="",
    )


def encoded(image: Image.Image, form: str = "JPEG", **options: Any) -> bytes:
    """The bytes of a picture file."""
    buffer = io.BytesIO()
    image.save(buffer, form, **options)
    return buffer.getvalue()


def jpegs(count: int, size: int = SIZE, **options: Any) -> list[bytes]:
    """So many different sound JPEGs."""
    return [encoded(picture(seed, size, size), quality=95, **options) for seed in range(count)]


def npy(pixels: np.ndarray[tuple[int, ...], np.dtype[np.generic]]) -> bytes:
    """A .npy file."""
    buffer = io.BytesIO()
    np.save(buffer, pixels, allow_pickle=False)
    return buffer.getvalue()


def by_pillow(pictures: Sequence[bytes]) -> np.ndarray[tuple[int, ...], np.dtype[np.uint8]]:
    """What Pillow makes of picture files."""
    return np.stack([np.asarray(Image.open(io.BytesIO(data)).convert("RGB")) for data in pictures])


def job_for(spots: Spots) -> Job:
    """A job whose memory holds nothing yet that could pass for its pixels."""
    return Job(spots, torch.full((len(spots), spots.size, spots.size, 3), 77, dtype=torch.uint8))


@contextmanager
def opened(
    name: DecoderName, *, size: int = SIZE, threads: int = 2, mapped: bool = False
) -> Iterator[Decoder]:
    """A decoder on the CPU, and its store."""
    store = MappedStore() if mapped else LocalStore()
    decoder = open_decoder(name, store, size=size, threads=threads, device="cpu")
    try:
        yield decoder
    finally:
        decoder.close()
        store.close()


def decoded(decoder: Decoder, *spots: Spots) -> tuple[torch.Tensor, list[Fault]]:
    """Pixels and faults of jobs, one after another."""
    jobs = [job_for(some) for some in spots]
    for job in jobs:
        decoder.submit(job)
    for job in jobs:
        assert job.wait(60), "a job that never ends"
        if job.error is not None:
            raise job.error
    return torch.cat([job.out for job in jobs]), [fault for job in jobs for fault in job.faults]
