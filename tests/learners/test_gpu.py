"""Commands on a pretended GPU that runs everything late: the CPU's figures, and nothing read before it is there."""

from __future__ import annotations

import json
from collections.abc import Iterator
from itertools import islice
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

import train
from learners.evaluate.__main__ import main as evaluate
from learners.evaluate.records import EvaluationResult
from learners.lite.engine import Lite
from learners.methods.catalogue import describe_learner, make_learner
from learners.methods.protonets import ProtoNets
from learners.study.__main__ import main as study
from learners.task import Task
from learners.training.journal import read_records
from learners.use.classifier import Learner, PortableClassifier
from pipeline.loader.loader import EpisodeLoader
from pipeline.shardset import ShardSet
from tests.episodes import RowSampler
from tests.learners.small import pictures, toy
from tests.learners.tasks import error
from tests.pretended_gpu import pretended_gpu
from tests.pretended_gpu.streams import DeviceStream
from tests.small_runs import DEMO_SIDE, demo_run, small_demo

SIZE = DEMO_SIDE
LAG = 12  # ticks
ROUNDING = 1e-5  # of probabilities: chunks are padded on a GPU, and a convolution may sum otherwise then
LONG_LAG = 400  # a copy may take as long as an episode's kernels


@pytest.fixture(scope="module")
def demo(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return small_demo(tmp_path_factory.mktemp("gpu") / "demo")


def words(*more: object) -> list[str]:
    return [str(word) for word in more]


def train_words(shards: Path, out: Path, learner: str, device: str) -> list[str]:
    """Three steps of two small episodes, and a validation."""
    own = ("--learner", learner, "--weights", "random", "--tasks", 6, "--save-every", 4, "--chunk", 16)
    return demo_run(shards, out, *own, "--device", device)


@pytest.mark.parametrize(
    "learner", ["protonets", "simple_cnaps", pytest.param("maml", marks=pytest.mark.slow)]
)
def test_a_run_and_its_evaluation_have_the_cpus_figures(learner: str, demo: Path, tmp_path: Path) -> None:
    losses, answers = {}, {}
    for device in ("cpu", "cuda"):
        out = tmp_path / device
        with pretended_gpu(lag=LAG):
            assert train.main(train_words(demo, out, learner, device)) == 0
            flags = words(
                "--shards", demo, "--checkpoint", tmp_path / "cpu", "--protocol", "fixed", "--way", 3, "--shot", 2,
                "--query", 3, "--tasks", 3, "--out", out / "results", "--threads", 1, "--device", device,
            )  # fmt: skip
            assert evaluate(flags) == 0
        losses[device] = [line["loss"] for line in read_records(out) if line["kind"] == "step"]
        answers[device] = EvaluationResult.load(out / "results").scores
    assert losses["cuda"] == pytest.approx(losses["cpu"], rel=1e-3)
    assert losses["cuda"][0] == pytest.approx(losses["cpu"][0], rel=1e-6)
    assert answers["cuda"] == answers["cpu"]


def gradients(shards: ShardSet, device: str, episodes: int) -> Iterator[Tensor]:
    """Of each episode of small images: all parameters' gradients as one vector, on the CPU."""
    learner = ProtoNets(toy()).to(device)
    sampler = RowSampler("pets", len(shards["pets"].index))
    with EpisodeLoader(  # not ahead: a copy begins when its chunk is wanted
        shards, sampler, image_size=24, h=6, chunk=7, threads=2, ahead=1, device=device
    ) as loader:
        for episode in islice(loader, episodes):
            queries = [(episode.query, episode.query.labels)]
            task = Task(
                images=episode.support,
                labels=episode.support.host_labels,
                way=2,
                queries=queries,
                query_count=12,
            )
            learner.gradient(task, Lite(h=6, chunk=5), np.random.default_rng(episode.number))
            yield torch.cat([p.grad.flatten() for p in learner.parameters() if p.grad is not None]).cpu()
            learner.zero_grad()


def worst_gradient(shards: ShardSet, episodes: int, seed: int = 0) -> float:
    """The largest distance from the CPU's gradient, relative to its length."""
    with pretended_gpu(lag=LONG_LAG, seed=seed):
        pairs = zip(gradients(shards, "cpu", episodes), gradients(shards, "cuda", episodes), strict=True)
        return max(error(found, needed) for needed, found in pairs)


def test_gradients_of_arriving_episodes_are_the_cpus(built: Path) -> None:
    assert worst_gradient(ShardSet.open(built), 15) < 1e-12


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(1, 6))
def test_a_thousand_episodes_have_no_wrong_gradient(seed: int, built: Path) -> None:
    assert worst_gradient(ShardSet.open(built), 200, seed) < 1e-12


def test_gradients_are_wrong_if_the_gpu_does_not_wait_for_pixels(
    built: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(DeviceStream, "wait_event", lambda *_: None)
    assert worst_gradient(ShardSet.open(built), 15) > 1e-6


def test_a_study_runs_on_a_gpu(built: Path, tmp_path: Path) -> None:
    found = {}
    for device in ("cpu", "cuda"):
        with pretended_gpu(lag=LAG):
            flags = words(
                "--shards", built, "--image-size", 24, "--way", 3, "--shot", 4, "--query", 2, "--tasks", 2
            )
            draws = words("--draws", 20, "--runs", 2, "--h", 6, "--query-h", 3)
            assert study([*flags, *draws, "--device", device, "--out", str(tmp_path / device)]) == 0
        found[device] = json.loads((tmp_path / device).read_text())
    for cpu, cuda in zip(found["cpu"]["rows"], found["cuda"]["rows"], strict=True):
        assert cuda["rmse"]["mean"] == pytest.approx(cpu["rmse"]["mean"], rel=1e-3, abs=1e-6)


@pytest.mark.parametrize("name", ["protonets", "simple_cnaps", "cnaps"])
def test_a_classifier_answers_on_a_gpu_as_on_the_cpu(name: str, photos: Path, tmp_path: Path) -> None:
    torch.manual_seed(0)
    net = make_learner(name, "conv4")
    queries = pictures(5, SIZE)
    needed = Learner.of(net, describe_learner(net, name, SIZE), "cpu").adapt(photos)(queries)
    with pretended_gpu(lag=LAG):
        classifier = Learner.of(net, describe_learner(net, name, SIZE), "cuda").adapt(photos)
        assert torch.allclose(classifier(queries.to("cuda")).cpu(), needed, atol=ROUNDING)
        classifier.save(tmp_path / "x.safetensors")
        loaded = PortableClassifier.load(tmp_path / "x.safetensors", "cuda")
        assert torch.allclose(loaded(queries.to("cuda")).cpu(), needed, atol=ROUNDING)
    again = PortableClassifier.load(tmp_path / "x.safetensors", "cpu")
    assert torch.allclose(again(queries), needed, atol=ROUNDING)
