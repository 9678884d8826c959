"""A loader on a pretended GPU that runs everything late: no wrong pixel, and each safeguard is needed."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from pipeline.loader.loader import EpisodeLoader
from pipeline.loader.memory import CudaMemory, TimedSpans
from pipeline.shardset import ShardSet
from pipeline.store.local import locate_samples
from tests.episodes import RowSampler
from tests.pretended_gpu import pretended_gpu
from tests.pretended_gpu.streams import DeviceEvent, DeviceStream
from tests.pretended_gpu.tensors import DeviceTensor

LAG = 60  # ticks
EPISODES = 48
CHUNKS = 6  # of an episode
ADD_SPAN = TimedSpans.add
GROUP = 4  # episodes that a consumer hands to its GPU before it waits for the answers


@pytest.fixture(scope="module")
def pets(built: Path) -> ShardSet:
    return ShardSet.open(built)


def loader(pets: ShardSet, device: str, size: int) -> EpisodeLoader:
    sampler = RowSampler("pets", len(pets["pets"].index))
    return EpisodeLoader(pets, sampler, image_size=size, h=2, chunk=7, threads=2, device=device)


def delivered(opened: EpisodeLoader, episodes: int) -> Iterator[tuple[Tensor, Tensor]]:
    """Copies of all chunks, made on the device: the consumer keeps none of the loader's own memory."""
    kept: list[tuple[Tensor, Tensor]] = []
    for number, episode in enumerate(islice(opened, episodes), 1):
        for side in (episode.support, episode.query):
            kept += [(chunk.images.clone(), chunk.labels.clone()) for chunk in side]
        if number % GROUP == 0:
            yield from ((images.cpu(), labels.cpu()) for images, labels in kept)
            kept.clear()


def wrong_chunks(pets: ShardSet, size: int, episodes: int = EPISODES, seed: int = 0) -> int:
    """How many chunks differ from the CPU's."""
    with (
        pretended_gpu(lag=LAG, seed=seed),
        loader(pets, "cpu", size) as cpu,
        loader(pets, "cuda", size) as gpu,
    ):
        pairs = zip(delivered(cpu, episodes), delivered(gpu, episodes), strict=True)
        same = [torch.equal(a[0], b[0]) and torch.equal(a[1], b[1]) for a, b in pairs]
    assert len(same) == CHUNKS * episodes
    return same.count(False)


@pytest.mark.parametrize("size", [24, 48])
def test_every_pixel_is_the_cpus(pets: ShardSet, size: int) -> None:
    assert wrong_chunks(pets, size) == 0


@pytest.mark.slow
@pytest.mark.parametrize("size", [24, 48])
def test_a_thousand_episodes_have_no_wrong_pixel(pets: ShardSet, size: int) -> None:
    assert sum(wrong_chunks(pets, size, 100, seed) for seed in range(10)) == 0


def ignore(*_: object) -> None:
    pass


def let_go_of_source(spans: TimedSpans, begin: Any, end: Any, source: object = None) -> None:
    ADD_SPAN(spans, begin, end)


@pytest.mark.parametrize(
    ("owner", "method", "instead"),
    [
        (DeviceTensor, "record_stream", ignore),  # memory is used again while the consumer's kernels read it
        (DeviceStream, "wait_event", ignore),  # kernels begin before the pixels are there
        (TimedSpans, "add", let_go_of_source),  # pinned memory is decoded into while it is copied
    ],
)
def test_without_any_one_safeguard_pixels_are_wrong(
    owner: type, method: str, instead: Callable[..., None], pets: ShardSet, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(owner, method, instead)
    assert wrong_chunks(pets, 24) > 0


def test_episodes_left_unread_do_no_harm(pets: ShardSet) -> None:
    with pretended_gpu(lag=LAG), loader(pets, "cpu", 24) as cpu, loader(pets, "cuda", 24) as gpu:
        for number, (needed, found) in enumerate(
            zip(islice(cpu, EPISODES), islice(gpu, EPISODES), strict=True)
        ):
            if number % 3 == 0:
                assert torch.equal(found.query.images.cpu(), needed.query.images)
            elif number % 3 == 1:
                assert torch.equal(found.support.h.images.cpu(), needed.support.h.images)


def test_a_loader_makes_the_host_wait_for_nothing(pets: ShardSet) -> None:
    with pretended_gpu() as gpu, loader(pets, "cuda", 24) as opened:
        for episode in islice(opened, 3):
            for chunk in (*episode.support, *episode.query):
                chunk.images.float()
        assert gpu.synchronisations.total() == 0
        assert gpu.launches["host to device"] >= 3 * CHUNKS


def test_stalled_counts_what_the_stream_waited(pets: ShardSet) -> None:
    """A tick counts as a millisecond of the device's."""
    with pretended_gpu() as gpu, loader(pets, "cuda", 24) as opened:
        for episode in islice(opened, 3):
            assert len(episode.query.images) == 12
        assert opened.stats.stalled == 0  # the copies are over when they are asked for
        gpu.clock.lag = LAG
        for episode in islice(opened, 30):
            assert len(episode.query.images) == 12
        torch.cuda.synchronize()
        stats = opened.stats
    assert 0 < stats.stalled < gpu.clock.now / 1000
    assert "GPU stalled" in str(stats)


def test_a_stall_ends_with_the_decoder_that_writes_to_the_device(pets: ShardSet) -> None:
    """As DALI does: its job is done for the host when its decode is queued."""
    locations = locate_samples(pets["pets"], 24, np.array([0]))
    with pretended_gpu() as gpu:
        memory = CudaMemory(torch.device("cuda", 0))
        decoder, gate = DeviceStream(), DeviceEvent()
        out = memory.allocate(1, 24)
        job = memory.new_job(locations, out, direct=True)
        gate.over = False
        decoder.wait_event(gate)
        job.event = decoder.record_event()  # type: ignore[assignment]
        memory.synchronize(job, out)
        for _ in range(250):
            gpu.clock.tick()
        assert memory.take_stalled_seconds() == 0  # it is under way
        gate.over = True
        torch.cuda.synchronize()
        assert memory.take_stalled_seconds() == pytest.approx(0.25, abs=0.02)
        assert memory.take_stalled_seconds() == 0


def test_a_cpu_never_stalls(pets: ShardSet) -> None:
    with loader(pets, "cpu", 24) as opened:
        for episode in islice(opened, 3):
            assert len(episode.query.images) == 12
        assert opened.stats.stalled == 0
        assert "stalled" not in str(opened.stats)
