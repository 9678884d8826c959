"""Fixtures of the demo's tests."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from pathlib import Path

import pytest

from learners.demo.server import DemoServer
from learners.methods.catalogue import describe_learner, make_learner
from learners.use.classifier import Learner
from tests.learners.demo.serving import DEMO_SIZE, served, write_photos


@pytest.fixture(autouse=True)
def _logging_as_it_was() -> Iterator[None]:
    yield
    logging.getLogger().handlers.clear()


@pytest.fixture(scope="session")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Six images of each of three colours, in folders; each is a little different."""
    root = write_photos(tmp_path_factory.mktemp("photos"))
    (root / "notes.txt").write_text("no picture at all")
    return root


@pytest.fixture(scope="session")
def learner() -> Learner:
    net = make_learner("protonets", "conv4", seed=0)
    return Learner.of(net, describe_learner(net, "protonets", DEMO_SIZE), "cpu")


@pytest.fixture(scope="module")
def server(learner: Learner) -> Iterator[DemoServer]:
    with served(learner) as serving:
        yield serving
