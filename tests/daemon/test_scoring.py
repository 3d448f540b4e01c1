"""What one run leaves to the next: alerts, rows, models.  Messages pass through test_rehearsal and e2e/test_daemon."""

from __future__ import annotations

import json
import logging
import shutil
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
import states
from mounts import mounted, remounted
from sparkplugs import payload
from states import NOW, Caller, Sent, begun
from storing import fill

from gon_edge.daemon.scoring import Scoring
from gon_edge.events import Alert
from gon_edge.model.file import load_model
from gon_edge.state.folder import ModelFolder
from gon_edge.state.store import Store
from gon_edge.stream.heard import Heard
from gon_edge.stream.held import alert_json
from gon_edge.training.operations import carry_out

MODEL = load_model(Path(__file__).parents[1] / "golden" / "pump.npz").with_lineage(version="1")


@pytest.fixture
def begin(tmp_path: Path) -> Iterator[Callable[..., tuple[Scoring, Sent]]]:
    """Begin to score with the state of the test."""
    opened: list[Scoring] = []

    def begin(**options: Any) -> tuple[Scoring, Sent]:
        scoring, sent = begun(tmp_path / "state", **options)
        opened.append(scoring)
        return scoring, sent

    yield begin
    for scoring in opened:
        scoring.store.close()


def with_models(state_dir: Path, *names: str) -> Path:
    for name in names:
        ModelFolder(state_dir).install(name, MODEL)
    return state_dir


def event(name: str, stream: str, **more: Any) -> dict[str, Any]:
    kind = "anomaly" if stream else "offline"
    return alert_json(Alert(name, "new", kind, stream, NOW - 60.0, NOW - 60.0, 3.0, 1.0, "critical", (), "1")) | more


def test_alerts_that_no_stream_knows_any_more_are_ended_on_the_disk_the_page_and_the_broker(begin, tmp_path):
    # They stayed open for ever, and the same fault was raised under another id.
    with Store.open(with_models(tmp_path / "state", "pump")) as store:
        store.add_alert(event("pump-1", "pump", answer="true", note="a knock"))
        store.add_alert(event("fan-1", "fan"))
        store.add_alert(event("pi-offline-1", ""))
        store.flush(0.0)
    scoring, sent = begin()
    assert [found["id"] for found in scoring.store.alerts(active=True)] == ["pi-offline-1"]
    ended = {found["id"]: found for found in sent.events}
    assert {name: (found["type"], found["timestamp"]) for name, found in ended.items()} == {
        "pump-1": ("end", NOW),
        "fan-1": ("end", NOW),
    }
    assert "answer" not in ended["pump-1"]
    assert (scoring.reporter.alerts["pump-1"]["type"], scoring.reporter.alerts["pump-1"]["answer"]) == ("end", "true")
    assert sent.retained["state/fan"] == ""


def kept(stream: str, *alerts: str, client: str = "gon-edge-test") -> bytes:
    return json.dumps({"stream": stream, "alerts": alerts, "client_id": client}).encode()


def test_alerts_that_a_kill_took_along_are_ended_where_the_broker_still_shows_them(begin, tmp_path):
    # A subscriber believed in them for ever.
    states.leave(tmp_path / "state")
    scoring, sent = begin()
    (held, *_) = (alert.id for alert in scoring.pipeline.streams["pump"].policy.active)
    lost = "pump-anomaly-20260202T024001.5Z-2"
    scoring.recall(kept("pump", held, lost, "nothing said"))
    scoring.recall(kept("gone", "gone-missing-20260202T024000Z"))
    assert [(e["id"], e["type"], e["kind"], e["stream"], e["since"]) for e in sent.events] == [
        (lost, "end", "anomaly", "pump", NOW + 1.5),
        ("nothing said", "end", "anomaly", "pump", NOW),
        ("gone-missing-20260202T024000Z", "end", "missing", "gone", NOW),
    ]
    assert sent.retained["state/gone"] == ""
    assert held in {found["id"] for found in scoring.store.alerts(active=True)}
    assert scoring.reporter.alerts[lost]["type"] == "end"


