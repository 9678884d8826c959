"""SUN397 in the LITE paper, where TFDS was broken and an image folder took its place.

LITE shuffles the folder with torch (seed 15) into 70 % training, 10 % validation and 20 % test, then
draws training pictures in random order: at most two of a class until each class was seen (or 10,000
were looked at), then any, up to 1000.

What is repeated exactly: torch's permutation, the fractions and the rules. What cannot be: LITE's
folder was an archive of its own, of another size than TFDS' (which leaves out undecodable pictures),
so that the same permutation picks other pictures; its drawing of the support was not seeded; and it
read the original files, where TFDS has reduced them to 120,000 pixels. Results are comparable in
distribution, not picture by picture.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from typing import Final

import numpy as np
from numpy.typing import NDArray

SEED: Final = 15
TRAIN_FRACTION: Final = 0.7
VALIDATION_FRACTION: Final = 0.1
SUPPORT: Final = 1000
PER_CLASS: Final = 2
LOOKED_AT: Final = 10_000


def torch_permutation(count: int, seed: int) -> NDArray[np.int64]:
    """What `torch.randperm(count, generator=Generator().manual_seed(seed))` returns, without torch."""
    # Both libraries start the Mersenne twister alike; torch then swaps each place with a later one.
    draws = np.random.RandomState(seed).randint(0, 2**32, size=max(count - 1, 0), dtype=np.uint32)
    permutation = np.arange(count, dtype=np.int64)
    for place, draw in enumerate(draws.tolist()):
        other = place + draw % (count - place)
        permutation[place], permutation[other] = permutation[other], permutation[place]
    return permutation


def lite_split(
    labels: Sequence[int], names: Sequence[str], *, support: int = SUPPORT
) -> tuple[list[int], list[int]]:
    """Positions of the support and of the test pictures; names break ties as a folder's order would."""
    count = len(labels)
    folder = sorted(range(count), key=lambda i: (labels[i], names[i]))
    shuffled = [folder[i] for i in torch_permutation(count, SEED).tolist()]
    train = round(TRAIN_FRACTION * count)
    test = train + round(VALIDATION_FRACTION * count)
    return list(_draw(shuffled[:train], labels, support)), shuffled[test:]


def _draw(train: Sequence[int], labels: Sequence[int], support: int) -> Iterator[int]:
    """In the order of the shuffle, which is as random as another draw."""
    classes = len(set(labels))
    seen: Counter[int] = Counter()
    drawn = 0
    for looked_at, position in enumerate(train):
        balanced = len(seen) < classes and looked_at < LOOKED_AT
        if drawn == support:
            return
        if balanced and seen[labels[position]] == PER_CLASS:
            continue
        seen[labels[position]] += 1
        drawn += 1
        yield position
