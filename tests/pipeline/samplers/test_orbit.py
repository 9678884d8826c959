"""ORBIT's tasks have the published counts and laws, and depend on seed and number alone."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy.stats import chi2_contingency, chisquare

from pipeline.build.builder import build_shards
from pipeline.episodes import EpisodePlan, Side, choose_h
from pipeline.errors import UsageError
from pipeline.records import Encoding, Recipe
from pipeline.samplers.orbit.sampler import Orbit
from pipeline.shardset import ShardSet
from pipeline.sources.orbit.source import OrbitSource
from tests.pipeline.samplers.orbit_sets import (
    TEST_WAYS,
    OrbitVideo,
    absence_flags,
    benchmark_videos,
    orbit_set,
)
from tests.pipeline.sources.orbit.tree import annotate, make_orbit, video_name, write_frames

Ints = NDArray[np.int64]


@pytest.fixture(scope="module")
def test_set() -> ShardSet:
    return orbit_set(benchmark_videos("test"), absence_flags(benchmark_videos("test"), {}))


@pytest.fixture(scope="module")
def train_set() -> ShardSet:
    return orbit_set(benchmark_videos("train"))


def user_videos(
    clean: Sequence[int] = (40, 40), clutter: Sequence[int] = (60,), user: str = "P1", things: int = 2
) -> list[OrbitVideo]:
    """One user's objects, each with videos of these lengths."""
    return [
        OrbitVideo(user, f"thing {t}", kind, n, frames)
        for t in range(things)
        for kind, lengths in (("clean", clean), ("clutter", clutter))
        for n, frames in enumerate(lengths)
    ]


def as_train(films: Sequence[OrbitVideo]) -> list[OrbitVideo]:
    return [film._replace(split="train") for film in films]


def videos(sampler: Orbit, side: Side) -> dict[str, list[int]]:
    """The frames of each video, in the order of the side."""
    index = sampler.dataset.index
    found: dict[str, list[int]] = {}
    for group, frame in zip(index["group"][side.rows], index["frame"][side.rows], strict=True):
        found.setdefault(index.words["group"][group], []).append(int(frame))
    return found


def clips(sampler: Orbit, plan: EpisodePlan, side: Side) -> Iterator[tuple[str, list[int], int]]:
    """Video, frames and label of each clip."""
    index = sampler.dataset.index
    for rows, labels in zip(
        side.rows.reshape(-1, plan.clip), side.labels.reshape(-1, plan.clip), strict=True
    ):
        groups = {index.text("group", row) for row in rows}
        assert len(groups) == 1
        assert len(set(labels.tolist())) == 1
        yield groups.pop(), index["frame"][rows].tolist(), int(labels[0])


def check_plan(sampler: Orbit, plan: EpisodePlan) -> None:
    """What holds for every plan: kinds, labels, one user, nothing of the query in the support."""
    index, records = sampler.dataset.index, sampler.dataset.manifest.classes
    assert list(plan.classes) == sorted(plan.classes)
    assert plan.support.labels.dtype == plan.query.rows.dtype == np.int64
    for side in (plan.support, plan.query):
        assert (np.array(plan.classes)[side.labels] == index["class_id"][side.rows]).all()
        assert set(side.labels.tolist()) == set(range(plan.way))
        assert len(side) % plan.clip == 0 or side is plan.query
    assert {records[c].split for c in plan.classes} == {sampler.split}
    if sampler.rules.centre == "user":
        assert {records[c].superclass for c in plan.classes} == {sampler.user_of(plan.number)}
    assert index.is_word("kind", "clean")[plan.support.rows].all()
    kind = "clutter" if sampler.rules.mode == "clu-ve" else "clean"
    assert index.is_word("kind", kind)[plan.query.rows].all()
    groups = [set(index["group"][side.rows].tolist()) for side in (plan.support, plan.query)]
    assert groups[0].isdisjoint(groups[1])


