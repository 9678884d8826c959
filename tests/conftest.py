"""Datasets that several test files share."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import pytest

from pipeline.build.builder import build_shards
from pipeline.records import Encoding, Recipe
from pipeline.sources.folder import FolderSource
from tests.images import fill_class_folders


def pytest_configure() -> None:
    """A shell's `&` and nohup start their programs with Ctrl-C ignored, and children inherit that."""
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    """Three classes with 7, 5 and 1 images."""
    return fill_class_folders(tmp_path / "photos", {"cat": 7, "dog": 5, "one": 1})


@pytest.fixture(scope="session")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small dataset of several shards, built once: raw at 24 pixels, JPEG at 48. Do not change it."""
    root = tmp_path_factory.mktemp("built")
    source = FolderSource(
        name="pets", root=fill_class_folders(root / "photos", {"cat": 30, "dog": 20, "owl": 10})
    )
    encodings = (Encoding.parse("raw"), Encoding.parse("jpeg:95"))
    build_shards(source, root / "pets", Recipe(sizes=(24, 48), encodings=encodings, shard_samples=16))
    return root / "pets"


@pytest.fixture(scope="session")
def real_data() -> Path:
    """The folder of real datasets that REAL_DATA names."""
    path = os.environ.get("REAL_DATA", "")
    if not path or not Path(path).is_dir():
        pytest.skip("REAL_DATA does not name a folder of real datasets")
    return Path(path).resolve()
