"""Fixtures of the demo's tests."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from learners.demo.server import DemoServer
from learners.methods.catalogue import describe_learner, make_learner
from learners.use.classifier import Learner
from tests.learners.demo.serving import CLASS_COLOURS, DEMO_SIZE, served


@pytest.fixture(autouse=True)
def _logging_as_it_was() -> Iterator[None]:
    yield
    logging.getLogger().handlers.clear()


@pytest.fixture(scope="session")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Six images of each of three colours, in folders; each is a little different."""
    root = tmp_path_factory.mktemp("photos")
    for at, (name, colour) in enumerate(CLASS_COLOURS.items()):
        (root / name).mkdir()
        for number in range(6):
            noise = np.random.default_rng(10 * at + number).normal(0, 20, (48, 64, 3))
            pixels = (np.array(colour) + noise).clip(0, 255).astype(np.uint8)
            Image.fromarray(pixels).save(root / name / f"{name} {number}.jpg")
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
