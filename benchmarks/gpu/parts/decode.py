"""Images per second of each JPEG decoder that is installed, and how far their pixels are from libjpeg-turbo's."""

from __future__ import annotations

import pkgutil
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import Any, Final

import numpy as np
import simplejpeg
import torch
from torch.utils.dlpack import from_dlpack

from benchmarks.common import TableRow, is_installed
from benchmarks.gpu.meters import median_ms
from benchmarks.gpu.parts.fed import drawn_shards
from benchmarks.gpu.scale import MeasureScale
from benchmarks.loader_gpu import measure_rate
from benchmarks.loader_gpu_parts import job_stream
from pipeline.errors import first_line
from pipeline.process import usable_cores
from pipeline.shardset import ShardSet
from pipeline.store.local import locate_samples

BATCHES: Final = (40, 128, 256)
READ_IMAGES: Final = 256
TURBO_PER_THREAD: Final = 3980  # images of 224 px per CPU second, measured
ENGINE_RANGE: Final = "20,000-60,000"  # 128 images in 2 to 6 ms

Decode = Callable[[Sequence[bytes]], object]


def measure(scale: MeasureScale) -> Iterator[TableRow]:
    """libjpeg-turbo by threads, then the GPU's decoders by batch."""
    shards = ShardSet.open(drawn_shards(scale))
    cores = usable_cores()
    for threads in sorted({1, min(4, cores), min(8, cores), max(1, cores - 1)}):
        with job_stream(
            shards, scale.pixels, scale.device, decoder="turbo", chunk=128, threads=threads
        ) as finish:
            rate = measure_rate(finish, scale.seconds, 128)
        yield {"decoder": "turbo", "threads": threads} | rate | _predicted_turbo(scale, threads)
    files = stored_files(shards, scale.pixels)
    exact = [simplejpeg.decode_jpeg(file, "RGB") for file in files[: BATCHES[0]]]
    for name, open_decoder in (("torchvision", torchvision_decoders), ("nvidia.nvimgcodec", codec_decoders)):
        if not scale.gpu or not _importable(name):
            yield {"decoder": name, "remark": "needs a GPU" if not scale.gpu else "not installed"}
            continue
        try:
            for label, decode in open_decoder(cores):
                yield from _rates(label, decode, files, scale)
                yield {"decoder": label} | _differences(decode(files[: BATCHES[0]]), exact)
        except Exception as error:  # noqa: BLE001 - another's library, on a machine that nobody has seen
            yield {"decoder": name, "remark": f"{type(error).__name__}: {first_line(error)}"}


def _predicted_turbo(scale: MeasureScale, threads: int) -> TableRow:
    return {} if scale.quick else {"predicted": f"{TURBO_PER_THREAD * threads:,} at most"}


def _rates(label: str, decode: Decode, files: list[bytes], scale: MeasureScale) -> Iterator[TableRow]:
    for batch in BATCHES:
        spent = median_ms(partial(decode, files[:batch]), seconds=scale.seconds)
        yield {
            "decoder": label, "batch": batch, "images_per_second": 1000 * batch / spent, "predicted": ENGINE_RANGE
        }  # fmt: skip


def stored_files(shards: ShardSet, size: int) -> list[bytes]:
    """The bytes of some stored images."""
    (dataset,), store = shards, shards.open_store()
    located = locate_samples(dataset, size, np.arange(min(READ_IMAGES, len(dataset.index))))
    buffers = [bytearray(length) for length in located.lengths]
    for at, buffer in enumerate(buffers):
        store.read(located, at, (memoryview(buffer),))
    store.close()
    return [bytes(buffer) for buffer in buffers]


def torchvision_decoders(_cores: int) -> Iterator[tuple[str, Decode]]:
    """torchvision's nvJPEG; its input is made anew in each call, as ours would be."""
    from torchvision.io import decode_jpeg  # noqa: PLC0415 - optional

    def decode(files: Sequence[bytes]) -> object:
        return decode_jpeg(
            [torch.frombuffer(bytearray(file), dtype=torch.uint8) for file in files], device="cuda"
        )

    yield "torchvision", decode


def codec_decoders(cores: int) -> Iterator[tuple[str, Decode]]:
    """nvImageCodec's hardware engines, its kernels, and both."""
    from nvidia import nvimgcodec  # noqa: PLC0415 - optional

    kinds = nvimgcodec.BackendKind
    for label, chosen in (("hardware", kinds.HW_GPU_ONLY), ("hybrid", kinds.HYBRID_CPU_GPU), ("both", None)):
        options: dict[str, Any] = {} if chosen is None else {"backends": [nvimgcodec.Backend(chosen)]}
        decoder = nvimgcodec.Decoder(
            device_id=0, max_num_cpu_threads=max(1, cores - 1), options=":fancy_upsampling=1", **options
        )
        yield f"nvImageCodec, {label}", partial(_decode_list, decoder)


def _decode_list(decoder: Any, files: Sequence[bytes]) -> object:
    return decoder.decode(list(files))


def _importable(name: str) -> bool:
    """Whether a module can be imported; a regular package `nvidia` would hide what another folder adds to it."""
    if name.startswith("nvidia.") and is_installed("nvidia"):
        import nvidia  # noqa: PLC0415 - optional

        nvidia.__path__ = pkgutil.extend_path(nvidia.__path__, "nvidia")
    return is_installed(name)


def _differences(decoded: Any, exact: list[np.ndarray]) -> TableRow:
    """The largest and the mean difference from libjpeg-turbo's pixels, in grey levels."""
    most, means = 0, list[float]()
    for image, wanted in zip(decoded, exact, strict=True):
        pixels = (image if isinstance(image, torch.Tensor) else from_dlpack(image)).cpu().int().numpy()
        pixels = pixels if pixels.shape == wanted.shape else pixels.transpose(1, 2, 0)
        off = np.abs(pixels - wanted.astype(np.int32))
        most, means = max(most, int(off.max())), [*means, float(off.mean())]
    return {"grey_levels_off_at_most": most, "in_the_mean": float(np.mean(means))}
