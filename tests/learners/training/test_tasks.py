"""Tasks of episodes whose images are still arriving: the gradients of whole tensors, begun before the last image."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from learners.learner import MetaLearner
from learners.lite.paper import shuffle_task
from learners.methods.descent import SupportDescent
from learners.methods.maml import MAML
from learners.task import Task
from learners.training.components import lite_settings
from learners.training.config import TrainingConfig
from learners.training.tasks import training_task
from pipeline.decoders.base import ChunkDecoder, DecodeJob
from pipeline.decoders.threads import ThreadedDecoder
from pipeline.episodes import LITE_DRAW, PAPER_ORDER_DRAW, TURN_DRAW, generator
from pipeline.errors import PipelineError
from pipeline.loader.episode import Episode
from pipeline.loader.faults import FaultPolicy
from pipeline.loader.loader import EpisodeLoader
from pipeline.loader.memory import pixel_memory
from pipeline.loader.stats import LoaderMetrics
from pipeline.loader.stream import EpisodeStart, EpisodeStream, StreamOptions, StreamParts
from pipeline.pixels import draw_flips, flip, rotate_quarters
from pipeline.records import Encoding
from pipeline.shardset import ShardSet
from tests.episodes import RowSampler
from tests.learners.tasks import LEARNERS, backbone, cnaps, protonets, simple_cnaps

SIZE = 48
SUPPORT, QUERY = 20, 12  # images
CHUNK, NETWORK_CHUNK = 8, 5  # images; of the loader, and of networks
PATIENCE = 60  # seconds


def maml() -> MetaLearner:
    return MAML(backbone(), descent=SupportDescent(2))


@pytest.fixture(scope="module")
def pets(built: Path) -> ShardSet:
    return ShardSet.open(built)


def sampler(shards: ShardSet, clip: int = 1) -> RowSampler:
    return RowSampler("pets", len(shards["pets"].index), SUPPORT, QUERY, episodes=1, clip=clip)


def settings(**changes: Any) -> TrainingConfig:
    return TrainingConfig(**{"shards": "pets", "h": 6, "chunk": NETWORK_CHUNK, "seed": 3, **changes})


@contextmanager
def first_episode(shards: ShardSet, *, clip: int = 1, chunk: int = CHUNK) -> Iterator[Episode]:
    drawn = sampler(shards, clip)
    with EpisodeLoader(shards, drawn, image_size=SIZE, h=0, chunk=chunk, threads=1, ahead=1) as opened:
        yield next(iter(opened))


def waited_task(episode: Episode, config: TrainingConfig) -> Task:
    """The episode's task made of whole tensors, augmented at once after the last image has arrived."""
    turns = torch.from_numpy(generator(config.seed, episode.number, TURN_DRAW).integers(0, 4, episode.way))
    sides = []
    for side in (episode.support, episode.query):
        images = side.images
        if config.rotate:
            images = rotate_quarters(images, turns[side.labels])
        if config.flip:
            query = side is episode.query
            images = flip(images, draw_flips(config.seed, episode.number, side.positions, query=query))
        sides.append(images)
    task = Task(
        images=sides[0], labels=episode.support.labels, way=episode.way, clip=episode.plan.clip,
        queries=[(sides[1], episode.query.labels)], query_count=len(episode.query),
    )  # fmt: skip
    if config.sampler.startswith("paper"):
        return shuffle_task(task, generator(config.seed, episode.number, PAPER_ORDER_DRAW))
    return task


def gradient(learner: MetaLearner, task: Task, config: TrainingConfig) -> Tensor:
    learner.gradient(task, lite_settings(config), generator(config.seed, 0, LITE_DRAW))
    found = [p.grad.flatten() for p in learner.parameters() if p.grad is not None]
    learner.zero_grad()
    return torch.cat(found)


def arriving_gradient(learner: MetaLearner, shards: ShardSet, config: TrainingConfig, **how: int) -> Tensor:
    """The gradient of training's task of the first episode."""
    with first_episode(shards, **how) as episode:
        return gradient(learner, training_task(episode, config), config)


def waited_gradient(learner: MetaLearner, shards: ShardSet, config: TrainingConfig, **how: int) -> Tensor:
    """The gradient of the same task, made of whole tensors."""
    with first_episode(shards, **how) as episode:
        return gradient(learner, waited_task(episode, config), config)


def close(one: Tensor, other: Tensor) -> bool:
    return float((one - other).norm()) < 1e-12 * float(other.norm())


@pytest.mark.parametrize("make", [protonets, cnaps, simple_cnaps, maml])
@pytest.mark.parametrize(
    ("flags", "clip"),
    [({}, 1), ({}, 2), ({"rotate": True, "flip": True}, 1), ({"rotate": True, "flip": True}, 4), ({"query_h": 4}, 1),
     ({"query_h": 2, "flip": True}, 2)],
)  # fmt: skip
def test_gradients_are_those_of_a_task_whose_images_are_all_there(
    pets: ShardSet, make: Callable[[], MetaLearner], flags: dict[str, Any], clip: int
) -> None:
    if make is maml and "query_h" in flags:
        return
    config, learner = settings(**flags), make()
    found = arriving_gradient(learner, pets, config, clip=clip)
    wanted = waited_gradient(learner, pets, config, clip=clip)
    assert wanted.dtype == torch.float64
    assert wanted.norm() > 0
    assert torch.equal(found, wanted)


