"""Alerts, states and training rounds come back as they were last said."""

from dataclasses import replace

from storing import event, lives, reopened

from gon_edge.state.history import ALERTS_KEPT, RetrainRecord


def test_the_history_holds_the_last_event_of_each_alert(store, tmp_path):
    store.add_alert(event(1))
    store.add_alert(event(2, stream="valve"))
    store.flush(0.0)
    store.add_alert(event(1, "end"))
    for opened in lives(store, tmp_path):
        assert [found["id"] for found in opened.alerts()] == ["valve-2", "pump-1"]
        assert [found["id"] for found in opened.alerts(active=True)] == ["valve-2"]
        assert [found["id"] for found in opened.alerts(active=False)] == ["pump-1"]
        assert [found["type"] for found in opened.alerts(stream="pump")] == ["end"]
        assert len(opened.alerts(limit=1)) == 1
        assert [(opened.alert(name) or {}).get("type") for name in ("pump-1", "valve-2", "x")] == ["end", "new", None]


def test_the_history_is_bounded_but_keeps_open_alerts(store):
    store.add_alert(event(0))
    for start in range(1, ALERTS_KEPT + 500, 500):
        for number in range(start, start + 500):
            store.add_alert(event(number, "end"))
        store.flush(float(start))
    found = store.alerts(limit=10_000)
    assert len(found) <= ALERTS_KEPT + 1
    assert found[-1]["id"] == "pump-0"


def test_states_come_back(store, tmp_path):
    assert store.state("policy/pump") is None
    store.put_state("policy/pump", {"open": [1.5, None]})
    assert store.state("policy/pump") == {"open": [1.5, None]}
    store.flush(0.0)
    store = reopened(store, tmp_path)
    assert store.state("policy/pump") == {"open": [1.5, None]}
    store.close()


def test_a_state_that_did_not_change_is_not_written_again(store):
    store.put_state("counters", {"rows": 1})
    store.flush(0.0)
    store.put_state("counters", {"rows": 1})
    assert not store.due(1e9)
    store.put_state("counters", {"rows": 2})
    assert not store.due(1e9)
    assert store.due(2e9)


def test_training_rounds_come_back(store, tmp_path):
    rounds = [RetrainRecord("pump", f"v{i}", 1e9 + i, 12.5, "accepted", 40 << 20, 20000, "") for i in range(3)]
    rounds[1] = replace(rounds[1], gate={"passed": True, "challenger": {"alarm_rate": 0.01}})
    for record in rounds[:2]:
        store.add_retrain(record)
    store.flush(0.0)
    store.add_retrain(rounds[2])
    assert store.retrains() == rounds[::-1]
    store.flush(1.0)
    store = reopened(store, tmp_path)
    assert store.retrains(limit=2, stream="pump") == [rounds[2], rounds[1]]
    assert store.retrains(stream="valve") == []
    store.close()
