"""Networks that make features from images."""

from learners.networks.backbones import NAMES, backbone
from learners.networks.base import Backbone
from learners.networks.weights import save_weights

__all__ = ["NAMES", "Backbone", "backbone", "save_weights"]
