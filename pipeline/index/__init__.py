"""Manifest and sample index of a built dataset: read, written and checked."""

from pipeline.index.dataset import Dataset, SampleIndex, dataset_folders, is_dataset, lost_folders
from pipeline.index.manifest import DatasetManifest

__all__ = ["Dataset", "DatasetManifest", "SampleIndex", "dataset_folders", "is_dataset", "lost_folders"]
