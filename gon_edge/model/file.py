"""A model and the file it lives in.

``.npz`` with a JSON header, a format version and a checksum; no pickle, ever.  A file is written beside its place,
flushed to the disk and renamed, so that a power cut leaves the old one or the new one.

This module does not know which file is in use (`state.folder`), nor how a model is found.  A new field of a model is a
new format version.
"""

from __future__ import annotations

import errno
import io
import json
import math
import os
import re
import sys
import zipfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gon_edge.errors import ModelFileError
from gon_edge.model.counters import Judged, Rows
from gon_edge.model.daily import is_difference
from gon_edge.model.gon import Discriminator, Scale
from gon_edge.model.levels import Levels
from gon_edge.model.prediction import Prediction
from gon_edge.model.quantize import QuantizedLinear
from gon_edge.model.smoothing import Smoother
from gon_edge.model.window import Scaler
from gon_edge.process.digest import sha256
from gon_edge.process.files import adopt, make_folder, read_regular

FORMAT_VERSION = 3
"""2 knows counters and the range of each feature, 3 a prediction of rows; files of 1 and 2 are read, and have none."""

_LARGEST = 64 << 20
"""Bytes of a model file that are read; 500 features need 1 MB."""

_LARGEST_WEIGHT = 1e9
"""Far more than a step, gain, prototype or factor of a scale can be; its square is still a float32."""

_LATEST = 253402300799.0
"""Unix seconds of the last second of the year 9999; no calendar shows a later one."""

_NPY = re.compile(
    rb"\x93NUMPY\x01\x00..\{'descr': '([|<][biuf][0-9])', 'fortran_order': False, 'shape': \(([0-9, ]*)\), \} *\n",
    re.DOTALL,
)
"""The beginning of a ``.npy`` file: its magic, version, length of the header, and the header."""

_TIMES = (
    ("trained_at", 0.0, _LATEST),
    *((key, -math.inf, math.inf) for key in ("met", "since", "until")),
)
"""Entries of the lineage that are Unix seconds, from and to.  Rows may be of any time that their file says."""

_DEEPEST = 16
"""Levels of the lineage.  Training writes three."""

_MOST = {
    "features": 10_000,
    "scales": 16,
    "rows of a scale": 10_000,
    "prototypes": 1024,
    "weights": 16 << 20,
    "products": 1 << 28,
}
"""Of a model.  Training makes 4 scales, up to 1,000 rows, 24 prototypes, and 9.8 million weights of 10,000 features.
Products are the units of a scale times its weights: so many are added up, two times each, when its rows are made
orthogonal.  The most weights that training makes have 160 million and take 1.3 s; 60,000 units took 19 s."""


