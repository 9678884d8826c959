"""Learners, one module per method, and the catalogue that makes them by name."""
