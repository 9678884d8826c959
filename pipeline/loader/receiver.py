"""The consumer's end of the stream: waits for the next chunk and settles what is wrong with it."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import Final

import numpy as np
import torch
from numpy.typing import NDArray

from pipeline.episodes import EpisodePlan
from pipeline.loader.chunks import Role
from pipeline.loader.faults import Policy
from pipeline.loader.stats import Meter
from pipeline.loader.stream import End, Parts, Pending, Stream
from pipeline.store.local import spots_of

NONE: Final = np.zeros(0, np.int64)


@dataclass(frozen=True, slots=True, eq=False)
class Arrived:
    """A chunk whose pixels are in place, all but the masked ones."""

    begin: int
    end: int
    room: torch.Tensor
    side: torch.Tensor | None
    masked: NDArray[np.int64]


class Receiver:
    """Takes chunks off the stream for one episode after the other, and settles their faults."""

    def __init__(self, stream: Stream, parts: Parts, policy: Policy, meter: Meter) -> None:
        self._stream = stream
        self._parts = parts
        self._policy = policy
        self._meter = meter
        self.device = parts.target.device
        self.image_size = stream.image_size

    def take(self) -> Pending:
        """The next chunk, decoded or not."""
        arrival = self._stream.next()
        if isinstance(arrival, End):
            assert arrival.error is not None  # a sampler ends between episodes only
            raise arrival.error
        assert isinstance(arrival, Pending)
        return arrival

    def receive(self, plan: EpisodePlan) -> tuple[Role, Arrived]:
        """The next chunk, once its pixels are in place."""
        begin = time.perf_counter()
        pending = self.take()
        cut, job = pending.cut, pending.job
        self._stream.wait(job)
        self._meter.waiting += time.perf_counter() - begin
        self._meter.decoding += job.seconds
        self._meter.images += len(cut)
        self._meter.faults += len(job.faults)
        if job.error is not None:
            raise job.error
        self._parts.target.arrived(job, pending.room)
        masked = self._settle(plan, pending) if job.faults else NONE
        return cut.role, Arrived(cut.begin, cut.end, pending.room, pending.side, masked)

    def _settle(self, plan: EpisodePlan, pending: Pending) -> NDArray[np.int64]:
        """The places that stay without pixels, after replacing what is to be replaced."""
        job = pending.job
        self._policy.allow(plan, job, self._meter)
        places = np.array([fault.at for fault in job.faults])
        if self._policy.on_error == "mask":
            return places
        for at in places:
            self._replace(plan, int(job.spots.rows[at]), pending.room[at : at + 1])
        return NONE

    def _replace(self, plan: EpisodePlan, row: int, room: torch.Tensor) -> None:
        dataset = self._parts.shards[plan.dataset]
        for other in self._policy.substitutes(plan, dataset, row):
            job = self._stream.decode(spots_of(dataset, self.image_size, np.array([other])), room)
            if job.error is not None:
                raise job.error
            if not job.faults:
                self._parts.target.arrived(job, room)
                return
        self._policy.no_substitute(plan, dataset, row)
