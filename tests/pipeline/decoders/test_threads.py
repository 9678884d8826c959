from __future__ import annotations

import os
import subprocess
import sys
import threading
from pathlib import Path

import numpy as np
import psutil
import pytest
import torch

from pipeline.decoders.base import DecodeJob
from pipeline.decoders.threads import ThreadedDecoder
from pipeline.errors import UsageError
from pipeline.store.local import LocalStore
from tests.pipeline.decoders.planted import SIZE, decode_all, job_for, make_jpegs, npy_bytes, write_shard

LEAVE = """
import sys
from pathlib import Path
from pipeline.decoders.choose import open_decoder
from pipeline.store.local import LocalStore
from tests.pipeline.decoders.planted import SIZE, decode_by_pillow, job_for, make_jpegs, npy_bytes, write_shard
name, form, root = sys.argv[1:]
images = make_jpegs(40)
if form == "raw":
    images = [npy_bytes(pixels) for pixels in decode_by_pillow(images)]
locations = write_shard(Path(root), images, form)
decoder = open_decoder(name, LocalStore(), size=SIZE, threads=2, device="cpu")
for _ in range(500):
    decoder.submit(job_for(locations))
"""
FORK = """
import os, sys
from pathlib import Path
from pipeline.decoders.threads import ThreadedDecoder
from pipeline.errors import UsageError
from pipeline.store.local import LocalStore
from tests.pipeline.decoders.planted import SIZE, job_for, make_jpegs, write_shard
decoder = ThreadedDecoder(LocalStore(), size=SIZE, threads=2)
child = os.fork()
if child == 0:
    try:
        decoder.submit(job_for(write_shard(Path(sys.argv[1]), make_jpegs(1))))
    except UsageError as error:
        decoder.close()
        os._exit(7 if "another process" in str(error) else 8)
    os._exit(9)
sys.exit(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
"""


def decode_thread_names() -> set[str]:
    return {thread.name for thread in threading.enumerate() if thread.name.startswith("decode")}


@pytest.mark.parametrize("threads", [1, 2, 4])
def test_any_number_of_threads_gives_the_same(threads: int, tmp_path: Path) -> None:
    pictures = make_jpegs(100)
    pictures[50] = b"bad"
    decoder = ThreadedDecoder(LocalStore(), size=SIZE, threads=threads)
    images, faults = decode_all(decoder, write_shard(tmp_path, pictures))
    decoder.close()
    one = ThreadedDecoder(LocalStore(), size=SIZE, threads=1)
    needed, others = decode_all(one, write_shard(tmp_path, pictures))
    one.close()
    assert torch.equal(images, needed)
    assert faults == others
    assert [fault.at for fault in faults] == [50]


def test_one_thread_finishes_jobs_in_order(tmp_path: Path) -> None:
    locations, ended = write_shard(tmp_path, make_jpegs(30)), []
    decoder = ThreadedDecoder(LocalStore(), size=SIZE, threads=1)
    jobs = [
        DecodeJob(locations, job_for(locations).out, lambda _, number=number: ended.append(number))  # type: ignore[misc]
        for number in range(20)
    ]
    for job in jobs:
        decoder.submit(job)
    assert all(job.wait(60) for job in jobs)
    decoder.close()
    assert ended == list(range(20))


def test_fast_decoding_is_close_and_not_the_same(tmp_path: Path) -> None:
    locations = write_shard(tmp_path, make_jpegs(30))
    exact, fast = (ThreadedDecoder(LocalStore(), size=SIZE, threads=1, fast=fast) for fast in (False, True))
    difference = decode_all(exact, locations)[0].int() - decode_all(fast, locations)[0].int()
    exact.close()
    fast.close()
    assert difference.any()
    assert difference.abs().float().mean() < 8  # colours, in pictures as loud as these


def test_damage_that_libjpeg_would_paper_over_is_a_fault(tmp_path: Path) -> None:
    damaged = bytearray(make_jpegs(1)[0])
    middle = len(damaged) // 2
    damaged[middle : middle + 60] = b"\xff\xc4" * 30
    decoder = ThreadedDecoder(LocalStore(), size=SIZE, threads=1)
    images, faults = decode_all(decoder, write_shard(tmp_path, [bytes(damaged)]))
    decoder.close()
    assert "cannot be decoded" in faults[0].reason
    assert not images.any()


