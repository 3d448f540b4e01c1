"""Habits as rows: what is released, what grows, what a person refuses; and a nightly job from first alert to none."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from jobs import plain_job
from nightly import DAY, NAMES, START, job_blocks, kept, server, times
from numpy.typing import NDArray

from gon_edge.config.schema import AlertsConfig, StreamConfig
from gon_edge.events import Alert, Row
from gon_edge.model.counters import Judged
from gon_edge.model.file import Model, save_model
from gon_edge.research.machines import record
from gon_edge.state.store import Store
from gon_edge.stream.stream import Stream
from gon_edge.training.child import _fit_and_judge
from gon_edge.training.fit import fit_model, odd_rows
from gon_edge.training.habits import come_again, habit_spans, learn
from gon_edge.training.plan import plan
from gon_edge.training.settings import FitSettings
from gon_edge.training.source import Source


def left_out(store: Store) -> int:
    return sum(int(chunk.quarantined.sum()) for chunk in store.chunks("s", include_quarantined=True))


def test_the_rows_of_a_habit_are_released_and_named(tmp_path: Path) -> None:
    blocks = job_blocks(range(3))
    with kept(tmp_path, server(3, range(3)), blocks) as store:
        assert left_out(store) == 3 * 61
        seen = learn(store, "s", blocks)
        assert seen is not None
        assert seen.startswith("3 times at ")
        assert seen.endswith(", 60 minutes: io and net")
        assert left_out(store) == 0
        assert habit_spans(store, "s") == (tuple((b.since, b.until) for b in blocks), ())


@pytest.mark.parametrize(
    ("sizes", "learned"),
    [
        ({0: 1.0, 1: 1.3, 2: 1.7}, False),
        ({0: 1.0, 1: 1.0, 2: 1.7}, False),
        ({0: 1.0, 1: 1.2, 2: 1.1}, True),
        ({0: 1.7, 1: 1.3, 2: 1.0}, True),
    ],
    ids=["grows", "jumps", "varies", "shrinks"],
)
def test_what_grows_is_no_habit(tmp_path: Path, sizes: dict[int, float], learned: bool) -> None:
    blocks = job_blocks(range(3))
    with kept(tmp_path, server(3, range(3), sizes=sizes), blocks) as store:
        assert (learn(store, "s", blocks) is not None) == learned
        assert (left_out(store) == 0) == learned


def test_what_a_person_has_called_a_fault_is_not_learned_and_takes_its_habit_along(tmp_path: Path) -> None:
    blocks = job_blocks(range(3))
    fault = (blocks[1].since + 60.0, blocks[1].until)
    with kept(tmp_path, server(3, range(3)), blocks) as store:
        assert learn(store, "s", blocks, [fault]) is None
        assert learn(store, "s", blocks) is not None
        assert habit_spans(store, "s", [fault]) == ((), tuple((b.since, b.until) for b in blocks))


def test_rows_that_are_not_stored_any_more_are_no_evidence(tmp_path: Path) -> None:
    blocks = [*job_blocks(range(2)), *job_blocks(range(5, 6))]
    with kept(tmp_path, server(3, range(3)), blocks) as store:
        assert learn(store, "s", blocks) is None


def test_a_habit_that_goes_on_is_one_habit(tmp_path: Path) -> None:
    blocks = job_blocks(range(4))
    with kept(tmp_path, server(4, range(4)), blocks) as store:
        learn(store, "s", blocks[:3])
        learn(store, "s", blocks[1:])
        fault = (blocks[3].since, blocks[3].until)
        assert len(habit_spans(store, "s", [fault])[1]) == 4


# -- screening ---------------------------------------------------------------------------------------------------------


def screened(rows: NDArray[np.float32]) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
    """Rows that screening calls odd, and those of them, with rows around, that come again."""
    restart = np.zeros(len(rows), np.bool_)
    judged = Judged(rows, restart, np.zeros(len(NAMES), np.bool_))
    odd = odd_rows(judged, restart, FitSettings(), np.random.default_rng(0))
    return odd, come_again(judged, odd, times(rows))


def test_screening_drops_nothing_that_comes_on_three_days() -> None:
    odd, again = screened(server(3, range(3)))
    assert odd.any()
    assert not (odd & ~again).any()


@pytest.mark.parametrize("days", [range(1, 2), range(1, 3)], ids=["one day", "two days"])
def test_screening_drops_what_comes_on_fewer(days: range) -> None:
    odd, again = screened(server(3, days))
    assert odd.any()
    assert not again.any()


def fridge(days: float) -> tuple[Judged, NDArray[np.float64], NDArray[np.intp]]:
    """A row in ten seconds, when, and the rows at which the motor starts, once an hour, with thrice its power."""
    recording = record("fridge", 0, days=days)
    rows = np.array(recording.values, np.float32)
    judged = Judged(rows, np.zeros(len(rows), np.bool_), np.zeros(rows.shape[1], np.bool_))
    return judged, np.array(recording.timestamps), np.flatnonzero(rows[:, recording.features.index("power")] > 200.0)


def test_screening_drops_nothing_that_comes_throughout() -> None:
    rows, at, starts = fridge(1.0)
    odd = odd_rows(rows, np.zeros(len(rows), np.bool_), FitSettings(), np.random.default_rng(0))
    assert odd[starts].all()
    assert come_again(rows, odd, at)[starts].all()


def test_screening_drops_what_came_again_and_again_for_a_part_of_the_time() -> None:
    rows, at, starts = fridge(1.0)
    odd = np.zeros(len(rows), np.bool_)
    odd[starts[len(starts) // 2 :, None] + np.arange(5)] = True
    assert not come_again(rows, odd, at).any()


def test_a_hidden_fault_in_one_block_is_left_out_as_if_nothing_was_known_of_hours() -> None:
    rows = server(4, range(0))
    at = DAY + 700
    rows[at : at + len(rows) // 50, 1] += 40.0  # 2 % of the rows
    without = fit_model(rows, rng=np.random.default_rng(0))
    told = fit_model(rows, times=times(rows), rng=np.random.default_rng(0))
    assert told.threshold == without.threshold


# -- the whole way -----------------------------------------------------------------------------------------------------


class Machine:
    """A stream with its store, trained in this process by the function of the training child."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.store = Store.open(folder)
        self.champion = folder / "model.npz"
        looks_hourly = AlertsConfig(update_every_s=3600.0)  # at the causes, which take ten times a score
        self.stream = Stream("s", StreamConfig(warmup_rows=2 * DAY, alerts=looks_hourly), max_features=10)
        self.alerts: list[Alert] = []
        self.rows = 0

    def live(self, rows: NDArray[np.float32], every: int = 1) -> list[Alert]:
        """Judge the next rows, or some of them; what was told meanwhile."""
        fresh, before = np.zeros(len(NAMES), np.bool_), len(self.alerts)
        for values in rows[::every]:
            row = Row("s", START + 60.0 * self.rows, NAMES, values, fresh, self.rows == 0)
            self.rows += every
            for outcome in self.stream.judge([row]):
                self.store.add_row(outcome.row, outcome.withheld is not None, 0.0)
                for alert in outcome.alerts:
                    if alert.type == "end" and alert.recurring is not None:
                        seen = learn(self.store, "s", self.stream.policy.past.occasions(alert.since))
                        alert = replace(alert, recurring=replace(alert.recurring, learned=seen is not None))
                    self.alerts.append(alert)
        return self.alerts[before:]

    def train(self) -> Model:
        self.store.flush(0.0)
        job = plain_job(
            self.folder,
            stream="s",
            window=40,
            risk=1e-5,
            interval_s=60.0,
            budget_bytes=256 << 20,
            habits=habit_spans(self.store, "s")[0],
            champion=str(self.champion) if self.champion.exists() else "",
        )
        source = Source(job)
        model = _fit_and_judge(job, source, plan(job, source).rows)
        if not model.lineage["gate"]["passed"]:
            raise AssertionError(model.lineage["gate"]["reasons"])
        self.stream.use(model)
        save_model(model, self.champion)
        return model


