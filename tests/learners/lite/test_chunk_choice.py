"""Chunks that a learner chooses by itself stay within the memory given, and use it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest
import torch

from learners.learner import MetaLearner
from learners.lite.chunk_choice import CHUNK_CHOICES, MEMORY_SHARE, PROBE_CHUNKS, largest_chunk
from learners.lite.engine import Lite
from learners.lite.live_memory import counted_peak
from learners.methods.catalogue import make_learner
from learners.methods.options import LearnerOptions
from learners.networks.chunk_sizes import ChunkSizes, halving
from learners.task import ChunkedPass, Task
from tests.learners.tasks import rng
from tests.pretended_gpu import pretended_gpu


def linear(fixed: int, by_image: int, sizes: list[int]) -> Callable[[Callable[[], object]], int]:
    """A meter for passes whose sizes are in the list: so much for all, and so much for each image."""

    def peak(run: Callable[[], object]) -> int:
        run()
        return fixed + by_image * sizes[-1]

    return peak


@pytest.mark.parametrize(("memory", "wanted"), [(1000, 1), (2500, 12), (2499, 8), (10**9, 512), (0, 1)])
def test_the_largest_choice_whose_passes_take_the_share_of_memory(memory: float, wanted: int) -> None:
    sizes: list[int] = []
    assert largest_chunk(sizes.append, memory, linear(800, 100, sizes)) == wanted
    assert sizes == [PROBE_CHUNKS[0], *PROBE_CHUNKS]
    if wanted > 1:
        assert 800 + 100 * wanted <= MEMORY_SHARE * memory


def test_where_a_few_images_do_not_fit_the_choice_is_one_that_can_be_halved() -> None:
    def run(chunk: int) -> None:
        if chunk > 2:
            raise torch.OutOfMemoryError

    assert largest_chunk(run, 10**9, counted_peak) == PROBE_CHUNKS[0]


def test_choices_lie_so_close_that_at_least_half_of_the_memory_is_used() -> None:
    pairs = zip(CHUNK_CHOICES[2:], CHUNK_CHOICES[1:], strict=False)
    assert min(small / large for large, small in pairs) * MEMORY_SHARE > 0.5


def test_the_peak_counts_what_autograd_keeps_and_nothing_twice() -> None:
    weight = torch.ones(1000, requires_grad=True)

    def run() -> None:
        kept = (weight * 2).exp()  # the product is freed, its exponential is kept
        view = kept.view(10, 100)
        torch.autograd.backward(view.sum())  # two gradients at a time at most

    assert counted_peak(run) == pytest.approx(3 * 4000, abs=100)
    weight.grad = None
    assert counted_peak(lambda: weight.detach().view(10, 100).add_(1)) == 0


def large_task(images: int, image_size: int) -> Task:
    """A task of noise in five classes."""
    generator = torch.Generator().manual_seed(0)
    shape = (images, 3, image_size, image_size)
    pixels = torch.randint(0, 256, shape, generator=generator, dtype=torch.uint8)
    pixels, labels = pixels.contiguous(memory_format=torch.channels_last), torch.arange(images) % 5
    return Task(images=pixels, labels=labels, way=5, queries=[(pixels, labels)], query_count=images)


slow = pytest.mark.slow


@pytest.mark.parametrize(
    ("name", "backbone", "image_size", "megabytes"),
    [
        ("protonets", "conv4", 28, 20),
        pytest.param("maml", "conv4", 28, 20, marks=slow),
        pytest.param("protonets", "resnet18", 32, 200, marks=slow),
        pytest.param("cnaps", "resnet18", 32, 50, marks=slow),
        pytest.param("simple_cnaps", "efficientnet_b0", 32, 100, marks=slow),
        pytest.param("protonets", "efficientnet_b0", 48, 200, marks=slow),
    ],
)
def test_the_gradient_of_a_large_task_stays_within_the_memory_given_and_uses_half_of_it(
    name: str, backbone: str, image_size: int, megabytes: int
) -> None:
    learner, memory = make_learner(name, backbone, weights="random"), megabytes * 1e6
    sizes = learner.measured_chunks(image_size, memory, counted_peak, training=True)
    assert 1 < sizes.graph < sizes.forward
    assert all(parameter.grad is None for parameter in learner.parameters())
    task = large_task(sizes.forward + 3, image_size)
    settings = Lite(chunk=sizes.graph, forward_chunk=sizes.forward, h=sizes.graph + 3)
    peak = counted_peak(lambda: learner.gradient(task, settings, rng()))
    assert memory / 2 < peak < memory


def test_adapting_without_gradients_has_the_larger_chunks_alone() -> None:
    learner, memory = make_learner("protonets", "conv4", weights="random"), 20e6
    sizes = learner.measured_chunks(28, memory, counted_peak)
    assert (
        sizes.graph == sizes.forward > learner.measured_chunks(28, memory, counted_peak, training=True).graph
    )
    task = large_task(sizes.forward + 3, 28)
    passage = ChunkedPass().resized(sizes)
    peak = counted_peak(lambda: learner.adapt(task.support, task.labels, 5, passage))
    assert memory / 2 < peak < memory


def test_a_learner_that_descends_on_the_support_set_needs_its_graphs_there() -> None:
    tuner = make_learner("maml", "conv4", weights="random", options=LearnerOptions(inner_steps=1))
    sizes = tuner.measured_chunks(28, 20e6, counted_peak)
    assert 1 < sizes.graph < sizes.forward


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("protonets", LearnerOptions()),
        ("simple_cnaps", LearnerOptions(encoder_norm="batch")),
        ("protonets", LearnerOptions(backbone_norm="batch")),
        ("maml", LearnerOptions(inner_weighting="paper")),
        ("maml", LearnerOptions(clamp=10.0)),
        ("finetuner", LearnerOptions(inner_weighting="paper")),
    ],
)
def test_forty_images_at_a_time_on_a_cpu_and_wherever_chunks_decide(
    name: str, options: LearnerOptions
) -> None:
    backbone = "resnet18" if "batch" in (options.encoder_norm, options.backbone_norm) else "conv4"
    learner: MetaLearner = make_learner(name, backbone, weights="random", options=options)
    assert learner.chunk_sizes(32) == ChunkSizes(40, 40)
    assert learner.chunks_decide == (options != LearnerOptions())
    if learner.chunks_decide:
        assert learner.chunk_sizes(32, memory=1e6) == ChunkSizes(40, 40)


def test_a_limit_holds_on_a_cpu_too_and_what_was_chosen_is_remembered(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    learner = make_learner("protonets", "conv4", weights="random")
    sizes = learner.chunk_sizes(28, training=True, memory=30e6)
    assert 1 < sizes.graph < sizes.forward == 40
    monkeypatch.delattr(MetaLearner, "measured_chunks")
    assert learner.chunk_sizes(28, training=True, memory=30e6) == sizes
    with pytest.raises(AttributeError):
        learner.chunk_sizes(32, training=True, memory=30e6)


def test_on_a_gpu_chunks_fit_its_free_memory_and_larger_ones_are_halved() -> None:
    megabytes = 30
    with pretended_gpu(memory=megabytes * 1_000_000) as gpu:
        learner = make_learner("protonets", "conv4", weights="random").to("cuda")
        chosen = learner.chunk_sizes(28, training=True)
        assert 1 < chosen.graph < chosen.forward
        task = large_task(chosen.forward + 3, 28)
        labels, images = task.labels, task.support.to("cuda")
        task = replace(task, images=images, queries=[(images, labels)])

        def gradient(sizes: ChunkSizes) -> None:
            learner.zero_grad()
            settings = Lite(chunk=sizes.graph, forward_chunk=sizes.forward, h=chosen.graph + 3)
            learner.gradient(task, settings, rng())

        gpu.pool.reset_peak()
        gradient(chosen)
        assert megabytes / 2 < gpu.pool.peak / 1e6 < megabytes
        _, fitting = halving(gradient, ChunkSizes(512, 512))
        assert chosen.graph / 2 < fitting.graph < 512
