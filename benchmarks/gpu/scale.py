"""How much of everything is measured, and the subjects that several parts share."""

from __future__ import annotations

import gc
from dataclasses import dataclass
from pathlib import Path

import torch


@dataclass(frozen=True, kw_only=True, slots=True)
class MeasureScale:
    """The device, what is measured on it and how large, and a folder for drawn images."""

    device: str
    quick: bool
    scratch: Path

    @property
    def gpu(self) -> bool:
        return self.device == "cuda"

    @property
    def backbone(self) -> str:
        return "conv4" if self.quick else "efficientnet_b0"

    @property
    def pixels(self) -> int:
        """Of an image's side."""
        return 32 if self.quick else 224

    @property
    def images(self) -> int:
        """Support images of an episode, and queries."""
        return 24 if self.quick else 500

    @property
    def way(self) -> int:
        return 4 if self.quick else 50

    @property
    def seconds(self) -> float:
        """That one figure may take."""
        return 0.2 if self.quick else 1.5


def free_memory() -> None:
    """Give back what the last measurement left on the device."""
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
