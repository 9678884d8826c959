"""Planning in bursts; what arrives from a stream is tested in test_loader.py."""

from __future__ import annotations

import time
from collections.abc import Iterator

from pipeline.loader.stream import BURST_CHUNKS, BURST_SECONDS, in_bursts


class CountingItems:
    """Items that say how many of them were produced."""

    def __init__(self, count: int, seconds: float = 0.0) -> None:
        self.count = count
        self.seconds = seconds
        self.produced = 0

    def __iter__(self) -> Iterator[int]:
        for number in range(self.count):
            time.sleep(self.seconds)
            self.produced += 1
            yield number


def test_bursts_are_the_same_items_in_the_same_order() -> None:
    for count in (0, 1, BURST_CHUNKS, BURST_CHUNKS + 1, 5 * BURST_CHUNKS + 7):
        assert list(in_bursts(iter(CountingItems(count)))) == list(range(count))


def test_the_first_item_does_not_wait_for_others() -> None:
    items = CountingItems(100)
    next(in_bursts(iter(items)))
    assert items.produced == 1


def test_quick_items_are_produced_many_at_a_time_up_to_a_limit() -> None:
    items = CountingItems(10**6)
    bursts = in_bursts(iter(items))
    next(bursts)
    counts = set()
    for _ in range(4 * BURST_CHUNKS):
        next(bursts)
        counts.add(items.produced)
    assert items.produced <= 1 + 5 * BURST_CHUNKS
    assert len(counts) < 2 * BURST_CHUNKS  # one burst in ten might be cut short by a busy machine


def test_slow_items_do_not_wait_for_each_other() -> None:
    items = CountingItems(4, seconds=2 * BURST_SECONDS)
    for number in in_bursts(iter(items)):
        assert items.produced == number + 1
