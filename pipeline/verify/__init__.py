"""Checking built datasets byte by byte and repairing them; `python -m pipeline.verify` is the command."""