@dataclass(frozen=True, slots=True)
class Model:
    """Everything needed to judge rows of one stream.

    Attributes
    ----------
    features : tuple of str
        Names of the F columns, in order.
    scaler : Scaler
    discriminator : Discriminator
    smoothing : float
        Weight of the newest row in the quick average of scores, see `gon_edge.model.smoothing.Smoother`.
    threshold : float
        Scores above are anomalous.
    typical : float
        Median abnormality of held-out whole windows, before smoothing; generation climbs until a window looks this
        normal, and a scale without all its rows yet counts as this normal.
    longest_run : ndarray of int32, shape (F,)
        Most rows without a change in training; a feature still for much longer is frozen.  The largest int32 for a
        feature that never changed: nothing is known of how often it should.
    interval_s : float
        Seconds between rows; 0 when unknown.
    rising : tuple of str
        Features that only rise: their rate is judged, see `gon_edge.model.counters`.
    lowest : ndarray of float32, shape (F,), or None
        Lowest value of each feature in training, of a counter the lowest rate; NaN, or None for all, where unknown.
    highest : ndarray of float32, shape (F,), or None
        The highest, likewise.
    lineage : mapping
        ``version``, ``trained_at``, ``rows``, ``seed``, ``parent``, ...: JSON values, for people.
    """

    features: tuple[str, ...]
    scaler: Scaler
    discriminator: Discriminator
    smoothing: float
    threshold: float
    typical: float
    longest_run: NDArray[np.int32]
    interval_s: float = 0.0
    rising: tuple[str, ...] = ()
    lowest: NDArray[np.float32] | None = None
    highest: NDArray[np.float32] | None = None
    lineage: Mapping[str, Any] = field(default_factory=dict)

    @property
    def version(self) -> str:
        """Name of this version; empty for a model that was never given one."""
        return str(self.lineage.get("version", ""))

    @property
    def parameters(self) -> int:
        """Number of weights, first layer included."""
        ahead = self.discriminator.prediction
        scales = sum(
            s.weight.values.size + s.weight.step.size + s.gain.size + s.prototypes.size + 3
            for s in self.discriminator.scales
        )
        return scales + (ahead.weight.values.size + ahead.weight.step.size + ahead.gain.size + 2 if ahead else 0)

    @property
    def finite(self) -> bool:
        """Whether every value that a score depends on is finite."""
        net = self.discriminator
        levels = [self.threshold, self.typical, net.bias, *(scale.kappa for scale in net.scales)]
        levels += [value for term in net.terms for value in (term.tau, term.share)]
        arrays = [a for term in net.terms for a in (term.gain, term.weight.step)]
        arrays += [scale.prototypes for scale in net.scales]
        known = np.isfinite([*levels, *self.scaler.mean, *self.scaler.scale]).all()
        return bool(known) and all(bool(np.isfinite(array).all()) for array in arrays)

    @property
    def extremes(self) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """Lowest and highest value of each feature in training, both (F,); NaN where unknown."""
        unknown = np.full(len(self.features), np.nan, np.float32)
        low, high = (unknown if extreme is None else extreme for extreme in (self.lowest, self.highest))
        return low, high

    def levels(self) -> Levels:
        """Levels of a stream that begins, with every feature at home."""
        low, high = self.extremes
        return Levels(self.scaler.standardise(low), self.scaler.standardise(high))

    def smoother(self) -> Smoother:
        """Averages over the scores of a stream that begins."""
        return Smoother(self.smoothing, self.discriminator.window, self.threshold)

    @property
    def readings(self) -> tuple[str, ...]:
        """Features that a device sends: all but the differences to other days, see `gon_edge.model.daily`."""
        return tuple(name for name in self.features if not is_difference(name, self.features))

    @property
    def is_counter(self) -> NDArray[np.bool_]:
        """Which features are judged by their rate, shape (F,)."""
        return np.array([name in self.rising for name in self.features], np.bool_)

    def judged(self, rows: Rows, restart: NDArray[np.bool_]) -> Judged:
        """Rows (T, F) with counters as their rates; ``restart`` (T,) is True where a row does not follow the other."""
        return Judged(rows, restart, self.is_counter)

    @property
    def relative(self) -> tuple[str, ...]:
        """Features this model knows as changes since a first row, not as levels; see :meth:`at_level_of`."""
        return tuple(
            name for name in self.lineage.get("relative", ()) if name in self.features and name not in self.rising
        )

    def at_level_of(self, features: Sequence[str], values: NDArray[np.floating]) -> Model:
        """The same model, ready to judge the rows that begin with one.

        A model for many machines cannot know how much memory is in use on one of them, only how that moves.  Its
        lineage names such features as ``relative``; their mean moves to their value in the stream's first row.  A
        model without any is returned as it is.

        Parameters
        ----------
        features : sequence of str
            Names of the row's values.
        values : ndarray, shape (len(features),)
        """
        if not self.relative:
            return self
        mean = self.scaler.mean.copy()
        for name in self.relative:
            mean[self.features.index(name)] += float(values[list(features).index(name)])
        return replace(self, scaler=Scaler(mean, self.scaler.scale))

    def with_lineage(self, **lineage: Any) -> Model:
        """A copy with these entries added to its lineage."""
        return replace(self, lineage={**self.lineage, **lineage})


