"""Which frames of which videos make up clips, as numbers, for all videos at once."""

from __future__ import annotations

from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from pipeline.samplers.orbit.rules import OrbitRules, SideRules
from pipeline.samplers.pool import draw_distinct, steps_within

Ints: TypeAlias = "NDArray[np.int64]"
Clips: TypeAlias = "tuple[Ints, Ints]"
"""The video of each clip (its position among the videos given), and its frames in it, one clip a row."""


def enumerate_counts(counts: Ints) -> tuple[Ints, Ints]:
    """The numbers 0 to counts[i] - 1 for each i: the i of each, and the number.

    >>> [part.tolist() for part in enumerate_counts(np.array([2, 0, 3]))]
    [[0, 0, 2, 2, 2], [0, 1, 0, 1, 2]]
    """
    return np.repeat(np.arange(len(counts)), counts), steps_within(counts)


def draw_subsets(rng: np.random.Generator, sizes: Ints, counts: Ints) -> tuple[Ints, Ints]:
    """Draw counts[i] different numbers below sizes[i] for each i, in random order: the i of each, and the number."""
    random = np.random.RandomState(rng.bit_generator)  # the same stream, by the older interface
    return np.repeat(np.arange(len(counts)), counts), draw_distinct(random, sizes, counts)


def usable_frames(frames: Ints, rules: OrbitRules) -> Ints:
    """The number of frames of each video that count, after the cap and the step."""
    return -(-np.minimum(frames, rules.frame_cap) // rules.frame_step)


def clip_counts(usable: Ints, rules: OrbitRules) -> Ints:
    """The number of clips in each video, one after the other, the last one padded."""
    if rules.padding == "official":
        return usable // rules.clip_length + 1
    return -(-usable // rules.clip_length)


def draw_clips(rng: np.random.Generator, frames: Ints, draw: SideRules, rules: OrbitRules) -> Clips:
    """Draw clips of videos of these lengths."""
    usable = usable_frames(frames, rules)
    clips = clip_counts(usable, rules)
    if draw.clips == "exactly":
        return _draw_exactly(rng, frames, draw.clip_count, rules)
    if draw.clips == "all":
        which, clip = enumerate_counts(clips)
    elif draw.clips == "uniform":
        which, step = enumerate_counts(np.minimum(-(-clips // draw.clip_step), draw.clip_count))
        clip = step * draw.clip_step
    else:
        counts = np.minimum(clips, draw.clip_count)
        if draw.clips == "random":
            counts = rng.integers(1, counts + 1)
        which, clip = draw_subsets(rng, clips, counts)
    return which, _clip_offsets(clip, usable[which], rules)


def _clip_offsets(clip: Ints, usable: Ints, rules: OrbitRules) -> Ints:
    """The frames of each clip; past the end of the video, its last one again."""
    frame = clip[:, None] * rules.clip_length + np.arange(rules.clip_length)
    return np.asarray(np.minimum(frame, usable[:, None] - 1) * rules.frame_step)


def _draw_exactly(rng: np.random.Generator, frames: Ints, count: int, rules: OrbitRules) -> Clips:
    """Draw `count` clips of each video; a short one gets random frames of it a second time."""
    usable = usable_frames(frames, rules)
    clips = clip_counts(usable, rules)
    which, clip = draw_subsets(rng, clips, np.where(clips >= count, count, 0))
    parts = [(which, _clip_offsets(clip, usable[which], rules))]
    for short in np.flatnonzero(clips < count):
        padded = _clip_offsets(np.arange(clips[short]), usable[[short]], rules).ravel()
        missing = count * rules.clip_length - len(padded)
        again = rng.choice(frames[short], missing, replace=bool(missing > frames[short]))
        filled = np.sort(np.concatenate([padded, again])).reshape(count, -1)
        parts.append((np.full(count, short), filled))
    videos, offsets = zip(*parts, strict=True)
    return np.concatenate(videos), np.concatenate(offsets)


def whole_videos(frames: Ints, rules: OrbitRules) -> Clips:
    """Every frame of each video as a row of its own, padded where the rules say so."""
    usable = usable_frames(frames, rules)
    lengths = usable
    if rules.padding == "official":
        lengths = clip_counts(usable, rules) * rules.clip_length
    which, frame = enumerate_counts(lengths)
    return which, (np.minimum(frame, usable[which] - 1) * rules.frame_step)[:, None]
