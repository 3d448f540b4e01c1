"""What is said of an exposed port; what a snapshot shows is in links/web and e2e/test_page."""

from __future__ import annotations

import pytest

from gon_edge.config.schema import HttpConfig
from gon_edge.daemon.snapshot import exposure


@pytest.mark.parametrize(
    ("listen", "missing"),
    [
        ("127.0.0.1:9109", ()),
        ("0.0.0.0:9109", ("no password", "nothing is encrypted")),
    ],
)
def test_a_port_that_the_network_reaches_without_password_and_tls_says_what_is_missing(
    listen: str, missing: tuple[str, ...]
):
    said = exposure(HttpConfig(listen))
    assert bool(said) == bool(missing)
    assert all(text in said for text in missing)
