"""What runs beside the sensors stays small: what it imports, and what that weighs."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

FORBIDDEN = {"torch", "scipy", "sklearn", "pandas", "matplotlib", "jinja2"}
BUDGET_MIB = 42

PROBE = """
import importlib, json, sys
from gon_edge.process.memory import deferred
with deferred():  # as gon-edge run does
    importlib.import_module(sys.argv[1])
rss_kib = next(int(line.split()[1]) for line in open("/proc/self/status") if line.startswith("VmRSS"))
print(json.dumps({"modules": sorted(sys.modules), "rss_kib": rss_kib}))
"""

resident = pytest.mark.parametrize(
    "module", ["gon_edge", "gon_edge.daemon.app", "gon_edge.training.child", "gon_edge.commands.main"]
)


def imported(module):
    """The modules of a fresh interpreter after the import, and its resident memory."""
    run = subprocess.run([sys.executable, "-c", PROBE, module], capture_output=True, text=True, timeout=60, check=False)
    assert run.returncode == 0, run.stderr
    return json.loads(run.stdout)


@resident
def test_no_research_library_is_imported(module):
    assert not FORBIDDEN & {name.partition(".")[0] for name in imported(module)["modules"]}


def test_the_daemon_orders_trainings_and_loads_nothing_that_trains():
    # A dataclass of the child's module, and two of the gate's, once brought the whole fit along.
    trains = {f"gon_edge.training.{name}" for name in ("child", "fit", "gate", "plan", "rows", "source", "threshold")}
    assert not trains & set(imported("gon_edge.daemon.app")["modules"])


@resident
def test_an_import_weighs_less_than_the_budget(module):
    assert imported(module)["rss_kib"] / 1024 < BUDGET_MIB


def test_the_public_names_are_all_there():
    import gon_edge

    assert sorted(gon_edge.__all__) == gon_edge.__all__
    assert all(hasattr(gon_edge, name) for name in gon_edge.__all__)


def test_saying_the_version_does_not_wait_for_numpy():
    code = "import sys; from gon_edge.commands.main import main; main(['version']); sys.exit('numpy' in sys.modules)"
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=False)
    assert (run.returncode, run.stdout[:9]) == (0, "gon-edge ")


def test_a_name_that_is_not_public_is_no_attribute():
    import gon_edge

    with pytest.raises(AttributeError, match="has no attribute 'nonsense'"):
        _ = gon_edge.nonsense
