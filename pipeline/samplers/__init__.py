"""Samplers: index, seed and number become an `EpisodePlan`.

A plan depends on these three alone, never on the plans before it, so that any episode can be drawn again
and ranks need no coordination. A sampler of your own is any object with `__getitem__`.
"""

from pipeline.samplers.fixed import Fixed
from pipeline.samplers.meta_dataset import MetaDataset
from pipeline.samplers.mixture import random_state
from pipeline.samplers.orbit.sampler import Orbit
from pipeline.samplers.pool import Pool
from pipeline.samplers.replay import Replay, save_plans
from pipeline.samplers.vtab import Vtab

__all__ = ["Fixed", "MetaDataset", "Orbit", "Pool", "Replay", "Vtab", "random_state", "save_plans"]
