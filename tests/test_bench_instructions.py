"""What `make bench` says of instructions: perf's own words, and each way on a model that is there."""

from __future__ import annotations

import importlib.util
import json
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from gon_edge import Detector, fit_model

ROOT = Path(__file__).resolve().parents[1]

# perf 6.1 on a Raspberry Pi 4 and in a virtual machine without counters, by `perf stat -x, -e instructions:u,cycles:u`.
COUNTED = "812345678,,instructions:u,731234567,100.00,1.31,insn per cycle\n620111222,,cycles:u,731234567,100.00,,\n"
NOT_SUPPORTED = "<not supported>,,instructions:u,0,100.00,,\n<not supported>,,cycles:u,0,100.00,,\n"


@pytest.fixture(scope="module")
def tool():
    spec = importlib.util.spec_from_file_location("bench_instructions", ROOT / "tools" / "bench_instructions.py")
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


def test_counts_of_perf_are_read(tool):
    assert tool.read_perf("some warning\n" + COUNTED) == {"instructions": 812345678, "cycles": 620111222}


def test_a_processor_that_does_not_count_is_said(tool):
    with pytest.raises(tool.CannotCount, match="does not let perf count"):
        tool.read_perf(NOT_SUPPORTED)


def test_without_perf_the_benchmark_says_so_and_what_to_install(tmp_path):
    done = subprocess.run(
        [sys.executable, ROOT / "tools" / "bench_instructions.py"], env={"PATH": str(tmp_path)}, capture_output=True
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.decode().strip() == (
        "instructions a row: not counted. perf is not installed: sudo apt install linux-perf"
    )


def test_rows_take_the_difference_of_two_runs(tool, tmp_path):
    def count(command):
        return {"instructions": 5_000_000 + 7000 * int(command[-1])}

    assert tool.a_row("a way", tmp_path / "m.npz", 100, count) == {"instructions": 7000.0}


def test_every_way_judges_the_rows_it_is_asked_for(tool, monkeypatch):
    judged = []
    score, causes = Detector.score, Detector.causes
    monkeypatch.setattr(Detector, "score", lambda self, row: judged.append(score(self, row)) or judged[-1])
    monkeypatch.setattr(Detector, "causes", lambda self: judged.append(causes(self)) or judged[-1])
    models = {size: fit_model(tool.plant(200, size), rng=np.random.default_rng(0)) for size in (8, 38)}
    for way, (work, size) in tool.WAYS.items():
        judged.clear()
        work(models[size], 20)
        verdicts, explained = judged[::2] if "causes" in way else judged, judged[1::2]
        assert len(verdicts) >= 19, way  # the newest row of a stream waits for the next
        if "causes" in way:
            assert verdicts[-1].is_anomaly
            assert explained[-1]


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("perf") is None, reason="perf is not installed")
def test_perf_counts_here_or_is_said_to_be_kept_from_it(tool):
    done = subprocess.run(
        [sys.executable, ROOT / "tools" / "bench_instructions.py", "--json"], capture_output=True, check=True
    )
    said = json.loads(done.stdout)
    if "not_counted" in said:
        assert "perf" in said["not_counted"]
    else:
        assert set(said["a_row"]) == set(tool.WAYS)
        assert all(5_000 < way["instructions"] < 50_000_000 for way in said["a_row"].values())
