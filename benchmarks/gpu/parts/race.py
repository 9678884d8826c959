"""DALI's pixels where copies out of its memory are late: a batch may not be decoded into what is still being copied."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

import numpy as np
import torch

from benchmarks.common import TableRow
from benchmarks.gpu.parts.fed import drawn_shards
from benchmarks.gpu.scale import MeasureScale
from pipeline.decoders.base import DecodeJob
from pipeline.decoders.dali import DaliDecoder
from pipeline.decoders.threads import ThreadedDecoder
from pipeline.shardset import ShardSet
from pipeline.store.local import locate_samples

BATCHES: Final = 12
BATCH: Final = 128  # images
LATE_CYCLES: Final = 100_000_000  # of the GPU's clock, some 50 ms: longer than a batch takes
WRONG: Final = 3.0  # mean grey levels from libjpeg-turbo's pixels; decoders differ by less


def measure(scale: MeasureScale) -> Iterator[TableRow]:
    """A row with the copies at once, and one with each held back by a spinning kernel on DALI's stream."""
    (dataset,) = shards = ShardSet.open(drawn_shards(scale))
    store, size = shards.open_store(), scale.pixels
    exact = ThreadedDecoder(store, size=size, threads=8)
    dali = DaliDecoder(store, size=size, threads=8, device=scale.device)
    shape = (BATCH, size, size, 3)
    try:
        for late in (False, True):
            pairs = []
            for number in range(BATCHES):
                rows = np.arange(BATCH * number, BATCH * (number + 1)) % len(dataset.index)
                located = locate_samples(dataset, size, rows)
                host, device = (
                    DecodeJob(located, torch.empty(shape, dtype=torch.uint8, device=place))
                    for place in ("cpu", scale.device)
                )
                if late:
                    with torch.cuda.stream(dali._stream):  # noqa: SLF001 - where it copies
                        torch.cuda._sleep(LATE_CYCLES)  # type: ignore[no-untyped-call]  # noqa: SLF001
                exact.submit(host)
                dali.submit(device)
                pairs.append((host, device))
            yield {"copies": "late" if late else "at once", "images": BATCHES * BATCH} | _compare(pairs)
    finally:
        dali.close()
        exact.close()
        store.close()


def _compare(pairs: list[tuple[DecodeJob, DecodeJob]]) -> TableRow:
    wrong, most = 0, 0
    for host, device in pairs:
        host.wait()
        device.wait()
        assert device.event is not None
        torch.cuda.current_stream().wait_event(device.event)
        off = (device.out.cpu().int() - host.out.int()).abs()
        wrong += int((off.float().mean((1, 2, 3)) > WRONG).sum())
        most = max(most, int(off.max()))
    return {"wrong_images": wrong, "predicted": "0", "grey_levels_off_at_most": most}
