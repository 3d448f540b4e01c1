"""A fleet: many workers that share the streams of one NATS JetStream, and how each of them reaches it.

`schema` has the options of one daemon; the worker of a fleet obeys those, and these beside them.
"""

# ruff: noqa: RUF009  option() only wraps dataclasses.field()

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from gon_edge.config import values
from gon_edge.config.option import option
from gon_edge.config.secret import read_secret
from gon_edge.config.values import Place


def nats_urls(value: Any, at: Place) -> tuple[str, ...]:
    """URLs of NATS servers: one, or a list of them."""
    found = values.globs(value, at)
    if not found:
        at.fail("write at least one server, such as nats://127.0.0.1:4222")
    for i, written in enumerate(found):
        try:
            url = urlsplit(written)
            is_server = url.scheme in ("nats", "tls") and bool(url.hostname) and url.port != 0
        except ValueError:
            is_server = False
        if not is_server or url.path not in ("", "/"):
            at.below(i).fail(f"write nats://HOST:PORT, or tls://HOST:PORT, not {values.shown(written.split('@')[-1])}")
        if url.username is not None:
            # The text itself is not repeated: it may hold a password and would end in a log.
            at.below(i).fail("take user and password out of the URL; write fleet.username and fleet.password_file")
    return found


def prefix(value: Any, at: Place) -> str:
    """The first level of all subjects, and the beginning of the name of every stream and bucket."""
    written = values.text(value, at)
    if re.fullmatch(r"[A-Za-z][A-Za-z0-9_-]*", written) is None:
        at.fail(f"write a word of letters, digits, '-' and '_', not {values.shown(written)}")
    return written


def worker(value: Any, at: Place) -> str:
    """The name of a worker, fit for a key of a bucket."""
    written = values.text(value, at)
    if re.fullmatch(r"[A-Za-z0-9_-]+", written) is None:
        at.fail(f"write a name of letters, digits, '-' and '_', not {values.shown(written)}")
    return written


@dataclass(frozen=True, slots=True)
class FleetConfig:
    """NATS JetStream and this worker's part in it.  Relative secret and certificate paths are as in `MqttConfig`."""

    servers: tuple[str, ...] = option(nats_urls, ("nats://127.0.0.1:4222",))
    username: str | None = option(values.optional(values.text), None)
    password_file: Path | None = option(values.optional(values.credential), None)
    ca_file: Path | None = option(values.optional(values.credential), None)
    cert_file: Path | None = option(values.optional(values.credential), None)
    key_file: Path | None = option(values.optional(values.credential), None)
    name: str | None = option(values.optional(worker), None)
    prefix: str = option(prefix, "fleet")
    partitions: int = option(values.integer(1, 1024), 8)
    replicas: int = option(values.integer(1, 5), 1)  # what JetStream takes
    retention_s: float = option(values.duration(60), 900.0)
    max_bytes: int = option(values.size(1 << 20), 1 << 30, key="max_size")
    takeover_s: float = option(values.duration(1, 3600), 10.0)
    save_every_s: float = option(values.duration(1, 3600), 120.0)

    def check(self, at: Place) -> None:
        """Refuse a secret or certificate without what it belongs to, and a retention too short for a takeover."""
        if self.password_file is not None and self.username is None:
            at.below("password_file").fail("a password needs fleet.username beside it")
        if self.key_file is not None and self.cert_file is None:
            at.below("key_file").fail("a client key needs fleet.cert_file beside it")
        if (least_s := 2.0 * (self.save_every_s + self.takeover_s)) > self.retention_s:
            at.below("retention").fail(
                f"write at least twice save_every and takeover together ({least_s:g}s): what a worker had not saved is "
                "read again from there"
            )

    def password(self) -> str | None:
        """Read the secret now; `None` when none is configured.

        Raises
        ------
        ConfigError
            The file cannot be read, or holds no password.
        """
        file = self.password_file
        return None if file is None else read_secret(file, "password", "fleet.password_file")
