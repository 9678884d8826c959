from __future__ import annotations

import subprocess
import sys
import threading
from contextlib import suppress
from pathlib import Path
from time import monotonic, sleep

import numpy as np
import psutil
import pytest
import torch

from pipeline.decoders.base import DecodeJob
from pipeline.decoders.threads import ThreadedDecoder
from pipeline.errors import PipelineError, UsageError
from pipeline.store.local import LocalStore
from tests.pipeline.decoders.planted import (
    SIZE,
    decode_all,
    decode_by_pillow,
    job_for,
    make_jpegs,
    npy_bytes,
    write_shard,
)
from tests.pipeline.decoders.test_threads import LEAVE, run_script

pytest.importorskip("nvidia.dali")
from pipeline.decoders.dali import DaliDecoder

ROOT = Path(__file__).resolve().parents[3]
UNPARSABLE = """
import sys
from pathlib import Path
from pipeline.decoders.dali import DaliDecoder
from pipeline.store.local import LocalStore
from tests.pipeline.decoders.planted import SIZE, decode_all, make_jpegs, write_shard
pictures = make_jpegs(40)
for at in range(0, 40, 4):
    pictures[at] = [b"", b"text" * 99, pictures[at][:100], bytes(600)][at // 4 % 4]
locations = write_shard(Path(sys.argv[1]), pictures)
decoder = DaliDecoder(LocalStore(), size=SIZE, threads=2, device="cpu")
for _ in range(150):
    images, faults = decode_all(decoder, locations)
    assert [fault.at for fault in faults] == list(range(0, 40, 4))
decoder.close()
"""


@pytest.mark.parametrize("jobs", [0, 1, 100])
def test_closing_leaves_no_thread_and_every_job_ended(jobs: int, tmp_path: Path) -> None:
    locations = write_shard(tmp_path, make_jpegs(40))
    first = DaliDecoder(LocalStore(), size=SIZE, threads=2, device="cpu")
    decode_all(first, locations)  # loads libraries, some of which keep a thread
    first.close()
    before = psutil.Process().num_threads()
    decoder = DaliDecoder(LocalStore(), size=SIZE, threads=2, device="cpu")
    submitted = [job_for(locations) for _ in range(jobs)]
    for job in submitted:
        decoder.submit(job)
    decoder.close()
    decoder.close()
    assert not [t.name for t in threading.enumerate() if t.name.startswith("decode")]
    late = monotonic() + 5  # a joined thread still takes a moment to leave the system's list
    while psutil.Process().num_threads() > before and monotonic() < late:
        sleep(0.01)
    assert psutil.Process().num_threads() <= before
    assert all(job.wait(0) for job in submitted)
    finished = [job for job in submitted if job.error is None]
    assert all(np.array_equal(job.out.numpy(), decode_by_pillow(make_jpegs(40))) for job in finished)
    assert len(finished) < 50
    with pytest.raises(UsageError, match="was closed"):
        decoder.submit(job_for(locations))


def test_a_finished_job_may_close_it(tmp_path: Path) -> None:
    decoder = DaliDecoder(LocalStore(), size=SIZE, threads=2, device="cpu")
    jpeg = write_shard(tmp_path / "jpeg", make_jpegs(40))
    raw = write_shard(
        tmp_path / "raw", [npy_bytes(pixels) for pixels in decode_by_pillow(make_jpegs(40))], "raw"
    )
    jobs = [
        DecodeJob(locations, job_for(locations).out, lambda _: decoder.close()) for locations in (jpeg, raw)
    ]
    for job in jobs:
        try:
            decoder.submit(job)
        except UsageError:
            break
    assert jobs[0].wait(60)
    decoder.close()
    assert not [t.name for t in threading.enumerate() if t.name.startswith("decode")]


def test_threads_and_the_place_in_a_batch_change_nothing(tmp_path: Path) -> None:
    locations = write_shard(tmp_path, make_jpegs(140))
    one, two = (DaliDecoder(LocalStore(), size=SIZE, threads=n, device="cpu") for n in (1, 2))
    whole, _ = decode_all(one, locations)
    parts, _ = decode_all(two, *(locations.part(begin, begin + 28) for begin in range(0, 140, 28)))
    one.close()
    two.close()
    assert torch.equal(whole, parts)


