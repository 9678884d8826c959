"""VTAB-v2's eighteen tasks, from the fifteen datasets that the builders of TFDS prepare.

tasks, labels (the benchmark) ─► files (where they lie) ─► tfds_folder (records) ─► roles ─► source
"""