@pytest.mark.slow  # two trainings on days of minutes
def test_a_nightly_job_is_an_alert_twice_then_recurring_and_then_learned(tmp_path: Path) -> None:
    rows = server(8, range(2, 8))
    machine = Machine(tmp_path)
    machine.live(rows[: 2 * DAY])
    machine.train()
    told = machine.live(rows[2 * DAY : 5 * DAY])
    job_at = next(alert.since for alert in told if alert.recurring is not None)
    nightly = {alert.id for alert in told if abs((alert.since - job_at + 43200.0) % 86400.0 - 43200.0) < 3600.0}
    assert len({alert.id for alert in told} - nightly) <= 2  # of anything else, by a model of two days
    told = [alert for alert in told if alert.id in nightly]
    begun = [alert for alert in told if alert.type == "new"]
    assert [alert.recurring and alert.recurring.count for alert in begun] == [None, None, 3]
    assert [alert.severity for alert in begun] == ["critical", "critical", "warning"]
    ends = [alert.recurring and alert.recurring.learned for alert in told if alert.type == "end"]
    assert ends == [None, None, True]
    assert {alert.severity for alert in told if alert.recurring is not None} == {"warning"}
    machine.train()
    nights = [alert for alert in machine.live(rows[5 * DAY :]) if alert.type == "new"]
    assert len(nights) <= 1  # of three: a job that begins minutes later than ever before may still be told
    assert {alert.recurring is not None for alert in nights} <= {True}
    fault = rows[:DAY].copy()
    fault[720:780, 1] += 40.0  # one of the job's features alone, at another hour
    assert [alert.recurring for alert in machine.live(fault) if alert.type == "new"] == [None]
    machine.store.close()


@pytest.mark.slow  # a training on days of minutes
def test_a_fault_that_lasts_four_days_is_one_alert_and_never_learned(tmp_path: Path) -> None:
    rows = server(8, range(0))
    rows[2 * DAY + 360 : 6 * DAY + 360, 1:3] += [40.0, 25.0]
    machine = Machine(tmp_path)
    machine.live(rows[: 2 * DAY])
    machine.train()
    told = machine.live(rows[2 * DAY :], every=10)  # each row of an alert costs thirty others
    over = told[0].since + 4 * 86400.0
    assert len({alert.id for alert in told if alert.since < over}) == 1
    assert not [alert for alert in told if alert.type == "end" and alert.timestamp < over]
    assert {alert.recurring for alert in told} == {None}
    assert left_out(machine.store) >= 4 * DAY // 10
    assert habit_spans(machine.store, "s") == ((), ())
    machine.store.close()
