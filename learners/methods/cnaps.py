"""CNAPs (Requeima et al., 2019): a fixed network, and others that adapt it to a task in one pass."""

from __future__ import annotations

from learners.heads.base import Head
from learners.heads.linear import LinearGenerator
from learners.learner import StagedLearner
from learners.networks import Backbone
from learners.networks.film import FilmGenerator
from learners.networks.set_encoder import SetEncoder


class Adapted(StagedLearner):
    """A backbone that keeps its weights and gets FiLM from what the support set looks like."""

    def __init__(self, backbone: Backbone, head: Head, encoder: SetEncoder | None = None) -> None:
        encoder = encoder or SetEncoder()
        generator = FilmGenerator(backbone.film_channels, encoder.dim)
        backbone.requires_grad_(requires_grad=False)
        super().__init__(backbone, head, encoder=encoder, generator=generator)


class CNAPs(Adapted):
    """The head is a linear layer whose rows two networks make from the classes' means."""

    def __init__(self, backbone: Backbone, *, encoder: SetEncoder | None = None) -> None:
        super().__init__(backbone, LinearGenerator(backbone.dim), encoder)
