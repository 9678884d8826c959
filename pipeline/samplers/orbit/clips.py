"""Which frames of which videos make up clips: numbers alone, all videos at once."""

from __future__ import annotations

from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from pipeline.samplers.orbit.rules import Draw, Rules
from pipeline.samplers.pool import distinct, steps_within

Ints: TypeAlias = "NDArray[np.int64]"
Clips: TypeAlias = "tuple[Ints, Ints]"
"""The position of each clip's video, and its frames' offsets in the video, one clip a line."""


def ramp(counts: Ints) -> tuple[Ints, Ints]:
    """0 to counts[i] - 1 for each i: the i and the number of each.

    >>> [part.tolist() for part in ramp(np.array([2, 0, 3]))]
    [[0, 0, 2, 2, 2], [0, 1, 0, 1, 2]]
    """
    return np.repeat(np.arange(len(counts)), counts), steps_within(counts)


def subsets(rng: np.random.Generator, sizes: Ints, counts: Ints) -> tuple[Ints, Ints]:
    """counts[i] different numbers below sizes[i] for each i, in random order: the i and the number."""
    random = np.random.RandomState(rng.bit_generator)  # the same stream, under the older interface
    return np.repeat(np.arange(len(counts)), counts), distinct(random, sizes, counts)


def usable_frames(frames: Ints, rules: Rules) -> Ints:
    """Frames of each video after the cap and the step."""
    return -(-np.minimum(frames, rules.frame_cap) // rules.frame_step)


def clip_counts(usable: Ints, rules: Rules) -> Ints:
    """Clips side by side in each video, the last one padded."""
    if rules.padding == "official":
        return usable // rules.clip_length + 1
    return -(-usable // rules.clip_length)


def draw_clips(rng: np.random.Generator, frames: Ints, draw: Draw, rules: Rules) -> Clips:
    """Clips of videos with so many frames."""
    usable = usable_frames(frames, rules)
    clips = clip_counts(usable, rules)
    if draw.clips == "exactly":
        return _exactly(rng, frames, draw.clip_count, rules)
    if draw.clips == "all":
        which, clip = ramp(clips)
    elif draw.clips == "uniform":
        which, place = ramp(np.minimum(-(-clips // draw.clip_step), draw.clip_count))
        clip = place * draw.clip_step
    else:
        counts = np.minimum(clips, draw.clip_count)
        if draw.clips == "random":
            counts = rng.integers(1, counts + 1)
        which, clip = subsets(rng, clips, counts)
    return which, _offsets(clip, usable[which], rules)


def _offsets(clip: Ints, usable: Ints, rules: Rules) -> Ints:
    """The frames of each clip; past the end, the last one again."""
    place = clip[:, None] * rules.clip_length + np.arange(rules.clip_length)
    return np.asarray(np.minimum(place, usable[:, None] - 1) * rules.frame_step)


def _exactly(rng: np.random.Generator, frames: Ints, count: int, rules: Rules) -> Clips:
    usable = usable_frames(frames, rules)
    clips = clip_counts(usable, rules)
    which, clip = subsets(rng, clips, np.where(clips >= count, count, 0))
    parts = [(which, _offsets(clip, usable[which], rules))]
    for short in np.flatnonzero(clips < count):
        padded = _offsets(np.arange(clips[short]), usable[[short]], rules).ravel()
        missing = count * rules.clip_length - len(padded)
        again = rng.choice(frames[short], missing, replace=bool(missing > frames[short]))
        filled = np.sort(np.concatenate([padded, again])).reshape(count, -1)
        parts.append((np.full(count, short), filled))
    videos, offsets = zip(*parts, strict=True)
    return np.concatenate(videos), np.concatenate(offsets)


def whole_videos(frames: Ints, rules: Rules) -> Clips:
    """Every frame of each video as a line of its own, padded where the rules say so."""
    usable = usable_frames(frames, rules)
    lengths = usable
    if rules.padding == "official":
        lengths = clip_counts(usable, rules) * rules.clip_length
    which, place = ramp(lengths)
    return which, (np.minimum(place, usable[which] - 1) * rules.frame_step)[:, None]