def test_an_image_that_dali_refuses_costs_its_neighbours_nothing(tmp_path: Path) -> None:
    pictures = make_jpegs(40)
    needed = decode_by_pillow(pictures)
    pictures[7] = pictures[7][: len(pictures[7]) // 2]  # its header parses
    needed[7] = 0
    locations = write_shard(tmp_path, pictures)
    decoder = DaliDecoder(LocalStore(), size=SIZE, threads=2, device="cpu")
    for _ in range(20):
        images, faults = decode_all(decoder, locations)
        assert [fault.at for fault in faults] == [7]
        assert np.array_equal(images.numpy(), needed)
    decoder.close()


def test_a_pipeline_that_breaks_fails_every_job_and_those_to_come(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    locations = write_shard(tmp_path, make_jpegs(200))
    decoder = DaliDecoder(LocalStore(), size=SIZE, threads=2, device="cpu")
    monkeypatch.setattr("pipeline.decoders.dali.DALI_BATCH", 200)  # more than the pipeline was built for
    jobs = [job_for(locations) for _ in range(3)]
    with suppress(PipelineError):
        for job in jobs:
            decoder.submit(job)
    assert jobs[0].wait(60)
    assert "batch" in str(jobs[0].error)
    decoder.close()
    with pytest.raises(PipelineError, match="DALI broke"):
        decoder.submit(job_for(locations))


def test_memory_does_not_grow_over_jobs_and_decoders(tmp_path: Path) -> None:
    pictures = make_jpegs(30)
    pictures[7] = pictures[7][: len(pictures[7]) // 2]
    locations, process, memory = write_shard(tmp_path, pictures), psutil.Process(), 0
    out = job_for(locations).out
    for number in range(12):
        decoder = DaliDecoder(LocalStore(), size=SIZE, threads=1, device="cpu")
        for begin in range(100):
            job = DecodeJob(locations.part(begin % 8, 30), out[begin % 8 :])
            decoder.submit(job)
            assert job.wait(60)
        decoder.close()
        if number == 3:
            memory = process.memory_info().rss
    assert process.memory_info().rss - memory < 8 * 2**20


def test_a_program_may_end_without_closing(tmp_path: Path) -> None:
    done = run_script(LEAVE, "dali", "jpeg:95", tmp_path)
    assert (done.returncode, done.stderr) == (0, "")


def test_unparsable_headers_by_the_thousand_do_not_crash_it(tmp_path: Path) -> None:
    done = run_script(UNPARSABLE, tmp_path)
    assert done.returncode == 0, done.stderr


@pytest.mark.slow
@pytest.mark.parametrize(("name", "count"), [("turbo", 10_000), ("dali", 2_000)])
def test_no_damaged_jpeg_crashes_it_and_no_wrong_pixel_passes(name: str, count: int, tmp_path: Path) -> None:
    command = [sys.executable, "-m", "tests.pipeline.decoders.mutants"]
    done = subprocess.run(
        [*command, name, str(tmp_path), str(count), "0"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    assert "sound" in done.stdout
    assert "flagged" in done.stdout


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs an NVIDIA GPU")
@pytest.mark.parametrize("hardware", [0.0, 1.0])
def test_a_gpu_decodes_nearly_the_same_pixels_and_zeros_faults(hardware: float, tmp_path: Path) -> None:
    """The JPEG engines may not tell of a damaged scan (decision 11): then its pixels are wrong, and no others."""
    pictures = make_jpegs(140, 224)
    pictures[5], pictures[99] = b"bad", pictures[99][: len(pictures[99]) // 2]
    locations = write_shard(tmp_path, pictures, size=224)
    exact = ThreadedDecoder(LocalStore(), size=224, threads=2)
    needed, faults = decode_all(exact, locations)
    exact.close()
    decoder = DaliDecoder(LocalStore(), size=224, threads=2, device="cuda", hardware=hardware)
    assert decoder.wants_device(locations.encoding)
    job = DecodeJob(locations, torch.full((140, 224, 224, 3), 77, dtype=torch.uint8, device="cuda"))
    decoder.submit(job)
    assert job.wait(60)
    assert job.error is None
    assert job.event is not None
    torch.cuda.current_stream().wait_event(job.event)
    difference = (job.out.cpu().int() - needed.int()).abs()
    decoder.close()
    flagged = {fault.at for fault in job.faults}
    assert {fault.at for fault in faults} == {5, 99}
    assert flagged == {5, 99} if hardware == 0 else {5} <= flagged <= {5, 99}
    assert not job.out[sorted(flagged)].any()
    sound = [at for at in range(140) if at != 99 or at in flagged]
    assert difference[sound].max() <= 4
    assert difference[sound].float().mean() < 0.5


def test_a_dali_that_cannot_start_says_what_to_do(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object, **__: object) -> None:
        raise RuntimeError("Assert on cuInitChecked() failed\nStacktrace (31 entries)")

    monkeypatch.setattr("pipeline.decoders.dali._build_pipeline", fail)
    with pytest.raises(
        PipelineError, match=r"cannot start \(Assert on cuInitChecked\(\) failed\); take decoder='turbo'"
    ):
        DaliDecoder(LocalStore(), size=SIZE, threads=1, device="cpu")
