"""The loss scale of float16, in which small gradients are zero and large ones infinite."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from typing import Any, Final

import torch

from learners.networks.arithmetic import FIRST_LOSS_SCALE, Precision
from pipeline.errors import IntegrityError
from pipeline.settings import typed

GROWTH_STEPS: Final = 200  # steps in a row without overflow, after which the scale doubles
LEAST_SCALE: Final = 1.0  # below it a loss is made smaller, and its gradient would be zero somewhere


@dataclass(frozen=True, kw_only=True, slots=True)
class ScaleState:
    """What a checkpoint keeps of a loss scale."""

    value: float
    steps: int
    """Steps in a row without overflow."""


class LossScale:
    """What losses are multiplied by before their backward pass: torch's GradScaler for float16, 1 for all others.

    An overflow, that is a gradient with a number that is not finite, skips the step and halves the scale. All
    processes have the same sum of gradients and therefore the same scale.
    """

    def __init__(self, precision: Precision, device: torch.device) -> None:
        self._scaler = torch.amp.GradScaler(
            device.type, FIRST_LOSS_SCALE, growth_interval=GROWTH_STEPS, enabled=precision == "float16"
        )
        self._one = torch.ones((), device=device)
        self.value = self._read()
        self.overflowed = False
        """Whether the last step was skipped."""

    def step(self, optimizer: torch.optim.Optimizer) -> None:
        """Let an optimiser step, on its gradients without the scale; waits for the device once, for float16."""
        self._scaler.step(optimizer)
        self._scaler.update()
        before, self.value = self.value, self._read()
        self.overflowed = self.value < before

    @property
    def exhausted(self) -> bool:
        """Whether gradients overflow that no scale enlarges."""
        return self.overflowed and self.value < LEAST_SCALE

    def record(self) -> dict[str, float]:
        """The scale for the run's metrics; nothing where there is none."""
        return {"loss_scale": self.value} if self._scaler.is_enabled() else {}

    def verdict(self) -> str:
        """A line about a step that was skipped, else ""."""
        if not self.overflowed:
            return ""
        return f"the gradient overflowed float16: this step is skipped, the loss scale is now {self.value:g}"

    def state(self) -> dict[str, Any]:
        """What `restore` needs; nothing where there is no scale."""
        if not self._scaler.is_enabled():
            return {}
        return asdict(ScaleState(value=self.value, steps=self._scaler.state_dict()["_growth_tracker"]))

    def restore(self, state: object, source: object) -> None:
        """Set what `state` returned; `source` is the file's name for errors."""
        if not self._scaler.is_enabled():
            return
        saved = typed(state, ScaleState, f"{source}: the loss scale of float16")
        if not (math.isfinite(saved.value) and saved.value > 0 and 0 <= saved.steps < GROWTH_STEPS):
            raise IntegrityError(
                f"{source}: a loss scale of {saved.value} after {saved.steps} steps cannot be"
            )
        now = self._scaler.state_dict()
        self._scaler.load_state_dict({**now, "scale": saved.value, "_growth_tracker": saved.steps})
        self.value = self._read()

    def _read(self) -> float:
        """The scale; `scale` also makes the scaler's tensors, which stepping needs."""
        return float(self._scaler.scale(self._one)) if self._scaler.is_enabled() else 1.0
