"""All checks, in the order in which one explains the next.

A check that fails is a fault of its own, never the end of the others.  A new check is a function in the module of its
subject and a line here.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

from gon_edge.commands.doctor.broker import check_broker
from gon_edge.commands.doctor.files import check_models, check_owners, check_secrets, check_state, running_user
from gon_edge.commands.doctor.finding import Finding, one_line
from gon_edge.commands.doctor.machine import check_clock, check_disk, check_memory
from gon_edge.commands.doctor.service import UNIT, check_daemon, check_service, daemon_status, unit_properties
from gon_edge.config.file import load_config
from gon_edge.errors import ConfigError
from gon_edge.stream.topics import TopicTemplate


def examine(path: Path, environ: Mapping[str, str] | None = None, *, fix: bool = False) -> Iterator[Finding]:
    """Yield what is found, a finding as soon as it is known.

    Parameters
    ----------
    path : Path
        The configuration.
    environ : mapping, optional
        For the configuration; the process's environment by default.
    fix : bool
        Give what is another user's in the state directory to the one gon-edge runs as.

    Examples
    --------
    >>> for finding in examine(Path("/etc/gon-edge/gon-edge.yaml")):   # doctest: +SKIP
    ...     print(finding.state, finding.check, finding.text)
    """
    unit = unit_properties()
    environ = dict(os.environ if environ is None else environ)
    credentials = Path("/run/credentials") / UNIT
    if unit.get("ActiveState") == "active" and credentials.is_dir():
        environ.setdefault("CREDENTIALS_DIRECTORY", str(credentials))
    checks: list[tuple[str, Callable[[], Iterator[Finding]]]] = [("service", lambda: check_service(unit))]
    try:
        config = load_config(path, environ=environ)
        filters = tuple(TopicTemplate.parse(subscription.topic).filter for subscription in config.subscriptions)
    except (ConfigError, ValueError) as error:
        yield Finding("configuration", "fault", one_line(error), "correct it; gon-edge check-config says the same")
    else:
        topics = ", ".join(subscription.topic for subscription in config.subscriptions)
        yield Finding("configuration", "ok", f"{path}: node {config.node}, topics {topics}")
        user, daemon = running_user(unit, config), daemon_status(config)
        checks += [
            ("daemon", lambda: check_daemon(config, daemon, unit)),
            ("broker", lambda: check_broker(config, filters)),
            ("secrets", lambda: check_secrets(config, user)),
            ("owners", lambda: check_owners(config, user, fix=fix)),
            ("state", lambda: check_state(config, user)),
            ("models", lambda: check_models(config)),
            ("disk", lambda: check_disk(config, daemon)),
            ("memory", lambda: check_memory(config, unit)),
        ]
    checks.append(("clock", check_clock))
    for name, check in checks:
        try:
            yield from check()
        except Exception as error:  # noqa: BLE001  the other checks still have something to say
            yield Finding(name, "fault", f"could not be checked: {one_line(error)}", "please report this")
