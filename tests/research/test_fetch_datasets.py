"""The conversions, on small files in the layouts of the homes, and downloads from a server that has such files."""

import contextlib
import errno
import importlib.util
import io
import json
import sys
import threading
from collections import Counter
from dataclasses import replace
from functools import partial
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import pytest
from faults import fail_at

from gon_edge.errors import InputError
from gon_edge.research import datasets

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def tool():
    spec = importlib.util.spec_from_file_location("fetch_datasets", ROOT / "tools" / "fetch_datasets.py")
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # dataclasses look their module up
    spec.loader.exec_module(module)
    return module


def write(folder, name, text):
    path = folder / name
    path.write_text(text)
    return path


def test_smd_labels_count_features_from_1_and_include_the_last_row(tool, tmp_path):
    row = ",".join(["0.5"] * 4)
    train, test = (write(tmp_path, name, "\n".join([row] * 10)) for name in ("train.txt", "test.txt"))
    arrays = tool.from_smd([train, test, write(tmp_path, "labels.txt", "2-4:1,3\n8-8:4\n")])
    assert np.argwhere(arrays["labels"]).tolist() == [[2, 0], [2, 2], [3, 0], [3, 2], [4, 0], [4, 2], [8, 3]]


def test_skab_trains_on_the_normal_rows_of_the_first_six_files(tool, tmp_path):
    head = "datetime;Current;Pressure;anomaly;changepoint\n"
    files = [
        write(tmp_path, f"{n}.csv", f"{head}{day} 10:14:33;{n};1.0;0.0;0.0\n{day} 10:14:34;99;1.0;1.0;0.0\n")
        for n, day in enumerate(["2020-03-09"] * 5 + ["2020-03-10"] * 2 + ["2020-03-11"])
    ]
    arrays = tool.from_skab(files)
    np.testing.assert_allclose(arrays["train"], np.column_stack([np.arange(6) / 5, np.zeros(6)]), rtol=1e-6)
    assert arrays["labels"].ravel().tolist() == [0, 1, 0, 1]
    assert (arrays["train_breaks"].tolist(), arrays["test_breaks"].tolist()) == ([5], [2])


def test_nab_labels_the_rows_of_its_windows(tool, tmp_path):
    times = [f"2014-05-{1 + n // 288:02d} {n % 288 // 12:02d}:{n % 12 * 5:02d}:00" for n in range(2800)]
    series = write(
        tmp_path, "s.csv", "timestamp,value\n" + "".join(f"{time},{n % 7}\n" for n, time in enumerate(times))
    )
    window = [[f"{times[2710]}.000000", f"{times[2712]}.000000"]]
    labels = {"realKnownCause/cpu_utilization_asg_misconfiguration.csv": window}
    arrays = tool.from_nab([series, write(tmp_path, "w.json", json.dumps(labels))])
    assert np.flatnonzero(arrays["labels"]).tolist() == [3, 4, 5]
    assert arrays["train"].shape == (2707, 1)


def test_wsn_puts_the_motes_side_by_side_by_reading(tool, tmp_path):
    fault = (3, 2005)
    lines = [
        f"{reading},{mote},0,{mote * 10 + reading % 5},{20 + reading % 3},{int((mote, reading) == fault)}"
        for mote in (3, 1)
        for reading in range(1, 2011)
    ]
    arrays = tool.from_wsn(
        [write(tmp_path, "d.csv", "reading,mote_id,indoor,humidity,temperature,label\n" + "\n".join(lines))]
    )
    assert arrays["test"].shape == (10, 4)
    assert np.argwhere(arrays["labels"]).tolist() == [[4, 2], [4, 3]]
    np.testing.assert_allclose(arrays["train"].max(axis=0), 1.0)


def test_the_reference_arrays_are_taken_as_they_are(tool, tmp_path):
    for name in ("train", "test", "labels"):
        np.save(tmp_path / f"{name}.npy", np.full((5, 2), 3.0 if name != "labels" else 1.0))
    arrays = tool.from_numpy([tmp_path / f"{name}.npy" for name in ("train", "test", "labels")])
    assert arrays["train"].dtype == np.float32
    assert arrays["test"].max() == 3.0
    assert arrays["labels"].all()


def test_a_local_folder_is_checked_and_copied(tool, tmp_path, capsys):
    source, out = tmp_path / "usb", tmp_path / "out"
    source.mkdir()
    np.savez(source / "pump.npz", train=np.ones((3, 1)), test=np.ones((2, 1)), labels=np.zeros((2, 1)))
    assert tool.main(["--from", str(source), "--out", str(out)]) == 0
    assert datasets.load("pump", out).train.shape == (3, 1)
    assert str(out) in capsys.readouterr().out
    (source / "index.json").write_text(json.dumps({"datasets": [{"name": "pump", "sha256": "0" * 64}]}))
    assert tool.main(["--from", str(source), "--out", str(out)]) == 66


def test_every_benchmark_set_has_a_home_and_every_home_is_pinned_to_a_commit(tool, capsys):
    assert set(tool.HOMES) == {*datasets.PAPER, *datasets.DEVELOPMENT}
    assert all(len(part) == 40 for home in tool.HOMES.values() for url in home.urls for part in [url.split("/")[5]])
    assert tool.main(["--list"]) == 0
    assert "skab_valve" in capsys.readouterr().out


