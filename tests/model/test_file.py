"""The model file: what it gives back, what it refuses, and what a power cut leaves."""

from __future__ import annotations

import contextlib
import io
import json
import os
import pickle
import subprocess
import sys
import textwrap
import time
import zipfile
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from gon_edge.errors import ModelFileError
from gon_edge.estimator import GONDetector
from gon_edge.model.file import FORMAT_VERSION, _checksum, dumps, load_model, loads, save_model
from gon_edge.model.gon import Discriminator
from gon_edge.training.fit import fit_model

HERE = Path("model.npz")


@pytest.fixture(scope="module")
def model():
    rng = np.random.default_rng(0)
    rows = rng.normal(size=(200, 3)) @ rng.normal(size=(3, 3))
    return fit_model(rows, features=["a", "b", "c"], rng=rng).with_lineage(version="7", seed=0, trained_at=1.5)


@pytest.fixture(scope="module")
def blob(model):
    return dumps(model)


def members(blob):
    with zipfile.ZipFile(io.BytesIO(blob)) as archive:
        return {name: archive.read(name) for name in archive.namelist()}


def packed(parts):
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as archive:
        for name, part in parts.items():
            archive.writestr(name, part)
    return out.getvalue()


def npy(array, *, allow_pickle=False):
    out = io.BytesIO()
    np.lib.format.write_array(out, array, allow_pickle=allow_pickle)
    return out.getvalue()


def with_header(blob, **changes):
    parts = members(blob)
    header = json.loads(np.load(io.BytesIO(parts["header.npy"])).tobytes())
    header.update(changes)
    parts["header.npy"] = npy(np.frombuffer(json.dumps(header).encode(), np.uint8))
    return packed(parts)


def test_a_model_read_back_gives_the_same_scores_bit_by_bit(model, tmp_path):
    detector = GONDetector()
    detector.model_ = model
    detector.save(tmp_path / "m.npz")
    rows = np.random.default_rng(1).normal(size=(300, 3))
    again = GONDetector.load(tmp_path / "m.npz")
    np.testing.assert_array_equal(again.decision_function(rows), detector.decision_function(rows))
    np.testing.assert_array_equal(again.feature_scores(rows), detector.feature_scores(rows))
    assert again.threshold_ == detector.threshold_


def test_everything_else_is_read_back_too(model, blob):
    again = loads(blob, HERE)
    assert again.features == ("a", "b", "c")
    assert again.version == "7"
    assert again.lineage == model.lineage
    assert (again.smoothing, again.typical, again.interval_s) == (model.smoothing, model.typical, model.interval_s)
    np.testing.assert_array_equal(again.longest_run, model.longest_run)
    np.testing.assert_array_equal(again.lowest, model.lowest)
    assert again.parameters == model.parameters


def test_the_same_model_gives_the_same_bytes(model, blob):
    assert dumps(model) == blob
    assert dumps(loads(blob, HERE)) == blob


def test_weights_are_stored_as_int8(blob):
    weights = [part for name, part in members(blob).items() if name.startswith("weight")]
    assert weights
    assert all(np.load(io.BytesIO(part)).dtype == np.int8 for part in weights)


@pytest.mark.parametrize(
    "changes",
    [
        {"threshold": float("nan")},  # every score would be below it
        {"threshold": "7"},
        {"typical": True},
        {"smoothing": 0},
        {"smoothing": None},
        {"bias": {}},
        {"interval_s": -1},
        {"features": ["a", "a", "b"]},
        {"features": ["a", "b", ["c"]]},
        {"features": "abc"},
        {"scales": []},
        {"scales": {"a": 1}},
        {"lineage": ["version"]},
        {"lineage": {"relative": 3}},
        {"lineage": {"trained_at": "yesterday"}},
        {"lineage": {"trained_at": 1e300}},  # no calendar shows it, and `models list` ended with a traceback
        {"lineage": {"trained_at": 253402300800}},  # the year 10000
        {"lineage": {"until": "now"}},
        {"lineage": {"deep": [[[[[[[[[[[[[[[[]]]]]]]]]]]]]]]]}},
        {"rising": "a"},
        {"rising": [1]},
    ],
    ids=str,
)
def test_a_header_no_row_could_be_scored_by_is_refused_though_its_checksum_is_right(blob, changes):
    # The first one that a fuzzer found was a factor of a scale that is no number: the daemon died at the first row.
    with pytest.raises(ModelFileError, match="is not a gon-edge model or is damaged"):
        loads(with_right_checksum(blob, changes), HERE)


