"""uint8 images become a network's input, on the device where they are: normalisation, flips, rotations."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Final, NamedTuple

import numpy as np
import torch

from pipeline.episodes import FLIP_DRAW, QUERY_FLIP_DRAW, generator

MAX_PIXEL: Final = 255.0


class PixelNormalisation(NamedTuple):
    """Mean and standard deviation of each channel, for pixels from 0 to 1."""

    mean: tuple[float, float, float]
    std: tuple[float, float, float]


IMAGENET: Final = PixelNormalisation((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
"""ORBIT's code, and the weights of most backbones."""
SYMMETRIC: Final = PixelNormalisation((0.5, 0.5, 0.5), (0.5, 0.5, 0.5))
"""Minus one to one: Meta-Dataset's and LITE's VTAB+MD code."""


def is_usable(normalisation: PixelNormalisation) -> bool:
    """Whether it makes numbers of pixels: finite means, and deviations above zero."""
    return all(map(math.isfinite, (*normalisation.mean, *normalisation.std))) and min(normalisation.std) > 0


def normalise(
    images: torch.Tensor, normalisation: PixelNormalisation = IMAGENET, dtype: torch.dtype = torch.float32
) -> torch.Tensor:
    """Convert uint8 N x 3 x H x W to normalised floating point; the memory format (channels_last) stays.

    One multiplication and one addition for each value, computed in float32 whatever the dtype.
    """
    mean, std = (_per_channel(values, images.device) for values in normalisation)
    scale = 1 / (MAX_PIXEL * std)
    return torch.addcmul(-mean / std, images.to(torch.float32), scale).to(dtype)


def flip(images: torch.Tensor, chosen: torch.Tensor) -> torch.Tensor:
    """Mirror the images for which `chosen` is true left to right."""
    mask = chosen.to(images.device).view(-1, 1, 1, 1)
    return torch.where(mask, images.flip(3), images)


def rotate_quarters(images: torch.Tensor, turns: torch.Tensor) -> torch.Tensor:
    """Rotate each image by its number of quarter turns, 0 to 3."""
    rotated = images
    for quarters in (1, 2, 3):
        mask = (turns == quarters).to(images.device).view(-1, 1, 1, 1)
        rotated = torch.where(mask, torch.rot90(images, quarters, (2, 3)), rotated)
    return rotated


def draw_flips(
    seed: int, number: int, positions: Sequence[int] | torch.Tensor, *, query: bool = False
) -> torch.Tensor:
    """Toss a fair coin for each position of an episode's support (or query), the same in any chunk."""
    values = positions.cpu() if isinstance(positions, torch.Tensor) else positions
    indices = np.asarray(values, np.int64)
    last = int(indices.max(initial=-1))
    purpose = QUERY_FLIP_DRAW if query else FLIP_DRAW
    coins = generator(seed, number, purpose).integers(0, 2, last + 1, dtype=np.uint8)
    return torch.from_numpy(coins[indices].astype(np.bool_))


def _per_channel(values: Sequence[float], device: torch.device) -> torch.Tensor:
    return torch.tensor(values, device=device).view(1, -1, 1, 1)