def test_an_unknown_set_is_refused_and_checked_copies_are_not_overwritten(tool, tmp_path, capsys):
    assert tool.main(["nothing", "--out", str(tmp_path)]) == 66
    assert "no home known" in capsys.readouterr().err
    (tmp_path / "index.json").write_text('{"datasets": []}')
    pytest.importorskip("pooch")
    with pytest.raises(InputError, match="checked copies"):
        tool.fetch("SMD", tmp_path)


class Home:
    """A server with the three arrays of a set; paths in ``cut``, ``gone`` and ``instead`` it serves otherwise."""

    def __init__(self):
        values = {"train": np.arange(8.0).reshape(4, 2), "test": np.ones((3, 2)), "labels": np.zeros((3, 2))}
        self.files = {f"/{name}.npy": as_npy(array) for name, array in values.items()}
        self.cut, self.gone, self.instead, self.asked = set(), set(), {}, Counter()
        home = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self):
                home.asked[self.path] += 1
                if self.path in home.gone:
                    self.send_error(404)
                    return
                content = home.instead.get(self.path, home.files[self.path])
                self.send_response(200)
                self.send_header("Content-Length", str(len(content)))
                self.end_headers()
                self.wfile.write(content[: len(content) // 2] if self.path in home.cut else content)

            def log_message(self, *_):
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        threading.Thread(target=partial(self.server.serve_forever, poll_interval=0.01), daemon=True).start()
        self.address = f"http://127.0.0.1:{self.server.server_port}"


def as_npy(array):
    file = io.BytesIO()
    np.save(file, array)
    return file.getvalue()


@pytest.fixture
def home(tool, monkeypatch):
    home = Home()
    urls = tuple(home.address + path for path in home.files)
    monkeypatch.setitem(tool.HOMES, "pump", replace(tool.HOMES["SMD"], urls=urls, build=tool.from_numpy))
    yield home
    home.server.shutdown()
    home.server.server_close()


def fetched(tool, out):
    return tool.main(["pump", "--out", str(out)])


def test_a_set_is_downloaded_built_and_not_asked_for_again(tool, home, tmp_path, capsys):
    assert fetched(tool, tmp_path) == 0
    assert str(tmp_path) in capsys.readouterr().out
    np.testing.assert_array_equal(datasets.load("pump", tmp_path).train, np.arange(8.0).reshape(4, 2))
    assert fetched(tool, tmp_path) == 0
    assert set(home.asked.values()) == {1}


def test_a_fetch_that_was_cut_off_goes_on_with_the_file_it_had_begun(tool, home, tmp_path, capsys):
    home.cut = {"/labels.npy"}
    assert fetched(tool, tmp_path) == 69
    assert "/labels.npy" in capsys.readouterr().err
    assert not (tmp_path / "pump.npz").exists()
    home.cut = set()
    assert fetched(tool, tmp_path) == 0
    assert home.asked == {"/train.npy": 1, "/test.npy": 1, "/labels.npy": 2}
    assert len(list((tmp_path / "downloads").iterdir())) == 3


def test_a_home_that_has_moved_its_files_is_named(tool, home, tmp_path, capsys):
    home.gone = {"/test.npy"}
    assert fetched(tool, tmp_path) == 69
    error = capsys.readouterr().err
    assert "/test.npy" in error
    assert "404" in error


def test_a_login_page_in_place_of_a_file_is_refused_and_asked_for_again(tool, home, tmp_path, capsys):
    home.instead = {"/test.npy": b"<html>Welcome to the airport</html>"}
    assert fetched(tool, tmp_path) == 66
    error = capsys.readouterr().err
    assert "login page" in error
    assert not (tmp_path / "checksums.json").exists()
    home.instead = {}
    assert fetched(tool, tmp_path) == 0


def test_other_content_than_at_the_first_fetch_is_refused_and_the_built_set_stays(tool, home, tmp_path, capsys):
    assert fetched(tool, tmp_path) == 0
    before = (tmp_path / "pump.npz").read_bytes()
    for path in (tmp_path / "downloads").iterdir():
        path.unlink()
    home.instead = {"/train.npy": as_npy(np.zeros((4, 2)))}
    assert fetched(tool, tmp_path) == 69
    assert "/train.npy" in capsys.readouterr().err
    assert (tmp_path / "pump.npz").read_bytes() == before
    assert list((tmp_path / "downloads").iterdir()) == []


def test_a_full_disk_is_said_and_the_next_fetch_succeeds(tool, home, tmp_path):
    """Each call that writes fails once."""
    fetched(tool, tmp_path / "first")  # imports come once
    for nth in range(1, 200):
        out = tmp_path / str(nth)

        def unheard(out=out):
            with contextlib.redirect_stderr(io.StringIO()), contextlib.redirect_stdout(io.StringIO()):
                fetched(tool, out)

        calls, trace = fail_at(nth, errno.ENOSPC, unheard)
        assert not trace
        if calls < nth:
            break
        assert fetched(tool, out) == 0
        datasets.load("pump", out)
    assert 10 < nth < 199