@pytest.mark.parametrize(("mode", "query_videos"), [("cle-ve", 181), ("clu-ve", 300)])
def test_the_2021_test_has_the_published_tasks_ways_and_videos(
    test_set: ShardSet, mode: str, query_videos: int
) -> None:
    sampler = Orbit(test_set, split="test", mode=mode)
    assert len(sampler) == 85
    plans = [sampler[number] for number in range(85)]
    for plan in plans:
        check_plan(sampler, plan)
    ways = {sampler.user_of(plan.number): plan.way for plan in plans}
    assert ways == dict(sorted(TEST_WAYS.items()))
    assert sum(len(videos(sampler, plan.query)) for plan in plans) == 5 * query_videos
    support = {"cle-ve": 717, "clu-ve": 898}[mode]
    assert sum(len(videos(sampler, plan.support)) for plan in plans) == 5 * support
    assert sum(len(plan.support) for plan in plans) == 5 * support * 8 * 8
    assert {plan.clip for plan in plans} == {8}
    assert {plan.query_clips for plan in plans} == {"sliding"}


def test_the_2021_support_is_3040_frames_on_average(test_set: ShardSet) -> None:
    frames = [
        len(Orbit(test_set, split="test", mode=mode)[number].support)
        for mode in ("cle-ve", "clu-ve")
        for number in range(0, 85, 5)
    ]
    assert round(float(np.mean(frames))) == 3040


def test_the_published_splits_have_their_users_objects_and_videos(
    test_set: ShardSet, train_set: ShardSet
) -> None:
    valid_set = orbit_set(benchmark_videos("validation"))
    found = [
        repr(Orbit(shards, split=split))
        for split, shards in (("train", train_set), ("validation", valid_set), ("test", test_set))
    ]
    assert "44 users, 278 objects, 2,277 videos, 2,200 tasks an epoch; 0 left out" in found[0]
    assert "6 users, 50 objects, 347 videos, 30 tasks in all; 0 left out" in found[1]
    assert "17 users, 158 objects, 1,198 videos, 85 tasks in all; 0 left out" in found[2]


def test_a_users_2021_tasks_share_the_query_and_differ_in_the_support(test_set: ShardSet) -> None:
    sampler = Orbit(test_set, split="test")
    plans = [sampler[number] for number in range(10)]
    for first in (0, 5):
        same = plans[first : first + 5]
        assert len({plan.query.rows.tobytes() for plan in same}) == 1
        assert len({plan.support.rows.tobytes() for plan in same}) == 5
    assert plans[0].query.rows.tobytes() != plans[5].query.rows.tobytes()


def test_a_2021_query_is_every_frame_in_order_and_one_to_eight_copies_of_the_last() -> None:
    lengths = (1, 7, 8, 9, 1000, 1001, 1203)
    sampler = Orbit(orbit_set(user_videos(clutter=lengths, things=1)), split="test")
    found = list(videos(sampler, sampler[0].query).values())
    assert [len(frames) for frames in found] == [8, 8, 16, 16, 1008, 1008, 1008]
    for length, frames in zip(lengths, found, strict=True):
        used = min(length, 1000)
        assert frames == [*range(1, used + 1), *[used] * (len(frames) - used)]


def test_minimal_padding_leaves_a_sliding_query_as_it_is() -> None:
    lengths = (1, 7, 8, 9, 1203)
    films = orbit_set(user_videos(clutter=lengths, things=1))
    sampler = Orbit(films, split="test", padding="minimal", support_clip_count=5)
    plan = sampler[0]
    found = list(videos(sampler, plan.query).values())
    assert found == [list(range(1, min(length, 1000) + 1)) for length in lengths]
    assert {tuple(frames) for _, frames, _ in clips(sampler, plan, plan.support)} == {
        tuple(range(start, start + 8)) for start in range(1, 41, 8)
    }


