"""What is said about the service and the daemon."""

from __future__ import annotations

import json

from gon_edge.commands.doctor import service
from gon_edge.commands.doctor.finding import Finding
from gon_edge.config.file import load_config


def states(findings: list[Finding]) -> list[str]:
    return [finding.state for finding in findings]


def test_a_stopped_daemon_is_a_warning_where_no_service_should_run_it(look, settings):
    assert states(look(settings, "daemon")) == ["warning"]


def test_what_the_daemon_says_of_its_broker_is_a_warning(settings, tmp_path):
    file = tmp_path / "gon-edge.yaml"
    file.write_text(json.dumps(settings))
    daemon = {"node": "pi-1", "uptime_s": 10.0, "rss_bytes": 1 << 20, "streams": [{"stream": "s", "state": "scoring"}]}
    daemon["mqtt"] = {"troubles": ["another client uses the id 'twin', it seems"]}
    daemon["troubles"] = ["the state cannot be written"]
    findings = list(service.check_daemon(load_config(file), daemon, {}))
    assert states(findings) == ["ok", "warning", "warning"]
    assert findings[1].text == "its broker: another client uses the id 'twin', it seems"
    assert findings[2].text == "the state cannot be written"


def test_readings_shown_to_the_network_are_a_warning(settings, tmp_path):
    file = tmp_path / "gon-edge.yaml"
    daemon = {"node": "pi-1", "uptime_s": 10.0, "rss_bytes": 1 << 20, "streams": [{"stream": "s", "state": "scoring"}]}
    for listen, expected in (("127.0.0.1:9109", ["ok"]), ("0.0.0.0:9109", ["ok", "warning"]), ("[::1]:9109", ["ok"])):
        file.write_text(json.dumps({**settings, "http": {"listen": listen}}))
        assert states(list(service.check_daemon(load_config(file), daemon, {}))) == expected


def test_streams_without_rows_and_values_that_are_lost_are_warnings(settings, tmp_path):
    file = tmp_path / "gon-edge.yaml"
    file.write_text(json.dumps(settings))
    lost = [
        {"key": key, "reason": reason, "count": 1, "example": ""}
        for key, reason in (("tank", "ahead"), *((f"f{i}", "crowded") for i in range(5)), ("mode", "text"))
    ]
    streams = [
        {"stream": "still", "state": "warming-up", "interval_s": None, "waits": "the timestamps stand still"},
        {"stream": "pump", "state": "scoring", "interval_s": 1.0, "waits": "", "dropped": lost},
    ]
    daemon = {"node": "pi-1", "uptime_s": 10.0, "rss_bytes": 1 << 20, "streams": streams}
    found = [f for f in service.check_daemon(load_config(file), daemon, {}) if f.check == "readings"]
    assert [finding.text.split(":")[0] for finding in found] == [
        "stream still makes no row",
        "stream pump",
        "stream pump",
    ]
    assert "f0, f1, f2 and 2 more" in found[2].text
    assert "limits.features" in found[2].advice
    assert "mode" not in "".join(finding.text for finding in found)
