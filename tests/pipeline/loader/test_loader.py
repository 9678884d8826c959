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

from pipeline.decoders.base import Job
from pipeline.decoders.fill import Filler
from pipeline.episodes import EpisodePlan, Side, choose_h
from pipeline.errors import IntegrityError, PipelineError, SourceMissing, UsageError
from pipeline.loader.loader import EpisodeLoader
from pipeline.loader.stream import BURST
from pipeline.shardset import ShardSet
from pipeline.store.local import spots_of
from tests.episodes import Draw, Plans, chunks, digest, digests, plan_of

EPISODES = 50


@pytest.fixture(scope="module")
def pets(built: Path) -> ShardSet:
    return ShardSet.open(built)


@pytest.fixture(scope="module")
def draw(pets: ShardSet) -> Draw:
    return Draw("pets", len(pets["pets"].index))


def loader(shards: ShardSet, sampler: Any, size: int = 48, **options: Any) -> EpisodeLoader:
    """Small chunks, so that an episode has several."""
    return EpisodeLoader(
        shards, sampler, image_size=size, **{"h": 5, "chunk": 8, "threads": 2, **options}
    )


@pytest.fixture(scope="module")
def expected(pets: ShardSet, draw: Draw) -> list[tuple[int, str]]:
    with loader(pets, draw, threads=1, ahead=1) as opened:
        return digests(opened, EPISODES)


def pixels(shards: ShardSet, size: int, rows: list[int]) -> torch.Tensor:
    """Read and decoded one by one, NCHW."""
    store = shards.open_store()
    spots = spots_of(shards["pets"], size, np.array(rows))
    job = Job(spots, torch.empty(len(rows), size, size, 3, dtype=torch.uint8))
    assert Filler(store).fill(job, 0, len(rows)) == []
    store.close()
    return job.out.permute(0, 3, 1, 2)


@pytest.fixture
def mended(built: Path, tmp_path: Path) -> Path:
    """A copy of the set, to be damaged."""
    return Path(shutil.copytree(built, tmp_path / "pets"))


def damage(root: Path, row: int, size: int = 48) -> int:
    """Flip a byte in the middle of a sample's picture."""
    dataset = ShardSet.open(root)["pets"]
    spots = spots_of(dataset, size, np.array([row]))
    with spots.file(0).open("r+b") as file:
        file.seek(spots.offsets[0] + spots.lengths[0] // 2)
        byte = file.read(1)[0]
        file.seek(-1, os.SEEK_CUR)
        file.write(bytes([byte ^ 0xFF]))
    return row


# What is delivered


@pytest.mark.parametrize("size", [24, 48])
def test_every_image_is_that_of_its_row_under_its_label(
    pets: ShardSet, draw: Draw, size: int
) -> None:
    with loader(pets, draw, size) as opened:
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
    pets: ShardSet, draw: Draw
) -> None:
    with loader(pets, draw) as opened:
        for episode in islice(opened, 5):
            support = episode.support
            assert sorted(support.h.positions) == choose_h(episode.plan, 5, draw.seed).tolist()
            assert [len(chunk) for chunk in support.rest] == [8, 7]
            assert sorted(support.positions.tolist()) == list(range(20))
            joined = torch.cat([support.h.images, *(chunk.images for chunk in support.rest)])
            assert torch.equal(support.images, joined)
            assert support.images.data_ptr() == support.h.images.data_ptr()


@pytest.mark.parametrize(("h", "sizes"), [(0, [0, 8, 8, 4]), (20, [20]), (1000, [20])])
def test_h_may_be_nothing_or_everything(
    pets: ShardSet, draw: Draw, h: int, sizes: list[int]
) -> None:
    with loader(pets, draw, h=h) as opened:
        support = next(iter(opened)).support
        assert [len(support.h), *map(len, support.rest)] == sizes
        assert support.h.images.shape[1:] == (3, 48, 48)


def test_images_are_uint8_and_channels_last_without_a_copy(pets: ShardSet, draw: Draw) -> None:
    with loader(pets, draw) as opened:
        images = next(iter(opened)).support.images
    assert images.dtype == torch.uint8
    assert images.is_contiguous(memory_format=torch.channels_last)


