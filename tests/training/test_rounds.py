"""Training rounds in their order, with real training processes; only the clock and the machine's files are ours."""

from __future__ import annotations

import dataclasses
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from jobs import two_streams

from gon_edge.config.schema import RetrainConfig
from gon_edge.errors import GonEdgeError, RetrainBusy
from gon_edge.model.file import Model
from gon_edge.process.clock import Clock
from gon_edge.state.folder import ModelFolder
from gon_edge.state.history import RetrainRecord
from gon_edge.state.store import Store
from gon_edge.training.conditions import Conditions
from gon_edge.training.job import Order, make_job, next_version
from gon_edge.training.rounds import Rounds
from gon_edge.training.trainer import Trainer

CALM = RetrainConfig(max_load=None, processes=1, nice=0)


class Person:
    """A client that writes down what it is told."""

    def __init__(self) -> None:
        self.gone = False
        self.told: list[dict[str, Any]] = []
        self.results: list[dict[str, Any]] | None = None

    def tell(self, **progress: Any) -> None:
        self.told.append(progress)

    def answer(self, **result: Any) -> None:
        self.results = result["rounds"]

    def refuse(self, error: GonEdgeError | str) -> None:
        raise AssertionError(error)


class Machine:
    """Rounds on a store of two streams, with a clock and a temperature that the test sets."""

    clock = Clock()

    def __init__(self, folder: Path, settings: RetrainConfig = CALM) -> None:
        self.config = two_streams(folder)
        self.store = Store.open(self.config.state_dir, read_only=True)
        self.models = ModelFolder(self.config.state_dir)
        self.trainer = Trainer(self.config.state_dir, self.models)
        self._zone = folder / "sys" / "class" / "thermal" / "thermal_zone0" / "temp"
        self._zone.parent.mkdir(parents=True)
        self.celsius(40)
        self.rounds = Rounds(self.trainer, settings, Conditions(folder, vcgencmd="/nonexistent"))
        self.now = 1000.0
        self.began_rounds: list[str] = []
        self.ended_rounds: list[str] = []

    def celsius(self, celsius: int) -> None:
        self._zone.write_text(f"{celsius * 1000}\n")

    def keep(self, stream: str | None = None) -> None:
        pass

    def model(self, stream: str) -> Model | None:
        return self.models.load(stream)[0]

    def newest_row(self, stream: str) -> tuple[float | None, float | None]:
        return 1399.0, 1.0

    def began(self, order: Order) -> None:
        self.began_rounds.append(order.stream)

    def ended(self, order: Order, record: RetrainRecord, model: Model | None) -> None:
        assert (record.outcome == "promoted") is (model is not None)
        self.ended_rounds.append(order.stream)

    def step(self, seconds: float = 0.1) -> None:
        self.now += seconds
        self.rounds.step(self.now, self)

    def until(self, condition: Callable[[], Any], what: str, seconds: float = 0.1) -> None:
        deadline = time.monotonic() + 60.0
        while not condition():
            assert time.monotonic() < deadline, what
            self.step(seconds)
            time.sleep(0.01)

    def stands_still(self, expected: bool) -> bool:
        """Whether the pump's child is stopped (``T`` of proc(5)), or is not; a signal takes a moment to arrive."""
        deadline = time.monotonic() + 2.0
        while time.monotonic() < deadline:
            state = Path(f"/proc/{self.trainer.pid('pump')}/stat").read_text().rpartition(")")[2].split()[0]
            if (state == "T") is expected:
                return True
            time.sleep(0.005)
        return False

    def told_something(self) -> bool:
        progress = self.trainer.progress("pump")
        return progress is not None and progress["phase"] != "starting"


@pytest.fixture
def machine(tmp_path: Path) -> Any:
    made: list[Machine] = []

    def make(settings: RetrainConfig = CALM) -> Machine:
        made.append(Machine(tmp_path, settings))
        return made[-1]

    yield make
    for each in made:
        each.rounds.stop()
        each.store.close()


def test_who_asks_for_several_gets_one_answer_and_hears_of_the_way(machine: Any) -> None:
    here, person = machine(), Person()
    here.rounds.ask([Order("pump", "asked"), Order("boiler", "asked")], person)
    here.until(lambda: person.results, "the answer", 0.6)
    assert [(r["stream"], r["outcome"], r["version"], r["exit_code"]) for r in person.results] == [
        ("pump", "promoted", "1", 0),
        ("boiler", "promoted", "1", 0),
    ]
    assert person.results[0]["gate"] is not None
    assert {"phase", "share", "loss", "rss_bytes", "budget_bytes", "elapsed_s", "held"} <= set(person.told[0])
    assert next_version(here.models, "pump") == "2"


