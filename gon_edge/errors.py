"""The exceptions gon-edge raises on purpose, and what a script can tell from their exit codes.

::

    GonEdgeError            exit code   raised by
    ├── ConfigError         78          config; whoever opens a file or topic that the configuration names
    ├── PayloadError                    stream.payload; never leaves the daemon, where it is counted by reason
    ├── ModelFileError      78          model.file, state.folder, state.catalog
    ├── InputError          66          commands and tables, for a file or name that a person gave
    ├── StoreError          73          state.database
    ├── UnreachableError    69          links.client, links.control, links.publisher
    ├── MissingLibrary      69          commands.figure, commands.report, fleet, for a library that is not installed
    └── RetrainError        1           training
        ├── NotEnoughData   4           training.fit, training.child
        ├── OverBudget      5           training.child
        └── RetrainBusy     75          training.trainer

Every message says what to do next; what a program needs is an attribute.  Exit codes follow ``sysexits.h`` where it has
one; 3, 4 and 5 are outcomes of a training that a script wants to tell apart.  3 is no error: the gate has judged, and
the old model stays.
"""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

EXIT_CODES: Mapping[int, str] = {
    0: "done",
    1: "failed",
    2: "wrong usage",
    3: "no new model: the gate found it worse, the old one stays",
    4: "no new model: not enough rows that may be learned",
    5: "no new model: over the memory budget",
    66: "input missing or unreadable",
    69: "broker or daemon unreachable, or a library for pictures missing",
    73: "cannot write, or another gon-edge holds the state directory",
    75: "busy, try again",
    78: "wrong configuration, or a damaged model",
    130: "interrupted by Ctrl-C",
}
"""What scripts may rely on.  Help, man page and reference take it from here."""


class GonEdgeError(Exception):
    """Anything gon-edge reports to a person in one line."""

    exit_code = 1


class ConfigError(GonEdgeError):
    """A configuration that cannot be used.

    Attributes
    ----------
    message : str
        What is wrong, without its place.
    path : Path or None
        The file.
    key : str
        Dotted path of the key, e.g. ``mqtt.url``; empty when the file as a whole is wrong.
    line : int or None
        Line in the file, from 1, where it is known.
    """

    exit_code = 78

    def __init__(self, message: str, *, path: Path | None = None, key: str = "", line: int | None = None) -> None:
        place = f"{path}:{line}" if path and line else str(path) if path else ""
        shown = "".join(c if c.isprintable() else repr(c)[1:-1] for c in key)  # a YAML key may hold line breaks
        where = ": ".join(part for part in (place, shown) if part)
        super().__init__(f"{where}: {message}" if where else message)
        self.message = message
        self.path = path
        self.key = key
        self.line = line


class PayloadError(GonEdgeError):
    """A message that holds no readings.

    Attributes
    ----------
    topic : str
    reason : str
        One word of :data:`gon_edge.events.REASONS`, fit for a Prometheus label.
    """

    def __init__(self, topic: str, reason: str, detail: str) -> None:
        super().__init__(f"{topic!r}: {reason}: {detail}")
        self.topic = topic
        self.reason = reason

    def alone(self) -> PayloadError:
        """Return this error without its traceback and what it came of, for whoever keeps it.

        Their frames hold the message and, in a circle, whoever keeps the error.  What lies in circles waits for the
        garbage collector, and where many messages are held at once 7 MiB stayed.
        """
        self.__context__ = None
        return self.with_traceback(None)


class ModelFileError(GonEdgeError):
    """A model file that is missing, damaged or of a newer format.  ``path`` is the file."""

    exit_code = 78

    def __init__(self, path: Path, message: str) -> None:
        super().__init__(f"{path}: {message}")
        self.path = path


class InputError(GonEdgeError):
    """A file the user named that is missing or cannot be read as what it should be."""

    exit_code = 66


class StoreError(GonEdgeError):
    """The state directory cannot be used at all (not merely read-only or full)."""

    exit_code = 73


class UnreachableError(GonEdgeError):
    """A broker or a daemon that does not answer a command of the user."""

    exit_code = 69


_PLOT = "pip install 'gon-edge[plot]', or on Debian: sudo apt install python3-matplotlib python3-jinja2"


class MissingLibrary(GonEdgeError):
    """A library that only some commands need, and that cannot be imported.

    Attributes
    ----------
    name : str
        Of the library.
    """

    exit_code = 69  # EX_UNAVAILABLE of sysexits.h: a support program or file does not exist

    def __init__(self, name: str, purpose: str, reason: ImportError, install: str = _PLOT) -> None:
        why = str(reason).strip().partition("\n")[0]
        super().__init__(f"{purpose} needs {name} ({why}); install it: {install}")
        self.name = name


class RetrainError(GonEdgeError):
    """A training round that could not be carried out.  ``stream`` is the stream it was for."""

    def __init__(self, stream: str, message: str) -> None:
        super().__init__(f"stream {stream!r}: {message}")
        self.stream = stream


class NotEnoughData(RetrainError):
    """Too few normal rows."""

    exit_code = 4


class OverBudget(RetrainError):
    """The round would need, or needed, more memory than its budget.  Both figures are in bytes."""

    exit_code = 5

    def __init__(self, stream: str, *, budget_bytes: int, peak_bytes: int) -> None:
        mib = 1 << 20
        super().__init__(
            stream,
            f"training needs {peak_bytes / mib:.0f} MiB and the budget is {budget_bytes / mib:.0f} MiB; "
            "raise retrain.memory_budget or lower retrain.max_rows",
        )
        self.budget_bytes = budget_bytes
        self.peak_bytes = peak_bytes


class RetrainBusy(RetrainError):
    """Another round holds the lock."""

    exit_code = 75