def dumps(model: Model) -> bytes:
    """The file's bytes; the same model gives the same bytes.

    Raises
    ------
    ValueError
        It is larger than what `loads` takes.
    """
    _check_sizes(len(model.features), [(s.rows, *s.prototypes.shape) for s in model.discriminator.scales])
    arrays: dict[str, NDArray[Any]] = {
        "mean": model.scaler.mean,
        "scale": model.scaler.scale,
        "longest_run": model.longest_run,
    }
    for name, extreme in (("lowest", model.lowest), ("highest", model.highest)):
        if extreme is not None:
            arrays[name] = extreme
    for s, scale in enumerate(model.discriminator.scales):
        arrays[f"weight{s}"] = scale.weight.values
        arrays[f"step{s}"] = scale.weight.step
        arrays[f"gain{s}"] = scale.gain
        arrays[f"prototypes{s}"] = scale.prototypes
    ahead = model.discriminator.prediction
    if ahead is not None:
        arrays |= {"ahead": ahead.weight.values, "ahead_step": ahead.weight.step, "ahead_gain": ahead.gain}
    header: dict[str, Any] = {
        "format_version": FORMAT_VERSION,
        "features": list(model.features),
        "bias": model.discriminator.bias,
        "scales": [[s.rows, s.kappa, s.tau, s.share] for s in model.discriminator.scales],
        "prediction": [ahead.tau, ahead.share] if ahead is not None else [],
        "smoothing": model.smoothing,
        "threshold": model.threshold,
        "typical": model.typical,
        "interval_s": model.interval_s,
        "rising": list(model.rising),
        "lineage": dict(model.lineage),
    }
    header["checksum"] = _checksum(header, arrays)
    arrays["header"] = np.frombuffer(json.dumps(header, sort_keys=True).encode(), np.uint8)
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, array in arrays.items():
            buffer = io.BytesIO()
            np.lib.format.write_array(buffer, np.ascontiguousarray(array), allow_pickle=False)
            archive.writestr(zipfile.ZipInfo(f"{name}.npy"), buffer.getvalue(), zipfile.ZIP_DEFLATED)  # no clock in it
    return out.getvalue()


def loads(blob: bytes, path: Path) -> Model:
    """The model in a file's bytes; ``path`` names the file in errors.

    Raises
    ------
    ModelFileError
        Damaged, of a newer format, or not a model.
    """
    try:
        with zipfile.ZipFile(io.BytesIO(blob)) as archive:
            if sum(entry.file_size for entry in archive.infolist()) > _LARGEST:
                raise ModelFileError(path, "unpacks to more than a model can hold; it is not one of ours")
            arrays = {name.removesuffix(".npy"): _array(archive.read(name)) for name in archive.namelist()}
        header = json.loads(arrays.pop("header").tobytes())
        version = header["format_version"]
        if version > FORMAT_VERSION:
            raise ModelFileError(
                path, f"has format version {version}, this gon-edge reads up to {FORMAT_VERSION}; upgrade it"
            )
        if header.pop("checksum") != _checksum(header, arrays):
            raise ModelFileError(
                path, "is damaged (its checksum does not match); restore it or let the daemon train anew"
            )
        _check_header(header)
        features = tuple(map(sys.intern, header["features"]))  # most streams of a site have the same
        rows_of = [rows for rows, *_ in header["scales"]]
        _check_sizes(len(features), [(rows, *arrays[f"prototypes{s}"].shape) for s, rows in enumerate(rows_of)])
        scales = []
        for s, (rows, kappa, tau, share) in enumerate(header["scales"]):
            weight = QuantizedLinear(arrays[f"weight{s}"], arrays[f"step{s}"])
            units = len(weight.values)
            _require(f"weight{s}", weight.values, np.int8, (units, rows * len(features)))
            prototypes = (len(arrays[f"prototypes{s}"]), units)
            _require_factors(arrays, {f"step{s}": (units,), f"gain{s}": (units,), f"prototypes{s}": prototypes})
            scales.append(Scale(rows, weight, arrays[f"gain{s}"], arrays[f"prototypes{s}"], kappa, tau, share))
        _check_columns(arrays, len(features))
        ahead = _prediction(header, arrays, scales[0], scales[-1].rows)
        return Model(
            features=features,
            scaler=Scaler(arrays["mean"], arrays["scale"]),
            discriminator=Discriminator(scales, len(features), header["bias"], ahead).with_less_memory(),
            smoothing=header["smoothing"],
            threshold=header["threshold"],
            typical=header["typical"],
            longest_run=arrays["longest_run"],
            interval_s=header["interval_s"],
            rising=tuple(header.get("rising", ())),
            lowest=arrays.get("lowest"),
            highest=arrays.get("highest"),
            lineage=header["lineage"],
        )
    except ModelFileError:
        raise
    except Exception as error:  # one wrong bit makes zipfile, zlib, numpy or json raise nearly anything
        raise ModelFileError(path, f"is not a gon-edge model or is damaged ({error})") from error


