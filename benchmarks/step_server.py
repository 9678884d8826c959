"""Steps and heads of the learners that PYTHONPATH names, measured one at a time: the child of benchmarks/step_before.py.

It is run as a file and uses only names that older commits have, too. Each line of its input is a request in JSON, each
line of its output the CPU seconds, with the loss and the length of the gradient, which two versions should agree on.
"""

from __future__ import annotations

import json
import sys
import time
import warnings
from collections.abc import Callable
from typing import Any, Final

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional

from learners.heads.base import full_precision
from learners.heads.mahalanobis import MahalanobisHead
from learners.labels import Labels
from learners.learner import StagedLearner
from learners.lite.engine import Lite, backward
from learners.methods.simple_cnaps import SimpleCNAPs
from learners.networks import backbone
from learners.processes import join_processes
from learners.task import Task

EPISODE_DIM: Final = 1280  # features of EfficientNet-B0
EPISODE_CHUNK: Final = 40  # images; the CPU's default

Measured = dict[str, float]


def varied_labels(count: int, way: int) -> NDArray[np.int64]:
    """Support labels of classes of many sizes: 22 sizes for 500 images of 50 classes."""
    rng = np.random.default_rng(0)
    shares = np.sort(rng.exponential(size=way) + 0.1)
    more = rng.choice(way, count - way, p=shares / shares.sum())
    return np.concatenate([np.arange(way), more])


def make_step(n: int, way: int, size: int, name: str) -> tuple[StagedLearner, Task]:
    """Simple CNAPs and a task with `n` support images and `n` queries, of random weights and pixels."""
    torch.manual_seed(0)
    net = backbone(name, film=True)
    support, queries = (
        torch.randint(256, (n, 3, size, size), dtype=torch.uint8).contiguous(
            memory_format=torch.channels_last
        )
        for _ in range(2)
    )
    for module in net.modules():  # random weights need the norms' statistics, or features vanish
        if isinstance(module, nn.BatchNorm2d):
            module.momentum = 1.0
    with torch.no_grad():
        net.net.train()
        net(support[:EPISODE_CHUNK])
        net.train()
    answers = torch.arange(n) % way
    batches = zip(torch.split(queries, EPISODE_CHUNK), torch.split(answers, EPISODE_CHUNK), strict=True)
    labels = torch.from_numpy(varied_labels(n, way))
    task = Task(images=support, labels=labels, way=way, queries=list(batches), query_count=n)
    return SimpleCNAPs(net), task


def step(learner: StagedLearner, task: Task, request: dict[str, Any]) -> Measured:
    """One gradient of the task, with the settings of the request."""
    learner.zero_grad()
    settings = Lite(chunk=EPISODE_CHUNK, **request["settings"])
    begin = time.process_time()
    outcome = backward(learner, task, settings, np.random.default_rng(request["seed"]))
    spent = time.process_time() - begin
    parts = [p.grad.double().square().sum() for p in learner.parameters() if p.grad is not None]
    return {"cpu": spent, "loss": float(outcome.loss), "gradient": float(torch.stack(parts).sum().sqrt())}


def head(features: Tensor, queries: Tensor, labels: Labels, way: int, chunk: int) -> Measured:
    """The head forward and backward as a step runs it: queries chunk by chunk down to its state, then the state."""
    made = MahalanobisHead()
    answers = torch.arange(len(queries)) % way
    features = features.detach().requires_grad_()
    begin, total = time.process_time(), 0.0
    with full_precision(features.device):
        fitted = made.fit(features, labels)
        state = tuple(tensor.detach().requires_grad_(tensor.requires_grad) for tensor in fitted)
        for part, wanted in zip(torch.split(queries, chunk), torch.split(answers, chunk), strict=True):
            own = part.detach().requires_grad_()
            loss = functional.cross_entropy(made.logits(_like(fitted, state), own), wanted, reduction="sum")
            torch.autograd.backward(loss / len(queries))
            total += float(loss.detach())
        pairs = [(one, leaf.grad) for one, leaf in zip(fitted, state, strict=True) if leaf.grad is not None]
        outputs, gradients = zip(*pairs, strict=True)
        torch.autograd.backward(outputs, gradients)
    spent = time.process_time() - begin
    assert features.grad is not None
    return {"cpu": spent, "loss": total / len(queries), "gradient": float(features.grad.double().norm())}


def _like(fitted: Any, state: tuple[Tensor, ...]) -> Any:
    """The state in the class of the fitted one, which may be a named tuple."""
    return type(fitted)(*state) if hasattr(fitted, "_fields") else state


def main() -> None:
    """Answer requests until the input ends."""
    size, n, way = (int(word) for word in sys.argv[1:4])
    torch.set_num_threads(1)
    warnings.filterwarnings("ignore", "h=.* is less than 1.5 for each class")
    learner, task = make_step(n, way, size, sys.argv[4])
    generator = torch.Generator().manual_seed(0)
    features, queries = (torch.randn(n, EPISODE_DIM, generator=generator) for _ in range(2))
    labels = Labels(varied_labels(n, way), way)
    answers: dict[str, Callable[[dict[str, Any]], Measured]] = {
        "step": lambda request: step(learner, task, request),
        "head": lambda request: head(features, queries, labels, way, request["chunk"]),
    }
    with join_processes("cpu"):  # as train.py does: it decides how memory is kept
        for line in sys.stdin:
            request = json.loads(line)
            print(json.dumps(answers[request["what"]](request)), flush=True)


if __name__ == "__main__":
    main()