@pytest.mark.parametrize("place", range(4))
@pytest.mark.parametrize("value", [None, "1", {}, float("inf"), -1, 1e308], ids=str)
def test_a_scale_that_is_no_scale_is_refused_though_its_checksum_is_right(blob, place, value):
    header = json.loads(np.load(io.BytesIO(members(blob)["header.npy"])).tobytes())
    header["scales"][0][place] = value
    with pytest.raises(ModelFileError, match="is not a gon-edge model or is damaged"):
        loads(with_right_checksum(blob, {"scales": header["scales"]}), HERE)


@pytest.mark.parametrize(
    "prediction", [[1.0], [1.0, 0.5, 1.0], [None, 0.5], [0.0, 0.5], [1.0, 1e308], {}, "ab"], ids=str
)
def test_a_prediction_that_is_none_is_refused_though_its_checksum_is_right(blob, prediction):
    with pytest.raises(ModelFileError, match="prediction is"):
        loads(with_right_checksum(blob, {"prediction": prediction}), HERE)


def test_a_prediction_from_a_scale_that_sees_no_row_by_itself_is_refused(model):
    net = model.discriminator
    beheaded = Discriminator(net.scales[1:], net.features, net.bias)
    beheaded = beheaded.with_prediction(net.prediction)
    with pytest.raises(ModelFileError, match="no scale that sees a row by itself"):
        loads(dumps(replace(model, discriminator=beheaded)), HERE)


@pytest.mark.parametrize("name", ["step0", "gain1", "prototypes2", "ahead_step", "ahead_gain"])
@pytest.mark.parametrize("number", [np.nan, np.inf, -np.inf, 3e38])
def test_a_weight_no_row_could_be_scored_by_is_refused_though_its_checksum_is_right(blob, name, number):
    # Found by fuzzing: every score was NaN, which is above no threshold.
    arrays = {name.removesuffix(".npy"): np.load(io.BytesIO(part)) for name, part in members(blob).items()}
    header = json.loads(arrays.pop("header").tobytes())
    del header["checksum"]
    arrays[name].reshape(-1)[-1] = number
    header["checksum"] = _checksum(header, arrays)
    arrays["header"] = np.frombuffer(json.dumps(header).encode(), np.uint8)
    out = io.BytesIO()
    np.savez(out, **arrays)
    with pytest.raises(ModelFileError, match=f"{name} holds what no row can be scored by"):
        loads(out.getvalue(), HERE)


def with_right_checksum(blob, changes):
    arrays = {name.removesuffix(".npy"): np.load(io.BytesIO(part)) for name, part in members(blob).items()}
    header = {**json.loads(arrays.pop("header").tobytes()), **changes}
    del header["checksum"]
    return with_header(blob, **changes, checksum=_checksum(header, arrays))


def test_a_file_cut_anywhere_is_refused(blob, tmp_path):
    path = tmp_path / "m.npz"
    for length in [*range(0, len(blob), 97), len(blob) - 1]:
        path.write_bytes(blob[:length])
        with pytest.raises(ModelFileError) as caught:
            load_model(path)
        assert caught.value.path == path


def test_a_flipped_bit_gives_the_same_model_or_a_refusal(blob):
    # zlib.error and RuntimeError ("is encrypted") came through where a bit fell into the packed stream or a zip flag.
    rng = np.random.default_rng(2)
    for place in range(0, len(blob), 7):
        damaged = bytearray(blob)
        damaged[place] ^= 1 << int(rng.integers(8))
        with contextlib.suppress(ModelFileError):
            assert dumps(loads(bytes(damaged), HERE)) == blob


def test_a_changed_tensor_is_refused_by_its_checksum(blob):
    parts = members(blob)
    gain = np.load(io.BytesIO(parts["gain0.npy"]))
    parts["gain0.npy"] = npy(gain * np.float32(1.01))
    with pytest.raises(ModelFileError, match="checksum"):
        loads(packed(parts), HERE)


def test_swapped_tensors_are_refused(blob):
    parts = members(blob)
    parts["mean.npy"], parts["scale.npy"] = parts["scale.npy"], parts["mean.npy"]
    with pytest.raises(ModelFileError, match="checksum"):
        loads(packed(parts), HERE)


def test_a_changed_threshold_is_refused_by_the_checksum(blob):
    # The checksum once covered the arrays alone.
    with pytest.raises(ModelFileError, match="checksum"):
        loads(with_header(blob, threshold=1e9), HERE)


def test_counters_are_read_back(model):
    again = loads(dumps(replace(model, rising=("b",))), HERE)
    assert again.rising == ("b",)
    assert again.is_counter.tolist() == [False, True, False]


