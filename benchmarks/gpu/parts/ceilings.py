"""What the device can do at best: the constants of the model."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Final

import torch

from benchmarks.common import TableRow
from benchmarks.gpu.meters import median_ms
from benchmarks.gpu.scale import MeasureScale

LAUNCHES: Final = 1000
PREDICTIONS: Final = {  # of an H200; the first two measured on others', see benchmarks/gpu/costs.py
    "device copy": "4.3", "bfloat16 product": "790", "pinned copy": "50", "tiny copy": "10-15",
    "item()": "10-15", "launch": "4-8",
}  # fmt: skip


def measure(scale: MeasureScale) -> Iterator[TableRow]:
    """Bandwidths, arithmetic, and the host's cost of a launch and of a synchronisation."""
    device = torch.device(scale.device)
    yield _row("device copy", _copied(scale, 2**24 if scale.quick else 2**32), "TB/s read and written")
    side = 512 if scale.quick else 8192
    matrix = torch.randn(side, side, device=device, dtype=torch.bfloat16)
    spent = _ms(scale, lambda: matrix @ matrix)
    yield _row("bfloat16 product", 2 * side**3 / spent / 1e9, f"TFLOP/s, {side} x {side}")
    chunk = torch.empty(128 * 3 * scale.pixels**2, dtype=torch.uint8)
    chunk, there = chunk.pin_memory() if scale.gpu else chunk, torch.empty_like(chunk, device=device)
    spent = _ms(scale, lambda: there.copy_(chunk, non_blocking=True))
    yield _row("pinned copy", chunk.numel() / spent / 1e6, "GB/s, 128 images to the device")
    three, zero = torch.empty(3), torch.zeros((), device=device)
    yield _row(
        "tiny copy", 1000 * _ms(scale, lambda: three.to(device, copy=True)), "us, from pageable memory"
    )
    yield _row("item()", 1000 * _ms(scale, zero.item), "us, of an idle device")

    def launch_many() -> None:
        for _ in range(LAUNCHES):
            zero.add_(1)

    yield _row(
        "launch", 1000 * _ms(scale, launch_many) / LAUNCHES, "us of Python and kernel, one after another"
    )


def _copied(scale: MeasureScale, size: int) -> float:
    source = torch.empty(size, dtype=torch.uint8, device=scale.device)
    target = torch.empty_like(source)
    return 2 * size / _ms(scale, lambda: target.copy_(source)) / 1e9


def _ms(scale: MeasureScale, call: Callable[[], object]) -> float:
    return median_ms(call, most=200, seconds=scale.seconds)


def _row(what: str, value: float, unit: str) -> TableRow:
    return {"what": what, "measured": value, "predicted": PREDICTIONS[what], "unit": unit}
