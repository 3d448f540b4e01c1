"""What the daemon does not load, absent until somebody uses it and then whole; and the memory of a process."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from gon_edge.process.memory import pss_bytes, rss_bytes

MIB = 1 << 20


def run(code: str) -> str:
    """What a fresh interpreter prints."""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


DEFERRED = (
    "import sys\nfrom gon_edge.process.memory import deferred\nwith deferred():\n    import gon_edge.daemon.app\n"
)


def test_the_daemon_loads_no_openssl_and_nothing_else_it_does_not_use() -> None:
    unused = (
        "ssl _ssl hashlib _hashlib html bz2 lzma pickle numpy.random numpy.ma numpy.fft "
        "ast locale calendar uuid tempfile gzip mimetypes urllib.error wsgiref.simple_server"
    )
    assert run(DEFERRED + f"print(sorted({{*'{unused}'.split()}} & sys.modules.keys()))") == "[]\n"


def test_a_model_is_read_without_a_parser_of_python() -> None:
    code = "from gon_edge.state.catalog import starters\nassert starters('host')\nprint('ast' in sys.modules)"
    assert run(DEFERRED + code) == "False\n"


def test_what_reads_other_payloads_is_loaded_with_the_first_of_them() -> None:
    code = """
from gon_edge.config.subscription import SubscriptionConfig
from gon_edge.stream.payload import Decoder
decoder = Decoder(SubscriptionConfig("t/{stream}"))
others = {f"gon_edge.stream.{name}" for name in ("bare", "lines", "lineprotocol", "items", "senml", "shapes")}
decoder.decode("t/pump", b'{"flow": 1}')
print(sorted(others & sys.modules.keys()))
for payload in (b"21.5", b"m flow=1", b'[{"n": "flow", "v": 1}]', b'[{"flow": 1}]'):
    decoder.decode("t/pump", payload)
print(len(others & sys.modules.keys()))
"""
    assert run(DEFERRED + code) == "[]\n5\n"


def test_a_library_finds_the_real_module_when_it_uses_it_after_all() -> None:
    code = """
import ssl
import http.client, paho.mqtt.client, html, shutil, urllib.request
assert paho.mqtt.client.ssl is not ssl and paho.mqtt.client.ssl.SSLContext is ssl.SSLContext
assert isinstance(http.client.HTTPSConnection('localhost')._context, ssl.SSLContext)
assert paho.mqtt.client.hashlib.sha1(b'').digest_size == 20
assert html.escape('<') == '&lt;'
import numpy as np
assert np.random.default_rng(0).normal() and np.ma.masked_array([1]).sum() == 1 and np.fft.fft([1.0])[0] == 1
client = paho.mqtt.client.Client(paho.mqtt.client.CallbackAPIVersion.VERSION2)
client.tls_set()
import ast, inspect, locale, email.utils
assert inspect.ast.parse is ast.parse and locale.normalize("de")
assert email.utils.mktime_tz((1970, 1, 2, 0, 0, 0, 0, 1, 0, 0)) == 86400
print(type(client._ssl_context) is ssl.SSLContext)
"""
    assert run(DEFERRED + code) == "True\n"


def test_a_module_that_is_used_while_the_imports_run_is_the_real_one() -> None:
    code = """
import sys
from gon_edge.process.memory import deferred
with deferred():
    import pickle as stand_in
    print(stand_in.loads(stand_in.dumps(7)))
    import pickle
    print(pickle is sys.modules['pickle'], pickle is stand_in)
print(pickle is sys.modules['pickle'])
"""
    assert run(code) == "7\nTrue False\nTrue\n"


def test_what_is_loaded_already_stays_itself() -> None:
    code = "import ssl, sys\nbefore = ssl\n" + DEFERRED + "import paho.mqtt.client as paho\n"
    assert run(code + "print(paho.ssl is before is sys.modules['ssl'])") == "True\n"


def test_a_placeholder_is_gone_when_the_imports_are_over() -> None:
    code = "from prometheus_client import exposition\nprint(exposition.ssl.PROTOCOL_TLS_SERVER.name)"
    assert run(DEFERRED + code) == "PROTOCOL_TLS_SERVER\n"


def test_a_collection_does_not_go_over_what_was_loaded_at_the_start() -> None:
    code = "import gc\nfrom gon_edge.process.memory import keep_what_is_loaded\nkeep_what_is_loaded()\n"
    assert int(run(DEFERRED + code + "print(len(gc.get_objects()))")) < 1000


def test_an_import_that_fails_leaves_nothing_behind() -> None:
    code = """
import sys
from gon_edge.process.memory import deferred
try:
    with deferred():
        import ssl, no_such_module
except ImportError:
    pass
print('ssl' in sys.modules)
import ssl
print(ssl.create_default_context().check_hostname)
"""
    assert run(code) == "False\nTrue\n"


@pytest.mark.parametrize("page_bytes", [4096, 16384, 65536])
def test_a_page_is_as_large_as_the_system_says(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, page_bytes: int
) -> None:
    # A Raspberry Pi 5 has pages of 16 KiB; taken for 4096 bytes, a quarter of the daemon's memory was shown.
    sysconf = os.sysconf
    monkeypatch.setattr(os, "sysconf", lambda name: page_bytes if name == "SC_PAGESIZE" else sysconf(name))
    (tmp_path / "77").mkdir()
    (tmp_path / "77" / "statm").write_text("9000 2500 1200 1 0 3000 0\n")
    assert rss_bytes(77, proc=tmp_path) == 2500 * page_bytes


def test_resident_memory_is_what_the_kernel_reports_in_kilobytes() -> None:
    status = Path("/proc/self/status").read_text()
    reported = next(int(line.split()[1]) for line in status.splitlines() if line.startswith("VmRSS")) * 1024
    assert rss_bytes() == pytest.approx(reported, rel=0.02)
    assert rss_bytes(os.getpid()) == pytest.approx(reported, rel=0.02)


def test_the_proportional_share_is_at_most_the_resident_memory() -> None:
    assert 4 * MIB < pss_bytes(os.getpid()) <= rss_bytes(os.getpid())
    assert pss_bytes() > 4 * MIB


def test_a_process_that_is_gone_has_no_memory() -> None:
    beyond = 2**22 + 1  # Linux gives no process a higher number than 2**22
    assert rss_bytes(beyond) == pss_bytes(beyond) == 0