def test_queries_may_be_read_first_and_again(pets: ShardSet, draw: Draw) -> None:
    with loader(pets, draw, ahead=1) as opened:
        episode = next(iter(opened))
        first = [chunk.images.clone() for chunk in episode.query]
        again = [chunk.images for chunk in episode.query]
        assert all(map(torch.equal, first, again))
        assert len(episode.support.images) == 20


def test_a_side_without_images_is_empty_and_not_an_error(pets: ShardSet) -> None:
    with loader(pets, Plans([plan_of("pets", [1, 2], [])])) as opened:
        episode = next(iter(opened))
        assert list(episode.query) == []
        assert episode.query.images.shape == (0, 3, 48, 48)


def test_a_side_beyond_memory_streams_past_once(pets: ShardSet) -> None:
    rows = [n % 60 for n in range(3000)]
    with loader(pets, Plans([plan_of("pets", rows, rows)]), 24, chunk=256) as opened:
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
    with loader(pets, Plans([plan_of("pets", [1], rows)]), 24, chunk=512) as opened:
        query = next(iter(opened)).query
        images, positions = query.images, query.positions
    assert torch.equal(images, pixels(pets, 24, [rows[at] for at in positions]))


def test_clips_stay_whole_in_every_chunk(pets: ShardSet, draw: Draw) -> None:
    clips = Draw("pets", draw.rows, clip=4)
    with loader(pets, clips, chunk=10, h=2) as opened:
        episode = next(iter(opened))
        for _, chunk in chunks(episode):
            assert len(chunk) % 4 == 0
            starts = chunk.positions.view(-1, 4)
            assert (starts[:, :1] % 4 == 0).all()
            assert torch.equal(starts - starts[:, :1], torch.arange(4).expand_as(starts))
        assert len(episode.support.h) == 8


def test_what_was_handed_out_is_never_overwritten(pets: ShardSet, draw: Draw) -> None:
    held = []
    with loader(pets, draw, 24) as opened:
        for episode in islice(opened, 40):
            for role, chunk in chunks(episode):
                held.append((episode, role, chunk, digest(episode, role, chunk)))
    assert all(digest(episode, role, chunk) == then for episode, role, chunk, then in held)


# The same stream, whatever the machine


@pytest.mark.parametrize("threads", [1, 2, 4])
@pytest.mark.parametrize("ahead", [1, 4, 16])
def test_threads_and_look_ahead_do_not_change_a_bit(
    pets: ShardSet, draw: Draw, expected: object, threads: int, ahead: int
) -> None:
    with loader(pets, draw, threads=threads, ahead=ahead) as opened:
        assert digests(opened, EPISODES) == expected


@pytest.mark.parametrize("size", [24, 48])
@pytest.mark.parametrize("decoder", ["turbo", "dali"])
def test_mapped_shards_deliver_the_same_bits(
    pets: ShardSet, draw: Draw, size: int, decoder: str
) -> None:
    if decoder == "dali":
        pytest.importorskip("nvidia.dali", reason="needs pip install -e '.[dali]'")
    options = {"decoder": decoder}
    with (
        loader(pets, draw, size, **options) as one,
        loader(pets, draw, size, mapped=True, **options) as other,
    ):
        assert digests(one, EPISODES) == digests(other, EPISODES)


def test_dali_delivers_the_same_bits(pets: ShardSet, draw: Draw, expected: object) -> None:
    pytest.importorskip("nvidia.dali", reason="needs pip install -e '.[dali]'")
    with loader(pets, draw, decoder="dali") as opened:
        assert digests(opened, EPISODES) == expected


@pytest.mark.parametrize("world", [2, 4])
def test_ranks_share_the_same_stream(
    pets: ShardSet, draw: Draw, expected: list[tuple[int, str]], world: int
) -> None:
    found: list[tuple[int, str]] = []
    for rank in range(world):
        with loader(pets, draw, rank=rank, world=world) as opened:
            found += digests(opened, len(range(rank, EPISODES, world)))
    assert sorted(found, key=lambda entry: entry[0]) == expected


def test_a_stream_resumed_at_any_chunk_goes_on_bit_for_bit(pets: ShardSet, draw: Draw) -> None:
    """Interrupted within an episode, that episode comes again whole; after its last chunk, the next."""
    with loader(pets, draw, 24) as opened:
        whole = digests(opened, EPISODES + 2)
    with loader(pets, draw, 24) as opened, loader(pets, draw, 24) as other:
        states: list[tuple[int, dict[str, int]]] = []
        for episode in islice(opened, EPISODES):
            states.append((episode.number, opened.state_dict()))
            states += [(episode.number, opened.state_dict()) for _ in chunks(episode)]
        assert len(states) > 5 * EPISODES
        for interrupted, state in states:
            assert state["episode"] in (interrupted, interrupted + 1)
            other.load_state_dict(state)
            following = [entry for entry in whole if entry[0] >= state["episode"]]
            assert digests(other, 2) == [e for e in following if e[0] < state["episode"] + 2]


