"""VTAB-v2's eighteen tasks, out of the fifteen datasets that TFDS' builders prepare.

tasks, labels (the benchmark) ─► files (where things lie) ─► tfds_folder (records) ─► roles ─► source
"""
