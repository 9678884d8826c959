"""The official layouts, written once for all tests that only read them."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.pipeline.sources.meta_dataset import layouts

Layout = Callable[[str], Path]


@pytest.fixture(scope="session")
def unpacked(tmp_path_factory: pytest.TempPathFactory) -> Layout:
    """The unpacked folder of a dataset. Do not change it."""
    base = tmp_path_factory.mktemp("unpacked")

    def layout(dataset: str) -> Path:
        if not (base / dataset).exists():
            layouts.UNPACKED[dataset](base / dataset)
        return base / dataset

    return layout


@pytest.fixture(scope="session")
def published(tmp_path_factory: pytest.TempPathFactory, unpacked: Layout) -> Layout:
    """The downloads of a dataset. Do not change them."""
    base = tmp_path_factory.mktemp("published")

    def layout(dataset: str) -> Path:
        if not (base / dataset).exists():
            layouts.publish(dataset, unpacked(dataset), base / dataset)
        return base / dataset

    return layout


@pytest.fixture
def downloads(published: Layout, tmp_path: Path) -> Layout:
    """A copy of the downloads that the test may change."""
    return lambda dataset: shutil.copytree(published(dataset), tmp_path / dataset)
