"""Show shards and episodes as tables, image sheets and one HTML page: `python -m pipeline.show`."""
