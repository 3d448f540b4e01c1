import hashlib
import json
import os
from pathlib import Path

import numpy as np
import pytest
from e2e.servers import FETCH

from gon_edge.errors import InputError
from gon_edge.research import datasets

REAL = Path(os.environ.get("GON_EDGE_DATA", Path(__file__).resolve().parents[3] / "shared" / "datasets"))


def write_set(folder, name, features=3, per_feature=True):
    rng = np.random.default_rng(0)
    labels = np.zeros((20, features if per_feature else 1), dtype=np.uint8)
    labels[5:8, 0] = 1
    train, test = rng.normal(size=(30, features)), rng.normal(size=(20, features))
    np.savez(folder / f"{name}.npz", train=train, test=test, labels=labels)
    return train, test, labels


def test_an_npz_is_read_with_labels_per_feature(tmp_path):
    train, test, labels = write_set(tmp_path, "pump")
    loaded = datasets.load("pump", tmp_path)
    np.testing.assert_allclose(loaded.train, train)
    np.testing.assert_allclose(loaded.test, test)
    np.testing.assert_array_equal(loaded.feature_labels, labels > 0)
    np.testing.assert_array_equal(np.flatnonzero(loaded.labels), [5, 6, 7])
    assert loaded.feature_names == ("x0", "x1", "x2")
    assert loaded.interval_s is None


def test_one_label_a_row_says_nothing_about_features(tmp_path):
    write_set(tmp_path, "pump", per_feature=False)
    assert datasets.load("pump", tmp_path).feature_labels is None


@pytest.mark.parametrize("names", [("train_starts", "starts"), ("train_breaks", "test_breaks")])
def test_runs_begin_where_the_file_says_under_either_name_and_at_the_first_row(tmp_path, names):
    train, test, labels = write_set(tmp_path, "pump")
    np.savez(
        tmp_path / "pump.npz", train=train, test=test, labels=labels, **dict(zip(names, ([7, 19], [4]), strict=True))
    )
    loaded = datasets.load("pump", tmp_path)
    assert np.flatnonzero(loaded.train_restart).tolist() == [0, 7, 19]
    assert np.flatnonzero(loaded.restart).tolist() == [0, 4]


def test_an_npz_is_read_by_its_path(tmp_path):
    write_set(tmp_path, "pump")
    assert datasets.load(str(tmp_path / "pump.npz")).name == "pump"


def test_a_csv_pair_is_read_by_header_and_not_by_column_order(tmp_path):
    (tmp_path / "pump_train.csv").write_text("flow,heat\n1,10\n2,20\n")
    (tmp_path / "pump_test.csv").write_text("label,heat,flow\n0,30,3\n1,40,4\n0,,5\n")
    loaded = datasets.load("pump", tmp_path)
    assert loaded.feature_names == ("flow", "heat")
    np.testing.assert_array_equal(loaded.test, [[3, 30], [4, 40], [5, np.nan]])
    np.testing.assert_array_equal(loaded.labels, [False, True, False])
    assert datasets.available(tmp_path) == ["pump"]


def test_a_csv_may_label_every_feature(tmp_path):
    (tmp_path / "pump_train.csv").write_text("flow,heat\n1,10\n")
    (tmp_path / "pump_test.csv").write_text("flow,heat,label:flow,label:heat\n3,30,0,1\n4,40,0,0\n")
    np.testing.assert_array_equal(datasets.load("pump", tmp_path).feature_labels, [[False, True], [False, False]])


@pytest.mark.parametrize(
    ("test_csv", "message"),
    [("flow,label\n1,0\n", "lacks the train columns"), ("flow,heat\n1,2\n", "needs a column 'label'"),
     ("flow,heat,label\n1,x,0\n", "not a number")],
)  # fmt: skip
def test_a_csv_that_does_not_fit_is_refused_in_words(tmp_path, test_csv, message):
    (tmp_path / "pump_train.csv").write_text("flow,heat\n1,10\n")
    (tmp_path / "pump_test.csv").write_text(test_csv)
    with pytest.raises(InputError, match=message):
        datasets.load("pump", tmp_path)


def test_a_file_with_another_checksum_is_refused(tmp_path):
    write_set(tmp_path, "pump")
    path = tmp_path / "pump.npz"
    entry = {"name": "pump", "sha256": hashlib.sha256(path.read_bytes()).hexdigest(), "interval": "5 minutes"}
    (tmp_path / "index.json").write_text(json.dumps({"datasets": [entry]}))
    assert datasets.load("pump", tmp_path).interval_s == 300.0
    write_set(tmp_path, "pump", features=4)
    with pytest.raises(InputError, match="SHA-256"):
        datasets.load("pump", tmp_path)


def test_a_missing_set_and_a_missing_folder_are_named(tmp_path, monkeypatch):
    write_set(tmp_path, "pump")
    with pytest.raises(InputError, match="there are: pump"):
        datasets.load("valve", tmp_path)
    monkeypatch.setenv("GON_EDGE_DATA", str(tmp_path / "nowhere"))
    with pytest.raises(InputError, match="GON_EDGE_DATA"):
        datasets.load("pump")
    (tmp_path / "bad.npz").write_bytes(b"not a zip")
    with pytest.raises(InputError, match="bad"):
        datasets.load("bad", tmp_path)


@pytest.mark.skipif(not REAL.is_dir(), reason=f"the data sets are not here; type: {FETCH}")
@pytest.mark.parametrize("name", ["FTSAD-1", *datasets.DEVELOPMENT])
def test_the_benchmark_sets_are_what_their_index_says(name):
    entry = datasets._index(REAL)[name]
    loaded = datasets.load(name, REAL)
    assert [list(loaded.train.shape), list(loaded.test.shape)] == [entry["shapes"]["train"], entry["shapes"]["test"]]
    assert loaded.labels.mean() == pytest.approx(entry["anomaly_ratio_steps"], abs=1e-5)
    assert (loaded.feature_labels is not None) == entry["labels_kind"].startswith("per feature") or (
        name == "wsn_multihop"
    )


@pytest.mark.skipif(not REAL.is_dir(), reason=f"the data sets are not here; type: {FETCH}")
def test_the_valves_recordings_end_at_its_cuts():
    loaded = datasets.load("skab_valve", REAL)
    assert np.flatnonzero(loaded.train_restart).tolist() == [0, 573, 1318, 2055, 2800, 3544, 4294]
    assert np.flatnonzero(loaded.restart).tolist() == [0, 2155, 11396, 13359]
