"""Building shards: a source becomes tars and an index; `python -m pipeline.build` is the command."""