def test_a_file_of_the_first_format_is_read_and_has_no_counters(blob, model):
    arrays = {name.removesuffix(".npy"): np.load(io.BytesIO(part)) for name, part in members(blob).items()}
    header = json.loads(arrays.pop("header").tobytes())
    del header["checksum"], header["rising"], arrays["lowest"]
    header["format_version"] = 1
    header["checksum"] = _checksum(header, arrays)
    arrays["header"] = np.frombuffer(json.dumps(header).encode(), np.uint8)
    old = loads(packed({f"{name}.npy": npy(array) for name, array in arrays.items()}), HERE)
    assert (old.rising, old.lowest) == ((), None)
    rows = np.random.default_rng(1).normal(size=(60, 3))
    one, other = GONDetector(), GONDetector()
    one.model_, other.model_ = model, old
    np.testing.assert_array_equal(one.decision_function(rows), other.decision_function(rows))


def test_a_file_of_the_second_format_is_read_and_foretells_nothing(model):
    net = model.discriminator
    old = replace(model, discriminator=Discriminator(net.scales, net.features, net.bias))
    parts = members(dumps(old))
    header = json.loads(np.load(io.BytesIO(parts["header.npy"])).tobytes())
    arrays = {name.removesuffix(".npy"): np.load(io.BytesIO(part)) for name, part in parts.items()}
    del header["checksum"], header["prediction"], arrays["header"]
    header["format_version"] = 2
    header["checksum"] = _checksum(header, arrays)
    arrays["header"] = np.frombuffer(json.dumps(header).encode(), np.uint8)
    again = loads(packed({f"{name}.npy": npy(array) for name, array in arrays.items()}), HERE)
    assert again.discriminator.prediction is None
    rows = np.random.default_rng(1).normal(size=(60, 3))
    one, other = GONDetector(), GONDetector()
    one.model_, other.model_ = old, again
    np.testing.assert_array_equal(one.decision_function(rows), other.decision_function(rows))


def test_a_newer_format_is_refused_by_name(blob):
    with pytest.raises(ModelFileError, match=rf"version {FORMAT_VERSION + 1}.*up to {FORMAT_VERSION}.*upgrade"):
        loads(with_header(blob, format_version=FORMAT_VERSION + 1), HERE)


def test_a_pickle_is_refused_and_not_run(blob, tmp_path):
    class Trap:
        def __reduce__(self):
            return (Path.touch, (tmp_path / "ran",))

    for damaged in (
        pickle.dumps(Trap()),
        packed({**members(blob), "mean.npy": npy(np.array([Trap()], object), allow_pickle=True)}),
    ):
        with pytest.raises(ModelFileError):
            loads(damaged, HERE)
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize(
    "content",
    [b"", b"not a model", packed({}), packed({"header.npy": b"x"}), packed({"header.npy": npy(np.uint8([1]))})],
    ids=["empty", "text", "no header", "no array", "no json"],
)
def test_a_file_of_something_else_is_refused(content, tmp_path):
    path = tmp_path / "m.npz"
    path.write_bytes(content)
    with pytest.raises(ModelFileError, match=str(path)):
        load_model(path)


@pytest.mark.parametrize("header", [[], 3, None, {}, {"format_version": "one"}, {"format_version": 1}], ids=str)
def test_a_header_of_something_else_is_refused(header):
    with pytest.raises(ModelFileError):
        loads(packed({"header.npy": npy(np.frombuffer(json.dumps(header).encode(), np.uint8))}), HERE)


def test_a_missing_file_and_a_folder_are_refused(tmp_path):
    with pytest.raises(ModelFileError, match="cannot be read"):
        load_model(tmp_path / "none.npz")
    with pytest.raises(ModelFileError):
        load_model(tmp_path)


def test_a_pipe_and_a_device_are_refused_at_once(tmp_path):
    # Reading waited for somebody to write into the pipe; the device has no end.
    os.mkfifo(tmp_path / "m.npz")
    for path in (tmp_path / "m.npz", Path("/dev/zero")):
        with pytest.raises(ModelFileError, match="not a regular file"):
            load_model(path)


def of_sizes(features=1, *, scales=1, rows=1, units=1, prototypes=1):
    """Bytes of a model of these sizes, whatever training would make of it."""
    names = [f"f{i}" for i in range(features)]
    header = {
        "format_version": FORMAT_VERSION, "features": names, "bias": 0.0, "scales": [[rows, 1.0, 1.0, 1.0]] * scales,
        "smoothing": 1.0, "threshold": 1.0, "typical": 0.0, "interval_s": 0.0, "rising": [], "lineage": {},
    }  # fmt: skip
    arrays = {
        "mean": np.zeros(features), "scale": np.ones(features), "longest_run": np.ones(features, np.int32),
    }  # fmt: skip
    for s in range(scales):
        arrays[f"weight{s}"] = np.ones((units, rows * features), np.int8)
        arrays[f"step{s}"] = arrays[f"gain{s}"] = np.ones(units, np.float32)
        arrays[f"prototypes{s}"] = np.ones((prototypes, units), np.float32)
    header["checksum"] = _checksum(header, arrays)
    arrays["header"] = np.frombuffer(json.dumps(header).encode(), np.uint8)
    return packed({f"{name}.npy": npy(array) for name, array in arrays.items()})