def _prediction(
    header: Mapping[str, Any], arrays: Mapping[str, NDArray[Any]], first: Scale, window: int
) -> Prediction | None:
    """The prediction in a file, None where it has none; raises ValueError where no row could be scored by it."""
    if not header.get("prediction"):
        return None
    tau, share = header["prediction"]
    units, features = first.weight.values.shape
    if first.rows != 1 or window < 2:
        raise ValueError("there is a prediction, and no scale that sees a row by itself and one that sees two")
    _require("ahead", arrays["ahead"], np.int8, (features, units))
    _require_factors(arrays, {"ahead_step": (features,), "ahead_gain": (features,)})
    return Prediction(QuantizedLinear(arrays["ahead"], arrays["ahead_step"]), arrays["ahead_gain"], tau, share)


def save_model(model: Model, path: Path) -> None:
    """Write ``model`` to ``path`` atomically; raises ``OSError``, and then what was there still is."""
    write_atomically(path, dumps(model))


def write_atomically(path: Path, content: bytes) -> None:
    """Make ``path`` a file of that content: at no moment, a power cut included, is it another than the old or the new.

    What an earlier process left of an unfinished write is removed.  What root writes is its folder's owner's.
    """
    make_folder(path.parent)
    for stale in path.parent.glob(f".{path.name}.*.tmp"):
        if not _lives(stale.name.split(".")[-2]):
            stale.unlink(missing_ok=True)
    fresh = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    fresh.unlink(missing_ok=True)
    file = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o644)
    try:
        try:
            rest = memoryview(content)
            while rest:
                rest = rest[os.write(file, rest) :]
            os.fsync(file)
        finally:
            os.close(file)
        adopt(fresh)
        fresh.replace(path)
    finally:
        fresh.unlink(missing_ok=True)
    directory = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(directory)
    finally:
        os.close(directory)


def _lives(pid: str) -> bool:
    return pid.isdecimal() and Path(f"/proc/{pid}").exists() and int(pid) != os.getpid()


def _array(content: bytes) -> NDArray[Any]:
    """The array in a ``.npy`` file as `dumps` writes them.

    Numpy's own reader takes any literal of Python for a header, and a whole parser to read it: 0.4 MiB.

    Raises
    ------
    ValueError
    """
    found = _NPY.match(content)
    if found is None:
        raise ValueError("not an array of numbers")
    shape = [int(size) for size in found[2].split(b",") if size.strip()]
    return np.frombuffer(content, found[1].decode(), offset=found.end()).reshape(shape).copy()


def load_model(path: Path | str) -> Model:
    """Read a model file.

    Raises
    ------
    ModelFileError
        Missing, unreadable, damaged, of a newer format, or not a model.
    """
    path = Path(path)
    try:
        blob = read_regular(path, _LARGEST)
    except OSError as error:
        if error.errno == errno.EFBIG:
            raise ModelFileError(path, "is larger than any model; it is not one of ours") from None
        raise ModelFileError(path, f"cannot be read ({error.strerror})") from error
    return loads(blob, path)


def _require(name: str, array: NDArray[Any], dtype: type[np.generic], shape: tuple[int, ...]) -> None:
    if array.dtype != dtype or array.shape != shape:
        raise ValueError(f"{name} is {array.dtype} {array.shape}, not {np.dtype(dtype)} {shape}")


def _require_factors(arrays: Mapping[str, NDArray[Any]], shapes: Mapping[str, tuple[int, ...]]) -> None:
    for name, shape in shapes.items():
        _require(name, arrays[name], np.float32, shape)
        if not arrays[name].size or not (np.abs(arrays[name]) <= _LARGEST_WEIGHT).all():  # NaN is not
            raise ValueError(f"{name} holds what no row can be scored by")


