"""Prototypical Networks (Snell et al., 2017): the class whose mean feature is nearest."""

from __future__ import annotations

from typing import Final, Literal

from learners.heads.prototypes import CosinePrototypes, EuclideanPrototypes, PrototypeHead
from learners.learner import StagedLearner
from learners.networks import Backbone
from pipeline.errors import check_choice

PROTOTYPE_HEADS: Final = {"euclidean": EuclideanPrototypes, "cosine": CosinePrototypes}


class ProtoNets(StagedLearner):
    """A learned backbone and a prototype head without parameters."""

    def __init__(
        self,
        backbone: Backbone,
        *,
        metric: Literal["euclidean", "cosine"] = "euclidean",
        temperature: float | None = None,
    ) -> None:
        """`temperature` divides squared distances or cosines; None is the metric's default."""
        check_choice(metric, tuple(PROTOTYPE_HEADS), "the metric")
        head = PROTOTYPE_HEADS[metric]
        super().__init__(backbone, head() if temperature is None else head(temperature))

    @property
    def temperature(self) -> float:
        """The temperature of the head."""
        assert isinstance(self.head, PrototypeHead)
        return float(self.head.temperature)

    @temperature.setter
    def temperature(self, value: float) -> None:
        assert isinstance(self.head, PrototypeHead)
        self.head.set_temperature(value)
