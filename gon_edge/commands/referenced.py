"""What a configuration names outside itself, secrets, certificates, the state directory: is it there, and usable?"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

from gon_edge.config.schema import Config
from gon_edge.state.database import check_state_dir


def check_referenced(config: Config) -> list[str]:
    """Read what the daemon will read at its start; nothing is written and no connection opened.

    Returns
    -------
    list of str
        Lines for a person, on what only the daemon can see: files that this user may not read, or that the service
        manager hands over.

    Raises
    ------
    ConfigError
        At the first that is missing or cannot be what it should be, with its key.
    """
    unseen = {key: why for key, file in _files(config) if (why := _unseen(file))}
    if "mqtt.password_file" not in unseen:
        config.mqtt.password()
    if not any(key.startswith("mqtt.") and key != "mqtt.password_file" for key in unseen):
        from gon_edge.links.mqtt.tls import tls_context

        tls_context(config.mqtt)
    if config.http.enabled:
        if not unseen.keys() & {"http.token_file", "http.password_file"}:
            config.http.secrets()
        if config.http.tls and not unseen.keys() & {"http.cert_file", "http.key_file"}:
            from gon_edge.links.web.guard import Tls

            Tls(config.http)
    if "fleet.password_file" not in unseen:
        config.fleet.password()
    check_state_dir(config.state_dir)
    return [f"{key}: {why}" for key, why in unseen.items()]


def _files(config: Config) -> Iterator[tuple[str, Path]]:
    mqtt, http, fleet = config.mqtt, config.http, config.fleet
    named = {
        "mqtt.password_file": mqtt.password_file,
        "mqtt.ca_file": mqtt.ca_file,
        "mqtt.cert_file": mqtt.cert_file,
        "mqtt.key_file": mqtt.key_file,
        "http.token_file": http.token_file,
        "http.password_file": http.password_file,
        "http.cert_file": http.cert_file,
        "http.key_file": http.key_file,
        "fleet.password_file": fleet.password_file,
        "fleet.ca_file": fleet.ca_file,
        "fleet.cert_file": fleet.cert_file,
        "fleet.key_file": fleet.key_file,
    }
    return ((key, file) for key, file in named.items() if file is not None)


def _unseen(file: Path) -> str:
    """Why this process cannot say anything of a file that the daemon may yet be able to read."""
    try:
        file.stat()
    except PermissionError:
        return f"{file} lies where this user may not look; sudo gon-edge doctor can"
    except OSError:
        if not file.is_absolute():  # and $CREDENTIALS_DIRECTORY is not set
            return f"{file} is not here; the service needs LoadCredential={file}:/PATH"
        return ""
    return "" if os.access(file, os.R_OK) else f"{file} is not this user's to read; sudo gon-edge doctor can"
