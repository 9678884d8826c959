"""Transfers from the device to the host, which wait until the device has done all that it was given before."""

from __future__ import annotations

import time

from torch import Tensor


class HostTransfers:
    """Fetches the values of one task, and adds up how long the host waited for them."""

    def __init__(self) -> None:
        self.seconds = 0.0

    def fetch(self, values: Tensor) -> Tensor:
        """Copy values to the host."""
        begin = time.perf_counter()
        fetched = values.cpu()
        self.seconds += time.perf_counter() - begin
        return fetched
