"""Evaluating learners under the benchmarks' protocols; `python -m learners.evaluate` is the command."""
