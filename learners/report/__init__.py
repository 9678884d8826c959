"""Evaluations as tables, plots and one page beside published results; `python -m learners.report`."""
