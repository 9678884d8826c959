"""Simple CNAPs (Bateni et al., 2020): CNAPs' adapted features with Mahalanobis distances to class means."""

from __future__ import annotations

from learners.heads.mahalanobis import MahalanobisHead, OneShotCovariance
from learners.methods.cnaps import FilmLearner
from learners.networks import Backbone
from learners.networks.set_encoder import SetEncoder


class SimpleCNAPs(FilmLearner):
    """FiLM, and a Mahalanobis head, which has no parameters: its covariances come from the support set."""

    def __init__(
        self, backbone: Backbone, *, encoder: SetEncoder | None = None, one_shot: OneShotCovariance = "zero"
    ) -> None:
        super().__init__(backbone, MahalanobisHead(one_shot), encoder)
