"""Measurements by name, each with a limit of time: what gpu_check.py does, and the table that it prints."""

from __future__ import annotations

import signal
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from statistics import median
from typing import Any

from full_size import Check
from rich.table import Table

from glinerko.common import first_line


@dataclass
class Row:
    """A line of the table."""

    what: str
    ours: str = ""
    other: str = ""
    value: float | None = None
    unit: str = ""
    """``×``, ``%``, ``error`` for a small number, or what is counted."""
    goal: float | None = None
    at_most: bool = False
    """Whether the goal is an upper bound."""
    figures: dict[str, Any] = field(default_factory=dict)
    """More numbers, only for the file."""

    @property
    def verdict(self) -> str:
        """PASS or MISS; empty if there is no goal."""
        if self.goal is None:
            return ""
        return "PASS" if (self.value <= self.goal if self.at_most else self.value >= self.goal) else "MISS"

    def cells(self) -> list[str]:
        """What the table shows of it."""
        goal = "" if self.goal is None else f"{'≤' if self.at_most else '≥'} {self._shown(self.goal)}"
        return [self.what, self.ours, self.other, self._shown(self.value), goal, self.verdict]

    def _shown(self, number: float | None) -> str:
        if number is None:
            return ""
        forms = {"×": f"{number:.2f} ×", "%": f"{number:.1%}", "error": f"{number:.1e}"}
        return forms.get(self.unit, f"{number:,.0f} {self.unit}")


@dataclass(frozen=True)
class Measurement:
    """What measures something and returns lines of the table."""

    title: str
    measure: Callable[[Check], list[Row]]
    seconds: float
    """The most that it may take."""
    needs_gpu: bool = False


MEASUREMENTS: dict[str, Measurement] = {}
"""By name, in the order in which they are done: the most important ones first."""


def measurement(title: str, seconds: float, needs_gpu: bool = False) -> Callable:
    """Register a function by its name."""

    def register(measure: Callable[[Check], list[Row]]) -> Callable[[Check], list[Row]]:
        MEASUREMENTS[measure.__name__] = Measurement(title, measure, seconds, needs_gpu)
        return measure

    return register


class TimeIsUp(BaseException):
    """Not an ``Exception``: gliner2 catches those of a training step."""


@contextmanager
def time_limit(seconds: float) -> Iterator[None]:
    """Raise :class:`TimeIsUp` in the block after so many seconds, and every ten seconds again if it is caught."""

    def stop(*_: Any) -> None:
        raise TimeIsUp

    signal.signal(signal.SIGALRM, stop)
    signal.setitimer(signal.ITIMER_REAL, max(seconds, 1e-3), 10)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)


def measure(each: Measurement, check: Check | None, end: float) -> dict[str, Any]:
    """The record of a measurement, which is done if there is time for it.

    Args:
        check: ``None`` if there was not even time to build it.
        end: When all has to be over, by the monotonic clock.
    """
    begin = time.monotonic()
    left, rows, status, reason = end - begin, [], "done", ""
    if check is None or left <= 0:
        status, reason = "left out", "the time was up"
    elif each.needs_gpu and not check.on_gpu:
        status, reason = "not measured", "needs a GPU"
    else:
        try:
            with time_limit(min(each.seconds, left)):
                rows = each.measure(check)
        except TimeIsUp:
            status, reason = "left out", "the time was up before it was done"
            if each.seconds < left:
                status, reason = "failed", f"not done after {each.seconds:g} seconds"
        except Exception as error:  # any: the others can still be measured
            status, reason = "failed", f"{type(error).__name__}: {first_line(error)}"
        check.run.accelerator.free_memory()
    record = {"title": each.title, "status": status, "reason": reason, "seconds": round(time.monotonic() - begin, 2)}
    return {**record, "verdicts": [row.verdict for row in rows], "rows": [asdict(row) for row in rows]}


def make_table(title: str, records: Mapping[str, Mapping[str, Any]]) -> Table:
    """The rows of all measurements; one without rows has its reason in their place."""
    table = Table(title=title)
    for name in ("what", "ours", "other", "ratio or value", "goal", "verdict"):
        table.add_column(name, justify="right" if name == "ratio or value" else "left")
    for each in records.values():
        for row in each["rows"]:
            table.add_row(*Row(**row).cells())
        if not each["rows"]:
            table.add_row(each["title"], f"{each['status']}: {each['reason']}", style="yellow")
    return table


def in_turns(ways: Mapping[str, Callable[[], float]], rounds: int) -> dict[str, list[float]]:
    """What each way returns in each round, its seconds, after a round that does not count."""
    seconds: dict[str, list[float]] = {name: [] for name in ways}
    for number in range(rounds + 1):
        for name in ways if number % 2 else reversed(ways):
            taken = ways[name]()
            if number:
                seconds[name].append(taken)
    return seconds


def ratio(ours: Sequence[float], others: Sequence[float]) -> float:
    """How many times as long the others take: the median of the rounds."""
    return median(other / own for own, other in zip(ours, others, strict=True))
