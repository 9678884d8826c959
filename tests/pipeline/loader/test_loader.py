from __future__ import annotations

import gc
import logging
import os
import shutil
import threading
import time
import weakref
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from pipeline.decoders.base import DecodeJob
from pipeline.decoders.fill import PixelFiller
from pipeline.episodes import EpisodePlan, Side, choose_h
from pipeline.errors import IntegrityError, PipelineError, SourceMissing, UsageError
from pipeline.loader.loader import EpisodeLoader
from pipeline.loader.stream import BURST_CHUNKS
from pipeline.shardset import ShardSet
from pipeline.store.local import locate_samples
from tests.episodes import PlanSampler, RowSampler, chunk_digest, episode_chunks, plan_of_rows, stream_digests

EPISODES = 50


@pytest.fixture(scope="module")
def pets(built: Path) -> ShardSet:
    return ShardSet.open(built)


@pytest.fixture(scope="module")
def sampler(pets: ShardSet) -> RowSampler:
    return RowSampler("pets", len(pets["pets"].index))


def loader(shards: ShardSet, sampler: Any, size: int = 48, **options: Any) -> EpisodeLoader:
    """A loader of small chunks, so that an episode has several."""
    return EpisodeLoader(shards, sampler, image_size=size, **{"h": 5, "chunk": 8, "threads": 2, **options})


@pytest.fixture(scope="module")
def expected(pets: ShardSet, sampler: RowSampler) -> list[tuple[int, str]]:
    with loader(pets, sampler, threads=1, ahead=1) as opened:
        return stream_digests(opened, EPISODES)


def pixels(shards: ShardSet, size: int, rows: list[int]) -> torch.Tensor:
    """The images of some rows, NCHW, without the loader."""
    store = shards.open_store()
    locations = locate_samples(shards["pets"], size, np.array(rows))
    job = DecodeJob(locations, torch.empty(len(rows), size, size, 3, dtype=torch.uint8))
    assert PixelFiller(store).fill(job, 0, len(rows)) == []
    store.close()
    return job.out.permute(0, 3, 1, 2)


@pytest.fixture
def copied(built: Path, tmp_path: Path) -> Path:
    """A copy of the set, to be damaged."""
    return Path(shutil.copytree(built, tmp_path / "pets"))