def test_a_state_suits_any_number_of_ranks(pets: ShardSet, draw: Draw) -> None:
    with loader(pets, draw, world=2, rank=1) as opened:
        for episode in islice(opened, 3):
            list(episode.query)
        state = opened.state_dict()
    assert state == {"seed": 7, "episode": 6}
    with loader(pets, draw, world=3, rank=2) as opened:
        opened.load_state_dict(state)
        assert [episode.number for episode in islice(opened, 2)] == [8, 11]


def test_an_interrupted_episode_is_not_counted_as_done(pets: ShardSet, draw: Draw) -> None:
    with loader(pets, draw) as opened:
        episode = next(iter(opened))
        assert opened.state_dict()["episode"] == 0
        _ = episode.support.images
        assert opened.state_dict()["episode"] == 0
        list(episode.query)
        assert opened.state_dict()["episode"] == 1


def test_a_state_of_another_seed_is_refused(pets: ShardSet, draw: Draw) -> None:
    with loader(pets, draw) as opened, pytest.raises(UsageError, match=r"seed 8"):
        opened.load_state_dict({"seed": 8, "episode": 3})


def test_the_memory_format_of_the_shards_does_not_matter_to_the_order(
    pets: ShardSet, draw: Draw
) -> None:
    with loader(pets, draw, 24) as raw, loader(pets, draw, 48) as jpeg:
        for one, other in zip(islice(raw, 5), islice(jpeg, 5), strict=True):
            assert torch.equal(one.support.positions, other.support.positions)


# A finite sampler


def test_a_finite_sampler_ends_and_starts_again(pets: ShardSet, draw: Draw) -> None:
    five = Draw("pets", draw.rows, episodes=5)
    with loader(pets, five) as opened:
        assert [episode.number for episode in opened] == [0, 1, 2, 3, 4]
        assert [episode.number for episode in opened] == [0, 1, 2, 3, 4]
        assert len(opened) == 5


def test_ranks_share_a_finite_sampler(pets: ShardSet, draw: Draw) -> None:
    five = Draw("pets", draw.rows, episodes=5)
    for rank, numbers in ((0, [0, 2, 4]), (1, [1, 3])):
        with loader(pets, five, rank=rank, world=2) as opened:
            assert [episode.number for episode in opened] == numbers
            assert len(opened) == len(numbers)


# Look-ahead


def test_no_more_is_read_ahead_than_allowed(pets: ShardSet, draw: Draw) -> None:
    watched = Draw("pets", draw.rows, support=8, query=8)  # two chunks of eight, no H
    with loader(pets, watched, h=0, ahead=4) as opened:
        next(iter(opened))
        time.sleep(0.5)
        assert len(watched.asked) <= 1 + 4 + 4 + BURST  # in hand, decoded, fetched, planned ahead


def test_leaving_an_episode_unread_costs_nothing_of_the_next(
    pets: ShardSet, draw: Draw, expected: list[tuple[int, str]]
) -> None:
    with loader(pets, draw) as opened:
        episodes = iter(opened)
        for _ in range(7):
            next(episodes)
        found = next(episodes)
        assert [(7, digest(found, role, chunk)) for role, chunk in chunks(found)] == [
            entry for entry in expected if entry[0] == 7
        ]


def test_an_episode_that_was_left_says_so(pets: ShardSet, draw: Draw) -> None:
    with loader(pets, draw) as opened:
        episodes = iter(opened)
        left = next(episodes)
        next(episodes)
        with pytest.raises(UsageError, match=r"has left episode 0"):
            _ = left.support.images


# Damage


@pytest.mark.parametrize("mapped", [False, True])
def test_a_damaged_sample_is_an_error_that_names_it(mended: Path, *, mapped: bool) -> None:
    damage(mended, 3)
    shards = ShardSet.open(mended)
    plans = Plans([plan_of("pets", [1, 2, 3, 4], [5])])
    with loader(shards, plans, mapped=mapped) as opened:
        with pytest.raises(IntegrityError, match=r"episode 0 .*1 of 4 .*shard-0000\d\d.tar"):
            _ = next(iter(opened)).support.images
        assert opened.stats.faults == 1


