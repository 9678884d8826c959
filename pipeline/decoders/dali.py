"""NVIDIA DALI decodes JPEG, by the same pipeline on a GPU and on the CPU. Its one door.

Two habits of DALI 2.4 decide the shape: one bad picture fails its whole batch, and one whose header
does not parse can crash the process. So every header is parsed here first, a bad picture is replaced
by a black one, and a batch that fails all the same is decoded again, picture by picture.
"""

from __future__ import annotations

import atexit
import threading
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from queue import Empty
from time import perf_counter
from typing import Any, Final
from weakref import WeakMethod

import numpy as np
import torch
from numpy.typing import NDArray
from nvidia.dali import fn, types
from nvidia.dali.pipeline import Pipeline
from torch.utils.dlpack import from_dlpack

from pipeline.decoders.base import Fault, Job
from pipeline.decoders.dali_input import Batch, Gate
from pipeline.decoders.fill import jpeg
from pipeline.decoders.threads import Pieces, Threads
from pipeline.errors import PipelineError
from pipeline.records import Encoding
from pipeline.store.local import Store

BATCH: Final = 128  # pictures; DALI reserves memory for the largest batch
DEPTH: Final = 2  # batches; the next one is read while this one is decoded
HARDWARE_SHARE: Final = 0.65  # DALI's own default; more costs latency and gains little
DEVICE_PADDING: Final = 2**20  # bytes for each thread; a sixteenth of what large pictures need
HOST_PADDING: Final = 2**19


class Dali:
    """JPEG by DALI; what is not JPEG is left to `Threads`.

    On a GPU pixels are born in device memory. `hardware` is the share of pictures for its JPEG
    engines, where it has any.
    """

    def __init__(
        self,
        store: Store,
        *,
        size: int,
        threads: int,
        device: str | torch.device,
        hardware: float = HARDWARE_SHARE,
    ) -> None:
        place = torch.device(device)
        self._gate = Gate(store, size)
        self._stream = torch.cuda.Stream(place) if place.type == "cuda" else None  # type: ignore[no-untyped-call]
        self._others = Threads(store, size=size, threads=threads)
        self._pieces = Pieces(size=size, takers=1)
        self._flight: deque[Batch] = deque()  # what DALI has, oldest first
        pipe = _pipeline(
            WeakMethod(self._next),
            size=size,
            threads=threads,
            stream=self._stream,
            hardware=hardware,
        )
        self._thread = threading.Thread(
            target=self._work, args=(pipe,), name="decode-dali", daemon=True
        )
        self._thread.start()
        atexit.register(self.close)  # runs before DALI's own, which takes pipelines away

    def wants_device(self, encoding: Encoding) -> bool:
        return self._stream is not None and encoding.format == "jpeg"

    def submit(self, job: Job) -> None:
        """Returns at once: the caller bounds what is in flight."""
        if job.spots.encoding.format == "jpeg":
            self._pieces.put(job, BATCH)
        else:
            self._others.submit(job)

    def close(self) -> None:
        """Batches under way are completed; those that wait fail. Idempotent.

        Returns when no thread is left, unless one of them calls: a job's `done` may.
        """
        self._pieces.close()
        self._others.stop()
        if threading.current_thread() not in (self._thread, *self._others.workers):
            self._thread.join()
            self._others.close()
        atexit.unregister(self.close)

    def _work(self, pipe: Pipeline) -> None:
        """DALI gives batches back in the order in which it took them."""
        try:
            with torch.cuda.stream(self._stream):  # nothing, on the CPU
                while True:
                    pipe.schedule_run()  # calls `_next`
                    self._take(pipe)
        except StopIteration:
            pass
        except BaseException as error:  # noqa: BLE001 - it belongs to all who wait
            self._pieces.close(f"DALI broke: {error}; decoder='turbo' does without")
            while self._flight:
                self._flight.popleft().over(error=error)
        with suppress(Empty):
            self._pieces.get(wait=False)  # it is closed: what was put before fails

    def _next(self) -> list[NDArray[np.uint8]]:
        """DALI's source. An error in here would be taken for an earlier batch's, so there is none."""
        batch = None
        while batch is None:
            waited_for = any(batch.piece is not None for batch in self._flight)
            try:
                piece = self._pieces.get(wait=not waited_for)
            except Empty:  # DALI gives back the batch before only when it gets one more
                batch = self._gate.filler()
            else:
                if piece is None:
                    raise StopIteration
                batch = self._gate.read(piece)
        self._flight.append(batch)
        return batch.pictures

    def _take(self, pipe: Pipeline) -> None:
        """The oldest batch comes back, or the error that it ended with."""
        started = perf_counter()
        failure: BaseException | None = None
        try:
            (pixels,) = pipe.outputs(self._stream)
            batch = self._flight[0]
            if batch.piece is not None:
                self._put(batch, from_dlpack(pixels.as_tensor()))
                self._gate.take_back(batch)
        except RuntimeError as error:
            batch = self._flight[0]
            failure = self._decode_again(batch, error)
        self._flight.popleft()
        batch.over(perf_counter() - started, failure)

    def _decode_again(self, batch: Batch, error: RuntimeError) -> PipelineError | None:
        """One picture fails a whole batch of DALI's: find it, and decode the others here."""
        if batch.piece is None:
            raise error
        spots, begin, faults = batch.piece.job.spots, batch.piece.begin, len(batch.faults)
        pixels = np.zeros((len(batch.pictures), spots.size, spots.size, 3), np.uint8)
        for at, (picture, row) in enumerate(zip(batch.pictures, pixels, strict=True), begin):
            reason = jpeg(picture.data, spots, at, row.reshape(-1).data)
            if reason:
                batch.faults.append(Fault(at, reason))
        if len(batch.faults) == faults:
            return PipelineError(
                f"DALI refused {len(pixels)} pictures that are all sound: {error}; try decoder='turbo'"
            )
        self._put(batch, torch.from_numpy(pixels))
        return None

    def _put(self, batch: Batch, pixels: torch.Tensor) -> None:
        """Copy a batch to its place, with zeros for its faults."""
        assert batch.piece is not None
        job = batch.piece.job
        rows = job.out[batch.piece.begin : batch.piece.end]
        if self._stream is None:
            np.copyto(rows.numpy(), pixels.numpy())  # torch would start threads of its own
            for fault in batch.faults:
                job.out[fault.at] = 0
            return
        if job.writable is not None:
            self._stream.wait_event(job.writable)
        rows.record_stream(self._stream)  # if nobody waits for it, it is not used again too early
        rows.copy_(pixels, non_blocking=True)
        for fault in batch.faults:
            job.out[fault.at].zero_()
        job.event = self._stream.record_event()


