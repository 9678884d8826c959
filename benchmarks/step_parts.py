"""The parts of benchmarks/step.py: ways to compute a task's gradient, and meters of memory and FLOPs."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, Final, Literal

import numpy as np
import torch
from torch import Tensor, nn
from torch.autograd.graph import saved_tensors_hooks
from torch.nn import functional
from torch.utils.checkpoint import checkpoint
from torch.utils.flop_counter import FlopCounterMode

from benchmarks.step_server import varied_labels
from learners.heads.base import Head, State, full_precision
from learners.heads.mahalanobis import MahalanobisHead
from learners.labels import Labels
from learners.learner import StagedLearner
from learners.lite.draws import unweighted
from learners.lite.engine import Lite, backward
from learners.methods.protonets import ProtoNets
from learners.methods.simple_cnaps import SimpleCNAPs
from learners.networks import Backbone, backbone
from learners.networks.arithmetic import Precision, autocast_dtype, network_precision
from learners.networks.chunk_sizes import DEFAULT_CHUNK
from learners.task import ChunkedPass, Task

AS_CODED: Final = "as-coded"
QUERY_BATCH: Final = 40  # queries, as in the papers' code


@dataclass(frozen=True, kw_only=True, slots=True)
class StepCase:
    """A task and the way its gradient is computed."""

    learner: Literal["protonets", "simple_cnaps"] = "simple_cnaps"
    backbone: str = "efficientnet_b0"
    schedule: str = "neyman"
    """A sampler of `learners.lite`, full, checkpointing, or as-coded."""
    size: int = 84
    n: int = 500
    m: int = 500
    h: int = 40
    way: int = 50
    varied: bool = False
    """Whether classes have many sizes, as Meta-Dataset's; else they are equally large, or nearly so."""
    device: str = "cpu"
    chunk: int = DEFAULT_CHUNK
    forward_chunk: int = 0
    """Images of a pass without a graph; 0 as many as with one."""
    precision: Precision = "tf32"

    def make(self) -> tuple[StagedLearner, Task]:
        """A learner and a task, of random weights and pixels: memory and time do not depend on them."""
        torch.manual_seed(0)
        images, labels = self._side(self.n)
        net = backbone(self.backbone, film=self.learner == "simple_cnaps").to(self.device)
        set_norm_statistics(net, images[:QUERY_BATCH])
        learner = SimpleCNAPs(net) if self.learner == "simple_cnaps" else ProtoNets(net)
        if self.varied:
            labels = torch.from_numpy(varied_labels(self.n, self.way))
        queries = [self._side(self.m)]
        task = Task(images=images, labels=labels, way=self.way, queries=queries, query_count=self.m)
        return learner.to(self.device), task

    def backward(self, learner: StagedLearner, task: Task, seed: int = 0) -> None:
        """Compute the task's gradient on the learner's parameters."""
        settings, rng = self.settings(), np.random.default_rng(seed)
        with network_precision(self.precision):
            if self.schedule in ("full", "checkpointing"):
                whole_graph(learner, task, settings, in_parts=self.schedule == "checkpointing")
            elif self.schedule == AS_CODED:
                as_coded(learner, task, settings, rng)
            else:
                backward(learner, task, replace(settings, sampler=self.schedule), rng)  # type: ignore[arg-type]

    def settings(self) -> Lite:
        """What train.py computes a gradient by, with these flags."""
        return Lite(
            h=self.h,
            chunk=self.chunk,
            forward_chunk=self.forward_chunk or None,
            precision=autocast_dtype(self.precision),
        )

    def _side(self, count: int) -> tuple[Tensor, Tensor]:
        pixels = torch.randint(256, (count, 3, self.size, self.size), dtype=torch.uint8)
        pixels = pixels.contiguous(memory_format=torch.channels_last).to(self.device)
        return pixels, torch.arange(count) % self.way


@torch.no_grad()
def set_norm_statistics(net: Backbone, images: Tensor) -> None:
    """Give norms the statistics of these images; with random weights features would vanish otherwise."""
    for module in net.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.momentum = 1.0
    net.net.train()
    net(images)
    net.train()


def whole_graph(learner: StagedLearner, task: Task, settings: Lite, *, in_parts: bool) -> None:
    """Back-propagate through one graph; `in_parts`, with checkpointing: parts run forward again."""
    passage = ChunkedPass(precision=settings.precision)

    def through(network: nn.Module, images: Tensor, *arguments: Tensor) -> Tensor:
        anchor = torch.zeros((), requires_grad=True)  # without it, parts would have no graph
        again = partial(_forward_part, passage, network)
        if not in_parts:
            return again(anchor, images, *arguments)
        parts = torch.split(images, settings.chunk)
        return torch.cat([checkpoint(again, anchor, part, *arguments, use_reentrant=True) for part in parts])

    embedding = None if learner.encoder is None else through(learner.encoder, task.support).mean(0)
    film = learner.film(embedding)
    features = through(learner.backbone, task.support, *film)
    images, answers = task.joined_queries()
    query_features = through(learner.backbone, images, *film)
    with full_precision(features.device):
        state = learner.head.fit(features, Labels.checked(task.labels))
        loss = functional.cross_entropy(
            learner.head.logits(state, query_features), answers.to(query_features.device)
        )
        torch.autograd.backward(_penalised(learner, loss, settings))


def _forward_part(
    passage: ChunkedPass, network: nn.Module, _anchor: Tensor, images: Tensor, *film: Tensor
) -> Tensor:
    return passage.run(network, images, *([film] if film else []))


