"""A trace of torch.profiler as a table: what the host and the device did in a step, operator by operator."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, NamedTuple

TABLE_ROWS: Final = 40  # operators and kernels at most, each: the rest takes next to no time
NAME_WIDTH: Final = 60  # characters; names of kernels have hundreds
STEP_MARK: Final = "ProfilerStep#"  # begins the name of the span that torch.profiler writes for each step
OPERATORS: Final = "cpu_op"
KERNELS: Final = "kernel"
COPIES: Final = ("gpu_memcpy", "gpu_memset")
DRIVER_CALLS: Final = ("cuda_runtime", "cuda_driver")
BETWEEN: Final = "(between operators: Python, waiting)"
COLUMNS: Final = f" {'calls a step':>12} {'ms a step':>10} {'share':>6}"
DEVICE_COLUMNS: Final = f" {'device ms':>10} {'share':>6}"


class TraceSpan(NamedTuple):
    """A span of a trace, of the host or of the device; in microseconds."""

    name: str
    begin: float
    end: float
    thread: tuple[object, object]
    """Process and thread, or device and stream."""
    operator: object
    """The number of the operator that it is or, on the device, that it was launched by."""


@dataclass(slots=True)
class TimedCalls:
    """Calls of one name, their own microseconds on the host, without those of calls within, and on the device."""

    count: int = 0
    host: float = 0.0
    device: float = 0.0


def trace_table(events: Iterable[Mapping[str, Any]]) -> str:
    """The table of a trace's events, which are those of `export_chrome_trace`."""
    spans = _spans(events)
    steps = [span for span in spans["user_annotation"] if span.name.startswith(STEP_MARK)]
    wall = sum(span.end - span.begin for span in steps)
    operators = spans[OPERATORS]
    calls = [span for kind in DRIVER_CALLS for span in spans[kind]]
    copies = [span for kind in COPIES for span in spans[kind]]
    table = _StepTable(len(steps), wall)
    rows = _own_times([*operators, *calls])
    rows[BETWEEN] = TimedCalls(len(steps), wall - covered([*operators, *calls]))
    kernels = _kernel_times(spans[KERNELS], operators, rows)
    return "\n".join(
        [
            f"{len(steps)} step{'s' * (len(steps) > 1)}, {wall / len(steps) / 1e3:,.1f} ms each; the profiler itself slows the host",
            *table.device(spans[KERNELS], copies),
            *table.launches(calls),
            "",
            *table.host_rows(rows, on_device=bool(kernels)),
            *table.kernel_rows(kernels),
            "",
        ]
    )


def covered(spans: Iterable[TraceSpan]) -> float:
    """The microseconds in which at least one of the spans lasted."""
    total, reached = 0.0, float("-inf")
    for begin, end in sorted((span.begin, span.end) for span in spans):
        total += max(end - max(begin, reached), 0.0)
        reached = max(reached, end)
    return total


def _spans(events: Iterable[Mapping[str, Any]]) -> defaultdict[str, list[TraceSpan]]:
    """The spans by category; marks and arrows are none."""
    spans: defaultdict[str, list[TraceSpan]] = defaultdict(list)
    for event in events:
        if event.get("ph") == "X":
            begin, operator = float(event["ts"]), event.get("args", {}).get("External id")
            thread = (event["pid"], event["tid"])
            spans[event.get("cat", "")].append(
                TraceSpan(event["name"], begin, begin + float(event["dur"]), thread, operator)
            )
    return spans


def _own_times(spans: Iterable[TraceSpan]) -> defaultdict[str, TimedCalls]:
    """The calls of each name; what a call contains, in the same thread, is not its own time."""
    rows: defaultdict[str, TimedCalls] = defaultdict(TimedCalls)
    open_calls: defaultdict[object, list[TraceSpan]] = defaultdict(list)
    for span in sorted(spans, key=lambda span: (span.begin, -span.end)):
        outer = open_calls[span.thread]
        while outer and outer[-1].end <= span.begin:
            outer.pop()
        if outer:
            rows[outer[-1].name].host -= span.end - span.begin
        rows[span.name].count += 1
        rows[span.name].host += span.end - span.begin
        outer.append(span)
    return rows


def _kernel_times(
    kernels: Iterable[TraceSpan], operators: Iterable[TraceSpan], rows: Mapping[str, TimedCalls]
) -> dict[str, TimedCalls]:
    """The kernels by name; the time of each is added to the operator that launched it."""
    names = {span.operator: span.name for span in operators}
    times: defaultdict[str, TimedCalls] = defaultdict(TimedCalls)
    for kernel in kernels:
        times[kernel.name].count += 1
        times[kernel.name].device += kernel.end - kernel.begin
        if (name := names.get(kernel.operator)) is not None:
            rows[name].device += kernel.end - kernel.begin
    return dict(times)


class _StepTable(NamedTuple):
    """Writes times and counts of some steps as those of one."""

    steps: int
    wall: float
    """Microseconds of all steps."""

    def device(self, kernels: Sequence[TraceSpan], copies: Sequence[TraceSpan]) -> Iterator[str]:
        """What the device did."""
        if not kernels:
            yield "no kernels of a GPU: the table has the host's time alone"
            return
        busy = covered([*kernels, *copies]) / self.wall
        yield (
            f"the device was busy {busy:.1%} of the time, with {self._each(len(kernels))} kernels and "
            f"{self._each(len(copies))} copies a step"
        )

    def launches(self, calls: Iterable[TraceSpan]) -> Iterator[str]:
        """What the host asked of the driver."""
        launches = [span for span in calls if "Launch" in span.name]
        waits = [span for span in calls if "Synchronize" in span.name]
        if launches:
            yield (
                f"the host made {self._each(len(launches))} launches a step, and waited for the device "
                f"{self._each(len(waits))} times, {self._ms(covered(waits))} ms a step"
            )

    def host_rows(self, rows: Mapping[str, TimedCalls], *, on_device: bool) -> Iterator[str]:
        """The operators and calls of the driver that took most of the host's own time or of the device's."""
        title = "the host, without what is called within"
        yield f"{title:{NAME_WIDTH}}{COLUMNS}{DEVICE_COLUMNS if on_device else ''}"
        for name, row in sorted(rows.items(), key=lambda row: -max(row[1].host, row[1].device))[:TABLE_ROWS]:
            yield self._row(name, row.count, row.host) + (
                f" {self._ms(row.device):>10} {row.device / self.wall:>6.1%}" if on_device else ""
            )

    def kernel_rows(self, kernels: Mapping[str, TimedCalls]) -> Iterator[str]:
        """The kernels that took most of the device's time."""
        if kernels:
            yield from ("", f"{'kernels of the device':{NAME_WIDTH}}{COLUMNS}")
        for name, row in sorted(kernels.items(), key=lambda row: -row[1].device)[:TABLE_ROWS]:
            yield self._row(name, row.count, row.device)

    def _row(self, name: str, count: int, microseconds: float) -> str:
        return (
            f"{name[:NAME_WIDTH]:{NAME_WIDTH}} {self._each(count):>12} {self._ms(microseconds):>10} "
            f"{microseconds / self.wall:>6.1%}"
        )

    def _each(self, count: int) -> str:
        return f"{count / self.steps:,.1f}".removesuffix(".0")

    def _ms(self, microseconds: float) -> str:
        return f"{microseconds / self.steps / 1e3:,.2f}"
