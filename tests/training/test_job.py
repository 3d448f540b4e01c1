"""How an order becomes a job, and that a job's file says all of it."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import pytest
from jobs import plain_job, two_streams

from gon_edge.config.schema import Config
from gon_edge.errors import InputError
from gon_edge.model.file import Model, load_model
from gon_edge.process.clock import Clock
from gon_edge.state.folder import ModelFolder
from gon_edge.state.store import Store
from gon_edge.training.answers import Answer, remember
from gon_edge.training.capacity import capacity
from gon_edge.training.job import Job, Order, make_job, moment, next_version, read_job, write_job
from gon_edge.training.settings import FitSettings

GOLDEN = Path(__file__).parents[1] / "golden" / "pump.npz"


class Here:
    """What a job is made of; the store has 400 rows a second apart, up to 1399."""

    clock = Clock()

    def __init__(self, config: Config, *, newest: float | None = 1399.0, interval_s: float | None = 1.0) -> None:
        self.config = config
        self.models = ModelFolder(config.state_dir)
        self.store = Store.open(config.state_dir, read_only=True)
        self.kept = 0
        self._newest = newest, interval_s

    def keep(self, stream: str | None = None) -> None:
        self.kept += 1

    def model(self, stream: str) -> Model | None:
        return self.models.load(stream)[0]

    def newest_row(self, stream: str) -> tuple[float | None, float | None]:
        return self._newest

    def job(self, **order: Any) -> Job:
        return make_job(Order("pump", "asked", **order), self)  # type: ignore[arg-type]


@pytest.fixture
def config(tmp_path: Path) -> Config:
    return two_streams(tmp_path)


def test_a_first_job_has_no_champion_and_learns_up_to_the_newest_row_which_is_on_the_disk(config: Config) -> None:
    here = Here(config)
    job = here.job()
    assert here.kept == 1
    assert (job.version, job.parent, job.champion, job.until, job.since) == ("1", "", "", 1399.0, None)
    assert Path(job.candidate).parent == here.models.file("pump").parent
    assert job.settings == FitSettings(window=15, risk=job.settings.risk)
    assert (job.budget_bytes, job.max_rows) == (capacity(config.retrain).budget_bytes, config.retrain.max_rows)


def test_a_later_job_names_the_model_in_use(config: Config) -> None:
    here = Here(config)
    here.models.install("pump", load_model(GOLDEN).with_lineage(version="7"))
    job = here.job(budget_bytes=1 << 20, since={"ago_s": 99.0}, force=True)
    assert (job.version, job.parent, job.champion) == ("8", "7", str(here.models.file("pump")))
    assert (job.budget_bytes, job.since, job.force) == (1 << 20, 1300.0, True)
    assert next_version(here.models, "boiler") == "1"


@pytest.mark.parametrize(
    ("budget", "interval_s", "risk"),
    [(1 / 7, 60.0, 60 / 604800), (1.0, 1.0, 1 / 86400), (0.001, 1.0, 1e-6), (1e6, 1.0, 0.1), (1.0, 60.0, 60 / 86400)],
)
def test_false_alarms_a_day_become_the_risk_of_a_row(
    config: Config, budget: float, interval_s: float, risk: float
) -> None:
    defaults = config.streams.defaults
    alerts = dataclasses.replace(defaults.alerts, budget=budget)
    streams = dataclasses.replace(config.streams, defaults=dataclasses.replace(defaults, alerts=alerts))
    here = Here(dataclasses.replace(config, streams=streams), interval_s=interval_s)
    assert here.job().settings.risk == pytest.approx(risk)


def test_without_a_row_everything_in_a_file_may_be_learned(config: Config) -> None:
    job = Here(config, newest=None, interval_s=None).job(rows_file="/tmp/rows.csv", since={"ago_s": 60.0})
    assert (job.until, job.since, job.interval_s, job.rows_file) == (float("inf"), None, 0.0, "/tmp/rows.csv")


def test_a_span_is_of_the_rows_that_are_stored_or_of_those_in_the_file(config: Config) -> None:
    span = {"since": {"ago_s": 100.0}, "until": {"at": 1350.0}}
    stored = Here(config).job(**span)
    assert (stored.since, stored.until, stored.rows_options) == (1299.0, 1350.0, {})
    filed = Here(config).job(**span, rows_file="/tmp/rows.csv", rows_options={"decimal": ","})
    assert (filed.since, filed.until) == (None, float("inf"))
    assert filed.rows_options == {"decimal": ",", **span}


def test_a_job_for_rows_of_another_interval_accepts_as_many_false_alerts_a_day(config: Config) -> None:
    job = Here(config).job()
    wide = job.at_interval(60.0)
    assert (wide.interval_s, wide.settings.risk) == (60.0, pytest.approx(60.0 * job.alerts_a_day / 86400.0))
    assert job.at_interval(1.0) is job


def test_what_a_person_said_goes_along_and_what_is_newer_than_the_model_apart(config: Config) -> None:
    with Store.open(config.state_dir) as store:
        store.put_state("accepted/pump", [[1000.0, 1010.0]])  # as gon-edge kept it before there were answers
        for number, word in enumerate(("wrong", "true", "accepted")):
            since = 1100.0 + 100.0 * number
            remember(store, Answer(f"a{number}", word, "pump", since, since + 9.0, at=50.0 * number))
        store.flush(0.0)
    here = Here(config)
    here.models.install("pump", load_model(GOLDEN).with_lineage(version="7", trained_at=60.0))
    job = here.job()
    assert job.accepted == ((1000.0, 1010.0), (1100.0, 1109.0), (1300.0, 1309.0))
    assert (job.accepted_anew, job.faults) == (((1300.0, 1309.0),), ((1200.0, 1209.0),))


def test_what_a_person_calls_a_counter_or_a_gauge_goes_along(config: Config) -> None:
    stream = dataclasses.replace(config.streams.defaults, counter=("rain",), gauge=("*.level",))
    here = Here(dataclasses.replace(config, streams=dataclasses.replace(config.streams, defaults=stream)))
    settings = here.job().settings
    assert (settings.counter, settings.gauge) == (("rain",), ("*.level",))


def test_a_job_comes_back_from_its_file(tmp_path: Path) -> None:
    spans = {"accepted": ((1.0, 2.0), (3.0, 4.0)), "accepted_anew": ((3.0, 4.0),), "faults": ((5.0, 6.0),)}
    job = plain_job(tmp_path, **spans, since=5.0, window=7, counter=("rain",), gauge=("level", "*.t"))
    write_job(job, tmp_path / "job.json")
    assert read_job(tmp_path / "job.json") == job


def test_a_moment_is_a_time_or_counted_from_the_newest_row() -> None:
    with pytest.raises(InputError):
        moment({"when": 1.0}, 5.0)
