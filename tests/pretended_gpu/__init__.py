"""A pretended GPU: `cuda:0` on machines without one, for tests of what runs, waits and is counted, not of speed.

with pretended_gpu() as gpu:
    learner.to("cuda")                       # values live on the CPU; `.device` says cuda:0
    gpu.reset()
    learner.gradient(task, settings, rng)
    gpu.launches.total()                     # kernels, copies and fills, by the name of their operator
    gpu.synchronisations.total()             # by file and line, such as "learners/lite/engine.py:173"

Operators run as on a CPU, below autograd, and those that mix devices raise. An operator counts as one launch unless it
makes a view, only reserves memory, or has nothing to do. A synchronisation is whatever makes the host wait for the
device: `.item()`, `.cpu()`, `float(tensor)`, a copy from memory that is not pinned, a boolean mask, the checks of
`torch.linalg`, an event's `synchronize()`.

With `lag`, nothing runs when it is asked for: each stream is a queue whose operators start after random delays, counted
in operators rather than in seconds, and freed memory is handed out again at once, as by CUDA's caching allocator. What
a program forgets to wait for, it then reads too early, or finds overwritten.

It has no CUDA kernels, so rounding is the CPU's; autocast casts by the CPU's list of operators; an operator of several
kernels counts once.
"""

from tests.pretended_gpu.gpu import PretendedGpu, pretended_gpu

__all__ = ["PretendedGpu", "pretended_gpu"]