@pytest.mark.parametrize(
    ("sizes", "what"),
    [
        ({"units": 60_000}, "3600000000 products"),  # took 19 s: each row is made orthogonal to all before it
        ({"features": 10_001}, "10001 features"),
        ({"scales": 17}, "17 scales"),
        ({"rows": 10_001}, "10001 rows of a scale"),
        ({"prototypes": 1025}, "1025 prototypes"),
        ({"features": 10_000, "rows": 40, "units": 43}, "weights"),
    ],
    ids=str,
)
def test_a_model_larger_than_training_makes_is_refused_by_its_sizes(sizes, what):
    began = time.process_time()
    with pytest.raises(ModelFileError, match=f"{what}, and .* the most"):
        loads(of_sizes(**sizes), HERE)
    assert time.process_time() - began < 1.0
    assert loads(of_sizes(), HERE).features == ("f0",)


def test_a_model_that_could_not_be_read_again_is_not_written(model):
    scale = model.discriminator.scales[0]
    larger = replace(scale, prototypes=np.ones((1025, scale.prototypes.shape[1]), np.float32))
    object.__setattr__(too_large := model.with_lineage(), "discriminator", replace_scale(model.discriminator, larger))
    with pytest.raises(ValueError, match="1025 prototypes"):
        dumps(too_large)


def replace_scale(discriminator, scale):
    return Discriminator([scale, *discriminator.scales[1:]], discriminator.features, discriminator.bias)


def test_an_archive_that_unpacks_to_too_much_is_refused_unread():
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("mean.npy", bytes(100 << 20))
    with pytest.raises(ModelFileError, match="unpacks to more"):
        loads(out.getvalue(), HERE)


def test_a_model_of_inconsistent_shapes_is_refused(model):
    # A file with a good checksum and a first layer of the wrong width scored garbage or failed at the first row.
    fewer = model.with_lineage()
    object.__setattr__(fewer, "features", ("a", "b"))
    with pytest.raises(ModelFileError, match="weight0"):
        loads(dumps(fewer), HERE)


def test_a_save_that_fails_leaves_the_old_model_and_no_litter(model, tmp_path):
    path = tmp_path / "m.npz"
    save_model(model, path)
    before = path.read_bytes()
    unwritable = model.with_lineage(version=object())
    with pytest.raises(TypeError):
        save_model(unwritable, path)
    assert path.read_bytes() == before
    assert [entry.name for entry in tmp_path.iterdir()] == ["m.npz"]


def test_what_a_killed_process_left_is_removed_by_the_next_save(model, tmp_path):
    path = tmp_path / "m.npz"
    gone = subprocess.run([sys.executable, "-c", "import os; print(os.getpid())"], capture_output=True, text=True)
    (tmp_path / f".m.npz.{gone.stdout.strip()}.tmp").write_bytes(b"half a model")
    others = tmp_path / ".m.npz.1.tmp"  # of a process that lives: it may be at work
    others.write_bytes(b"half a model")
    save_model(model, path)
    assert sorted(entry.name for entry in tmp_path.iterdir()) == [others.name, "m.npz"]


def test_a_process_killed_at_any_file_operation_leaves_a_model(model, tmp_path):
    path = tmp_path / "m.npz"
    (tmp_path / "new.npz").write_bytes(dumps(model.with_lineage(version="3")))
    outcomes = []
    for last in range(30):
        save_model(model.with_lineage(version="2"), path)
        script = f"""
            import sys
            from pathlib import Path

            from gon_edge.model.file import load_model, save_model
            import powercut

            new = load_model(sys.argv[2])
            powercut.after({last})
            save_model(new, Path(sys.argv[1]))
        """
        ended = subprocess.run(
            [sys.executable, "-c", textwrap.dedent(script), path, tmp_path / "new.npz"],
            env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[1])},
            check=False,
            timeout=60,
        ).returncode
        outcomes.append((ended, load_model(path).version))
        if ended == 0:
            break
    assert len(outcomes) > 6  # cut at several operations
    assert outcomes[-1] == (0, "3")
    assert {code for code, _ in outcomes[:-1]} == {9}
    versions = [version for _, version in outcomes]
    assert versions == sorted(versions)
    assert set(versions) == {"2", "3"}
