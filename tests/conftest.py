"""Fixtures every test may use, and the list of what a run left out."""

from __future__ import annotations

import fcntl
import logging
import os
import shlex
import signal
import sys
from collections import defaultdict
from collections.abc import Callable, Iterator
from itertools import chain, groupby, islice
from pathlib import Path

import hypothesis
import pytest
from e2e.servers import Mosquitto

# Before anything loads them.  Matrices here are small: a second thread of a library only waits, and beside busy cores
# a fit takes five times as long.  And what numba compiles takes longer to compile than to run in plain Python.
for _variable in ("OPENBLAS_NUM_THREADS", "OMP_NUM_THREADS", "NUMBA_DISABLE_JIT"):
    os.environ.setdefault(_variable, "1")

# A job in the background (`make test &`, `nohup make test`) is deaf to these signals, and so is every child of it.
# Tests send them.  Where this process has a handler of its own, even an idle one, children start with the system's.
for _number in (signal.SIGINT, signal.SIGHUP):
    if signal.getsignal(_number) is signal.SIG_IGN:
        signal.signal(_number, lambda *_: None)

# A busy machine is no failure: an example may take as long as it takes.
hypothesis.settings.register_profile("patient", deadline=None, suppress_health_check=[hypothesis.HealthCheck.too_slow])
hypothesis.settings.load_profile("patient")

_APT = "sudo apt install"


def pytest_xdist_auto_num_workers() -> int:
    """Return two workers more than cores: tests wait for servers and trainings longer than they compute.

    Five at most, since each that loads torch holds 0.7 GiB.
    """
    return min(len(os.sched_getaffinity(0)) + 2, 5)


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Let every worker begin with its part of the ``slow`` tests, and the ``alone`` ones come when little else is left.

    ``--dist worksteal`` cuts the list into one piece for each worker, and a worker that has nothing left takes from the
    end of another's.  A slow test there would have one worker run on while the others idle.  Those of a file stay
    together: they share what takes long to make.
    """
    if "PYTEST_XDIST_WORKER" not in os.environ:  # one test after the other anyway
        return
    kinds: dict[str, list[pytest.Item]] = {"alone": [], "slow": [], "": []}
    for item in items:
        kinds[next((kind for kind in kinds if item.get_closest_marker(kind)), "")].append(item)
    slow = [list(tests) for _, tests in groupby(kinds["slow"], key=lambda item: item.path)]
    workers = int(os.environ["PYTEST_XDIST_WORKER_COUNT"])
    ends = [len(items) * (k + 1) // workers for k in range(workers)]
    quick = iter(kinds[""])
    items.clear()
    for k, end in enumerate(ends):
        items += chain.from_iterable(slow[k::workers])
        items += islice(quick, max(0, end - len(items)))
    items += [*quick, *kinds["alone"]]


@pytest.fixture(autouse=True)
def own_logging() -> Iterator[None]:
    """Take away what a command run in this process has set up: its stream is closed when the test is over."""
    root = logging.getLogger()
    before, level = root.handlers[:], root.level
    yield
    for handler in root.handlers[:]:
        if handler not in before and not type(handler).__module__.startswith("_pytest"):
            root.removeHandler(handler)
    root.setLevel(level)


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_runtest_protocol(item: pytest.Item) -> Iterator[None]:
    """Let a test marked ``alone`` wait until no other runs, and the others wait for it; the wait is not its time.

    Every test shares the room, an ``alone`` one has it for itself.  All come in by one door, and who waits for the room
    stays in the door: else the others, one after the other, would never leave it empty.
    """
    if "PYTEST_XDIST_WORKER" not in os.environ:  # one test after the other anyway
        return (yield)
    folder = item.config._tmp_path_factory.getbasetemp().parent  # what all workers of a run have in common
    kind = fcntl.LOCK_EX if item.get_closest_marker("alone") else fcntl.LOCK_SH
    with (folder / "door").open("w") as door, (folder / "room").open("w") as room:
        fcntl.flock(door, fcntl.LOCK_EX)
        fcntl.flock(room, kind)
        fcntl.flock(door, fcntl.LOCK_UN)
        return (yield)


@pytest.fixture
def mosquitto(tmp_path: Path) -> Iterator[Mosquitto]:
    """A running mosquitto with default limits and no password, ended after the test."""
    broker = Mosquitto(tmp_path / "broker")
    try:
        yield broker.start()
    finally:
        broker.kill()


@pytest.fixture
def csv(tmp_path: Path) -> Callable[..., str]:
    """Writes lines to a CSV file and returns its path."""

    def write(*lines: str, name: str = "pump.csv") -> str:
        path = tmp_path / name
        path.write_text("\n".join(lines) + "\n", encoding="utf-8")
        return str(path)

    return write


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """List what was skipped and what to type against it: one line for all packages, one for each other cause."""
    causes: dict[str, list[tuple[str, str]]] = defaultdict(list)
    for report in terminalreporter.stats.get("skipped", ()):
        missing, command, operands = _cause(report)
        causes[command].append((missing, operands))
    if causes:
        terminalreporter.section("skipped here, and what to type against it")
    for command, tests in sorted(causes.items(), key=lambda cause: -len(cause[1])):
        missing = "; ".join(dict.fromkeys(text for text, _ in tests))
        terminalreporter.write_line(f"{len(tests):5} {'test' if len(tests) == 1 else 'tests'}: {missing}")
        if command:
            operands = " ".join(sorted({word for _, words in tests for word in words.split()}))
            terminalreporter.write_line(f"             {command} {operands}".rstrip())


def _cause(report: pytest.TestReport) -> tuple[str, str, str]:
    """Return what a skipped test missed, the command against it ("" for none), and what follows the command."""
    at, here = Path(sys.executable), Path.cwd()
    python = shlex.quote(str(at.relative_to(here) if at.is_relative_to(here) else at))
    reason = report.longrepr[2].removeprefix("Skipped: ") if isinstance(report.longrepr, tuple) else ""
    missing, _, command = reason.partition("; type: ")
    if reason.startswith("could not import"):
        return reason, f"{python} -m pip install -e '.[dev,demo]'", ""
    if command.startswith(_APT):
        return missing, _APT, command.removeprefix(_APT)
    if command == "root":
        return missing, f"sudo {python} -m pytest", report.nodeid.partition("::")[0]
    return missing, command.replace("python ", f"{python} "), ""