def as_coded(learner: StagedLearner, task: Task, settings: Lite, rng: np.random.Generator) -> None:
    """The schedule and the head of the VTAB+MD code, reimplemented.

    What carries no gradient is computed once. Everything else is computed for each batch of queries: H
    through encoder and backbone, the generator, and a head with an inverse for each class.
    """
    passage, labels = ChunkedPass(precision=settings.precision), Labels.checked(task.labels)
    assert learner.encoder is not None
    vectors, features = passage.whole(learner.encoder, task.support), torch.empty(0)
    head = LoopOfInverses()
    batches = (torch.split(side, QUERY_BATCH) for side in task.joined_queries())
    for queries, answers in zip(*batches, strict=True):
        chosen = torch.from_numpy(unweighted(labels, settings.h, rng).units)
        images, place = task.support[chosen.to(task.support.device)], chosen.to(vectors.device)
        live = vectors.index_copy(0, place, passage.run(learner.encoder, images))
        film = learner.film(live.mean(0))
        if not len(features):
            features = passage.whole(learner.backbone, task.support, film)
        live = features.index_copy(0, place, passage.run(learner.backbone, images, film))
        query_features = passage.run(learner.backbone, queries, film)
        with full_precision(query_features.device):
            logits = head.logits(head.fit(live, labels), query_features)
            loss = functional.cross_entropy(logits, answers.to(query_features.device))
            torch.autograd.backward(_penalised(learner, loss, settings))


def _penalised(learner: StagedLearner, loss: Tensor, settings: Lite) -> Tensor:
    penalty = learner.penalty()
    return loss if penalty is None else loss + settings.penalty * penalty


class LoopOfInverses(Head):
    """The Mahalanobis head as in its papers: a d x d matrix and its inverse for each class."""

    def fit(self, features: Tensor, labels: Labels) -> State:
        overall = features.T.cov()
        unit = torch.eye(len(overall), dtype=features.dtype, device=features.device)
        means, inverses = [], []
        for label in range(labels.way):
            rows = np.flatnonzero(labels.values == label)
            own = features[torch.from_numpy(rows).to(features.device)]
            share = len(rows) / (len(rows) + 1)
            within = own.T.cov() if len(rows) > 1 else torch.zeros_like(overall)
            means.append(own.mean(0))
            inverses.append(torch.linalg.inv(share * within + (1 - share) * overall + unit))
        return torch.stack(means), torch.stack(inverses)

    def logits(self, state: State, queries: Tensor) -> Tensor:
        columns = []
        for mean, inverse in zip(*state, strict=True):
            difference = queries - mean
            columns.append(-(difference @ inverse * difference).sum(1))
        return torch.stack(columns, 1)


COMPARED_HEADS: Final[dict[str, type[Head]]] = {"ours": MahalanobisHead, "loop": LoopOfInverses}


class SavedMemory:
    """A meter of the bytes that autograd keeps: each storage counts once, the ignored ones do not."""

    def __init__(self, ignored: Iterable[Tensor]) -> None:
        self._ignored = {tensor.untyped_storage().data_ptr() for tensor in ignored}
        self._uses: dict[int, int] = {}
        self._now = 0
        self.peak = 0

    def hooks(self) -> saved_tensors_hooks:
        """A context in which saved tensors are counted."""
        return saved_tensors_hooks(partial(_HeldTensor, self), lambda held: held.tensor)

    def add(self, place: int, size: int, change: int) -> None:
        """Count one more (1) or one less (-1) use of a storage."""
        if place in self._ignored:
            return
        before = self._uses.get(place, 0)
        self._uses[place] = before + change
        if 0 in (before, before + change):
            self._now += change * size
            self.peak = max(self.peak, self._now)


class _HeldTensor:
    """A saved tensor, whose storage counts as used until the graph releases it."""

    def __init__(self, meter: SavedMemory, tensor: Tensor) -> None:
        self.tensor = tensor
        storage = tensor.untyped_storage()
        self._meter, self._place, self._size = meter, storage.data_ptr(), storage.nbytes()
        meter.add(self._place, self._size, 1)

    def __del__(self) -> None:
        self._meter.add(self._place, self._size, -1)


def memory_mb(device: str) -> tuple[float, float]:
    """Memory in use now and its peak so far: of the GPU, or of this process."""
    if device == "cuda":
        return torch.cuda.memory_allocated() / 1e6, torch.cuda.max_memory_allocated() / 1e6
    lines = Path("/proc/self/status").read_text().splitlines()
    kilobytes = {line.split(":")[0]: line.split()[1] for line in lines if line.startswith("Vm")}
    return int(kilobytes["VmRSS"]) * 1.024e-3, int(kilobytes["VmHWM"]) * 1.024e-3


@contextmanager
def count_flops() -> Iterator[FlopCounterMode]:
    """Count FLOPs; torch's own formula takes a depthwise convolution for a dense one."""
    formulas: dict[Any, Any] = {
        torch.ops.aten.convolution_backward: _convolution_backward,
        torch.ops.aten.linalg_inv_ex: lambda matrix, *_, **__: 2 * _cubed(matrix),
        torch.ops.aten.linalg_cholesky_ex: lambda matrix, *_, **__: _cubed(matrix) // 3,
        torch.ops.aten._linalg_eigh: lambda matrix, *_, **__: 9 * _cubed(matrix),  # noqa: SLF001
    }
    with FlopCounterMode(display=False, custom_mapping=formulas) as counter:
        yield counter


def _convolution_backward(out: list[int], _image: list[int], weight: list[int], *rest: Any, **_: Any) -> int:
    """FLOPs of the gradients by images and by weights, each as many as forward."""
    gradients = sum(rest[-1][:2])
    return int(2 * gradients * out[0] * np.prod(out[2:]) * np.prod(weight))


def _cubed(shape: list[int]) -> int:
    return int(np.prod(shape[:-2], dtype=np.int64)) * int(shape[-1]) ** 3
