"""What `pipeline.verify` does: find damage in built datasets, and mend it."""
