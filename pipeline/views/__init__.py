"""What `pipeline.show` does: a shard set as a table, as pictures, as one page."""
