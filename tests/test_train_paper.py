"""`train.py --sampler paper-lite` and `paper-orbit` are the official codes' steps, through shards and all.

A step's gradient is compared with the loops of `tests/learners/lite/official.py`, in float64: order of the images,
batches, H, the penalty and the division by the tasks of a step.
"""

from __future__ import annotations

from itertools import islice
from pathlib import Path

import pytest
import torch
from torch import Tensor

import train
from learners.learner import StagedLearner
from learners.processes import join_processes
from learners.task import Task
from learners.training.components import lite_settings, open_loader
from learners.training.config import TrainingConfig
from learners.training.flags import parse
from learners.training.tasks import training_task
from pipeline.build.__main__ import main as build
from pipeline.episodes import LITE_DRAW, PAPER_ORDER_DRAW, generator
from tests.learners.lite.official import OfficialLoop, OfficialTask, OwnNetworks, mahalanobis, nearest_means
from tests.learners.tasks import error
from tests.pipeline.sources.orbit.tree import make_orbit
from tests.small_runs import DEMO_SIDE, small_demo

SIZE = DEMO_SIDE
PENALTY = 0.02
TASKS_PER_STEP = 2
LEARNERS = {
    "simple_cnaps": ("--encoder-norm", "batch", "--encoder-size", 0, "--one-shot", "official",
                     "--weights", "random"),
    "protonets": (),
}  # fmt: skip


