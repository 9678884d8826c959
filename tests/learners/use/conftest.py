"""Fixtures of the tests of `learners.use`."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from learners import checkpoint
from learners.methods.catalogue import describe_learner, make_learner
from tests.images import fill_class_folders


@pytest.fixture(autouse=True, scope="module")
def _one_core() -> Iterator[None]:
    """Small networks gain nothing from several, and tests that run side by side lose much."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def trained_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What a training run of Simple CNAPs leaves."""
    net, folder = make_learner("simple_cnaps", "conv4", seed=5), tmp_path_factory.mktemp("run")
    tensors, values = checkpoint.flatten({"learner": net.state_dict()})
    info = describe_learner(net, "simple_cnaps", 32).described()
    checkpoint.save(folder / "last.safetensors", tensors, {"about": info, "state": values, "tasks": 3})
    return folder


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return fill_class_folders(tmp_path_factory.mktemp("photos"), {"owl": 3, "ant": 2, "elk": 1})
