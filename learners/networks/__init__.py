"""Networks that make features from images."""

from learners.networks.backbones import BACKBONE_NAMES, backbone
from learners.networks.base import Backbone
from learners.networks.weights import save_weights

__all__ = ["BACKBONE_NAMES", "Backbone", "backbone", "save_weights"]
