"""A watch on runs that learn nothing: accuracy that stays at chance is said once, with the likely reasons."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Final

PATIENCE_EPISODES: Final = 200
STANDARD_ERRORS: Final = 2.0  # within which a mean counts as chance


@dataclass(slots=True)
class ChanceWatch:
    """Collects the first episodes' accuracies above chance; `verdict` judges them once, at 200 episodes."""

    frozen_random: bool
    """Whether the backbone is frozen with random weights."""
    excesses: list[float] = field(default_factory=list)
    """Accuracy minus chance, of each step."""
    episodes: int = 0
    judged: bool = False

    def verdict(self, episodes: int, accuracy: float, chance: float) -> str:
        """Count a step of so many episodes; a warning if the run is at chance after 200, else ""."""
        if self.judged:
            return ""
        self.excesses.append(accuracy - chance)
        self.episodes += episodes
        if self.episodes < PATIENCE_EPISODES or len(self.excesses) < 2:  # noqa: PLR2004 - for a variance
            return ""
        self.judged = True
        count, mean = len(self.excesses), math.fsum(self.excesses) / len(self.excesses)
        variance = math.fsum((excess - mean) ** 2 for excess in self.excesses) / (count - 1)
        if mean > STANDARD_ERRORS * math.sqrt(variance / count):
            return ""
        return (
            f"warning: after {self.episodes:,} episodes the accuracy is that of guessing ({mean:+.1%} above "
            f"chance). Likely reasons: {self._reasons()}"
        )

    def _reasons(self) -> str:
        if self.frozen_random:
            return "the backbone is frozen and its weights are random: give --weights"
        return (
            "a learning rate that is too high or too low (--lr), weights whose pixels are normalised otherwise, "
            "or a softmax too sharp for these features (--fit-temperature)"
        )