@pytest.mark.parametrize("jobs", [0, 1, 200])
def test_closing_leaves_no_thread_and_every_job_ended(jobs: int, tmp_path: Path) -> None:
    locations = write_shard(tmp_path, make_jpegs(40))
    decoder = ThreadedDecoder(LocalStore(), size=SIZE, threads=2)
    submitted = [job_for(locations) for _ in range(jobs)]
    for job in submitted:
        decoder.submit(job)
    decoder.close()
    decoder.close()
    assert decode_thread_names() == set()
    assert all(job.wait(0) for job in submitted)
    errors = [job.error for job in submitted if job.error is not None]
    assert all(isinstance(error, UsageError) and "was closed" in str(error) for error in errors)
    assert len(errors) > jobs // 2 or jobs < 2
    with pytest.raises(UsageError, match="was closed"):
        decoder.submit(job_for(locations))


def test_a_finished_job_may_close_the_decoder(tmp_path: Path) -> None:
    decoder = ThreadedDecoder(LocalStore(), size=SIZE, threads=2)
    locations = write_shard(tmp_path, make_jpegs(40))
    jobs = [DecodeJob(locations, job_for(locations).out, lambda _: decoder.close()) for _ in range(20)]
    for job in jobs:
        try:
            decoder.submit(job)
        except UsageError:
            break
    assert jobs[0].wait(60)
    decoder.close()
    assert decode_thread_names() == set()


def test_memory_of_another_shape_is_refused(tmp_path: Path) -> None:
    decoder = ThreadedDecoder(LocalStore(), size=SIZE, threads=1)
    locations = write_shard(tmp_path, make_jpegs(2))
    for out in (torch.zeros(1, SIZE, SIZE, 3), torch.zeros(2, 3, SIZE, SIZE).permute(0, 2, 3, 1)):
        with pytest.raises(UsageError, match="contiguous memory of shape"):
            decoder.submit(DecodeJob(locations, out.to(torch.uint8)))
    decoder.close()
    for threads in (0, 2**40):
        with pytest.raises(UsageError, match=rf"has 1 to 1,024 threads, got {threads}"):
            ThreadedDecoder(LocalStore(), size=SIZE, threads=threads)


@pytest.mark.parametrize("form", ["jpeg:95", "raw"])
def test_memory_and_descriptors_do_not_grow(form: str, tmp_path: Path) -> None:
    stored = make_jpegs(8) if form != "raw" else [npy_bytes(np.zeros((SIZE, SIZE, 3), np.uint8))] * 8
    locations = write_shard(tmp_path, stored, form)
    job, process, store = job_for(locations), psutil.Process(), LocalStore()
    decoder = ThreadedDecoder(store, size=SIZE, threads=2)
    memory, files = 0, 0
    for number in range(3000):
        again = DecodeJob(locations, job.out)
        decoder.submit(again)
        assert again.wait(60)
        if number == 500:
            memory, files = process.memory_info().rss, process.num_fds()
    decoder.close()
    assert process.memory_info().rss - memory < 4 * 2**20
    assert process.num_fds() <= files
    store.close()


def run_script(text: str, *arguments: object) -> subprocess.CompletedProcess[str]:
    """Run a script in a process of its own."""
    return subprocess.run(
        [sys.executable, "-W", "ignore", "-c", text, *map(str, arguments)],
        env=os.environ | {"PYTHONPATH": str(Path(__file__).resolve().parents[3])},
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )


def test_a_program_may_end_without_closing(tmp_path: Path) -> None:
    done = run_script(LEAVE, "turbo", "raw", tmp_path)
    assert (done.returncode, done.stderr) == (0, "")


def test_a_forked_process_gets_an_error_that_it_has_no_threads(tmp_path: Path) -> None:
    assert run_script(FORK, tmp_path).returncode == 7
