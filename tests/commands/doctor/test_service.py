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


def test_readings_shown_to_the_network_are_a_warning(settings, tmp_path):
    file = tmp_path / "gon-edge.yaml"
    daemon = {"node": "pi-1", "uptime_s": 10.0, "rss_bytes": 1 << 20, "streams": [{"stream": "s", "state": "scoring"}]}
    for listen, expected in (("127.0.0.1:9109", ["ok"]), ("0.0.0.0:9109", ["ok", "warning"]), ("[::1]:9109", ["ok"])):
        file.write_text(json.dumps({**settings, "http": {"listen": listen}}))
        assert states(list(service.check_daemon(load_config(file), daemon, {}))) == expected
