"""`train.py --profile N`: N steps recorded by torch.profiler, as a table and as a trace in the run's folder."""

from __future__ import annotations

import gzip
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Final

import torch
from torch.profiler import ProfilerAction, ProfilerActivity, profile, schedule, supported_activities

from learners.training.profile_table import trace_table
from pipeline.layout import atomic_file, write_atomically

PROFILE_TABLE: Final = "profile.txt"
PROFILE_TRACE: Final = "profile.json.gz"
WARM_UP_STEPS: Final = 3  # before those recorded: memory is allocated in them, and code compiled
RECORDING: Final = (ProfilerAction.RECORD, ProfilerAction.RECORD_AND_SAVE)


class StepProfiler:
    """Records some steps after the first few, and then writes what it saw; without a number of steps, nothing."""

    def __init__(
        self, folder: Path, steps: int | None, device: torch.device, say: Callable[[str], None]
    ) -> None:
        self._folder = folder
        self._say = say
        self._left = WARM_UP_STEPS + (steps or 0)
        self._profile: profile | None = None
        if steps:
            supported = supported_activities()  # type: ignore[no-untyped-call]
            on_gpu = device.type == "cuda" and ProfilerActivity.CUDA in supported
            kinds = [ProfilerActivity.CPU, *[ProfilerActivity.CUDA] * on_gpu]
            plan = schedule(wait=WARM_UP_STEPS - 1, warmup=1, active=steps, repeat=1)
            self._profile = profile(activities=kinds, schedule=plan)

    @property
    def mark(self) -> dict[str, float]:
        """What the record of the step says, if it is recorded: that makes it slower."""
        recording = self._profile is not None and self._profile.current_action in RECORDING
        return {"profiled": 1.0} if recording else {}

    def __enter__(self) -> StepProfiler:
        if self._profile is not None:
            self._profile.start()
        return self

    def step(self) -> None:
        """End a step; write the files after the last one that is recorded."""
        if self._profile is None:
            return
        self._profile.step()
        self._left -= 1
        if not self._left:
            self._write(self._profile)
            self._profile = None

    def __exit__(self, *exception: object) -> None:
        if self._profile is not None:
            self._profile.stop()
            self._say("no profile was written: training ended before the last of its steps")

    def _write(self, recorded: profile) -> None:
        trace, table = self._folder / PROFILE_TRACE, self._folder / PROFILE_TABLE
        with TemporaryDirectory() as scratch:
            plain = Path(scratch) / "trace.json"
            recorded.export_chrome_trace(str(plain))
            with plain.open("rb") as text, atomic_file(trace) as file, gzip.open(file, "wb") as packed:
                shutil.copyfileobj(text, packed)
            events = json.loads(plain.read_bytes())["traceEvents"]
        write_atomically(table, trace_table(events).encode())
        self._say(f"wrote {table}, and {trace}, which https://ui.perfetto.dev and chrome://tracing open")