def test_a_second_one_is_busy_or_waits_and_comes_before_what_starts_by_itself(machine: Any) -> None:
    here, first, second = machine(), Person(), Person()
    here.rounds.ask([Order("pump", "asked")], first)
    here.rounds.ask([Order("boiler", "time")])
    here.step()
    with pytest.raises(RetrainBusy, match="--wait"):
        here.rounds.ask([Order("pump", "asked")], second)
    here.rounds.ask([Order("pump", "asked", force=True)], second, wait=True)
    assert (here.rounds.going, here.rounds.waiting) == (1, {"place": 2})
    here.until(lambda: len(here.ended_rounds) == 3, "three rounds", 0.6)
    assert here.ended_rounds == ["pump", "pump", "boiler"]
    assert (here.rounds.going, here.rounds.waiting) == (0, {})
    assert second.told[0] == {"stream": "pump", "waiting": "pump"}


def test_who_hangs_up_takes_the_round_along(machine: Any) -> None:
    here, person, other = machine(), Person(), Person()
    here.rounds.ask([Order("pump", "asked"), Order("boiler", "asked")], person)
    here.rounds.ask([Order("boiler", "asked")], other, wait=True)
    here.step()
    pid = here.trainer.pid("pump")
    person.gone = True
    here.step()
    assert not Path(f"/proc/{pid}").exists()
    here.until(lambda: other.results, "the other's turn")
    assert here.ended_rounds == ["boiler"]
    assert here.models.load("pump") == (None, "")


def test_a_hot_machine_stops_a_round_and_lets_it_go_on_when_it_has_cooled(machine: Any) -> None:
    here, person = machine(), Person()
    here.rounds.ask([Order("pump", "asked")], person)
    here.until(here.told_something, "the first message")
    here.celsius(80)
    here.step(10.0)
    assert here.stands_still(True)
    assert "the machine is hot: 80 °C" in here.rounds.held
    assert "hot" in person.told[-1]["held"]
    assert (here.rounds.going, here.rounds.waiting) == (0, {"heat": 1})
    here.celsius(60)
    here.step(10.0)
    assert here.rounds.held == ""
    here.until(lambda: person.results, "the answer")
    assert person.results[0]["outcome"] == "promoted"


