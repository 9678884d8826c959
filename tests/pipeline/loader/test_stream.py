"""Planning in bursts; what arrives from a stream is tested in test_loader.py."""

from __future__ import annotations

import time
from collections.abc import Iterator

from pipeline.loader.stream import BURST, BURST_SECONDS, in_bursts


class Made:
    """Items that say how many of them were made."""

    def __init__(self, count: int, seconds: float = 0.0) -> None:
        self.count = count
        self.seconds = seconds
        self.made = 0

    def __iter__(self) -> Iterator[int]:
        for number in range(self.count):
            time.sleep(self.seconds)
            self.made += 1
            yield number


def test_bursts_are_the_same_items_in_the_same_order() -> None:
    for count in (0, 1, BURST, BURST + 1, 5 * BURST + 7):
        assert list(in_bursts(iter(Made(count)))) == list(range(count))


def test_the_first_item_does_not_wait_for_others() -> None:
    items = Made(100)
    next(in_bursts(iter(items)))
    assert items.made == 1


def test_quick_items_are_made_many_at_a_time_and_not_without_end() -> None:
    items = Made(10**6)
    bursts = in_bursts(iter(items))
    next(bursts)
    made = set()
    for _ in range(4 * BURST):
        next(bursts)
        made.add(items.made)
    assert items.made <= 1 + 5 * BURST
    assert len(made) < 2 * BURST  # one burst in ten might be cut short by a busy machine


def test_slow_items_do_not_wait_for_each_other() -> None:
    items = Made(4, seconds=2 * BURST_SECONDS)
    for number in in_bursts(iter(items)):
        assert items.made == number + 1
