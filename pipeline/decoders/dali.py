"""JPEG decoding by NVIDIA DALI, with the same pipeline on a GPU and on the CPU.

Two properties of DALI 2.4 decide the design: one bad image fails its whole batch, and one whose header
does not parse can crash the process. So `DaliInput` parses every header first and replaces a bad image
by a black one, and a batch that fails all the same is decoded again here, image by image.
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

from pipeline.decoders.base import DecodeJob, SampleFault
from pipeline.decoders.dali_input import DaliBatch, DaliInput
from pipeline.decoders.fill import decode_jpeg
from pipeline.decoders.threads import PieceQueue, ThreadedDecoder
from pipeline.errors import PipelineError, first_line
from pipeline.records import Encoding
from pipeline.store.local import SampleStore

DALI_BATCH: Final = 128  # images; DALI reserves memory for the largest batch
DALI_QUEUE_BATCHES: Final = 2  # the next one is read while this one is decoded
HARDWARE_SHARE: Final = 0.65  # DALI's own default; more costs latency and gains little
DEVICE_PADDING: Final = 2**20  # bytes for each thread; a sixteenth of what large images need
HOST_PADDING: Final = 2**19


class DaliDecoder:
    """Decodes JPEG by DALI, and leaves other formats to a `ThreadedDecoder`.

    On a GPU images are decoded into device memory. `hardware` is the share of images for its JPEG
    engines, where it has any.
    """

    def __init__(
        self,
        store: SampleStore,
        *,
        size: int,
        threads: int,
        device: str | torch.device,
        hardware: float = HARDWARE_SHARE,
    ) -> None:
        target = torch.device(device)
        self._input = DaliInput(store, size)
        self._stream = torch.cuda.Stream(target) if target.type == "cuda" else None  # type: ignore[no-untyped-call]
        self._threaded = ThreadedDecoder(store, size=size, threads=threads)
        self._pieces = PieceQueue(size=size, takers=1)
        self._in_flight: deque[DaliBatch] = deque()  # in DALI, oldest first
        self._copying: deque[tuple[torch.cuda.Event, torch.Tensor]] = deque()
        """DALI's memory that is being copied: DALI decodes into it again as soon as it is let go of."""
        try:
            pipe = _build_pipeline(
                WeakMethod(self._next_batch),
                size=size,
                threads=threads,
                stream=self._stream,
                hardware=hardware,
            )
        except RuntimeError as error:
            self._threaded.close()
            raise PipelineError(
                f"DALI is installed and cannot start ({first_line(error)}); take decoder='turbo', or a DALI "
                "for this machine's driver"
            ) from error
        self._thread = threading.Thread(
            target=self._run_batches, args=(pipe,), name="decode-dali", daemon=True
        )
        self._thread.start()
        atexit.register(self.close)  # runs before DALI's own exit handler, which destroys pipelines

    def wants_device(self, encoding: Encoding) -> bool:
        return self._stream is not None and encoding.format == "jpeg"

    def submit(self, job: DecodeJob) -> None:
        """Returns at once: the caller bounds what is in flight."""
        if job.locations.encoding.format == "jpeg":
            self._pieces.put(job, DALI_BATCH)
        else:
            self._threaded.submit(job)

    def close(self) -> None:
        """Complete the batches under way and fail those that wait. Idempotent.

        Returns when no thread is left, unless one of them calls: a job's `done` may.
        """
        self._pieces.close()
        self._threaded.stop()
        if threading.current_thread() not in (self._thread, *self._threaded.workers):
            self._thread.join()
            self._threaded.close()
        atexit.unregister(self.close)

    def _run_batches(self, pipe: Pipeline) -> None:
        """Run DALI until the queue ends. It gives batches back in the order in which it took them."""
        try:
            with torch.cuda.stream(self._stream):  # no effect on the CPU
                while True:
                    pipe.schedule_run()  # calls `_next_batch`
                    self._collect(pipe)
        except StopIteration:
            pass
        except BaseException as error:  # noqa: BLE001 - reported by every job that waits
            self._pieces.close(f"DALI broke: {error}; decoder='turbo' does without")
            while self._in_flight:
                self._in_flight.popleft().over(error=error)
        with suppress(Empty):
            self._pieces.get(wait=False)  # the queue is closed: pieces that are left fail

    def _next_batch(self) -> list[NDArray[np.uint8]]:
        """Read a batch for DALI. Errors are caught: DALI would take one for an earlier batch's."""
        batch = None
        while batch is None:
            pending = any(batch.piece is not None for batch in self._in_flight)
            try:
                piece = self._pieces.get(wait=not pending)
            except Empty:  # DALI gives a batch back only when it gets one more
                batch = self._input.blank_batch()
            else:
                if piece is None:
                    raise StopIteration
                batch = self._input.read(piece)
        self._in_flight.append(batch)
        return batch.images

    def _collect(self, pipe: Pipeline) -> None:
        """Take the oldest batch back from DALI, or the error that it ended with."""
        started = perf_counter()
        failure: BaseException | None = None
        try:
            (pixels,) = pipe.outputs(self._stream)
            batch = self._in_flight[0]
            if batch.piece is not None:
                self._copy_out(batch, from_dlpack(pixels.as_tensor()))
                self._input.recycle(batch)
        except RuntimeError as error:
            batch = self._in_flight[0]
            failure = self._decode_again(batch, error)
        self._in_flight.popleft()
        batch.over(perf_counter() - started, failure)

    def _decode_again(self, batch: DaliBatch, error: RuntimeError) -> PipelineError | None:
        """One bad image fails a whole batch of DALI's: find it, and decode the others here."""
        if batch.piece is None:
            raise error
        locations, begin, faults = batch.piece.job.locations, batch.piece.begin, len(batch.faults)
        pixels = np.zeros((len(batch.images), locations.size, locations.size, 3), np.uint8)
        for at, (image, row) in enumerate(zip(batch.images, pixels, strict=True), begin):
            reason = decode_jpeg(image.data, locations, at, row.reshape(-1).data)
            if reason:
                batch.faults.append(SampleFault(at, reason))
        if len(batch.faults) == faults:
            return PipelineError(
                f"DALI refused {len(pixels)} images that are all sound: {error}; try decoder='turbo'"
            )
        self._copy_out(batch, torch.from_numpy(pixels))
        return None

    def _copy_out(self, batch: DaliBatch, pixels: torch.Tensor) -> None:
        """Copy a batch into its rows of the job, with zeros for its faults."""
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
        rows.record_stream(self._stream)  # so that memory nobody waits for is not used again too early
        rows.copy_(pixels, non_blocking=True)
        for fault in batch.faults:
            job.out[fault.at].zero_()
        job.event = self._stream.record_event()
        self._copying.append((job.event, pixels))
        while self._copying and self._copying[0][0].query():  # type: ignore[no-untyped-call]
            self._copying.popleft()


