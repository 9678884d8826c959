"""The parts of `train.py`: settings, learner, optimiser and loader of a run, records, validation."""