def test_a_training_task_of_2021_has_four_whole_clips_of_each_video(train_set: ShardSet) -> None:
    sampler = Orbit(train_set, split="train")
    for number in range(0, 20_000, 997):
        plan = sampler[number]
        check_plan(sampler, plan)
        assert plan.query_clips == "blocks"
        assert 2 <= plan.way <= 11
        for side in (plan.support, plan.query):
            seen = [(video, tuple(frames)) for video, frames, _ in clips(sampler, plan, side)]
            assert set(Counter(video for video, _ in seen).values()) == {4}
            assert len(set(seen)) == len(seen)
            counts = Counter(label for _, _, label in clips(sampler, plan, side))
            assert max(counts.values()) <= 4 * 15
            for _, frames in seen:
                steps = np.diff(frames)
                assert frames[0] % 8 == 1 or set(frames) == {frames[0]}
                assert ((steps == 1) | (steps == 0)).all()
                assert not (np.diff(steps) > 0).any()


def test_clips_and_labels_are_mixed_in_a_support_and_in_a_training_query(train_set: ShardSet) -> None:
    sampler = Orbit(train_set, split="train")
    plans = [sampler[number] for number in range(30)]
    for sides in ([plan.support for plan in plans], [plan.query for plan in plans]):
        falls = sum(int((np.diff(side.labels[::8]) < 0).sum()) for side in sides)
        assert falls > sum(map(len, sides)) / 8 / 4


@pytest.mark.parametrize(
    ("frames", "padding", "doubled"),
    [(31, "official", 0), (24, "official", 0), (23, "official", 8), (10, "official", 16),
     (1, "official", 24), (32, "minimal", 0), (24, "minimal", 8)],
)  # fmt: skip
def test_a_short_video_gives_frames_again_in_order(frames: int, padding: str, doubled: int) -> None:
    films = as_train(user_videos(clean=[frames], clutter=[60]))
    sampler = Orbit(orbit_set(films), split="train", padding=padding)
    for number in range(20):
        found = videos(sampler, sampler[number].support)
        for shuffled in found.values():
            used = Counter(shuffled)
            pad = 32 - doubled - frames
            assert sum(used.values()) == 32
            assert set(used) == set(range(1, frames + 1))
            again = used - Counter(range(1, frames + 1)) - Counter({frames: pad})
            assert sum(again.values()) == doubled
            if doubled <= frames:
                assert max(again.values(), default=0) <= 1
        plan = sampler[number]
        for _, clip, _ in clips(sampler, plan, plan.support):
            assert clip == sorted(clip)


def test_every_clip_of_a_video_is_drawn_equally_often() -> None:
    sampler = Orbit(orbit_set(as_train(user_videos(clean=[75], clutter=[60]))), split="train")
    starts = Counter(
        frames[0]
        for number in range(1500)
        for plan in [sampler[number]]
        for _, frames, _ in clips(sampler, plan, plan.support)
    )
    assert sorted(starts) == list(range(1, 76, 8))
    counts = list(starts.values())
    # the spread of draws without replacement is below the test's; a bias would still show
    assert chisquare(counts).pvalue > 0.01


