"""The model's tables: `python -m benchmarks.gpu.model_tables`."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from itertools import product
from typing import Any, Final

from benchmarks.common import TableRow, markdown_table
from benchmarks.gpu.costs import CARDS
from benchmarks.gpu.model import (
    LARGEST_EPISODE,
    MEAN_EPISODE,
    EpisodeShape,
    ModelScale,
    StepSetting,
    largest_chunk,
    memory_gb,
    minutes_range,
    predict,
)

SETTING_ROWS: Final = {
    "TF32, chunk 40, the head by class size (until November 2026)": StepSetting(head="by size"),
    "TF32, chunk 40": StepSetting(),
    "half, chunk 40": StepSetting(width="half"),
    "half, chunk 40 with a graph, 256 without": StepSetting(width="half", chunk_without_graph=256),
    "half, chunk 128": StepSetting(width="half", chunk=128),
    "TF32, chunk 512": StepSetting(chunk=512),
    "half, chunk 512": StepSetting(width="half", chunk=512),
    "half, chunk 512, --query-h 100": StepSetting(width="half", chunk=512, query_h=100),
    "half, chunk 40, --compile": StepSetting(width="half", compiled=True),
    "half, chunk 512, --compile": StepSetting(width="half", chunk=512, compiled=True),
}


def setting_table(shape: EpisodeShape, change: dict[str, Any]) -> Iterator[TableRow]:
    """The prediction of each setting, with some of its fields changed."""
    for name, row in SETTING_ROWS.items():
        setting = replace(row, **change)
        if not setting.adapts and "head" in name:
            continue
        found, (least, most) = predict(shape, setting), minutes_range(shape, setting)
        yield {
            "setting": name, "host_ms": round(found.host_ms), "kernels_ms": round(found.kernel_ms),
            "ms_a_task": round(found.step_ms), "images/s": f"{found.images_per_second:,.0f}",
            "GPU_busy": f"{found.busy:.0%}", "GB": f"{memory_gb(setting):.1f}",
            "10,000_tasks,_min": f"{found.paper_minutes:.0f} ({least:.0f}-{most:.0f})",
        }  # fmt: skip


def card_table() -> Iterator[TableRow]:
    """The chunks that fit each card, and the time of the mean episode with them."""
    for card, width, compiled in product(CARDS, ("tf32", "half"), (False, True)):
        if compiled and width == "tf32":
            continue
        setting = StepSetting(width=width, compiled=compiled)  # type: ignore[arg-type]
        small = replace(setting, size=84)
        chunk, plain = largest_chunk(card, setting), largest_chunk(card, setting, graph=False)
        setting = replace(setting, chunk=chunk, chunk_without_graph=plain)
        scale = ModelScale(kernels=card.kernels)
        found = predict(MEAN_EPISODE, setting, scale)
        default = predict(MEAN_EPISODE, replace(setting, chunk=40, chunk_without_graph=40), scale)
        yield {
            "card": card.name, "precision": ("TF32" if width == "tf32" else "half") + (", --compile" if compiled else ""),
            "chunk,_224_px": f"{chunk} / {plain}",
            "84_px": f"{largest_chunk(card, small)} / {largest_chunk(card, small, graph=False)}",
            "ms_a_task": round(found.step_ms), "at_chunk_40": round(default.step_ms),
            "GPU_busy": f"{found.busy:.0%}", "busy_at_chunk_40": f"{default.busy:.0%}",
        }  # fmt: skip


def main() -> None:
    paper = "10,000 tasks of the paper's run"
    for title, shape, change in (
        ("Simple CNAPs, EfficientNet-B0, 224 px, the largest episode", LARGEST_EPISODE, {}),
        (f"the same, the mean episode of {paper}", MEAN_EPISODE, {}),
        ("ProtoNets, EfficientNet-B0, 224 px, the mean episode", MEAN_EPISODE, {"learner": "protonets"}),
        ("ProtoNets, ResNet-18, 224 px", MEAN_EPISODE, {"learner": "protonets", "backbone": "resnet18"}),
        ("Simple CNAPs, EfficientNet-B0, 84 px", MEAN_EPISODE, {"size": 84}),
    ):
        print(f"\n{title}\n\n{markdown_table(list(setting_table(shape, change)))}")
    print(f"\nChunks by card, with a graph / without\n\n{markdown_table(list(card_table()))}")


if __name__ == "__main__":
    main()
