"""Megabytes that a pass of one image keeps alive, counted on a CPU: `python -m benchmarks.gpu.live_bytes`.

The peak of all tensors' bytes (`learners.lite.live_memory`) is linear in images, and a few are enough. Not in it is
what libraries take: cuDNN's workspaces, and the allocator's rounding. `benchmarks.gpu.costs` has these figures as
constants.
"""

from __future__ import annotations

from argparse import ArgumentParser, Namespace
from collections.abc import Iterator
from itertools import product
from typing import Final

import torch

from benchmarks.common import TableRow, markdown_table
from learners.lite.live_memory import counted_peak
from learners.networks import Backbone, backbone
from learners.task import ChunkedPass

IMAGE_COUNTS: Final = (8, 16)  # the difference is that of eight images, without weights and their gradients
MEGABYTE: Final = 1e6
AUTOCAST_DTYPES: Final = {"float32": None, "half precision": torch.bfloat16}


def pass_peak(net: Backbone, images: int, size: int, dtype: torch.dtype | None, *, graph: bool) -> int:
    """The peak in bytes of one pass of so many images, forward and, with a graph, backward."""
    pixels = torch.randint(256, (images, size, size, 3), dtype=torch.uint8).permute(0, 3, 1, 2)
    film = [
        torch.full((channels,), value, requires_grad=True)
        for channels, value in product(net.film_channels, (1.0, 0.0))
    ]

    def run() -> None:
        with torch.set_grad_enabled(graph):
            features = ChunkedPass(precision=dtype).run(net, pixels, film)
            if graph:
                torch.autograd.backward(features.sum())

    run()  # a frozen network's casts are made once and kept
    return counted_peak(run)


def megabytes_per_image(flags: Namespace) -> Iterator[TableRow]:
    """The figures of a backbone whose weights learn (ProtoNets), and of one with FiLM (Simple CNAPs)."""
    for film, (precision, dtype) in product((False, True), AUTOCAST_DTYPES.items()):
        net = backbone(flags.backbone, film=film).requires_grad_(not film)
        row: TableRow = {"gradient": "to FiLM" if film else "to the weights", "precision": precision}
        for column, graph in (("graph_mb", True), ("no_graph_mb", False)):
            few, more = (pass_peak(net, count, flags.size, dtype, graph=graph) for count in IMAGE_COUNTS)
            row[column] = (more - few) / (IMAGE_COUNTS[1] - IMAGE_COUNTS[0]) / MEGABYTE
        yield row


def main() -> None:
    parser = ArgumentParser(description=__doc__, allow_abbrev=False)
    parser.add_argument("--backbone", default="efficientnet_b0")
    parser.add_argument("--size", type=int, default=224, help="pixels")
    flags = parser.parse_args()
    print(f"{flags.backbone}, {flags.size} px, torch {torch.__version__}")
    print(markdown_table(list(megabytes_per_image(flags))))


if __name__ == "__main__":
    main()
