"""The parts: each module's `measure` yields rows, the most useful first."""
