"""Datasets on disk become items. Each module reads one format; `catalogue` finds the module by name."""