def test_a_damaged_sample_can_be_masked(mended: Path, caplog: pytest.LogCaptureFixture) -> None:
    damage(mended, 3)
    shards = ShardSet.open(mended)
    plan = plan_of("pets", [1, 2, 3, 4], [3])
    with caplog.at_level(logging.WARNING), loader(shards, Plans([plan]), on_error="mask") as opened:
        episode = next(iter(opened))
        images, valid = episode.support.images, episode.support.valid
        (bad,) = torch.nonzero(episode.support.positions == 2).flatten().tolist()
        assert valid.tolist() == [at != bad for at in range(4)]
        assert not images[bad].any()
        assert [chunk.valid.tolist() for chunk in episode.query] == [[False]]
    assert len(caplog.records) == 1, "each sample is mentioned once"


def test_a_damaged_sample_can_be_replaced_by_one_of_its_class(mended: Path) -> None:
    row = damage(mended, 3)
    shards = ShardSet.open(mended)
    plan = plan_of("pets", [1, 2, row, 4], [5])
    seen = []
    for _ in range(2):
        with loader(shards, Plans([plan]), on_error="replace") as opened:
            support = next(iter(opened)).support
            assert support.valid.all()
            seen.append(support.images[support.positions == 2])
    assert torch.equal(*seen)
    own = shards["pets"].index.rows_of(int(shards["pets"].index["class_id"][row]))
    others = [other for other in range(own.start, own.stop) if other not in (1, 2, row, 4, 5)]
    candidates = pixels(shards, 48, others)
    assert (candidates == seen[0]).flatten(1).all(1).any()


def test_a_class_without_another_sample_cannot_replace(mended: Path) -> None:
    shards = ShardSet.open(mended)
    own = shards["pets"].index.rows_of(2)
    rows = list(range(own.start, own.stop))
    damage(mended, rows[0])
    with (
        loader(shards, Plans([plan_of("pets", rows, [])]), on_error="replace") as opened,
        pytest.raises(IntegrityError, match=r"no other sample of class 'owl'"),
    ):
        _ = next(iter(opened)).support.images


def test_too_much_damage_is_an_error_under_any_policy(mended: Path) -> None:
    shards = ShardSet.open(mended)
    for row in range(21):
        damage(mended, row)
    with (
        loader(shards, Plans([plan_of("pets", list(range(60)), [])]), on_error="mask") as opened,
        pytest.raises(IntegrityError, match=r"21 of \d+ samples"),
    ):
        _ = next(iter(opened)).support.images


def test_a_shard_truncated_while_running_is_an_error(mended: Path, draw: Draw) -> None:
    shards = ShardSet.open(mended)
    with loader(shards, draw, ahead=1) as opened:
        episodes = iter(opened)
        next(episodes)
        for tar in (mended / "48").glob("*.tar"):
            os.truncate(tar, 1000)
        with pytest.raises(IntegrityError, match=r"ends after"):
            [episode.support.images for episode in islice(episodes, 5)]


@pytest.mark.parametrize("mapped", [False, True])
def test_a_shard_deleted_before_it_is_opened_is_missing_under_any_policy(
    mended: Path, *, mapped: bool
) -> None:
    shards = ShardSet.open(mended)
    for tar in (mended / "48").glob("*.tar"):
        tar.unlink()
    with (
        loader(
            shards, Plans([plan_of("pets", [1], [2])]), on_error="mask", mapped=mapped
        ) as opened,
        pytest.raises(SourceMissing, match=r"file is gone"),
    ):
        _ = next(iter(opened)).support.images


def test_after_an_error_the_stream_goes_on_with_the_next_episode(mended: Path, draw: Draw) -> None:
    damage(mended, 3)
    shards = ShardSet.open(mended)
    good, bad = 0, 0
    with loader(shards, Draw("pets", draw.rows, episodes=12)) as opened:
        for episode in opened:
            try:
                _ = episode.support.images, episode.query.images
                good += 1
            except IntegrityError:
                bad += 1
    assert bad > 0
    assert good + bad == 12


# A sampler of the user's own


