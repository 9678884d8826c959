"""The split of SUN397 in the LITE paper, which read an image folder because TFDS was broken.

LITE shuffles the folder with torch (seed 15) into 70 % training, 10 % validation and 20 % test, then
draws training images in random order: at most two of a class until each class was seen (or 10,000
images were looked at), then any, up to 1000.

Torch's permutation, the fractions and the rules are reproduced exactly. Three things cannot be: LITE's
folder came from an archive of another size than that of TFDS (which leaves out undecodable images), so
that the same permutation selects other images; LITE drew the support without a seed; and it read the
original files, which TFDS has reduced to 120,000 pixels. Results are comparable in distribution, not
image by image.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from typing import Final

import numpy as np
from numpy.typing import NDArray

SHUFFLE_SEED: Final = 15
TRAIN_FRACTION: Final = 0.7
VALIDATION_FRACTION: Final = 0.1
SUPPORT_SIZE: Final = 1000
MOST_PER_CLASS: Final = 2
LOOKED_AT: Final = 10_000


def torch_permutation(count: int, seed: int) -> NDArray[np.int64]:
    """`torch.randperm(count, generator=Generator().manual_seed(seed))`, without torch."""
    # Both libraries seed the Mersenne twister alike; torch then swaps each element with a later one.
    draws = np.random.RandomState(seed).randint(0, 2**32, size=max(count - 1, 0), dtype=np.uint32)
    permutation = np.arange(count, dtype=np.int64)
    for position, draw in enumerate(draws.tolist()):
        other = position + draw % (count - position)
        permutation[position], permutation[other] = permutation[other], permutation[position]
    return permutation


def lite_split(
    labels: Sequence[int], names: Sequence[str], *, support: int = SUPPORT_SIZE
) -> tuple[list[int], list[int]]:
    """Positions of the support and test images; names break ties, in the order of a folder."""
    count = len(labels)
    folder = sorted(range(count), key=lambda i: (labels[i], names[i]))
    shuffled = [folder[i] for i in torch_permutation(count, SHUFFLE_SEED).tolist()]
    train = round(TRAIN_FRACTION * count)
    test = train + round(VALIDATION_FRACTION * count)
    return list(_draw_support(shuffled[:train], labels, support)), shuffled[test:]


def _draw_support(train: Sequence[int], labels: Sequence[int], support: int) -> Iterator[int]:
    """Draw the support in the order of the shuffle, which is as random as another draw."""
    classes = len(set(labels))
    seen: Counter[int] = Counter()
    drawn = 0
    for looked_at, position in enumerate(train):
        balanced = len(seen) < classes and looked_at < LOOKED_AT
        if drawn == support:
            return
        if balanced and seen[labels[position]] == MOST_PER_CLASS:
            continue
        seen[labels[position]] += 1
        drawn += 1
        yield position
