"""Only regular files are opened, wherever a person or another program names one."""

from __future__ import annotations

import errno
import os
import socket
import tracemalloc
from pathlib import Path

import pytest

from gon_edge.commands.main import main
from gon_edge.config.file import load_config, parse_config
from gon_edge.errors import ConfigError
from gon_edge.links.mqtt.tls import tls_context
from gon_edge.links.web.guard import Tls
from gon_edge.process.files import make_folder, open_regular, read_regular

SMALLEST = {"mqtt": {"url": "mqtts://localhost"}, "subscriptions": [{"topic": "{stream}"}]}


@pytest.fixture
def pipe(tmp_path):
    os.mkfifo(tmp_path / "pipe.npz")
    return tmp_path / "pipe.npz"


def test_what_is_no_regular_file_is_refused_and_never_waited_for(tmp_path, pipe):
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(tmp_path / "socket"))
        for path in (pipe, tmp_path, tmp_path / "socket", Path("/dev/zero")):
            with pytest.raises(OSError, match="not a regular file"):
                open_regular(path)


def test_a_link_to_a_regular_file_is_one(tmp_path):
    (tmp_path / "file").write_bytes(b"12345")  # so a service manager hands over its credentials
    (tmp_path / "link").symlink_to("file")
    assert read_regular(tmp_path / "link", 5) == b"12345"
    with pytest.raises(OSError, match="larger than 4") as caught:
        read_regular(tmp_path / "link", 4)
    assert caught.value.errno == errno.EFBIG


def test_a_small_file_takes_little_memory_whatever_is_the_most(tmp_path):
    # The training child, whose memory is limited, could not read the model before it.
    (tmp_path / "file").write_bytes(b"12345")
    tracemalloc.start()
    try:
        assert read_regular(tmp_path / "file", 64 << 20) == b"12345"
        assert tracemalloc.get_traced_memory()[1] < 1 << 20
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize(
    "words",
    [
        ["check-config", "PIPE"],
        ["models", "show", "PIPE"],
        ["score", "PIPE", "--model", "host"],
        ["score", "/dev/null", "--model", "PIPE"],
        ["replay", "PIPE", "--stream", "pump", "--broker", "mqtt://localhost:1"],
        ["try", "pump", "@PIPE"],
        ["status", "--token-file", "PIPE"],
        ["status", "--username", "me", "--password-file", "PIPE"],
    ],
    ids=" ".join,
)
def test_a_command_that_is_given_a_pipe_says_so_at_once(words, pipe, capsys):
    # Each of them waited for ever for somebody to write into it.
    assert main([word.replace("PIPE", str(pipe)) for word in words]) not in (0, 1, 2)
    assert "not a regular file" in capsys.readouterr().err


@pytest.mark.parametrize("key", ["ca_file", "cert_file"])
def test_a_pipe_as_certificate_is_refused_before_openssl_waits_for_it(key, pipe):
    config = parse_config({**SMALLEST, "mqtt": {**SMALLEST["mqtt"], key: str(pipe)}})
    with pytest.raises(ConfigError, match=rf"mqtt.{key}.*not a regular file"):
        tls_context(config.mqtt)
    config = parse_config({**SMALLEST, "http": {"cert_file": str(pipe)}})
    with pytest.raises(ConfigError, match=r"http.cert_file.*not a regular file"):
        Tls(config.http)


def test_a_pipe_as_secret_is_refused_at_once(pipe):
    mqtt = {**SMALLEST["mqtt"], "username": "me", "password_file": str(pipe)}
    with pytest.raises(ConfigError, match=r"mqtt.password_file.*not a regular file"):
        parse_config({**SMALLEST, "mqtt": mqtt}).mqtt.password()


def test_a_folder_as_configuration_is_named(tmp_path):
    with pytest.raises(ConfigError, match="not a regular file"):
        load_config(tmp_path)


def test_a_folder_that_another_process_makes_at_the_same_moment_is_as_good(tmp_path):
    class Raced(type(tmp_path)):
        def is_dir(self) -> bool:
            if super().is_dir():
                return True
            os.mkdir(self)  # noqa: PTH102  by the other one, once we have looked
            return False

    make_folder(Raced(tmp_path / "state" / "workers"))
    assert (tmp_path / "state" / "workers").is_dir()