def test_an_end_that_the_broker_did_not_get_is_said_again_as_it_was(begin, tmp_path):
    ended = event("pump-anomaly-20260202T024000Z", "pump", type="end", top_features=[])
    with Store.open(with_models(tmp_path / "state", "pump")) as store:
        store.add_alert(ended)
        store.flush(0.0)
    scoring, sent = begin()
    scoring.recall(kept("pump", ended["id"]))
    assert sent.events == [ended]


@pytest.mark.parametrize(
    "payload",
    [
        kept("pump", "pump-anomaly-20260202T024000Z", client="another gon-edge of this node's name"),
        b'{"stream": "pump", "alerts": ["pump-anomaly-20260202T024000Z"]}',  # as versions before this one wrote it
        b'{"stream": "pump", "alerts": 7, "client_id": "gon-edge-test"}',
        b"7",
        b"[" * 100_000,
        b"",
    ],
)
def test_a_state_that_is_not_ours_ends_nothing(begin, tmp_path, payload):
    with_models(tmp_path / "state", "pump")
    scoring, sent = begin()
    scoring.recall(payload)
    assert (sent.events, sent.retained) == ([], {})


def test_a_stream_that_makes_room_for_others_leaves_no_alert_open(begin, tmp_path):
    states.leave(tmp_path / "state")
    scoring, sent = begin()
    stream = scoring.pipeline.streams.pop("pump")
    ids = {alert.id for alert in stream.policy.active}
    scoring.tell(Heard(forgotten=[stream]))
    assert {event["id"] for event in sent.events if event["type"] == "end"} == ids
    assert scoring.store.alerts(active=True) == []


def test_an_alert_that_its_stream_holds_goes_on_after_a_restart(begin):
    scoring, sent = begin(streams={"defaults": {"warmup_rows": 40}})
    scoring.models.install("pump", MODEL)
    scoring.orders.open("pump")
    stream = scoring.pipeline.streams["pump"]
    scoring.reporter.tell(stream, stream.silent(NOW))
    (alert,) = stream.policy.active
    scoring.stop()
    scoring.store.close()
    again, sent = begin()
    assert [found.id for found in again.pipeline.streams["pump"].policy.active] == [alert.id]
    assert [found["id"] for found in again.store.alerts(active=True)] == [alert.id]
    assert sent.events == []


def test_a_start_on_a_read_only_card_raises_no_alert_again_and_forgets_no_silence(tmp_path):
    # The same fault was raised under a new id, and the old alert stayed open for ever.
    card = tmp_path / "card"
    with mounted(card, "size=4m"):
        states.leave(card / "state")
        remounted(card, "ro")
        scoring, sent = begun(card / "state")
        try:
            ids = {"pump-anomaly-20260202T023900Z", "pump-missing-20260202T023959Z"}
            assert {alert.id for alert in scoring.pipeline.streams["pump"].policy.active} == ids
            assert {event["id"] for event in scoring.store.alerts(active=True)} == ids
            assert scoring.orders.silenced("fan") == {"flow"}
            assert sent.events == []
            (trouble,) = scoring.troubles()
            assert "Read-only file system" in trouble
            caller = Caller()
            carry_out(scoring.orders, {"do": "remove", "stream": "pump"}, caller)
            assert "Read-only file system" in str(caller.refused)
            assert {alert.id for alert in scoring.pipeline.streams["pump"].policy.active} == ids
        finally:
            scoring.store.close()


def test_trained_streams_that_there_is_no_room_for_are_named_with_what_to_raise(begin, tmp_path, caplog):
    caplog.set_level(logging.WARNING)
    with_models(tmp_path / "state", "boiler", "fan", "pump")
    scoring, _ = begin(limits={"streams": 1})
    assert [*scoring.pipeline.streams] == ["boiler"]
    (said,) = [record.getMessage() for record in caplog.records if "limits.streams" in record.getMessage()]
    assert "'fan', 'pump'; set limits.streams to 3" in said
    assert scoring.troubles() == (said,)  # on the page and by status as well
    asked(scoring, do="remove", stream="pump")
    (said,) = scoring.troubles()
    assert "'fan'; set limits.streams to 2" in said


