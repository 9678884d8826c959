"""ORBIT's episodes: users, objects, videos and clips, by the rules of 2021 and of 2022."""

from pipeline.samplers.orbit.sampler import Orbit

__all__ = ["Orbit"]
