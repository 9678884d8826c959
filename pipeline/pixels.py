"""uint8 images become a network's input, on the device where they are: normalisation, flips, rotations."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Final, NamedTuple

import numpy as np
import torch
from torch import nn

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


class PixelScaling(nn.Module):
    """Normalisation as a part of a network.

    Its constants move with the network: a GPU would wait for each one that a pass copies to it.
    """

    offset: torch.Tensor
    scale: torch.Tensor

    def __init__(self, normalisation: PixelNormalisation) -> None:
        super().__init__()
        self.normalisation = normalisation
        mean, std = (torch.tensor(values).view(1, -1, 1, 1) for values in normalisation)
        self.register_buffer("offset", -mean / std, persistent=False)
        self.register_buffer("scale", 1 / (MAX_PIXEL * std), persistent=False)

    def forward(self, images: torch.Tensor, dtype: torch.dtype = torch.float32) -> torch.Tensor:
        """Convert uint8 N x 3 x H x W to normalised floating point; the memory format (channels_last) stays.

        One multiplication and one addition for each value, computed in float32 whatever the dtype.
        """
        return torch.addcmul(self.offset.float(), images.float(), self.scale.float()).to(dtype)


def normalise(
    images: torch.Tensor, normalisation: PixelNormalisation = IMAGENET, dtype: torch.dtype = torch.float32
) -> torch.Tensor:
    """What `PixelScaling` computes, for images on any device."""
    scaled: torch.Tensor = PixelScaling(normalisation).to(images.device)(images, dtype)
    return scaled


def flip(images: torch.Tensor, chosen: torch.Tensor) -> torch.Tensor:
    """Mirror the images for which `chosen` is true left to right."""
    mask = chosen.to(images.device).view(-1, 1, 1, 1)
    return torch.where(mask, images.flip(3), images)


def rotate_quarters(images: torch.Tensor, turns: torch.Tensor) -> torch.Tensor:
    """Rotate each image by its number of quarter turns, 0 to 3; the result is channels_last."""
    turns, upright = turns.to(images.device).view(-1, 1, 1, 1), images.permute(0, 2, 3, 1)
    rotated = upright
    for quarters in (1, 2, 3):  # the result is laid out as the first of the two
        rotated = torch.where(turns != quarters, rotated, torch.rot90(upright, quarters, (1, 2)))
    return rotated.contiguous().permute(0, 3, 1, 2)


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
