"""Prototypical Networks (Snell et al., 2017): the class whose mean feature is nearest."""

from __future__ import annotations

from typing import Final, Literal

from learners.heads.prototypes import Cosine, Euclidean, Prototypes
from learners.learner import StagedLearner
from learners.networks import Backbone
from pipeline.errors import check_choice

METRICS: Final = {"euclidean": Euclidean, "cosine": Cosine}


class ProtoNets(StagedLearner):
    """The backbone is all that learns."""

    def __init__(
        self,
        backbone: Backbone,
        *,
        metric: Literal["euclidean", "cosine"] = "euclidean",
        temperature: float | None = None,
    ) -> None:
        """`temperature` divides squared distances, or cosines; None is the metric's own."""
        check_choice(metric, tuple(METRICS), "the metric")
        head = METRICS[metric]
        super().__init__(backbone, head() if temperature is None else head(temperature))

    @property
    def temperature(self) -> float:
        """What the head divides by."""
        assert isinstance(self.head, Prototypes)
        return float(self.head.temperature)

    @temperature.setter
    def temperature(self, value: float) -> None:
        assert isinstance(self.head, Prototypes)
        self.head.temperature.fill_(value)
