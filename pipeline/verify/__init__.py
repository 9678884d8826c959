"""Check built datasets byte by byte and repair them: `python -m pipeline.verify`."""
