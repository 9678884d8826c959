"""A new public name is a decision, so it breaks a test."""

from __future__ import annotations

import subprocess
import sys

import pytest

import learners
import pipeline


def test_the_public_names_of_pipeline_are_these() -> None:
    assert pipeline.__all__ == [
        "Chunk", "ClassDataset", "ClassRecord", "Dataset", "Encoding", "Episode",
        "EpisodeDataset", "EpisodeLoader", "EpisodePlan", "Item", "Recipe", "Rejected",
        "Report", "RetryPolicy", "Run", "Sampler", "ShardSet", "Side", "Source", "Stats", "Survey",
        "build_shards", "generator", "samplers",
    ]  # fmt: skip


def test_the_public_names_of_learners_are_these() -> None:
    assert learners.__all__ == [
        "Answer", "Backbone", "Classifier", "Head", "Labels", "Learner", "Lite", "MetaLearner",
        "Outcome", "PortableClassifier", "StagedLearner", "State", "Task", "backbone", "backward",
    ]  # fmt: skip
    assert all(hasattr(learners, name) for name in learners.__all__)


def test_every_public_name_is_there_and_no_other() -> None:
    for name in pipeline.__all__:
        assert getattr(pipeline, name).__name__ in (name, f"pipeline.{name}")
    with pytest.raises(AttributeError, match="no attribute 'build_shard'"):
        _ = pipeline.build_shard  # type: ignore[attr-defined]
    with pytest.raises(AttributeError, match="no attribute 'Learners'"):
        _ = learners.Learners  # type: ignore[attr-defined]


@pytest.mark.parametrize("package", ["pipeline", "learners"])
def test_importing_the_package_alone_loads_no_library(package: str) -> None:
    program = (
        f"import sys, {package}; print([m for m in ('numpy', 'pyarrow', 'PIL', 'torch') if m in sys.modules])"
    )
    shown = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert shown.stdout.strip() == "[]"