def _build_pipeline(
    source: WeakMethod[Callable[[], list[NDArray[np.uint8]]]],
    *,
    size: int,
    threads: int,
    stream: torch.cuda.Stream | None,
    hardware: float,
) -> Pipeline:
    device = "cpu"
    gpu_options: dict[str, Any] = {}
    if stream is not None:
        device = "mixed"
        gpu_options = {
            "hw_decoder_load": hardware,
            "preallocate_width_hint": size,
            "preallocate_height_hint": size,
            "device_memory_padding": DEVICE_PADDING,
            "host_memory_padding": HOST_PADDING,
            "affine": False,  # pinned threads conflict with the CPU limits of containers
        }

    def next_batch() -> list[NDArray[np.uint8]]:
        """Call the source weakly: a pipeline is full of reference cycles, and its source holds files and memory."""
        call = source()
        assert call is not None, "a decoder lives as long as its thread"
        return call()

    pipe = Pipeline(
        batch_size=DALI_BATCH,
        num_threads=threads,
        device_id=None if stream is None else stream.device.index,
        prefetch_queue_depth=DALI_QUEUE_BATCHES,
    )
    with pipe:
        stored = fn.external_source(source=next_batch, batch=True, no_copy=True, dtype=types.UINT8, ndim=1)
        pixels = fn.decoders.image(
            stored,
            device=device,
            output_type=types.RGB,
            jpeg_fancy_upsampling=True,  # the colours of libjpeg-turbo, on a GPU too
            adjust_orientation=False,
            **gpu_options,
        )
        pipe.set_outputs(pixels)
    pipe.build()
    return pipe
