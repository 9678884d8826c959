"""Simple CNAPs (Bateni et al., 2020): CNAPs' adapted features, and Mahalanobis distances to class means."""

from __future__ import annotations

from learners.heads.mahalanobis import Mahalanobis, OneShot
from learners.methods.cnaps import Adapted
from learners.networks import Backbone
from learners.networks.set_encoder import SetEncoder


class SimpleCNAPs(Adapted):
    """Covariances come from the support set, so the head has nothing to learn."""

    def __init__(
        self,
        backbone: Backbone,
        *,
        encoder: SetEncoder | None = None,
        one_shot: OneShot = "zero",
    ) -> None:
        super().__init__(backbone, Mahalanobis(one_shot), encoder)
