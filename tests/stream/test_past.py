"""What an earlier run has stored, read when it is needed; the differences it makes are in test_stream."""

from __future__ import annotations

import numpy as np
import pytest

from gon_edge.model.daily import MOST_FEATURES, SUFFIX, DayMemory
from gon_edge.stream.past import Part, Past

DAY = 86_400.0


def part(day: int, value: float, names: tuple[str, ...] = ("flow",)) -> Part:
    """A row at noon."""
    return np.array([DAY * day + DAY / 2]), names, np.full((1, len(names)), value, np.float32)


def differences(memory: DayMemory, day: int, value: float) -> float:
    return float(memory.of_row(DAY * day + DAY / 2, ("flow",), np.float32([value]))[0])


def test_parts_are_read_one_by_one_as_they_are_asked_for() -> None:
    read: list[int] = []

    def parts():
        for day in range(3):
            read.append(day)
            yield part(day, float(day))

    memory = DayMemory(offset_s=lambda _: 0.0)
    past = Past(memory)
    assert not past.recall()
    past.give(parts())
    assert (past.waits, read) == (True, [])
    assert past.recall()
    assert read == [0]
    assert differences(memory, 3, 2.0) == 2.0
    assert [past.recall() for _ in range(3)] == [True, True, False]
    assert not past.waits
    assert differences(memory, 3, 2.0) == 0.0


@pytest.mark.parametrize(("features", "reads"), [(("flow",), 0), (("flow", f"flow{SUFFIX}"), 2), ((f"x{SUFFIX}",), 0)])
def test_only_a_model_that_compares_with_other_days_has_all_of_it_read(features: tuple[str, ...], reads: int) -> None:
    read: list[int] = []
    past = Past(DayMemory(offset_s=lambda _: 0.0))
    past.give(read.append(day) or part(day, 1.0) for day in range(2))  # type: ignore[func-returns-value]
    past.recall_for(features)
    assert len(read) == reads


def test_what_is_read_late_does_not_push_out_what_has_come_since() -> None:
    # The memory is a ring: the same hour of eight days ago has the place of today's.
    memory = DayMemory(offset_s=lambda _: 0.0)
    memory.add_row(DAY * 8 + DAY / 2, ("flow",), np.float32([5.0]))
    past = Past(memory)
    past.give([part(0, 100.0), part(8, 6.0)])
    while past.recall():
        pass
    assert differences(memory, 9, 5.5) == 0.0
    assert differences(memory, 9, 100.0) == 94.0


def test_rows_of_more_readings_than_are_ever_compared_are_passed_over() -> None:
    memory = DayMemory(offset_s=lambda _: 0.0)
    past = Past(memory)
    past.give([part(0, 1.0, tuple(f"x{i}" for i in range(MOST_FEATURES + 1)))])
    assert past.recall()
    assert np.isinf(memory.of_row(DAY * 1.5, ("x0",), np.float32([1.0]))[0])
