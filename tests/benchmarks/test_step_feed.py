"""Steps fed by the loader and from memory: the same episodes, so that their speeds can be compared."""

from __future__ import annotations

from pathlib import Path

import pytest

from benchmarks.step_feed import draw_shards, feed_figures, measure_steps
from learners.networks.backbones import RANDOM
from learners.training.config import TrainingConfig


@pytest.fixture(scope="module")
def drawn(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return draw_shards(tmp_path_factory.mktemp("drawn"), size=32, images=500)


def config(drawn: Path, out: Path) -> TrainingConfig:
    return TrainingConfig(
        shards=str(drawn), out=str(out), learner="protonets", backbone="conv4", weights=RANDOM, image_size=32,
        device="cpu", threads=1, tasks=100, tasks_per_step=2, max_way=5, max_support=20, query=2,
    )  # fmt: skip


def test_fed_steps_and_resident_ones_have_the_same_episodes(drawn: Path, tmp_path: Path) -> None:
    measured = measure_steps(config(drawn, tmp_path / "run"), steps=3)
    assert measured.resident_episodes == measured.fed_episodes
    assert [episode.number for episode in measured.fed_episodes] == [2, 3, 4, 5, 6, 7]  # after the first step
    images = sum(episode.support + episode.query for episode in measured.fed_episodes)
    assert measured.used.images >= images  # and what was read ahead of the next episode


def test_held_is_the_time_from_memory_over_the_time_fed(drawn: Path, tmp_path: Path) -> None:
    row = feed_figures(config(drawn, tmp_path / "run"), steps=1)
    assert row["held"] == pytest.approx(row["images_per_second"] / row["resident_images_per_second"])
    assert row["chunks"] == "40 / 40"
    assert 0 <= row["waiting"] < 1


def test_shards_are_drawn_once(drawn: Path) -> None:
    before = {file: file.stat().st_mtime_ns for file in drawn.rglob("*")}
    draw_shards(drawn.parent, size=32, images=500)
    assert {file: file.stat().st_mtime_ns for file in drawn.rglob("*")} == before