def test_rows_that_wait_for_the_first_model_survive_a_clean_stop(begin):
    # Those of a long training were lost, and the warm-up had to be made up for.
    scoring, _ = begin(streams={"defaults": {"interval": "1s", "warmup_rows": 40, "window": 15, "lateness": "0s"}})
    for i in range(60):
        payload = json.dumps({"flow": float(i % 7), "at": NOW + i}).encode()
        scoring.take("telemetry/pump", payload, 1.0 + i)
    stream = scoring.pipeline.streams["pump"]
    assert stream.behind > 10
    rows = stream.rows
    scoring.stop()
    scoring.store.close()
    again, _ = begin()
    assert again.store.streams() == {"pump": rows}
    assert again.pipeline.streams["pump"].rows == rows


def test_models_of_a_state_directory_that_was_deleted_are_written_anew_and_it_is_said(begin, tmp_path, caplog):
    with_models(tmp_path / "state", "pump")
    scoring, _ = begin()
    scoring.store.put_state("silences", [])
    scoring.store.flush(0.0)
    shutil.rmtree(tmp_path / "state")
    scoring.store.put_state("x", 1)
    scoring.stop()
    assert "was deleted or replaced while it was in use" in caplog.text
    assert scoring.store.write_errors == 1
    assert "was deleted or replaced" in scoring.troubles()[0]
    assert ModelFolder(tmp_path / "state").load("pump")[0].version == "1"


def asked(scoring: Scoring, **request: Any) -> Mapping[str, Any]:
    caller = Caller()
    carry_out(scoring.orders, request, caller)
    assert caller.refused is None, caller.refused
    assert caller.answered is not None
    return caller.answered


def series(scoring: Scoring) -> set[str]:
    return set(scoring.orders._telemetry._streams.streams)


def test_a_running_stream_that_is_renamed_keeps_its_open_alerts_silences_model_and_rows(begin, tmp_path):
    states.leave(tmp_path / "state")
    scoring, sent = begin()
    open_ids = {alert.id for alert in scoring.pipeline.streams["pump"].policy.active}
    asked(scoring, do="silence", stream="pump", feature="flow", for_s=60.0)
    answer = asked(scoring, do="rename", stream="pump", to="hall/pump")
    assert (answer["renamed"]["rows"], answer["live"]) == (states.ROWS, True)
    assert set(scoring.pipeline.streams) == {"fan", "hall/pump"}
    stream = scoring.pipeline.streams["hall/pump"]
    assert {alert.id for alert in stream.policy.active} == open_ids
    assert {alert.stream for alert in stream.policy.active} == {"hall/pump"}
    assert stream.model.version == "2"
    assert scoring.orders.silenced("hall/pump") == {"flow"}
    again = [event for event in sent.events if event["type"] == "update" and event["stream"] == "hall/pump"]
    assert {event["id"] for event in again} == open_ids
    assert sent.retained["state/pump"] == ""
    assert sorted(json.loads(sent.retained["state/hall/pump"])["alerts"]) == sorted(open_ids)
    assert series(scoring) == {"fan", "hall/pump"}
    scoring.take("telemetry/fan", b'{"flow": 1.0}', 2000.0)  # the others go on
    scoring.stop()
    scoring.store.close()
    again, sent = begin()
    assert set(again.pipeline.streams) == {"fan", "hall/pump"}
    assert {alert.id for alert in again.pipeline.streams["hall/pump"].policy.active} == open_ids
    assert sent.events == []