def test_a_held_round_can_be_cancelled(machine: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("gon_edge.training.trainer._TERMINATE_S", 120.0)  # a process that is held hears no SIGTERM
    here, person = machine(), Person()
    here.rounds.ask([Order("pump", "asked")], person)
    here.until(here.told_something, "the first message")
    here.celsius(80)
    here.step(10.0)
    pid = here.trainer.pid("pump")
    began = time.monotonic()
    assert here.rounds.cancel("pump")
    assert time.monotonic() - began < 60.0
    assert not Path(f"/proc/{pid}").exists()
    assert (person.results[0]["outcome"], person.results[0]["reason"]) == ("failed", "cancelled")
    assert not here.rounds.cancel("pump")


def test_a_loaded_machine_holds_back_what_nobody_asked_for_and_nothing_else(machine: Any) -> None:
    here = machine(dataclasses.replace(CALM, max_load=1e-9))
    here.rounds.ask([Order("pump", "time")])
    for _ in range(5):
        here.step(10.0)
    assert not here.trainer.streams
    assert "retrain.max_load" in here.rounds.held
    assert here.rounds.waiting["load"] >= 1
    person = Person()
    here.rounds.ask([Order("boiler", "asked")], person)
    here.until(lambda: person.results, "the person's")
    assert here.ended_rounds == ["boiler"]
    here.rounds.settings = CALM
    here.until(lambda: here.ended_rounds == ["boiler", "pump"], "the other one", 10.0)


def test_a_renewal_that_is_held_makes_room_for_a_first_model_and_has_its_turn_afterwards(machine: Any) -> None:
    here = machine()
    here.rounds.ask([Order("pump", "time")])
    here.until(here.told_something, "the first message")
    here.rounds.settings = dataclasses.replace(CALM, max_load=1e-9)
    here.step(10.0)
    here.rounds.ask([Order("boiler", "first")])
    assert here.rounds.waits_for("boiler") == "a training waits until 'pump' is trained"
    here.until(lambda: here.ended_rounds == ["boiler"], "the first model")
    here.step(10.0)
    assert here.rounds.waits_for("pump").startswith("a training waits: the load is ")
    here.rounds.settings = CALM
    here.until(lambda: here.ended_rounds == ["boiler", "pump"], "the renewal", 10.0)


def test_first_models_come_before_renewals_and_after_what_a_person_wants(machine: Any) -> None:
    here, person = machine(), Person()
    here.rounds.ask([Order("pump", "time"), Order("boiler", "time")])
    here.rounds.ask([Order("boiler", "first")])
    here.rounds.ask([Order("pump", "asked")], person, wait=True)
    waiting = [(order.stream, order.why) for order, _ in here.rounds._waiting]
    assert waiting == [("pump", "asked"), ("boiler", "first"), ("pump", "time"), ("boiler", "time")]


def test_what_started_by_itself_ends_when_learning_is_frozen_and_what_a_person_asked_for_does_not(machine: Any) -> None:
    here, person = machine(), Person()
    here.rounds.ask([Order("pump", "drift")])
    here.rounds.ask([Order("pump", "time"), Order("boiler", "time")])
    here.until(lambda: here.trainer.streams, "the first round")
    assert here.rounds.freeze("pump")
    assert not here.rounds.freeze("pump")
    assert not here.rounds.wants("pump")
    assert here.rounds.wants("boiler")
    here.rounds.ask([Order("pump", "asked")], person)
    here.step()
    assert not here.rounds.freeze("pump")
    here.until(lambda: person.results, "the person's")


def test_a_share_of_the_processor_is_kept_by_standing_still(machine: Any) -> None:
    here = machine(dataclasses.replace(CALM, cpu_share=0.5))
    here.rounds.ask([Order("pump", "first")])
    here.until(here.told_something, "the first message")
    for quarter in range(2, 8):  # of a second: stop, stop, run, run, stop, stop
        here.now = 2000.0 + quarter / 4.0
        here.step(0.0)
        assert here.stands_still(quarter % 4 >= 2)


def test_another_process_that_trains_is_waited_for_or_reported(machine: Any) -> None:
    here, hasty, patient = machine(), Person(), Person()
    other = Trainer(here.config.state_dir, here.models)
    other.start(make_job(Order("boiler", "asked"), here))
    try:
        here.rounds.ask([Order("pump", "asked")], hasty)
        here.step()
        assert hasty.results[0]["exit_code"] == 75
        here.rounds.ask([Order("pump", "asked")], patient, wait=True)
        for _ in range(3):
            here.step(1.1)
        assert patient.results is None
        assert patient.told[-1] == {"stream": "pump", "waiting": ""}
    finally:
        other.stop()
    here.until(lambda: patient.results, "its turn", 1.1)
    assert patient.results[0]["outcome"] == "promoted"


def test_a_disk_that_cannot_be_written_is_an_answer(machine: Any, tmp_path: Path) -> None:
    here, person = machine(), Person()
    (here.config.state_dir / "models").write_text("in the way")
    here.rounds.ask([Order("pump", "asked")], person)
    here.until(lambda: person.results, "the answer")
    assert (person.results[0]["outcome"], person.results[0]["exit_code"]) == ("failed", 1)
    assert os.strerror(20) in person.results[0]["reason"]


def test_who_has_nothing_else_to_do_waits_for_a_round_and_gets_its_record(machine: Any) -> None:
    here, person = machine(), Person()
    assert here.rounds.finish(here) is None
    here.rounds.ask([Order("pump", "asked")], person)
    here.step()
    record = here.rounds.finish(here)
    assert (record.stream, record.outcome, record.version) == ("pump", "promoted", "1")
    assert here.ended_rounds == ["pump"]
    assert person.results is not None
    assert not here.rounds.running


def test_without_conditions_no_heat_holds_a_round_up(machine: Any) -> None:
    here = machine(RetrainConfig(max_load=0.01, on_battery=False, nice=0))
    here.celsius(95)
    here.rounds = Rounds(here.trainer, here.rounds.settings, None)
    here.rounds.ask([Order("pump", "time")])
    here.step()
    assert here.began_rounds == ["pump"]
    assert here.rounds.finish(here).outcome == "promoted"


# -- several at once --------------------------------------------------------------------------------------------------

TWO = dataclasses.replace(CALM, processes=2)


def test_two_streams_are_trained_at_once_where_there_is_room_for_two(machine: Any) -> None:
    here, person = machine(TWO), Person()
    here.rounds.ask([Order("pump", "first"), Order("boiler", "first")])
    here.step()
    assert here.began_rounds == ["pump", "boiler"]
    assert [order.stream for order in here.rounds.running] == ["pump", "boiler"]
    assert here.rounds.training_of("boiler") == "starting, 0 %"
    with pytest.raises(RetrainBusy, match="'pump', 'boiler' is being trained"):
        here.rounds.ask([Order("pump", "asked")], person)
    here.rounds.ask([Order("pump", "asked")], person, wait=True)
    assert here.rounds.waits_for("pump") == "a training waits until 'pump' or 'boiler' is trained"
    here.until(lambda: person.results, "its turn")
    assert sorted(here.ended_rounds) == ["boiler", "pump", "pump"]


def test_a_person_need_not_wait_while_a_place_is_free(machine: Any) -> None:
    here, person = machine(TWO), Person()
    here.rounds.ask([Order("pump", "first")])
    here.step()
    here.rounds.ask([Order("boiler", "asked")], person)
    here.step()
    assert here.began_rounds == ["pump", "boiler"]
    here.until(lambda: person.results, "the answer")


def test_all_trainings_together_keep_to_the_memory_budget(machine: Any) -> None:
    here, person = machine(dataclasses.replace(TWO, memory_budget_bytes=128 << 20)), Person()
    here.rounds.ask([Order("pump", "asked", budget_bytes=80 << 20), Order("boiler", "asked")], person)
    here.step()
    assert here.began_rounds == ["pump"]  # 80 and 64 MiB are more than 128
    here.until(lambda: person.results, "the answers")
    assert [(r["stream"], r["budget_bytes"] >> 20) for r in person.results] == [("pump", 80), ("boiler", 64)]


def test_a_child_that_is_killed_costs_its_own_round_and_no_other(machine: Any) -> None:
    here, person = machine(TWO), Person()
    here.rounds.ask([Order("pump", "asked"), Order("boiler", "asked")], person)
    here.until(here.told_something, "the first message")
    os.kill(here.trainer.pid("boiler"), 9)
    here.until(lambda: person.results, "the answers")
    outcomes = {result["stream"]: result["outcome"] for result in person.results}
    assert outcomes == {"pump": "promoted", "boiler": "failed"}


def test_a_held_renewal_leaves_its_place_only_to_what_finds_no_other(machine: Any) -> None:
    here = machine(TWO)
    here.rounds.ask([Order("pump", "time")])
    here.until(here.told_something, "the first message")
    here.rounds.settings = dataclasses.replace(TWO, max_load=1e-9)
    here.step(10.0)
    assert here.stands_still(True)
    here.rounds.ask([Order("boiler", "first")])
    here.until(lambda: here.ended_rounds == ["boiler"], "the first model")
    assert "retrain.max_load" in here.rounds.training_of("pump")  # it stands where it stood
    here.rounds.settings = TWO
    here.until(lambda: here.ended_rounds == ["boiler", "pump"], "the renewal", 10.0)


def test_a_hot_machine_stops_every_child_and_the_end_leaves_none(machine: Any) -> None:
    here = machine(TWO)
    here.rounds.ask([Order("pump", "first"), Order("boiler", "first")])
    here.until(here.told_something, "the first message")
    here.until(lambda: here.trainer.progress("boiler")["phase"] != "starting", "the other's first message")
    here.celsius(80)
    here.step(10.0)
    pids = [here.trainer.pid(name) for name in ("pump", "boiler")]
    assert here.stands_still(True)
    assert all("hot" in here.rounds.training_of(name) for name in ("pump", "boiler"))
    here.rounds.stop()
    assert not any(Path(f"/proc/{pid}").exists() for pid in pids)


def test_the_next_round_goes_to_the_child_of_the_one_before_and_none_stays_without_one(machine: Any) -> None:
    here = machine()
    here.rounds.ask([Order("pump", "first"), Order("boiler", "first")])
    here.step()
    pid = here.trainer.pid("pump")
    here.until(lambda: here.ended_rounds == ["pump"], "the first one")
    assert here.trainer.pid("boiler") == pid
    here.until(lambda: not here.rounds.running, "the second one")
    here.until(lambda: not Path(f"/proc/{pid}").exists(), "its end")