@pytest.fixture(scope="module")
def demo(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return small_demo(tmp_path_factory.mktemp("train") / "demo")


@pytest.fixture(scope="module")
def orbit(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two users' videos."""
    root = tmp_path_factory.mktemp("train") / "orbit"
    source = make_orbit(root.parent / "source", users={"train": ("P100", "P118")}, frames=60)
    flags = ["--dataset", "orbit", "--source", str(source), "--out", str(root), "--sizes", str(SIZE)]
    assert build([*flags, "--encode", f"{SIZE}=raw", "--quiet"]) == 0
    return root


def settings(shards: Path, out: Path, learner: str, *more: object) -> TrainingConfig:
    """Steps of two tasks: four classes of three support images and of queries for 12 = 5 + 5 + 2 or 16."""
    flags = {
        "--shards": shards, "--out": out, "--learner": learner, "--backbone": "conv4", "--image-size": SIZE,
        "--way": 4, "--shot": 3, "--query": 3, "--h": 3, "--chunk": 5, "--penalty": PENALTY,
        "--tasks-per-step": TASKS_PER_STEP, "--tasks": 4, "--validate-every": 0, "--threads": 1,
        "--device": "cpu",
    }  # fmt: skip
    words = [str(word) for pair in flags.items() for word in pair]
    config, _ = parse([*words, *map(str, LEARNERS[learner]), *map(str, more)])
    return config


def official_gradient(run: train.TrainingRun, count: int) -> tuple[Tensor, float]:
    """The gradient of the next step's tasks as the official loop accumulates it, and their mean loss."""
    config, learner = run.config, run.learner
    assert isinstance(learner, StagedLearner)
    own = OwnNetworks(learner, nearest_means if config.learner == "protonets" else mahalanobis)
    losses = []
    with open_loader(run.shards, run.sampler, config, run.processes, start=run.tasks) as loader:
        for episode in islice(loader, count):
            clip = episode.plan.clip
            asked = OfficialTask.of(
                Task(
                    images=episode.support.images, labels=episode.support.labels, way=episode.way, clip=clip,
                    queries=[(episode.query.images, episode.query.labels)], query_count=len(episode.query),
                )
            )  # fmt: skip
            order = generator(config.seed, episode.number, PAPER_ORDER_DRAW)
            support, query = order.permutation(len(asked.labels)), order.permutation(len(asked.answers))
            asked = OfficialTask(
                asked.support[support], asked.labels[support], asked.queries[query], asked.answers[query]
            )
            loop = OfficialLoop(config.h, config.chunks.graph // clip, config.penalty, config.tasks_per_step)
            back_propagate = loop.lite if config.sampler == "paper-lite" else loop.orbit
            losses.append(back_propagate(own, asked, generator(config.seed, episode.number, LITE_DRAW)))
    found = flat_gradient(run)
    run.optimizer.zero_grad()
    return found, float(torch.stack(losses).mean())


def flat_gradient(run: train.TrainingRun) -> Tensor:
    return torch.cat([p.grad.flatten() for p in run.learner.parameters() if p.grad is not None])


def step_gradient(run: train.TrainingRun, monkeypatch: pytest.MonkeyPatch) -> tuple[Tensor, float]:
    """The gradient that the optimiser gets from the next step, whose weights stay as they are; and the loss."""
    seen: list[Tensor] = []
    monkeypatch.setattr(run.optimizer, "step", lambda: seen.append(flat_gradient(run)))
    with open_loader(run.shards, run.sampler, run.config, run.processes, start=run.tasks) as loader:
        loss = run.step(iter(loader))[0]
    (gradient,) = seen
    return gradient, loss


def compare(config: TrainingConfig, count: int, monkeypatch: pytest.MonkeyPatch, done: int = 0) -> None:
    with join_processes("cpu") as members:
        run = train.TrainingRun.open(config, members, resume=False)
        run.learner.double()
        if run.learner.generator is not None:  # large enough for FiLM, and its penalty, to matter
            torch.nn.init.uniform_(run.learner.generator.get_parameter("regularisers"), 0.3, 0.6)
        run.tasks = done
        wanted, loss = official_gradient(run, count)
        found, told = step_gradient(run, monkeypatch)
    assert run.tasks == done + count
    assert wanted.dtype == torch.float64
    assert error(found, wanted) < 1e-10
    assert told == pytest.approx(loss, rel=1e-10)


@pytest.mark.parametrize("learner", LEARNERS)
@pytest.mark.parametrize("sampler", ["paper-lite", "paper-orbit"])
@pytest.mark.parametrize("query", [3, 4])
def test_a_step_is_the_official_codes(
    demo: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, learner: str, sampler: str, query: int
) -> None:
    """12 queries are three batches of at most five; with 16, the last one is alone."""
    config = settings(demo, tmp_path / "run", learner, "--sampler", sampler, "--query", query)
    compare(config, TASKS_PER_STEP, monkeypatch)


@pytest.mark.parametrize("learner", LEARNERS)
def test_a_step_on_clips_is_the_official_codes(
    orbit: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, learner: str
) -> None:
    flags = ("--orbit", "2021", "--way", 0, "--sampler", "paper-orbit", "--chunk", 40, "--h", 2)
    compare(settings(orbit, tmp_path / "run", learner, *flags), TASKS_PER_STEP, monkeypatch)


def test_a_last_short_step_divides_losses_by_the_whole_number_of_tasks(
    demo: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = settings(demo, tmp_path / "run", "simple_cnaps", "--sampler", "paper-lite", "--tasks", 3)
    compare(config, 1, monkeypatch, done=2)


def test_the_penalty_is_not_divided_by_the_tasks_of_a_step_in_the_papers_loops(
    demo: Path, tmp_path: Path
) -> None:
    for sampler, weight in (("paper-lite", 2 * PENALTY), ("paper-orbit", 2 * PENALTY), ("neyman", PENALTY)):
        config = settings(demo, tmp_path / "run", "simple_cnaps", "--sampler", sampler)
        assert lite_settings(config).penalty == weight


def test_queries_are_mixed_for_the_papers_loops_only(demo: Path, tmp_path: Path) -> None:
    """Episodes come grouped by class, so that batches of them would hold one class or two."""
    for sampler in ("neyman", "paper-lite"):
        config = settings(demo, tmp_path / "run", "protonets", "--sampler", sampler)
        with join_processes("cpu") as members:
            run = train.TrainingRun.open(config, members, resume=False)
            with open_loader(run.shards, run.sampler, config, members) as loader:
                asked = training_task(next(iter(loader)), config)
        ((_, answers),) = asked.queries
        for labels in (asked.labels, answers):
            assert labels.bincount().tolist() == [3] * 4
            grouped = int((labels.diff() != 0).sum()) == 3
            assert grouped == (sampler == "neyman")