class Broken:
    """A sampler whose third episode fails."""

    def __init__(self, inner: Draw, trouble: Exception) -> None:
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
    trouble: Exception,
    error: str,
    pets: ShardSet,
    draw: Draw,
    expected: list[tuple[int, str]],
) -> None:
    with loader(pets, Broken(draw, trouble)) as opened:
        episodes = iter(opened)
        for number in range(2):
            found = next(episodes)
            assert [(number, digest(found, *chunk)) for chunk in chunks(found)] == [
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
    with loader(pets, Plans([plan])) as opened, pytest.raises(UsageError, match=message):
        next(iter(opened))


def test_a_plan_of_an_unknown_dataset_names_the_known_ones(pets: ShardSet) -> None:
    with (
        loader(pets, Plans([plan_of("dogs", [1], [2])])) as opened,
        pytest.raises(UsageError, match=r"no dataset 'dogs'.*pets"),
    ):
        next(iter(opened))


# Requests that contradict themselves


@pytest.mark.parametrize(
    "options",
    [{"chunk": 0}, {"h": -1}, {"ahead": 0}, {"rank": 2, "world": 2}, {"start": -1}, {"world": 0}],
)
def test_impossible_options_are_refused(
    pets: ShardSet, draw: Draw, options: dict[str, int]
) -> None:
    with pytest.raises(UsageError, match=next(iter(options))):
        loader(pets, draw, **options)


def test_a_size_that_is_not_stored_names_those_that_are(pets: ShardSet, draw: Draw) -> None:
    with pytest.raises(UsageError, match=r"pets holds 24, 48"):
        loader(pets, draw, 84)


def test_an_unknown_policy_decoder_or_device_is_refused(pets: ShardSet, draw: Draw) -> None:
    wrong: list[dict[str, Any]] = [
        {"on_error": "ignore"},
        {"decoder": "magic"},
        {"device": "meta"},
    ]
    for options in wrong:
        with pytest.raises(PipelineError):
            loader(pets, draw, **options)


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_a_missing_gpu_is_said_at_once(pets: ShardSet, draw: Draw) -> None:
    with pytest.raises(UsageError, match=r"needs a GPU"):
        loader(pets, draw, device="cuda")


# Beginning and end


def descriptors() -> set[str]:
    found = set()
    for entry in Path("/proc/self/fd").iterdir():
        try:
            found.add(str(entry.readlink()))
        except OSError:
            continue
    return found


def ours() -> list[str]:
    return [t.name for t in threading.enumerate() if t.name.startswith(("episodes", "decode"))]


@pytest.mark.parametrize("state", ["fresh", "waiting", "half", "ended"])
@pytest.mark.parametrize("decoder", ["turbo", "turbo mapped", "dali"])
def test_closing_in_any_state_leaves_no_thread_and_no_file(
    pets: ShardSet, draw: Draw, state: str, decoder: str
) -> None:
    if decoder == "dali":
        pytest.importorskip("nvidia.dali", reason="needs pip install -e '.[dali]'")
    few = Draw("pets", draw.rows, episodes=3)
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
    assert ours() == []
    assert not [path for path in descriptors() if path.endswith(".tar")]
    with pytest.raises(UsageError, match=r"closed"):
        next(iter(opened))


def test_a_loader_that_is_forgotten_ends_its_threads(pets: ShardSet, draw: Draw) -> None:
    opened = loader(pets, draw)
    next(iter(opened))
    gone = weakref.ref(opened)
    del opened
    gc.collect()
    assert gone() is None
    assert ours() == []


def test_memory_is_used_again(pets: ShardSet, draw: Draw) -> None:
    """Without a garbage collection: nothing that holds pixels is part of a circle."""
    gc.collect()
    gc.disable()
    try:
        with loader(pets, draw, 24) as opened:
            seen: set[int] = set()
            for episode in islice(opened, 200):
                seen.add(episode.support.images.data_ptr())
                _ = episode.query.images
    finally:
        gc.enable()
    assert len(seen) < 20


def test_a_forked_child_is_told_to_open_its_own(pets: ShardSet, draw: Draw) -> None:
    with loader(pets, draw) as opened:
        opened._process += 1
        with pytest.raises(UsageError, match=r"another process"):
            next(iter(opened))


def test_the_time_spent_waiting_is_measured(pets: ShardSet, draw: Draw) -> None:
    with loader(pets, draw) as opened:
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
