"""check-config and run find what a configuration names and what is not there, with file and line."""

from __future__ import annotations

import json
import os

import pytest

from gon_edge.commands.main import main
from gon_edge.commands.referenced import check_referenced
from gon_edge.config.file import load_config

BASE = """node: pi-1
state_dir: STATE
mqtt:
  url: mqtts://localhost:1
  username: me
  MQTT
subscriptions:
  - topic: telemetry/{stream}
http:
  listen: 127.0.0.1:0
  HTTP
"""


def written(tmp_path, *, mqtt="", http="", state="state"):
    file = tmp_path / "gon-edge.yaml"
    text = BASE.replace("STATE", str(tmp_path / state)).replace("MQTT", mqtt).replace("HTTP", http)
    file.write_text(text)
    return file


WRONG = [
    ({"mqtt": "password_file: /none"}, 6, "mqtt.password_file: cannot read '/none' (No such file or directory)"),
    ({"mqtt": "password_file: TMP/two"}, 6, "has more than one line"),
    ({"mqtt": "password_env: GON_EDGE_NO_SUCH"}, 6, "environment variable GON_EDGE_NO_SUCH is not set"),
    ({"mqtt": "ca_file: /none"}, 6, "mqtt.ca_file: /none cannot be used for TLS"),
    ({"mqtt": "ca_file: TMP/two"}, 6, "mqtt.ca_file: TMP/two cannot be used for TLS"),
    ({"mqtt": "cert_file: /none"}, 6, "mqtt.cert_file: /none cannot be used for TLS"),
    ({"http": "cert_file: /none"}, 11, "http.cert_file: cannot be used for TLS"),
    ({"http": "token_file: /none"}, 11, "http.token_file: cannot read"),
    ({"http": "token_file: TMP/empty"}, 11, "is empty"),
    ({"state": "two"}, 2, "state_dir: TMP/two is not a directory"),
    ({"state": "two/below"}, 2, "state_dir: TMP/two is not a directory"),
]


@pytest.mark.parametrize(("wrong", "line", "message"), WRONG, ids=lambda value: str(value)[:40])
def test_what_is_missing_is_named_with_file_and_line(wrong, line, message, tmp_path, capsys):
    (tmp_path / "two").write_text("hunter2\nhunter3\n")
    (tmp_path / "empty").write_text("\n")
    file = written(tmp_path, **{key: value.replace("TMP", str(tmp_path)) for key, value in wrong.items()})
    assert main(["check-config", str(file)]) == 78
    said = capsys.readouterr().err
    assert said.startswith(f"gon-edge: {file}:{line}: ")
    assert message.replace("TMP", str(tmp_path)) in said
    assert main(["check-config", "--json", str(file)]) == 78
    assert json.loads(capsys.readouterr().out)["line"] == line
    assert main(["run", "--config", str(file)]) == 78
    assert capsys.readouterr().err.endswith(said)  # the daemon's word is the same


def test_what_is_there_is_valid(tmp_path, capsys, monkeypatch):
    (tmp_path / "password").write_text("hunter2\n")
    file = written(tmp_path, mqtt=f"password_file: {tmp_path}/password")
    assert main(["check-config", str(file)]) == 0
    assert "hunter2" not in capsys.readouterr().out
    monkeypatch.setenv("GON_EDGE_SUCH", "hunter2")
    assert main(["check-config", str(written(tmp_path, mqtt="password_env: GON_EDGE_SUCH"))]) == 0
    assert not (tmp_path / "state").exists()


def test_a_credential_of_the_service_is_remarked_on(tmp_path, capsys):
    # Outside the unit nobody hands it over; an upgrade must not end because of that.
    assert main(["check-config", str(written(tmp_path, mqtt="password_file: broker"))]) == 0
    assert "the service needs LoadCredential=broker:/PATH" in capsys.readouterr().out


def test_a_secret_of_another_user_is_remarked_on(tmp_path, monkeypatch):
    (tmp_path / "password").write_text("hunter2\n")
    config = load_config(written(tmp_path, mqtt=f"password_file: {tmp_path}/password"))
    if os.geteuid() == 0:
        monkeypatch.setattr(os, "access", lambda *_: False)  # of root, the kernel asks nothing
    else:
        (tmp_path / "password").chmod(0)
    (remark,) = check_referenced(config)
    assert remark.startswith("mqtt.password_file: ")
    assert "sudo gon-edge doctor" in remark