def _check_header(header: Mapping[str, Any]) -> None:
    """Raise ValueError where the checksum is right and yet no row could be scored by what stands here."""
    lowest = {"bias": -math.inf, "typical": -math.inf, "threshold": -math.inf, "interval_s": 0.0, "smoothing": 1e-6}
    for key, low in lowest.items():
        if not _is_number(header[key], low, 1.0 if key == "smoothing" else math.inf):
            raise ValueError(f"{key} is {header[key]!r:.40}")
    features, scales, lineage = header["features"], header["scales"], header["lineage"]
    if not isinstance(features, list) or not all(isinstance(name, str) and name for name in features):
        raise ValueError("features are no names")
    if not features or len(set(features)) != len(features):
        raise ValueError("features are none, or one stands twice")
    if not isinstance(scales, list) or not scales:
        raise ValueError("there is no scale")
    for rows, *factors in scales:
        if (
            type(rows) is not int
            or rows < 1
            or not all(_is_number(factor, 1e-12, _LARGEST_WEIGHT) for factor in factors)
        ):
            raise ValueError(f"a scale is {[rows, *factors]!r:.80}")
    ahead = header.get("prediction", [])
    is_pair = isinstance(ahead, list) and len(ahead) in (0, 2)
    if not is_pair or not all(_is_number(factor, 1e-12, _LARGEST_WEIGHT) for factor in ahead):
        raise ValueError(f"prediction is {ahead!r:.40}")
    if not isinstance(lineage, dict) or _levels(lineage) > _DEEPEST:
        raise ValueError("lineage is no history of a model")
    for key, low, high in _TIMES:
        if not _is_number(lineage.get(key, 0.0), low, high):
            raise ValueError(f"lineage.{key} is {lineage[key]!r:.40}, not a time")
    for where, names in (("lineage.relative", lineage.get("relative", [])), ("rising", header.get("rising", []))):
        if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
            raise ValueError(f"{where} is no list of names")


def _check_columns(arrays: Mapping[str, NDArray[Any]], features: int) -> None:
    """Raise ValueError where what is known of each feature is not of every one of them, or no row could use it."""
    _require("mean", arrays["mean"], np.float64, (features,))
    _require("scale", arrays["scale"], np.float64, (features,))
    _require("longest_run", arrays["longest_run"], np.int32, (features,))
    for name in arrays.keys() & {"lowest", "highest"}:
        _require(name, arrays[name], np.float32, (features,))
    if not (np.isfinite(arrays["mean"]).all() and np.isfinite(arrays["scale"]).all() and (arrays["scale"] > 0).all()):
        raise ValueError("mean or scale holds what no row can be divided by")


def _check_sizes(features: int, scales: Sequence[tuple[int, ...]]) -> None:
    """Raise ValueError where a model is larger than training makes one; ``scales`` are rows, prototypes and units."""
    weights = [units * rows * features for rows, _, units in scales]
    sizes = {
        "features": features,
        "scales": len(scales),
        "rows of a scale": max(rows for rows, _, _ in scales),
        "prototypes": max(prototypes for _, prototypes, _ in scales),
        "weights": sum(weights),
        "products": sum(units * count for (_, _, units), count in zip(scales, weights, strict=True)),
    }
    for what, size in sizes.items():
        if size > (most := _MOST[what]):
            raise ValueError(f"it has {size} {what}, and {most} are the most that training makes")


def _levels(value: object) -> int:
    inside = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
    return 1 + max(map(_levels, inside), default=0)


def _is_number(value: object, low: float, high: float) -> bool:
    return type(value) in (int, float) and math.isfinite(value) and low <= value <= high  # type: ignore[arg-type, operator]


def _checksum(header: Mapping[str, Any], arrays: Mapping[str, NDArray[Any]]) -> str:
    """Of everything but itself: a threshold is as much the model as a weight is."""
    digest = sha256(json.dumps(header, sort_keys=True).encode())
    for name in sorted(arrays):
        array = np.ascontiguousarray(arrays[name])
        digest.update(f"{name} {array.dtype.str} {array.shape}".encode())
        digest.update(array.tobytes())
    return digest.hexdigest()
