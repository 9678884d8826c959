from __future__ import annotations

import numpy as np
import pytest

from pipeline.build.builder import build_shards
from pipeline.episodes import EpisodePlan, Side, choose_h
from pipeline.index import Dataset
from pipeline.loader.chunks import cut
from pipeline.records import Recipe
from pipeline.sources.folder import FolderSource
from tests.pictures import fill


@pytest.fixture(scope="module")
def mixed(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    """Built for plain streaming: rows and files are in different orders."""
    root = tmp_path_factory.mktemp("mixed")
    source = FolderSource(name="pets", root=fill(root / "photos", {"cat": 20, "dog": 20}))
    build_shards(source, root / "pets", Recipe(sizes=(24,), order="shuffled", shard_samples=10))
    return Dataset.open(root / "pets")


def plan(rows: int, clip: int = 1, *, sliding: bool = False) -> EpisodePlan:
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


def test_each_part_stands_as_it_lies_in_the_files(mixed: Dataset) -> None:
    drawn = plan(40)
    cuts = cut(drawn, mixed.index, 24, choose_h(drawn, 6, 0), 5)
    index = mixed.index
    for rows in (
        drawn.support.rows[cuts.support[:6]],
        drawn.support.rows[cuts.support[6:]],
        drawn.query.rows[cuts.query],
    ):
        places = list(zip(index["shard"][rows], index["offset_24"][rows], strict=True))
        assert places == sorted(places)
    assert sorted(cuts.support) == list(range(20))
    assert sorted(cuts.query) == list(range(20))


def test_chunks_cover_everything_once_in_order_and_none_is_empty(mixed: Dataset) -> None:
    drawn = plan(40)
    for h in (0, 1, 5, 20):
        cuts = cut(drawn, mixed.index, 24, choose_h(drawn, h, 0), 7)
        pieces = list(cuts)
        assert all(len(piece) for piece in pieces)
        assert len(pieces) == cuts.chunks
        support = [piece for piece in pieces if piece.role != "query"]
        assert [piece.role for piece in pieces] == sorted(
            (piece.role for piece in pieces), key=("h", "rest", "query").index
        )
        assert support[0].begin == 0
        assert [piece.end for piece in support[:-1]] == [piece.begin for piece in support[1:]]
        assert support[-1].end == 20


def test_clips_are_never_cut(mixed: Dataset) -> None:
    drawn = plan(40, clip=4)
    cuts = cut(drawn, mixed.index, 24, choose_h(drawn, 2, 0), 10)
    assert {piece.begin % 4 for piece in cuts} | {piece.end % 4 for piece in cuts} == {0}
    assert (cuts.support.reshape(-1, 4) % 4 == np.arange(4)).all()


def test_one_clip_is_a_chunk_even_if_it_is_longer(mixed: Dataset) -> None:
    drawn = plan(40, clip=10)
    assert {len(piece) for piece in cut(drawn, mixed.index, 24, choose_h(drawn, 1, 0), 3)} == {10}


def test_a_sliding_query_keeps_the_order_of_its_frames(mixed: Dataset) -> None:
    drawn = plan(40, clip=4, sliding=True)
    cuts = cut(drawn, mixed.index, 24, choose_h(drawn, 1, 0), 8)
    assert cuts.query.tolist() == list(range(20))