@pytest.mark.parametrize(
    "chosen", ["exact", "uniform", "stratified", "subsample", "paper-lite", "paper-orbit"]
)
def test_each_sampler_draws_as_from_images_that_are_all_there(pets: ShardSet, chosen: Any) -> None:
    config, learner = settings(sampler=chosen), simple_cnaps()
    found = arriving_gradient(learner, pets, config)
    assert torch.equal(found, waited_gradient(learner, pets, config))


@pytest.mark.parametrize("name", LEARNERS)
def test_the_bits_of_float32_do_not_depend_on_the_loaders_chunks(pets: ShardSet, name: str) -> None:
    config, learner = settings(flip=True), LEARNERS[name]().float()
    found = [arriving_gradient(learner, pets, config, chunk=chunk) for chunk in (3, 8, 128)]
    assert found[0].dtype == torch.float32
    assert torch.equal(found[0], found[1])
    assert torch.equal(found[0], found[2])


def test_augmented_images_are_the_same_however_they_are_asked_for(pets: ShardSet) -> None:
    config = settings(rotate=True, flip=True)
    with first_episode(pets) as episode:
        images = training_task(episode, config).images
        assert not isinstance(images, Tensor)
        found = [images.first(count).clone() for count in (3, 11, 4, 0, SUPPORT, 7)]
        wanted = waited_task(episode, config).support
        assert not torch.equal(wanted, episode.support.images)
    assert [len(part) for part in found] == [3, 11, 4, 0, SUPPORT, 7]
    assert all(torch.equal(part, wanted[: len(part)]) for part in found)
    assert images.first(SUPPORT).is_contiguous(memory_format=torch.channels_last)


def test_a_side_that_is_no_one_tensor_is_waited_for(pets: ShardSet) -> None:
    large = RowSampler("pets", len(pets["pets"].index), support=2050, query=4)
    with EpisodeLoader(pets, large, image_size=24, h=0, threads=1) as opened:
        task = training_task(next(iter(opened)), settings(flip=True))
        assert isinstance(task.images, Tensor)
        assert task.images.shape == (2050, 3, 24, 24)
        ((queries, _),) = task.queries
        assert not isinstance(queries, Tensor)


class HeldDecoder:
    """Decodes all jobs but one, which waits for an event; if that does not come, the job fails."""

    def __init__(self, decoder: ChunkDecoder, held: int) -> None:
        self.released = threading.Event()
        self._decoder = decoder
        self._held = held
        self._jobs = 0

    def wants_device(self, encoding: Encoding) -> bool:
        return self._decoder.wants_device(encoding)

    def submit(self, job: DecodeJob) -> None:
        if self._jobs == self._held:
            threading.Thread(target=self._wait, args=(job,), daemon=True).start()
        else:
            self._decoder.submit(job)
        self._jobs += 1

    def _wait(self, job: DecodeJob) -> None:
        if self.released.wait(PATIENCE):
            self._decoder.submit(job)
        else:
            job.report(error=PipelineError("no image passed through a network before the last one arrived"))

    def close(self) -> None:
        self._decoder.close()


@contextmanager
def held_episode(shards: ShardSet, held: int) -> Iterator[tuple[Episode, HeldDecoder]]:
    """An episode, and the decoder that holds back the chunk of this number."""
    store = shards.open_store()
    decoder = HeldDecoder(ThreadedDecoder(store, size=SIZE, threads=1), held)
    parts = StreamParts(
        shards=shards, sampler=sampler(shards), store=store, decoder=decoder,
        memory=pixel_memory(torch.device("cpu")), policy=FaultPolicy("raise", 0), metrics=LoaderMetrics(),
    )  # fmt: skip
    options = StreamOptions(image_size=SIZE, h=0, chunk=CHUNK, ahead=100, prefetch=0, seed=0)
    stream = EpisodeStream(parts, options, 0, 1)
    try:
        start = stream.next()
        assert isinstance(start, EpisodeStart)
        yield Episode(start, stream), decoder
    finally:
        stream.stop()
        decoder.close()
        stream.join()
        store.close()


@pytest.mark.parametrize("make", [protonets, cnaps, simple_cnaps])
@pytest.mark.parametrize("flags", [{}, {"rotate": True, "flip": True}])
def test_the_first_pass_begins_before_the_last_support_image_has_arrived(
    pets: ShardSet, make: Callable[[], MetaLearner], flags: dict[str, Any]
) -> None:
    config, learner = settings(**flags), make()
    wanted = waited_gradient(learner, pets, config)
    with held_episode(pets, held=-(-SUPPORT // CHUNK) - 1) as (episode, decoder):
        for network in learner.networks:
            network.register_forward_pre_hook(lambda *_: decoder.released.set())
        assert close(gradient(learner, training_task(episode, config), config), wanted)


@pytest.mark.parametrize("flags", [{}, {"query_h": 4}])
def test_queries_pass_before_the_last_one_has_arrived(pets: ShardSet, flags: dict[str, Any]) -> None:
    config, learner = settings(**flags), protonets()
    wanted = waited_gradient(learner, pets, config)
    chunks = -(-SUPPORT // CHUNK) + -(-QUERY // CHUNK)
    passes = iter(range(100))

    with held_episode(pets, held=chunks - 1) as (episode, decoder):

        def count_passes(*_: object) -> None:
            if next(passes) == SUPPORT // NETWORK_CHUNK:  # the first pass after those of the support set
                decoder.released.set()

        learner.backbone.register_forward_pre_hook(count_passes)
        assert close(gradient(learner, training_task(episode, config), config), wanted)