def test_way_and_shots_of_training_are_uniform() -> None:
    films = as_train(user_videos(clean=[31] * 17, clutter=[31] * 3, things=17))
    sampler = Orbit(orbit_set(films), split="train")
    ways: Counter[int] = Counter()
    shots: Counter[int] = Counter()
    query: Counter[int] = Counter()
    for number in range(2000):
        plan = sampler[number]
        ways[plan.way] += 1
        shots.update((np.bincount(plan.support.labels) // 32).tolist())
        query.update((np.bincount(plan.query.labels) // 32).tolist())
    assert sorted(ways) == list(range(2, 16))
    assert sorted(shots) == list(range(1, 16))
    assert sorted(query) == [1, 2, 3]
    for counts in (ways, shots, query):
        assert chisquare(list(counts.values())).pvalue > 0.01


def test_training_has_the_sizes_of_a_plain_loop_over_the_description(train_set: ShardSet) -> None:
    sampler = Orbit(train_set, split="train", seed=7)
    plans = [sampler[number] for number in range(2200)]
    ours = [
        Counter(plan.way for plan in plans),
        Counter(len(plan.support) // 32 // 5 for plan in plans),
        Counter(len(plan.query) // 32 // 3 for plan in plans),
    ]
    rng = random.Random(5)
    things: dict[str, dict[str, Counter[str]]] = {}
    for film in benchmark_videos("train"):
        things.setdefault(film.user, {}).setdefault(film.thing, Counter())[film.kind] += 1
    theirs: list[Counter[int]] = [Counter(), Counter(), Counter()]
    for user in sorted(things) * 50:
        chosen = rng.sample(sorted(things[user]), rng.randint(2, min(len(things[user]), 15)))
        sizes = [
            sum(rng.randint(1, min(things[user][thing][kind], 15)) for thing in chosen)
            for kind in ("clean", "clutter")
        ]
        for counter, value in zip(theirs, (len(chosen), sizes[0] // 5, sizes[1] // 3), strict=True):
            counter[value] += 1
    for mine, other in zip(ours, theirs, strict=True):
        values = [v for v in {*mine, *other} if mine[v] + other[v] >= 10]
        table = [[counter[v] for v in values] for counter in (mine, other)]
        assert chi2_contingency(table).pvalue > 0.01


def test_an_epoch_has_every_users_tasks_in_another_order_each_time(train_set: ShardSet) -> None:
    sampler = Orbit(train_set, split="train")
    epochs = [[sampler.user_of(e * 2200 + i) for i in range(2200)] for e in range(2)]
    for users in epochs:
        assert Counter(users) == dict.fromkeys(sampler.users, 50)
    assert epochs[0] != epochs[1]
    assert epochs[0] != sorted(epochs[0])


def test_a_task_depends_on_seed_and_number_alone(train_set: ShardSet) -> None:
    numbers = [5000, 3, 2199, 2200, 3]
    first = Orbit(train_set, split="train", seed=1)
    again = Orbit(train_set, split="train", seed=1)
    digests = {number: first[number].digest for number in numbers}
    assert {number: again[number].digest for number in reversed(numbers)} == digests
    assert len(set(digests.values())) == 4
    other = Orbit(train_set, split="train", seed=2)
    assert other[3].digest != digests[3]
    plan = first[3]
    assert EpisodePlan.from_described(plan.described()) == plan


def test_the_order_of_rows_does_not_matter() -> None:
    films = user_videos(clean=[30] * 7, clutter=[20, 90], things=3)
    total = sum(film.frames for film in films)
    sorted_set = orbit_set(films)
    mixed_set = orbit_set(films, order=np.random.default_rng(3).permutation(total))
    for mode in ("clu-ve", "cle-ve"):
        samplers = [Orbit(shards, split="test", mode=mode) for shards in (sorted_set, mixed_set)]
        for number in range(5):
            plans = [sampler[number] for sampler in samplers]
            for side in ("support", "query"):
                ours, theirs = (
                    [
                        (sampler.dataset.index.text("group", row), sampler.dataset.index["frame"][row])
                        for row in getattr(plan, side).rows
                    ]
                    for sampler, plan in zip(samplers, plans, strict=True)
                )
                assert ours == theirs


def test_held_out_clean_videos_are_those_after_the_fifth_or_the_last() -> None:
    films = [
        OrbitVideo("P1", f"thing {count}", "clean", n, 20) for count in (2, 5, 6, 9) for n in range(count)
    ]
    sampler = Orbit(orbit_set(films), split="test", mode="cle-ve")
    found = [sorted(name[-3:] for name in videos(sampler, side)) for side in _sides(sampler[0])]
    assert Counter(found[1]) == {"001": 1, "004": 1, "005": 2, "006": 1, "007": 1, "008": 1}
    assert Counter(found[0]) == {"000": 4, "001": 3, "002": 3, "003": 3, "004": 2}
    wider = Orbit(orbit_set(films), split="test", mode="cle-ve", cle_support_videos=8)
    assert len(videos(wider, wider[0].query)) == 4


def _sides(plan: EpisodePlan) -> tuple[Side, Side]:
    return plan.support, plan.query


def test_2022_takes_every_thirtieth_support_frame_and_at_most_34() -> None:
    lengths = [1, 20, 30, 31, 999, 1000, 5000]
    films = user_videos(clean=lengths, clutter=[60], things=1)
    sampler = Orbit(orbit_set(films, absence_flags(films, {})), split="test", protocol="2022")
    assert len(sampler) == 50
    plan = sampler[0]
    assert (plan.clip, plan.query_clips) == (1, "blocks")
    found = videos(sampler, plan.support)
    for film in films[:7]:
        used = min(film.frames, 1000)
        assert sorted(found[film.name]) == list(range(1, used + 1, min(30, used)))
    assert max(map(len, found.values())) == 34
    assert sorted(plan.support.rows) == sorted(sampler[49].support.rows)


def test_2022_draws_200_query_frames_anew_for_each_task() -> None:
    films = user_videos(clutter=[50, 150, 200, 700, 1500])
    gone = {films[5].name: 400, films[6].name: 600}
    sampler = Orbit(orbit_set(films, absence_flags(films, gone)), split="test", protocol="2022")
    tasks = [videos(sampler, sampler[number].query) for number in range(40)]
    assert all(frames == sorted(set(frames)) for task in tasks for frames in task.values())
    assert [len(tasks[0][film.name]) for film in films[2:7]] == [50, 150, 200, 200, 200]
    late = np.concatenate([task[films[5].name] for task in tasks])
    assert late.min() > 400
    assert tasks[0][films[5].name] != tasks[1][films[5].name]
    capped = np.concatenate([task[films[6].name] for task in tasks])
    assert (capped.min() > 600, capped.max() <= 1500) == (True, True)
    early = np.concatenate([task[films[-1].name] for task in tasks])
    assert early.max() <= 1000  # of the 1,500 that are there
    assert chisquare(np.bincount((early - 1) // 100, minlength=10)).pvalue > 0.01


def test_2022_leaves_out_short_query_videos_and_says_which(caplog: pytest.LogCaptureFixture) -> None:
    films = user_videos(clutter=[49, 50, 300], things=3)
    films = [f for f in films if f.thing != "thing 2" or f.kind == "clean" or f.number == 0]
    gone = {films[4].name: 251}
    sampler = Orbit(orbit_set(films, absence_flags(films, gone)), split="test", protocol="2022")
    assert [(entry.what, entry.name) for entry in sampler.dropped] == [
        ("object", "P1/thing 2"),
        ("video", "P1--thing 0--clutter--000"),
        ("video", "P1--thing 0--clutter--002"),
        ("video", "P1--thing 1--clutter--000"),
        ("video", "P1--thing 2--clutter--000"),
    ]
    assert sampler.dropped[0].reason == "2 support and 0 query videos, one of each needed"
    assert "49 of 300 frames meet no_object_not_present_issue, 50 needed" in caplog.text
    assert "1 object(s)" in caplog.text
    assert sampler[0].way == 2
    assert len(videos(sampler, sampler[0].query)) == 3
    check_plan(sampler, sampler[0])


def test_2022_has_850_and_180_tasks_and_the_same_support_in_all_of_a_user(test_set: ShardSet) -> None:
    sampler = Orbit(test_set, split="test", protocol="2022")
    assert len(sampler) == 850
    for number in (0, 49, 50, 849):
        check_plan(sampler, sampler[number])
        supports = [sampler[n].support.rows for n in (number, number // 50 * 50)]
        assert sorted(supports[0]) == sorted(supports[1])
    shards = orbit_set(benchmark_videos("validation"), absence_flags(benchmark_videos("validation"), {}))
    assert len(Orbit(shards, split="validation", protocol="2022")) == 180


def test_2022_trains_on_a_uniform_number_of_query_frames() -> None:
    shards = orbit_set(as_train(user_videos(clutter=[260])))
    sampler = Orbit(shards, split="train", protocol="2022")
    sizes = [len(frames) for n in range(800) for frames in videos(sampler, sampler[n].query).values()]
    assert (min(sizes) >= 1, max(sizes) <= 200) == (True, True)
    assert chisquare(np.bincount((np.array(sizes) - 1) // 20, minlength=10)).pvalue > 0.01
    few = Orbit(shards, split="train", protocol="2022", query_clip_count=3)
    sizes = [len(f) for n in range(800) for f in videos(few, few[n].query).values()]
    assert sorted(set(sizes)) == [1, 2, 3]
    assert chisquare(np.bincount(sizes)[1:]).pvalue > 0.01


def test_a_test_task_has_all_objects_in_2021_and_fifteen_in_2022() -> None:
    films = user_videos(clutter=[60], things=17)
    shards = orbit_set(films, absence_flags(films, {}))
    old, new = (Orbit(shards, split="test", protocol=name) for name in ("2021", "2022"))
    assert {old[number].way for number in range(5)} == {17}
    assert {new[number].way for number in range(50)} == {15}
    assert len({new[number].classes for number in range(50)}) > 10


def test_object_centric_training_mixes_users(train_set: ShardSet) -> None:
    sampler = Orbit(train_set, split="train", centre="object")
    users: set[str] = set()
    ways = []
    for number in range(300):
        plan = sampler[number]
        check_plan(sampler, plan)
        ways.append(plan.way)
        users |= {sampler.dataset.manifest.classes[c].superclass for c in plan.classes}
    assert sampler.user_of(0) == ""
    assert users == set(sampler.users)
    assert sorted(set(ways)) == list(range(2, 16))


def test_the_84_pixel_baselines_have_tighter_caps() -> None:
    films = as_train(user_videos(clean=[10] * 17, clutter=[10] * 17, things=17))
    sampler = Orbit(orbit_set(films), split="train", caps_84px=True)
    most: dict[bool, list[int]] = {False: [0, 0], True: [0, 0]}
    ways = set()
    for number in range(600):
        plan = sampler[number]
        ways.add(plan.way)
        found = most[plan.way >= 6]
        for side, labels in enumerate((plan.support.labels, plan.query.labels)):
            found[side] = max(found[side], int(np.bincount(labels).max()) // 32)
    assert ways == set(range(2, 11))
    assert most == {False: [10, 8], True: [5, 4]}


def test_at_most_fifteen_videos_of_an_object_are_taken() -> None:
    films = user_videos(clean=[20] * 18, clutter=[9] * 17, things=1)
    sampler = Orbit(orbit_set(films), split="test")
    supports = [frozenset(videos(sampler, sampler[number].support)) for number in range(5)]
    assert {len(names) for names in supports} == {15}
    assert len(set(supports)) > 1
    queries = {tuple(videos(sampler, sampler[number].query)) for number in range(5)}
    assert len(queries) == 1
    assert len(next(iter(queries))) == 15


def test_frames_and_clips_are_thinned_as_asked() -> None:
    films = user_videos(clean=[100], clutter=[100], things=1)
    sampler = Orbit(
        orbit_set(films), split="test", frame_step=3, frame_cap=70, clip_length=4, support_clip_count=4
    )
    plan = sampler[0]
    frames = next(iter(videos(sampler, plan.query).values()))
    assert frames == [*range(1, 71, 3), *[70] * 4]
    assert all(clip[0] % 12 == 1 or set(clip) == {70} for _, clip, _ in clips(sampler, plan, plan.support))
    uniform = Orbit(
        orbit_set(films), split="test", support_clips="uniform", support_clip_step=5, padding="minimal"
    )
    starts = sorted(clip[0] for _, clip, _ in clips(uniform, uniform[0], uniform[0].support))
    assert starts == [1, 41, 81]


def test_a_filter_takes_frames_that_meet_any_of_its_criteria_or_all() -> None:
    films = user_videos(clean=[40], clutter=[60])
    shards = orbit_set(films, absence_flags(films, {film.name: 10 for film in films}))
    names = ("no_blur_issue", "no_object_not_present_issue")
    found = {}
    for match in ("any", "all"):
        sampler = Orbit(
            shards, split="test", support_filter=names, filter_match=match, padding="minimal",
            support_clips="all",
        )  # fmt: skip
        found[match] = sorted(set(next(iter(videos(sampler, sampler[0].support).values()))))
    assert found["any"] == list(range(11, 41))
    assert found["all"] == list(range(11, 41, 2))
    blurred = Orbit(shards, split="test", support_filter=("blur_issue",))
    assert {f % 2 for fs in videos(blurred, blurred[0].support).values() for f in fs} == {0}
    clear = Orbit(shards, split="test", support_filter=("no_issues",), filter_match="all")
    assert {f % 2 for fs in videos(clear, clear[0].support).values() for f in fs} == {1}


def test_h_is_drawn_by_the_clip(test_set: ShardSet) -> None:
    plan = Orbit(test_set, split="test")[0]
    frames = plan.support.rows[choose_h(plan, 8, seed=0)].reshape(8, 8)
    steps = np.diff(frames, axis=1)
    assert ((steps == 1) | (steps == 0)).all()


def one_object() -> list[OrbitVideo]:
    return user_videos(things=1)


@pytest.mark.parametrize(
    ("films", "changes", "message"),
    [
        (user_videos(clutter=()), {}, r"2 support and 0 query videos, one of each needed.*unfit='drop'"),
        (user_videos(clean=[40]), {"mode": "cle-ve"}, r"P1/thing 0 \(0 support and 1 query videos"),
        (one_object(), {"way": "random"}, r"1 user\(s\): P1 \(1 of 1 objects can be used, 2 needed\)"),
        (user_videos(clutter=()), {"unfit": "drop"}, r"no task can be drawn of 1 user\(s\): P1"),
        (user_videos(clean=()), {"mode": "cle-ve"}, "orbit has no clean video in split test"),
        (user_videos(), {"clips": 3}, "Orbit has no rule clips; it has .*support_clip_count"),
        (user_videos(), {"mode": "clean"}, "mode is one of clu-ve, cle-ve; got 'clean'"),
        (user_videos(), {"support_clips": "some"}, "clips is one of exactly"),
        (user_videos(), {"support_clip_count": 0}, "clip_count is a whole number, 1 or more; got 0"),
        (user_videos(), {"clip_length": 2.5}, "clip_length is a whole number"),
        (user_videos(), {"way_cap": 1}, "way_cap is 2 or more, or None, got 1"),
        (user_videos(), {"query_filter": ("blur",)}, "filtered by .* got blur"),
        (user_videos(), {"query_filter": "blur_issue"}, "a filter is a tuple of criteria"),
        (user_videos(), {"query_filter": ("blur_issue",)}, "the index has none; build again with"),
        (user_videos(), {"protocol": "2022"}, "no_object_not_present_issue needs ORBIT's annotations"),
        (user_videos(), {"protocol": "2023"}, "protocol is one of 2021, 2022"),
        (user_videos(), {"caps_84px": True}, "are for split='train'"),
        (user_videos(), {"centre": "object"}, "are for split='train'"),
        (user_videos(), {"split": "all"}, "split is one of train, validation, test; got 'all'"),
        (user_videos(), {"split": "train"}, "has no users in split train.*users in test"),
        (user_videos(), {"dataset": "pets"}, "has no dataset 'pets'; it has orbit"),
        (user_videos(), {"seed": -1}, "seeds and episode numbers start at 0"),
    ],
)  # fmt: skip
def test_what_cannot_be_drawn_is_refused_at_once(
    films: list[OrbitVideo], changes: dict[str, object], message: str
) -> None:
    with pytest.raises(UsageError, match=message):
        Orbit(orbit_set(films), **{"split": "test", **changes})  # type: ignore[arg-type]


def test_training_refuses_what_training_cannot_do() -> None:
    shards = orbit_set(as_train(user_videos()))
    with pytest.raises(UsageError, match="shared_query is for validation and test"):
        Orbit(shards, split="train", shared_query=True)
    few = orbit_set(as_train(one_object()))
    with pytest.raises(UsageError, match=r"everyone \(1 of 1 objects can be used, 2 needed\)"):
        Orbit(few, split="train", centre="object")


def test_unfit_objects_and_users_can_be_left_out() -> None:
    films = as_train([*user_videos(things=3), *user_videos(user="P2"), *user_videos(user="P3", clutter=())])
    films = [f for f in films if (f.user, f.thing, f.kind) != ("P2", "thing 1", "clutter")]
    sampler = Orbit(orbit_set(films), split="train", unfit="drop")
    assert sampler.users == ("P1",)
    assert [(entry.what, entry.name) for entry in sampler.dropped] == [
        ("object", "P2/thing 1"),
        ("object", "P3/thing 0"),
        ("object", "P3/thing 1"),
        ("user", "P2"),
        ("user", "P3"),
    ]
    for number in range(20):
        check_plan(sampler, sampler[number])
    together = Orbit(orbit_set(films), split="train", unfit="drop", centre="object")
    assert max(together[number].way for number in range(50)) == 4


def test_a_test_ends_and_training_does_not(test_set: ShardSet, train_set: ShardSet) -> None:
    sampler = Orbit(test_set, split="test")
    assert sampler[len(sampler) - 1].number == 84
    with pytest.raises(IndexError, match="tasks 0 to 84, got 85"):
        sampler[85]
    with pytest.raises(UsageError, match="start at 0"):
        sampler[-1]
    training = Orbit(train_set, split="train")
    assert training[10**9].number == 10**9
    with pytest.raises(TypeError, match="no end"):
        len(training)


@pytest.fixture(scope="module")
def built_orbit(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tree of images with annotations; videos have 4 to 60 frames."""
    root = make_orbit(tmp_path_factory.mktemp("orbit") / "tree", frames=9, size=8, clean=3)
    for position, frames in ((1, 60), (2, 4)):
        name = video_name("P177", "bag", "clutter", position)
        write_frames(root / "test" / "P177" / "bag" / "clutter" / name, frames, size=8, seed=position)
        annotate(root / "annotations" / "test", name, "clutter", frames)
    return root


@pytest.mark.parametrize("order", ["class", "shuffled"])
def test_tasks_come_from_built_shards(built_orbit: Path, tmp_path: Path, order: str) -> None:
    recipe = Recipe(sizes=(8,), encodings=(Encoding.parse("raw"),), order=order)  # type: ignore[arg-type]
    build_shards(OrbitSource(root=built_orbit), tmp_path / "orbit", recipe)
    shards = ShardSet.open(tmp_path / "orbit")
    for split in ("train", "validation", "test"):
        for mode in ("clu-ve", "cle-ve"):
            sampler = Orbit(shards, split=split, mode=mode)
            for number in range(5):
                check_plan(sampler, sampler[number])
    test = Orbit(shards, split="test")
    frames = videos(test, test[0].query)
    assert [len(numbers) for numbers in frames.values()] == [16, 8, 64, 16]
    filtered = Orbit(shards, split="test", protocol="2022", query_min_frames=4)
    assert [d.name for d in filtered.dropped] == [video_name("P177", "bag", "clutter", 2)]
    query = videos(filtered, filtered[0].query)
    assert sorted(map(len, query.values())) == [8, 8, 59]
    assert 60 not in query[video_name("P177", "bag", "clutter", 1)]
    codes = filtered.dataset.index["group"][filtered[0].query.rows]
    assert np.array_equal(filtered.video_of(filtered[0].query.rows), codes)