def _pipeline(
    source: WeakMethod[Callable[[], list[NDArray[np.uint8]]]],
    *,
    size: int,
    threads: int,
    stream: torch.cuda.Stream | None,
    hardware: float,
) -> Pipeline:
    device = "cpu"
    special: dict[str, Any] = {}
    if stream is not None:
        device = "mixed"
        special = {
            "hw_decoder_load": hardware,
            "preallocate_width_hint": size,
            "preallocate_height_hint": size,
            "device_memory_padding": DEVICE_PADDING,
            "host_memory_padding": HOST_PADDING,
            "affine": False,  # threads pinned to cores fight with the limits of containers
        }

    def pictures() -> list[NDArray[np.uint8]]:
        """Weakly, as a pipeline is full of circles and its source holds files and memory."""
        call = source()
        assert call is not None, "a decoder lives as long as its thread"
        return call()

    pipe = Pipeline(
        batch_size=BATCH,
        num_threads=threads,
        device_id=None if stream is None else stream.device.index,
        prefetch_queue_depth=DEPTH,
    )
    with pipe:
        stored = fn.external_source(
            source=pictures, batch=True, no_copy=True, dtype=types.UINT8, ndim=1
        )
        pixels = fn.decoders.image(
            stored,
            device=device,
            output_type=types.RGB,
            jpeg_fancy_upsampling=True,  # the colours of libjpeg-turbo, on a GPU too
            adjust_orientation=False,
            **special,
        )
        pipe.set_outputs(pixels)
    pipe.build()
    return pipe
