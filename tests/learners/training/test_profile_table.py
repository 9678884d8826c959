"""A trace becomes a table: own times, time on the device, launches, and how long the device was busy."""

from __future__ import annotations

from typing import Any

import pytest

from learners.training.profile_table import NAME_WIDTH, TABLE_ROWS, TraceSpan, covered, trace_table

MAIN, AUTOGRAD = (1, 10), (1, 11)


def span(
    category: str,
    name: str,
    begin: float,
    length: float,
    *,
    on: tuple[object, object] = MAIN,
    number: int = 0,
) -> dict[str, Any]:
    """An event of a trace, in microseconds."""
    return {
        "ph": "X", "cat": category, "name": name, "pid": on[0], "tid": on[1], "ts": begin, "dur": length,
        "args": {"External id": number},
    }  # fmt: skip


def lines(events: list[dict[str, Any]]) -> list[list[str]]:
    return [line.split() for line in trace_table(events).splitlines()]


HOST = [
    span("user_annotation", "ProfilerStep#3", 1_000, 10_000),
    span("user_annotation", "ProfilerStep#4", 11_000, 10_000),
    span("cpu_op", "aten::conv2d", 2_000, 3_000, number=1),
    span("cpu_op", "aten::cudnn_convolution", 2_500, 2_000, number=2),
    span("cpu_op", "aten::conv2d", 12_000, 1_000, number=3),
    span("cpu_op", "ConvolutionBackward0", 14_000, 2_000, on=AUTOGRAD, number=4),
    {"ph": "i", "name": "Iteration Start", "pid": "Traces", "tid": "x", "ts": 1_000},
]
DEVICE = [
    span("cuda_runtime", "cudaLaunchKernel", 2_600, 100),
    span("cuda_runtime", "cudaLaunchKernelExC", 2_800, 100),
    span("cuda_driver", "cuLaunchKernel", 14_500, 100, on=AUTOGRAD),
    span("cuda_runtime", "cudaStreamSynchronize", 17_000, 3_000),
    span("kernel", "conv_fprop", 3_000, 4_000, on=(0, 7), number=2),
    span("kernel", "conv_fprop", 6_000, 4_000, on=(0, 8), number=2),  # one second of another stream overlaps
    span("kernel", "conv_dgrad", 15_000, 2_000, on=(0, 7), number=4),
    span("gpu_memcpy", "Memcpy HtoD (Pinned -> Device)", 500, 1_000, on=(0, 9)),
    span("gpu_user_annotation", "ProfilerStep#3", 1_000, 19_000, on=(0, 7)),
]


def test_an_operators_own_time_is_without_those_within_and_a_step_is_a_mean() -> None:
    table = lines(HOST)
    assert table[0][:5] == ["2", "steps,", "10.0", "ms", "each;"]
    assert ["aten::cudnn_convolution", "0.5", "1.00", "10.0%"] in table
    assert ["aten::conv2d", "1", "1.00", "10.0%"] in table  # 3 ms less 2, and 1 ms, over two steps
    assert ["ConvolutionBackward0", "0.5", "1.00", "10.0%"] in table


def test_time_between_operators_is_what_no_thread_spends_in_one() -> None:
    assert ["(between", "operators:", "Python,", "waiting)", "1", "7.00", "70.0%"] in lines(HOST)


def test_without_a_gpu_the_table_says_so_and_has_no_columns_for_it() -> None:
    text = trace_table(HOST)
    assert "no kernels of a GPU" in text
    assert "device ms" not in text
    assert "launches" not in text


def test_the_device_is_busy_where_any_of_its_streams_is() -> None:
    text = trace_table([*HOST, *DEVICE])
    busy = (1_000 + 7_000 + 2_000) / 20_000  # the copy, two kernels that overlap, the third
    assert f"the device was busy {busy:.1%} of the time, with 1.5 kernels and 0.5 copies a step" in text


def test_launches_and_waits_for_the_device_are_counted_by_the_step() -> None:
    text = trace_table([*HOST, *DEVICE])
    assert "the host made 1.5 launches a step, and waited for the device 0.5 times, 1.50 ms a step" in text


def test_a_kernels_time_is_also_its_operators() -> None:
    table = lines([*HOST, *DEVICE])
    assert ["conv_fprop", "1", "4.00", "40.0%"] in table
    assert ["aten::cudnn_convolution", "0.5", "0.90", "9.0%", "4.00", "40.0%"] in table  # less two launches
    assert ["ConvolutionBackward0", "0.5", "0.95", "9.5%", "1.00", "10.0%"] in table


def test_a_table_has_a_limited_number_of_rows_and_columns_that_stand_under_one_another() -> None:
    many = [span("cpu_op", f"aten::{'x' * number}", 1_000 + number, 1, number=number) for number in range(90)]
    text = trace_table([HOST[0], *many])
    rows = [line for line in text.splitlines() if line.startswith(("aten", "(between"))]
    assert text.startswith("1 step, 10.0 ms each")
    assert len(rows) == TABLE_ROWS
    assert {len(row) for row in rows} == {NAME_WIDTH + 31}


@pytest.mark.parametrize(
    ("spans", "length"),
    [([], 0), ([(0, 4), (1, 2)], 4), ([(3, 5), (0, 1)], 3), ([(0, 2), (1, 4), (4, 5), (9, 9)], 5)],
)
def test_spans_that_overlap_are_covered_once(spans: list[tuple[float, float]], length: float) -> None:
    assert covered(TraceSpan("x", begin, end, MAIN, 0) for begin, end in spans) == length
