"""Looking at shards and episodes: tables, image sheets, one HTML page; `python -m pipeline.show`."""
