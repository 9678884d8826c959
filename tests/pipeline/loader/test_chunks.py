from __future__ import annotations

import numpy as np
import pytest

from pipeline.build.builder import build_shards
from pipeline.episodes import EpisodePlan, Side, choose_h
from pipeline.index import Dataset
from pipeline.loader.chunks import plan_chunks
from pipeline.records import Recipe
from pipeline.sources.folder import FolderSource
from tests.images import fill_class_folders


@pytest.fixture(scope="module")
def mixed(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    """Built for plain streaming: rows and files are in different orders."""
    root = tmp_path_factory.mktemp("mixed")
    source = FolderSource(name="pets", root=fill_class_folders(root / "photos", {"cat": 20, "dog": 20}))
    build_shards(source, root / "pets", Recipe(sizes=(24,), order="shuffled", shard_samples=10))
    return Dataset.open(root / "pets")


def half_and_half_plan(rows: int, clip: int = 1, *, sliding: bool = False) -> EpisodePlan:
    draw = np.random.default_rng(0).permutation(rows)
    half = Side(draw[: rows // 2], np.zeros(rows // 2, np.int64))
    rest = Side(draw[rows // 2 :], np.zeros(rows - rows // 2, np.int64))
    return EpisodePlan(
        number=0,
        dataset="pets",
        classes=(0,),
        support=half,
        query=rest,
        clip=clip,
        query_clips="sliding" if sliding else "blocks",
    )


def test_each_part_is_in_the_order_of_the_files(mixed: Dataset) -> None:
    plan = half_and_half_plan(40)
    chunks = plan_chunks(plan, mixed.index, 24, choose_h(plan, 6, 0), 5)
    index = mixed.index
    for rows in (
        plan.support.rows[chunks.support[:6]],
        plan.support.rows[chunks.support[6:]],
        plan.query.rows[chunks.query],
    ):
        places = list(zip(index["shard"][rows], index["offset_24"][rows], strict=True))
        assert places == sorted(places)
    assert sorted(chunks.support) == list(range(20))
    assert sorted(chunks.query) == list(range(20))


def test_chunks_cover_everything_once_in_order_and_none_is_empty(mixed: Dataset) -> None:
    plan = half_and_half_plan(40)
    for h in (0, 1, 5, 20):
        chunks = plan_chunks(plan, mixed.index, 24, choose_h(plan, h, 0), 7)
        ranges = list(chunks)
        assert all(len(chunk) for chunk in ranges)
        assert len(ranges) == chunks.count
        support = [chunk for chunk in ranges if chunk.role != "query"]
        assert [chunk.role for chunk in ranges] == sorted(
            (chunk.role for chunk in ranges), key=("h", "rest", "query").index
        )
        assert support[0].begin == 0
        assert [chunk.end for chunk in support[:-1]] == [chunk.begin for chunk in support[1:]]
        assert support[-1].end == 20


def test_clips_are_never_split(mixed: Dataset) -> None:
    plan = half_and_half_plan(40, clip=4)
    chunks = plan_chunks(plan, mixed.index, 24, choose_h(plan, 2, 0), 10)
    assert {chunk.begin % 4 for chunk in chunks} | {chunk.end % 4 for chunk in chunks} == {0}
    assert (chunks.support.reshape(-1, 4) % 4 == np.arange(4)).all()


def test_one_clip_is_a_chunk_even_if_it_is_longer(mixed: Dataset) -> None:
    plan = half_and_half_plan(40, clip=10)
    assert {len(chunk) for chunk in plan_chunks(plan, mixed.index, 24, choose_h(plan, 1, 0), 3)} == {10}


def test_a_sliding_query_keeps_the_order_of_its_frames(mixed: Dataset) -> None:
    plan = half_and_half_plan(40, clip=4, sliding=True)
    chunks = plan_chunks(plan, mixed.index, 24, choose_h(plan, 1, 0), 8)
    assert chunks.query.tolist() == list(range(20))
