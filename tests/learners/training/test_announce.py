"""The line of a step, and the sentence about a GPU that Python cannot keep busy."""

from __future__ import annotations

import pytest

from learners.training.announce import STARVED_STEPS, StarvationWatch, step_line

ON_A_CPU = {
    "loss": 1.25, "accuracy": 0.5, "seconds": 2.0, "episodes_per_second": 8.0, "images_per_second": 4_000.0,
    "tflops": 0.5, "waiting": 0.03, "memory_mb": 3_100.0, "chunk": 40,
}  # fmt: skip
ON_A_GPU = ON_A_CPU | {"gpu_wait": 0.4, "stalled": 0.01, "memory_reserved_mb": 4_200.0}
STARVED = ON_A_GPU | {"gpu_wait": 0.003}


def test_a_line_of_a_cpu_says_what_the_loader_costs() -> None:
    assert step_line(16, 10_000, ON_A_CPU) == (
        "     16/10,000  loss 1.250  accuracy  50.0%  8.00 episodes/s  4,000 images/s  waiting for data 3%  3,100 MB"
    )


def test_a_line_of_a_gpu_also_says_who_waits_for_whom() -> None:
    assert step_line(16, 10_000, ON_A_GPU).endswith(
        "waiting for data 3%  stalled 1%  gpu wait 40%  3,100 MB (4,200 reserved)"
    )
    assert "gpu wait 40%  gpu busy 83%  3,100 MB" in step_line(
        16, 10_000, ON_A_GPU | {"gpu_utilisation": 0.83}
    )


def test_a_gpu_that_waits_for_python_is_said_once_after_several_steps() -> None:
    watch = StarvationWatch()
    said = [watch.verdict(STARVED) for _ in range(3 * STARVED_STEPS)]
    assert [number for number, text in enumerate(said) if text] == [STARVED_STEPS - 1]
    assert said[STARVED_STEPS - 1] == "the GPU waits for Python: raise --chunk, or --compile"


def test_a_larger_chunk_is_no_cure_where_an_episode_passes_at_once() -> None:
    watch = StarvationWatch()
    said = [
        watch.verdict(STARVED | {"chunk": 250}) for _ in range(STARVED_STEPS)
    ]  # of 500 images, support and queries
    assert "raise --chunk" not in said[-1]
    assert "--compile" in said[-1]


@pytest.mark.parametrize("other", [ON_A_GPU, STARVED | {"waiting": 0.3}, STARVED | {"stalled": 0.3}])
def test_one_step_in_which_the_gpu_was_behind_or_data_were_late_begins_the_count_anew(
    other: dict[str, float],
) -> None:
    watch = StarvationWatch()
    steps = [*[STARVED] * (STARVED_STEPS - 1), other]
    assert not any(watch.verdict(values) for values in 3 * steps)


@pytest.mark.parametrize("values", [ON_A_CPU, STARVED | {"profiled": 1.0}])
def test_a_cpu_and_steps_under_the_profiler_are_not_judged(values: dict[str, float]) -> None:
    watch = StarvationWatch()
    assert not any(watch.verdict(values) for _ in range(3 * STARVED_STEPS))
