"""Bias and error of LITE's gradient estimators, measured; `python -m learners.study` is the command."""
