"""Datasets on disk become items. Each module reads one real format; `catalogue` finds the right one."""
