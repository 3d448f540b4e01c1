"""What tells this machine from others that have its name: a short code that stays the same for its whole life."""

from __future__ import annotations

import contextlib
from pathlib import Path

from gon_edge.process.digest import sha256

_MACHINE_IDS = (Path("/etc/machine-id"), Path("/var/lib/dbus/machine-id"))
_NETWORK = Path("/sys/class/net")
_NO_ADDRESS = "00:00:00:00:00:00"  # of the loopback
_CODE_CHARACTERS = 8  # 32 bits: of a thousand machines with one name, two share a code once in 8,600 fleets


def machine_code(machine_ids: tuple[Path, ...] = _MACHINE_IDS, network: Path = _NETWORK) -> str:
    """Return eight hexadecimal digits that stay the same over restarts; empty where nothing tells this machine.

    They are made of the machine id, which must not be shown itself (machine-id(5)), or of the address of the first
    network interface where there is none, as in a container.
    """
    source = ""
    for path in machine_ids:
        with contextlib.suppress(OSError, UnicodeDecodeError):
            source = source or path.read_text().strip().removeprefix("uninitialized")
    for path in sorted(network.glob("*/address")):
        with contextlib.suppress(OSError, UnicodeDecodeError):
            address = path.read_text().strip()
            source = source or ("" if address == _NO_ADDRESS else address)
    return sha256(f"gon-edge {source}".encode()).hexdigest()[:_CODE_CHARACTERS] if source else ""
