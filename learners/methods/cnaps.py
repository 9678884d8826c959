"""CNAPs (Requeima et al., 2019): a frozen backbone, adapted to a task in one pass by learned networks."""

from __future__ import annotations

from learners.heads.base import Head
from learners.heads.linear import LinearGenerator
from learners.learner import StagedLearner
from learners.networks import Backbone
from learners.networks.film import FilmGenerator
from learners.networks.set_encoder import SetEncoder


class FilmLearner(StagedLearner):
    """A frozen backbone with FiLM, generated from an embedding of the support set."""

    def __init__(self, backbone: Backbone, head: Head, encoder: SetEncoder | None = None) -> None:
        encoder = encoder or SetEncoder()
        generator = FilmGenerator(backbone.film_channels, encoder.dim)
        backbone.requires_grad_(requires_grad=False)
        super().__init__(backbone, head, encoder=encoder, generator=generator)


class CNAPs(FilmLearner):
    """FiLM, and a linear head that is generated from the class means."""

    def __init__(self, backbone: Backbone, *, encoder: SetEncoder | None = None) -> None:
        super().__init__(backbone, LinearGenerator(backbone.dim), encoder)