def test_a_running_stream_that_is_removed_ends_its_alerts_and_leaves_nothing(begin, tmp_path):
    states.leave(tmp_path / "state")
    scoring, sent = begin()
    open_ids = {alert.id for alert in scoring.pipeline.streams["pump"].policy.active}
    answer = asked(scoring, do="remove", stream="pump", dry_run=True)
    assert answer["removed"] == {
        "stream": "pump",
        "scored": True,
        "rows": states.ROWS,
        "newest": NOW - 1.0,
        "models": ["2", "1"],
        "alerts": 2,
        "open_alerts": 2,
        "silences": 0,
    }
    assert sent.events == []
    asked(scoring, do="remove", stream="pump")
    assert {event["id"] for event in sent.events if event["type"] == "end"} == open_ids
    assert sent.retained["state/pump"] == ""
    assert series(scoring) == set(scoring.pipeline.streams) == {"fan"}
    assert [event["stream"] for event in scoring.reporter.alerts.values()] == []
    assert not scoring.models.file("pump").parent.exists()
    assert scoring.store.alerts() == scoring.store.retrains() == [*scoring.orders.trainings] == []
    scoring.stop()
    scoring.store.close()
    again, _ = begin()
    assert set(again.pipeline.streams) == {"fan"}


def sparkplug(scoring: Scoring, kind: str, *metrics: dict[str, Any]) -> Heard:
    return scoring.take(f"spBv1.0/plant/{kind}/press", payload(*metrics), 1.0)


@pytest.mark.parametrize("born_again", [False, True], ids=["the node sends data only", "the node is born again"])
def test_data_of_sparkplug_by_alias_are_understood_after_a_power_cut_whether_or_not_the_node_is_born_again(
    begin, born_again
):
    # They were no readings until the node had been restarted by hand.
    nodes = {"subscriptions": [{"topic": "spBv1.0/plant/+/{stream}/#", "format": "sparkplug"}]}
    scoring, _ = begin(**nodes)
    sparkplug(scoring, "NBIRTH", {"name": "flow", "alias": 1, "double_value": 1.5})
    scoring.keep(1.0)
    scoring.store.close()  # and nothing is written any more
    again, _ = begin(**nodes)
    if born_again:
        sparkplug(again, "NBIRTH", {"name": "flow", "alias": 7, "double_value": 1.5})
    (reading,) = sparkplug(again, "NDATA", {"alias": 7 if born_again else 1, "double_value": 2.5}).readings
    assert (reading.stream, reading.values) == ("press", {"flow": 2.5})
    assert (sparkplug(again, "NDATA", {"alias": 1, "double_value": 2.5}).refused is not None) == born_again


@pytest.mark.parametrize("kept", [7, {"spBv1.0/#": 7}, {"spBv1.0/#": [["plant"]]}, {"spBv1.0/#": [[None] * 8]}])
def test_births_that_were_damaged_on_the_disk_are_left_and_it_is_said(begin, tmp_path, caplog, kept):
    with Store.open(tmp_path / "state") as store:
        store.put_state("births", kept)
        store.flush(0.0)
    scoring, _ = begin(subscriptions=[{"topic": "spBv1.0/#", "stream": "hall", "format": "sparkplug"}])
    assert "births of Sparkplug cannot be read" in caplog.text
    assert sparkplug(scoring, "NBIRTH", {"name": "flow", "int_value": 1}).readings


def test_a_start_reads_no_stored_row_and_the_days_of_each_stream_come_between_two_messages(begin, tmp_path):
    # 500 streams with a full store were not ready for more than a minute.
    with Store.open(with_models(tmp_path / "state", "fan", "pump")) as store:
        for stream in ("fan", "pump"):
            for part in range(2):
                fill(store, 300 * part, 300 * part + 300, stream=stream)
                store.flush(0.0)
    read: list[str] = []
    scoring, _ = begin()
    streams = scoring.pipeline.streams
    assert all(stream.past.waits for stream in streams.values())
    before = scoring.store.count("pump")
    for name, stream in streams.items():
        stream.past.recall = lambda name=name, recall=stream.past.recall: read.append(name) or recall()
    scoring.remember()
    assert len(read) == 1
    for _ in range(10):
        scoring.remember()
    assert sorted(set(read)) == ["fan", "pump"]
    assert not any(stream.past.waits for stream in streams.values())
    assert before == 600
