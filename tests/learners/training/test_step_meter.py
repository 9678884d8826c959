"""Arithmetic is counted where images pass through networks, and a GPU's figures are there where there is one."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from learners.evaluate.costs import network_macs
from learners.learner import StagedLearner
from learners.lite.engine import Lite
from learners.methods.descent import SupportDescent
from learners.methods.maml import MAML
from learners.processes import ProcessGroup
from learners.training.config import TrainingConfig
from learners.training.step import StepScores
from learners.training.step_meter import NetworkWork, StepMeter
from pipeline.loader.loader import EpisodeLoader
from pipeline.samplers import Fixed
from pipeline.shardset import ShardSet
from tests.learners.tasks import SIZE, backbone, protonets, rng, simple_cnaps, task

SHOTS, SUPPORT, QUERIES, H = (4, 3, 3), 10, 6, 5


def work(learner: StagedLearner | MAML, settings: Lite, **options: Any) -> int:
    """The multiply-accumulates of a gradient, all of them."""
    counted = NetworkWork(learner, SIZE)
    learner.gradient(task(SHOTS, queries=QUERIES, **options), settings, rng())
    counted.close()
    return counted.macs


@pytest.mark.parametrize(
    ("settings", "images"),
    [
        (Lite(h=0, sampler="none"), SUPPORT + 3 * QUERIES),
        (Lite(h=H, sampler="uniform"), SUPPORT + 3 * QUERIES + 3 * H),
        (Lite(h=H, sampler="uniform", chunk=3), SUPPORT + 3 * QUERIES + 3 * H),
        (Lite(sampler="exact", chunk=3), SUPPORT + 3 * QUERIES + 3 * SUPPORT),
        (Lite(sampler="exact"), 3 * SUPPORT + 3 * QUERIES),  # all at once, which then pass once
        (Lite(h=H, sampler="uniform", query_h=2), SUPPORT + QUERIES + 3 * 2 + 3 * H),
        (Lite(h=H, sampler="subsample", chunk=3), H + 3 * QUERIES + 3 * H),
    ],
)
def test_a_pass_counts_once_and_its_gradient_twice_where_weights_learn(settings: Lite, images: int) -> None:
    learner = protonets()
    assert work(learner, settings) == images * network_macs(learner.backbone, SIZE)


def test_a_gradient_that_passes_through_a_frozen_network_to_film_counts_once() -> None:
    learner = simple_cnaps()
    learner.backbone.requires_grad_(requires_grad=False)
    assert learner.encoder is not None
    passed = network_macs(learner.backbone, SIZE) * (SUPPORT + 2 * QUERIES + 2 * H)
    embedded = network_macs(learner.encoder, SIZE) * (SUPPORT + 3 * H)
    assert work(learner, Lite(h=H, sampler="uniform")) == passed + embedded


def test_clips_are_counted_frame_by_frame() -> None:
    learner = protonets()
    assert work(learner, Lite(sampler="none"), clip=2) == 2 * work(learner, Lite(sampler="none"))


def test_the_inner_steps_of_maml_are_counted() -> None:
    learner = MAML(backbone(), descent=SupportDescent(2))
    assert work(learner, Lite()) == 3 * (2 * SUPPORT + QUERIES) * network_macs(learner.backbone, SIZE)


def test_a_network_is_not_compiled_to_be_counted_and_left_as_it_was(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(_graph: object, _inputs: object) -> Callable[..., Tensor]:
        raise AssertionError("compiled")

    learner = protonets()
    macs = network_macs(learner.backbone, SIZE)
    monkeypatch.setattr(learner.backbone, "forward", torch.compile(learner.backbone.forward, backend=refuse))
    counted = NetworkWork(learner, SIZE, compiled=True)
    monkeypatch.undo()
    learner.gradient(task(SHOTS, queries=QUERIES), Lite(sampler="none"), rng())
    assert counted.macs == (SUPPORT + 3 * QUERIES) * macs
    counted.close()
    learner.gradient(task(SHOTS, queries=QUERIES), Lite(sampler="none"), rng())
    assert counted.macs == (SUPPORT + 3 * QUERIES) * macs


@pytest.fixture
def loader(built: Path) -> EpisodeLoader:
    shards = ShardSet.open(str(built))
    return EpisodeLoader(
        shards,
        Fixed(shards, split="", way=2, shot=1, query=1),
        image_size=24,
        h=0,
        threads=1,
        decoder="turbo",
    )


def read(loader: EpisodeLoader, device: str) -> dict[str, float]:
    """The record of a step of two processes, over four episodes of which this process has one in memory."""
    config = TrainingConfig(shards="shards", learner="protonets", backbone="conv4", image_size=24)
    with loader, StepMeter(config, protonets(), loader, ProcessGroup(0, 2, torch.device(device))) as meter:
        meter.begin()
        len(next(iter(loader)).support.images)
        return meter.read(StepScores(loss=1.0, accuracy=0.5, chance=0.25, waited=0.125), episodes=4)


def test_a_record_of_a_cpu_has_no_fields_of_a_gpu(loader: EpisodeLoader) -> None:
    values = read(loader, "cpu")
    assert list(values) == [
        "loss", "accuracy", "seconds", "episodes_per_second", "images_per_second", "tflops", "waiting", "memory_mb",
    ]  # fmt: skip
    assert values["images_per_second"] * values["seconds"] == pytest.approx(2 * 2)


def test_a_record_of_a_gpu_says_what_waited_and_which_memory_is_used_and_held(
    loader: EpisodeLoader, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "pynvml", None)
    monkeypatch.setattr(torch.cuda, "max_memory_allocated", lambda _device: 3e9)
    monkeypatch.setattr(torch.cuda, "max_memory_reserved", lambda _device: 4e9)
    values = read(loader, "cuda")
    assert values["gpu_wait"] * values["seconds"] == pytest.approx(
        2 * 0.125
    )  # two episodes are this process's
    assert values["stalled"] == 0
    assert (values["memory_mb"], values["memory_reserved_mb"]) == (3_000, 4_000)