def damage_sample(root: Path, row: int, size: int = 48) -> int:
    """Flip a byte in the middle of a sample's image."""
    dataset = ShardSet.open(root)["pets"]
    locations = locate_samples(dataset, size, np.array([row]))
    with locations.file(0).open("r+b") as file:
        file.seek(locations.offsets[0] + locations.lengths[0] // 2)
        byte = file.read(1)[0]
        file.seek(-1, os.SEEK_CUR)
        file.write(bytes([byte ^ 0xFF]))
    return row


# What is delivered


@pytest.mark.parametrize("size", [24, 48])
def test_every_image_is_that_of_its_row_under_its_label(
    pets: ShardSet, sampler: RowSampler, size: int
) -> None:
    with loader(pets, sampler, size) as opened:
        for episode in islice(opened, 3):
            for side, planned in (
                (episode.support, episode.plan.support),
                (episode.query, episode.plan.query),
            ):
                for chunk in side:
                    rows = planned.rows[chunk.positions.numpy()]
                    assert torch.equal(chunk.images, pixels(pets, size, rows.tolist()))
                    assert chunk.labels.tolist() == planned.labels[chunk.positions].tolist()
                    assert chunk.valid.all()


def test_h_comes_first_then_the_rest_and_together_they_are_the_support(
    pets: ShardSet, sampler: RowSampler
) -> None:
    with loader(pets, sampler) as opened:
        for episode in islice(opened, 5):
            support = episode.support
            assert sorted(support.h.positions) == choose_h(episode.plan, 5, sampler.seed).tolist()
            assert [len(chunk) for chunk in support.rest] == [8, 7]
            assert sorted(support.positions.tolist()) == list(range(20))
            joined = torch.cat([support.h.images, *(chunk.images for chunk in support.rest)])
            assert torch.equal(support.images, joined)
            assert support.images.data_ptr() == support.h.images.data_ptr()


@pytest.mark.parametrize(("h", "sizes"), [(0, [0, 8, 8, 4]), (20, [20]), (1000, [20])])
def test_h_may_be_nothing_or_everything(
    pets: ShardSet, sampler: RowSampler, h: int, sizes: list[int]
) -> None:
    with loader(pets, sampler, h=h) as opened:
        support = next(iter(opened)).support
        assert [len(support.h), *map(len, support.rest)] == sizes
        assert support.h.images.shape[1:] == (3, 48, 48)


def test_images_are_uint8_and_channels_last_without_a_copy(pets: ShardSet, sampler: RowSampler) -> None:
    with loader(pets, sampler) as opened:
        images = next(iter(opened)).support.images
    assert images.dtype == torch.uint8
    assert images.is_contiguous(memory_format=torch.channels_last)


def test_queries_may_be_read_first_and_again(pets: ShardSet, sampler: RowSampler) -> None:
    with loader(pets, sampler, ahead=1) as opened:
        episode = next(iter(opened))
        first = [chunk.images.clone() for chunk in episode.query]
        again = [chunk.images for chunk in episode.query]
        assert all(map(torch.equal, first, again))
        assert len(episode.support.images) == 20


def test_a_side_without_images_is_empty_and_not_an_error(pets: ShardSet) -> None:
    with loader(pets, PlanSampler([plan_of_rows("pets", [1, 2], [])])) as opened:
        episode = next(iter(opened))
        assert list(episode.query) == []
        assert episode.query.images.shape == (0, 3, 48, 48)


def test_a_side_beyond_memory_streams_past_once(pets: ShardSet) -> None:
    rows = [n % 60 for n in range(3000)]
    with loader(pets, PlanSampler([plan_of_rows("pets", rows, rows)]), 24, chunk=256) as opened:
        episode = next(iter(opened))
        assert len(episode.support.h) == 5
        assert sum(map(len, episode.support.rest)) == 2995
        with pytest.raises(UsageError, match=r"streamed past"):
            list(episode.support.rest)
        assert len(episode.support.h) == 5
        assert sum(map(len, episode.query)) == 3000
        with pytest.raises(UsageError, match=r"streamed past"):
            list(episode.query)


def test_all_images_of_a_side_beyond_memory_can_be_asked_for_first(pets: ShardSet) -> None:
    rows = [n % 60 for n in range(2100)]
    with loader(pets, PlanSampler([plan_of_rows("pets", [1], rows)]), 24, chunk=512) as opened:
        query = next(iter(opened)).query
        images, positions = query.images, query.positions
    assert torch.equal(images, pixels(pets, 24, [rows[at] for at in positions]))


def test_the_first_images_are_there_before_the_last(pets: ShardSet, sampler: RowSampler) -> None:
    with loader(pets, sampler) as opened:
        support = next(iter(opened)).support
        few = support.first(6)
        assert len(few) == 6
        assert opened.stats.images == 5 + 8  # H, and one chunk
        assert torch.equal(few, torch.cat([support.h.images, next(support.rest).images])[:6])
        assert opened.stats.images == 5 + 8
        assert few.data_ptr() == support.images.data_ptr()
        assert torch.equal(few, support.images[:6])
        assert support.first(0).shape == (0, 3, 48, 48)


def test_clips_stay_whole_in_every_chunk(pets: ShardSet, sampler: RowSampler) -> None:
    clips = RowSampler("pets", sampler.rows, clip=4)
    with loader(pets, clips, chunk=10, h=2) as opened:
        episode = next(iter(opened))
        for _, chunk in episode_chunks(episode):
            assert len(chunk) % 4 == 0
            starts = chunk.positions.view(-1, 4)
            assert (starts[:, :1] % 4 == 0).all()
            assert torch.equal(starts - starts[:, :1], torch.arange(4).expand_as(starts))
        assert len(episode.support.h) == 8


def test_what_was_handed_out_is_never_overwritten(pets: ShardSet, sampler: RowSampler) -> None:
    held = []
    with loader(pets, sampler, 24) as opened:
        for episode in islice(opened, 40):
            for role, chunk in episode_chunks(episode):
                held.append((episode, role, chunk, chunk_digest(episode, role, chunk)))
    assert all(chunk_digest(episode, role, chunk) == then for episode, role, chunk, then in held)


# The same stream, whatever the machine


@pytest.mark.parametrize("threads", [1, 2, 4])
@pytest.mark.parametrize("ahead", [1, 4, 16])
def test_threads_and_look_ahead_do_not_change_a_bit(
    pets: ShardSet, sampler: RowSampler, expected: object, threads: int, ahead: int
) -> None:
    with loader(pets, sampler, threads=threads, ahead=ahead) as opened:
        assert stream_digests(opened, EPISODES) == expected


@pytest.mark.parametrize("size", [24, 48])
@pytest.mark.parametrize("decoder", ["turbo", "dali"])
def test_mapped_shards_deliver_the_same_bits(
    pets: ShardSet, sampler: RowSampler, size: int, decoder: str
) -> None:
    if decoder == "dali":
        pytest.importorskip("nvidia.dali", reason="needs pip install -e '.[dali]'")
    options = {"decoder": decoder}
    with (
        loader(pets, sampler, size, **options) as one,
        loader(pets, sampler, size, mapped=True, **options) as other,
    ):
        assert stream_digests(one, EPISODES) == stream_digests(other, EPISODES)


def test_dali_delivers_the_same_bits(pets: ShardSet, sampler: RowSampler, expected: object) -> None:
    pytest.importorskip("nvidia.dali", reason="needs pip install -e '.[dali]'")
    with loader(pets, sampler, decoder="dali") as opened:
        assert stream_digests(opened, EPISODES) == expected


@pytest.mark.parametrize("world", [2, 4])
def test_ranks_share_the_same_stream(
    pets: ShardSet, sampler: RowSampler, expected: list[tuple[int, str]], world: int
) -> None:
    found: list[tuple[int, str]] = []
    for rank in range(world):
        with loader(pets, sampler, rank=rank, world=world) as opened:
            found += stream_digests(opened, len(range(rank, EPISODES, world)))
    assert sorted(found, key=lambda entry: entry[0]) == expected


def test_a_stream_resumed_at_any_chunk_goes_on_bit_for_bit(pets: ShardSet, sampler: RowSampler) -> None:
    """Interrupted within an episode, that episode comes again whole; after its last chunk, the next."""
    with loader(pets, sampler, 24) as opened:
        whole = stream_digests(opened, EPISODES + 2)
    with loader(pets, sampler, 24) as opened, loader(pets, sampler, 24) as other:
        states: list[tuple[int, dict[str, int]]] = []
        for episode in islice(opened, EPISODES):
            states.append((episode.number, opened.state_dict()))
            states += [(episode.number, opened.state_dict()) for _ in episode_chunks(episode)]
        assert len(states) > 5 * EPISODES
        for interrupted, state in states:
            assert state["episode"] in (interrupted, interrupted + 1)
            other.load_state_dict(state)
            following = [entry for entry in whole if entry[0] >= state["episode"]]
            assert stream_digests(other, 2) == [e for e in following if e[0] < state["episode"] + 2]


def test_a_state_suits_any_number_of_ranks(pets: ShardSet, sampler: RowSampler) -> None:
    with loader(pets, sampler, world=2, rank=1) as opened:
        for episode in islice(opened, 3):
            list(episode.query)
        state = opened.state_dict()
    assert state == {"seed": 7, "episode": 6}
    with loader(pets, sampler, world=3, rank=2) as opened:
        opened.load_state_dict(state)
        assert [episode.number for episode in islice(opened, 2)] == [8, 11]


def test_an_interrupted_episode_is_not_counted_as_done(pets: ShardSet, sampler: RowSampler) -> None:
    with loader(pets, sampler) as opened:
        episode = next(iter(opened))
        assert opened.state_dict()["episode"] == 0
        _ = episode.support.images
        assert opened.state_dict()["episode"] == 0
        list(episode.query)
        assert opened.state_dict()["episode"] == 1


def test_a_state_of_another_seed_is_refused(pets: ShardSet, sampler: RowSampler) -> None:
    with loader(pets, sampler) as opened, pytest.raises(UsageError, match=r"seed 8"):
        opened.load_state_dict({"seed": 8, "episode": 3})


def test_the_encoding_of_the_shards_does_not_change_the_order(pets: ShardSet, sampler: RowSampler) -> None:
    with loader(pets, sampler, 24) as raw, loader(pets, sampler, 48) as jpeg:
        for one, other in zip(islice(raw, 5), islice(jpeg, 5), strict=True):
            assert torch.equal(one.support.positions, other.support.positions)


# A finite sampler


def test_a_finite_sampler_ends_and_starts_again(pets: ShardSet, sampler: RowSampler) -> None:
    five = RowSampler("pets", sampler.rows, episodes=5)
    with loader(pets, five) as opened:
        assert [episode.number for episode in opened] == [0, 1, 2, 3, 4]
        assert [episode.number for episode in opened] == [0, 1, 2, 3, 4]
        assert len(opened) == 5


def test_ranks_share_a_finite_sampler(pets: ShardSet, sampler: RowSampler) -> None:
    five = RowSampler("pets", sampler.rows, episodes=5)
    for rank, numbers in ((0, [0, 2, 4]), (1, [1, 3])):
        with loader(pets, five, rank=rank, world=2) as opened:
            assert [episode.number for episode in opened] == numbers
            assert len(opened) == len(numbers)


# Look-ahead


def test_no_more_is_read_ahead_than_allowed(pets: ShardSet, sampler: RowSampler) -> None:
    watched = RowSampler("pets", sampler.rows, support=8, query=8)  # two chunks of eight, no H
    with loader(pets, watched, h=0, ahead=4) as opened:
        next(iter(opened))
        time.sleep(0.5)
        most = 1 + 4 + 4 + BURST_CHUNKS  # in hand, decoded, fetched, planned ahead
        assert len(watched.requested) <= most


def test_leaving_an_episode_unread_loses_nothing_of_the_next(
    pets: ShardSet, sampler: RowSampler, expected: list[tuple[int, str]]
) -> None:
    with loader(pets, sampler) as opened:
        episodes = iter(opened)
        for _ in range(7):
            next(episodes)
        found = next(episodes)
        assert [(7, chunk_digest(found, role, chunk)) for role, chunk in episode_chunks(found)] == [
            entry for entry in expected if entry[0] == 7
        ]


def test_reading_an_episode_that_was_left_is_an_error(pets: ShardSet, sampler: RowSampler) -> None:
    with loader(pets, sampler) as opened:
        episodes = iter(opened)
        left = next(episodes)
        next(episodes)
        with pytest.raises(UsageError, match=r"has left episode 0"):
            _ = left.support.images


# Damage


@pytest.mark.parametrize("mapped", [False, True])
def test_a_damaged_sample_is_an_error_that_names_it(copied: Path, *, mapped: bool) -> None:
    damage_sample(copied, 3)
    shards = ShardSet.open(copied)
    plans = PlanSampler([plan_of_rows("pets", [1, 2, 3, 4], [5])])
    with loader(shards, plans, mapped=mapped) as opened:
        with pytest.raises(IntegrityError, match=r"episode 0 .*1 of 4 .*shard-0000\d\d.tar"):
            _ = next(iter(opened)).support.images
        assert opened.stats.faults == 1


def test_a_damaged_sample_can_be_masked(copied: Path, caplog: pytest.LogCaptureFixture) -> None:
    damage_sample(copied, 3)
    shards = ShardSet.open(copied)
    plan = plan_of_rows("pets", [1, 2, 3, 4], [3])
    with caplog.at_level(logging.WARNING), loader(shards, PlanSampler([plan]), on_error="mask") as opened:
        episode = next(iter(opened))
        images, valid = episode.support.images, episode.support.valid
        (bad,) = torch.nonzero(episode.support.positions == 2).flatten().tolist()
        assert valid.tolist() == [at != bad for at in range(4)]
        assert not images[bad].any()
        assert [chunk.valid.tolist() for chunk in episode.query] == [[False]]
    assert len(caplog.records) == 1, "each sample is mentioned once"


def test_a_damaged_sample_can_be_replaced_by_one_of_its_class(copied: Path) -> None:
    row = damage_sample(copied, 3)
    shards = ShardSet.open(copied)
    plan = plan_of_rows("pets", [1, 2, row, 4], [5])
    seen = []
    for _ in range(2):
        with loader(shards, PlanSampler([plan]), on_error="replace") as opened:
            support = next(iter(opened)).support
            assert support.valid.all()
            seen.append(support.images[support.positions == 2])
    assert torch.equal(*seen)
    own = shards["pets"].index.rows_of(int(shards["pets"].index["class_id"][row]))
    others = [other for other in range(own.start, own.stop) if other not in (1, 2, row, 4, 5)]
    candidates = pixels(shards, 48, others)
    assert (candidates == seen[0]).flatten(1).all(1).any()


def test_a_class_without_another_sample_cannot_replace(copied: Path) -> None:
    shards = ShardSet.open(copied)
    own = shards["pets"].index.rows_of(2)
    rows = list(range(own.start, own.stop))
    damage_sample(copied, rows[0])
    with (
        loader(shards, PlanSampler([plan_of_rows("pets", rows, [])]), on_error="replace") as opened,
        pytest.raises(IntegrityError, match=r"no other sample of class 'owl'"),
    ):
        _ = next(iter(opened)).support.images


def test_too_much_damage_is_an_error_under_any_policy(copied: Path) -> None:
    shards = ShardSet.open(copied)
    for row in range(21):
        damage_sample(copied, row)
    with (
        loader(shards, PlanSampler([plan_of_rows("pets", list(range(60)), [])]), on_error="mask") as opened,
        pytest.raises(IntegrityError, match=r"21 of \d+ samples"),
    ):
        _ = next(iter(opened)).support.images


def test_a_shard_of_another_length_is_an_error_before_the_first_episode(
    copied: Path, sampler: RowSampler
) -> None:
    os.truncate(copied / "48" / "shard-000002.tar", 1000)
    shards = ShardSet.open(copied)
    with pytest.raises(IntegrityError, match=r"shard-000002\.tar has 1,000 bytes"):
        loader(shards, sampler)
    loader(shards, sampler, 24).close()
    loader(shards, sampler, on_error="mask").close()


def test_a_shard_truncated_while_running_is_an_error(copied: Path, sampler: RowSampler) -> None:
    shards = ShardSet.open(copied)
    with loader(shards, sampler, ahead=1) as opened:
        episodes = iter(opened)
        next(episodes)
        for tar in (copied / "48").glob("*.tar"):
            os.truncate(tar, 1000)
        with pytest.raises(IntegrityError, match=r"ends after"):
            [episode.support.images for episode in islice(episodes, 5)]


@pytest.mark.parametrize("mapped", [False, True])
def test_a_shard_deleted_before_it_is_opened_is_missing_under_any_policy(
    copied: Path, *, mapped: bool
) -> None:
    shards = ShardSet.open(copied)
    for tar in (copied / "48").glob("*.tar"):
        tar.unlink()
    with (
        loader(
            shards, PlanSampler([plan_of_rows("pets", [1], [2])]), on_error="mask", mapped=mapped
        ) as opened,
        pytest.raises(SourceMissing, match=r"file is gone"),
    ):
        _ = next(iter(opened)).support.images


def test_after_an_error_the_stream_goes_on_with_the_next_episode(copied: Path, sampler: RowSampler) -> None:
    damage_sample(copied, 3)
    shards = ShardSet.open(copied)
    good, bad = 0, 0
    with loader(shards, RowSampler("pets", sampler.rows, episodes=12)) as opened:
        for episode in opened:
            try:
                _ = episode.support.images, episode.query.images
                good += 1
            except IntegrityError:
                bad += 1
    assert bad > 0
    assert good + bad == 12


# A sampler of the user's own


class FailingSampler:
    """A sampler whose third episode fails."""

    def __init__(self, inner: RowSampler, trouble: Exception) -> None:
        self.inner = inner
        self.seed = inner.seed
        self.trouble = trouble

    def __getitem__(self, number: int) -> EpisodePlan:
        if number == 2:
            raise self.trouble
        return self.inner[number]


@pytest.mark.parametrize(
    ("trouble", "error"),
    [(RuntimeError("its own trouble"), "own trouble"), (StopIteration(), "StopIteration")],
)
def test_the_error_of_a_sampler_reaches_the_consumer_in_its_place(
    trouble: Exception, error: str, pets: ShardSet, sampler: RowSampler, expected: list[tuple[int, str]]
) -> None:
    with loader(pets, FailingSampler(sampler, trouble)) as opened:
        episodes = iter(opened)
        for number in range(2):
            found = next(episodes)
            assert [(number, chunk_digest(found, *chunk)) for chunk in episode_chunks(found)] == [
                entry for entry in expected if entry[0] == number
            ]
        with pytest.raises(RuntimeError, match=error):
            next(episodes)


@pytest.mark.parametrize(
    ("support", "labels", "message"),
    [
        ([1, 60], [0, 0], r"rows 0 to 59"),
        ([-1, 2], [0, 0], r"rows 0 to 59"),
        ([1, 2], [0, 1], r"labels are 0 to 0"),
    ],
)
def test_a_plan_that_cannot_be_is_refused(
    pets: ShardSet, support: list[int], labels: list[int], message: str
) -> None:
    plan = EpisodePlan(
        number=0,
        dataset="pets",
        classes=(0,),
        support=Side(np.array(support), np.array(labels)),
        query=Side(np.array([1]), np.array([0])),
    )
    with loader(pets, PlanSampler([plan])) as opened, pytest.raises(UsageError, match=message):
        next(iter(opened))


def test_a_plan_of_an_unknown_dataset_names_the_known_ones(pets: ShardSet) -> None:
    with (
        loader(pets, PlanSampler([plan_of_rows("dogs", [1], [2])])) as opened,
        pytest.raises(UsageError, match=r"no dataset 'dogs'.*pets"),
    ):
        next(iter(opened))


# Requests that contradict themselves


@pytest.mark.parametrize(
    "options", [{"chunk": 0}, {"h": -1}, {"ahead": 0}, {"rank": 2, "world": 2}, {"start": -1}, {"world": 0}]
)
def test_impossible_options_are_refused(pets: ShardSet, sampler: RowSampler, options: dict[str, int]) -> None:
    with pytest.raises(UsageError, match=next(iter(options))):
        loader(pets, sampler, **options)


def test_a_size_that_is_not_stored_names_those_that_are(pets: ShardSet, sampler: RowSampler) -> None:
    with pytest.raises(UsageError, match=r"pets holds 24, 48"):
        loader(pets, sampler, 84)


def test_an_unknown_policy_decoder_or_device_is_refused(pets: ShardSet, sampler: RowSampler) -> None:
    wrong: list[dict[str, Any]] = [{"on_error": "ignore"}, {"decoder": "magic"}, {"device": "meta"}]
    for options in wrong:
        with pytest.raises(PipelineError):
            loader(pets, sampler, **options)


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_a_missing_gpu_is_refused_at_once(pets: ShardSet, sampler: RowSampler) -> None:
    with pytest.raises(UsageError, match=r"needs a GPU"):
        loader(pets, sampler, device="cuda")


# Beginning and end


def open_files() -> set[str]:
    found = set()
    for entry in Path("/proc/self/fd").iterdir():
        try:
            found.add(str(entry.readlink()))
        except OSError:
            continue
    return found


def own_threads() -> list[str]:
    return [t.name for t in threading.enumerate() if t.name.startswith(("episodes", "decode"))]


@pytest.mark.parametrize("state", ["fresh", "waiting", "half", "ended"])
@pytest.mark.parametrize("decoder", ["turbo", "turbo mapped", "dali"])
def test_closing_in_any_state_leaves_no_thread_and_no_file(
    pets: ShardSet, sampler: RowSampler, state: str, decoder: str
) -> None:
    if decoder == "dali":
        pytest.importorskip("nvidia.dali", reason="needs pip install -e '.[dali]'")
    few = RowSampler("pets", sampler.rows, episodes=3)
    decoder, _, mapped = decoder.partition(" ")
    opened = loader(pets, few, decoder=decoder, mapped=bool(mapped))
    episodes: Iterator[Any] = iter(opened)
    if state != "fresh":
        episode = next(episodes)
        if state == "half":
            _ = episode.support.images
        if state == "ended":
            list(episodes)
    opened.close()
    opened.close()
    assert own_threads() == []
    assert not [path for path in open_files() if path.endswith(".tar")]
    with pytest.raises(UsageError, match=r"closed"):
        next(iter(opened))


def test_a_loader_that_is_forgotten_ends_its_threads(pets: ShardSet, sampler: RowSampler) -> None:
    opened = loader(pets, sampler)
    next(iter(opened))
    gone = weakref.ref(opened)
    del opened
    gc.collect()
    assert gone() is None
    assert own_threads() == []


def test_memory_is_used_again(pets: ShardSet, sampler: RowSampler) -> None:
    """Without a garbage collection: nothing that holds pixels is part of a circle."""
    gc.collect()
    gc.disable()
    try:
        with loader(pets, sampler, 24) as opened:
            seen: set[int] = set()
            for episode in islice(opened, 200):
                seen.add(episode.support.images.data_ptr())
                _ = episode.query.images
    finally:
        gc.enable()
    assert len(seen) < 20


def test_a_forked_child_must_open_a_loader_of_its_own(pets: ShardSet, sampler: RowSampler) -> None:
    with loader(pets, sampler) as opened:
        opened._process += 1
        with pytest.raises(UsageError, match=r"another process"):
            next(iter(opened))


def test_the_time_spent_waiting_is_measured(pets: ShardSet, sampler: RowSampler) -> None:
    with loader(pets, sampler) as opened:
        for episode in islice(opened, 5):
            _ = episode.support.images, episode.query.images
        before = opened.stats
        for episode in islice(opened, 2):
            _ = episode.support.images, episode.query.images
            time.sleep(0.1)
        spent = opened.stats - before
    assert before.episodes == 5
    assert before.images == 5 * 32
    assert (spent.episodes, spent.images) == (2, 64)
    assert spent.elapsed >= 0.2
    assert 0 <= spent.waiting < spent.elapsed - 0.19
    assert before.decoding > 0
    assert "waiting for data" in str(spent)
