"""What a task asks of the host: kernels to launch, and times to wait, counted on a pretended GPU."""

from __future__ import annotations

import warnings
from pathlib import Path

import numpy as np
import pytest
import torch
from torch.nn import functional

from learners.heads.base import full_precision
from learners.heads.mahalanobis import MahalanobisHead
from learners.labels import Labels
from learners.lite.engine import Lite
from learners.methods.catalogue import make_learner
from learners.processes import ProcessGroup
from learners.task import Task
from learners.training.components import make_optimizer
from learners.training.config import TrainingConfig
from learners.training.loss_scale import LossScale
from learners.training.step import TrainingStep
from learners.training.tasks import training_task
from pipeline.loader.loader import EpisodeLoader
from pipeline.shardset import ShardSet
from tests.episodes import RowSampler
from tests.learners.tasks import rng
from tests.pretended_gpu import pretended_gpu

WAY, IMAGES, SIZE = 50, 500, 32
CASES = [  # learner, chunk, launches and synchronisations at most
    pytest.param("simple_cnaps", 512, 1750, 4, id="simple_cnaps, 512"),
    pytest.param("protonets", 512, 1450, 2, id="protonets, 512"),
    pytest.param("simple_cnaps", 40, 13_000, 4, id="simple_cnaps, 40", marks=pytest.mark.slow),
    pytest.param("protonets", 40, 11_500, 2, id="protonets, 40", marks=pytest.mark.slow),
]


def labels_of_22_sizes() -> torch.Tensor:
    """Classes of 1 to 22 support images, and 28 as equal as can be."""
    counts = np.arange(1, WAY + 1)
    counts[22:] = np.diff(np.linspace(0, IMAGES - counts[:22].sum(), WAY - 21).astype(int))
    assert (counts.sum(), len(np.unique(counts))) == (IMAGES, 22)
    return torch.from_numpy(np.repeat(np.arange(WAY), counts))


def noise(seed: int) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    pixels = torch.randint(0, 256, (IMAGES, SIZE, SIZE, 3), generator=generator, dtype=torch.uint8)
    return pixels.permute(0, 3, 1, 2)


@pytest.mark.parametrize(("name", "chunk", "launches", "waits"), CASES)
def test_a_large_task_needs_few_launches_and_waits(name: str, chunk: int, launches: int, waits: int) -> None:
    with pretended_gpu() as gpu:
        learner = make_learner(name, "efficientnet_b0").to("cuda")
        queries, answers = noise(1).to("cuda"), (torch.arange(IMAGES) % WAY).to("cuda")
        task = Task(
            images=noise(0).to("cuda"), labels=labels_of_22_sizes(), way=WAY,
            queries=[(queries, answers)], query_count=IMAGES,
        )  # fmt: skip
        gpu.reset()
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", "h=.* is less than 1.5 for each class")
            learner.gradient(task, Lite(chunk=chunk), rng())
        print(name, chunk, gpu.launches.total(), dict(gpu.synchronisations))
        assert gpu.launches.total() <= launches, gpu.launches
        assert gpu.synchronisations.total() <= waits, gpu.synchronisations


def test_a_chunk_of_queries_takes_the_head_few_calls_however_many_sizes_classes_have() -> None:
    with pretended_gpu() as gpu:
        head, generator = MahalanobisHead(), torch.Generator().manual_seed(0)
        features = torch.randn(IMAGES, 1280, generator=generator).to("cuda").requires_grad_()
        fitted = head.fit(features, Labels.checked(labels_of_22_sizes()))
        state = tuple(one.detach().requires_grad_(one.requires_grad) for one in fitted)
        queries = torch.randn(40, 1280, generator=generator).to("cuda").requires_grad_()
        answers = (torch.arange(40) % WAY).to("cuda")
        gpu.reset()
        with full_precision(queries.device):
            loss = functional.cross_entropy(head.logits(state, queries), answers, reduction="sum")
            torch.autograd.backward(loss)
        print("head", gpu.launches.total())
        assert gpu.launches.total() <= 150
        assert gpu.synchronisations.total() == 0


def test_the_optimiser_launches_a_few_kernels_however_many_parameters_there_are() -> None:
    config = TrainingConfig(shards="none", out="none")
    with pretended_gpu() as gpu:
        device = torch.device("cuda:0")
        learner = make_learner("protonets", "conv4").to(device)
        optimizer, group = make_optimizer(config, learner), ProcessGroup(0, 1, device)
        step = TrainingStep(config, group, learner, optimizer, LossScale("float32", device))
        for _ in range(2):  # the first makes the optimiser's state
            sums = [torch.ones_like(parameter) for parameter in learner.parameters()]
            gpu.reset()
            step.apply(sums, 0)
        assert gpu.launches.total() <= 4, gpu.launches
        assert not gpu.synchronisations


def test_the_optimiser_is_the_same_as_ever_on_a_cpu() -> None:
    learner = make_learner("protonets", "conv4")
    assert make_optimizer(TrainingConfig(shards="none", out="none"), learner).defaults["fused"] is None


def test_an_episode_becomes_an_augmented_task_without_a_wait(built: Path) -> None:
    shards, config = ShardSet.open(built), TrainingConfig(shards="pets", flip=True, rotate=True)
    sampler = RowSampler("pets", len(shards["pets"].index), episodes=1)
    with (
        pretended_gpu() as gpu,
        EpisodeLoader(shards, sampler, image_size=24, h=0, threads=1, device="cuda") as loader,
    ):
        gpu.reset()
        task = training_task(next(iter(loader)), config)
        images = [task.support, *task.joined_queries()]
        assert {one.device.type for one in images} == {"cuda"}
        assert not gpu.synchronisations
