"""Benchmark data by name, checked against the checksums of its folder.

What the sets truly are, which is not always what their names say:

============================== =========================================================================================
FTSAD-1                        A public univariate 5-minute tutorial series.  Its labels are the *alarms of another
                               detector*, not ground truth: kept for the record, left out of every mean.
FTSAD-25                       NASA SMAP channel P-1, middle 20 %: one telemetry column and 24 one-hot commands.
FTSAD-55                       NASA MSL channel C-1: one telemetry column and 54 one-hot commands.  In both, columns
                               constant in train were divided by 1e-4 at the source, so single test cells reach 10,000.
SMD                            Server Machine Dataset machine-1-1, middle 20 %.
MSDS                           Not the Multi-Source Distributed System data: Server Machine Dataset machine-1-3, middle
                               20 %, hence not independent of SMD.
smd_machine-3-10               Server Machine Dataset, a whole machine, labels per feature.
skab_valve                     SKAB water-circulation test bed, eight physical sensors, faults made by closing valves.
                               One third of the test is anomalous.  The rows after a cut are its ``train_breaks`` and
                               ``test_breaks``, read as the starts of runs.
wsn_multihop                   Four wireless sensor motes, two features each, a single event, labels per mote.
nab_cpu_asg_misconfiguration   NAB, univariate CPU load; the labelled window is wider than the anomaly.
the eleven of `RECORDED`        Several recorded runs in one file, in engineering units, with the rows at which each run
                               begins (``train_starts``, ``starts``).  No window may cross one.
============================== =========================================================================================

The first five were published with the reference implementation of GON and are neither re-scaled nor clipped here; the
others are scaled by the minimum and maximum of train.  None of them is shipped with gon-edge.

This module knows files and nothing of detectors.  A new layout of the files changes ``tools/fetch_datasets.py`` too.
"""

from __future__ import annotations

import csv
import hashlib
import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gon_edge.errors import InputError

Rows = NDArray[np.float64]
Flags = NDArray[np.bool_]

ENVIRONMENT = "GON_EDGE_DATA"

PAPER = ("FTSAD-1", "FTSAD-25", "FTSAD-55", "SMD", "MSDS")
"""The five sets published with the reference implementation."""

DEVELOPMENT = (*PAPER[1:], "smd_machine-3-10", "skab_valve", "wsn_multihop", "nab_cpu_asg_misconfiguration")
"""The eight sets whose labels are ground truth: every mean is taken over these."""

RECORDED = (
    "tep_step",
    "hydraulic",
    "cmapss_fd001",
    "ahu_mzvav_sim",
    "cnc_mill",
    "genesis",
    "bibmon_plant",
    "rosa_n",
    "tsb_daphnet",
    "w3_well2",
    "w3_well3",
)
"""Machines and plants, most of them recorded in several runs; development sets as well."""

# Seconds between rows, from the publishers' descriptions.  SMAP and MSL do not say.
_INTERVAL_S = {
    "FTSAD-1": 300.0,
    "SMD": 60.0,
    "MSDS": 60.0,
    "smd_machine-3-10": 60.0,
    "skab_valve": 1.0,
    "wsn_multihop": 5.0,
    "nab_cpu_asg_misconfiguration": 300.0,
}
_UNITS_S = {"second": 1.0, "minute": 60.0, "hour": 3600.0}
# NASA's labels say when, not which column: they are repeated over all columns and are no labels per feature.
_REPEATED_LABELS = frozenset({"FTSAD-25", "FTSAD-55"})


@dataclass(frozen=True, slots=True)
class Dataset:
    """One benchmark set.

    Attributes
    ----------
    name : str
    train : ndarray, float64, (N, F)
        The normal past.
    test : ndarray, float64, (T, F)
    labels : ndarray, bool, (T,)
        True where any feature is anomalous.
    feature_labels : ndarray, bool, (T, F), or None
        Which features are anomalous; None where the publisher does not say.
    interval_s : float or None
        Seconds between rows; None where unknown.
    feature_names : tuple of str
    train_restart, restart : ndarray, bool, (N,) and (T,)
        True at the first row of each recorded run; without seams at the very first row alone.
    """

    name: str
    train: Rows
    test: Rows
    labels: Flags
    feature_labels: Flags | None = None
    interval_s: float | None = None
    feature_names: tuple[str, ...] = field(default=())
    train_restart: Flags = field(default_factory=lambda: np.zeros(0, np.bool_))
    restart: Flags = field(default_factory=lambda: np.zeros(0, np.bool_))

    def __post_init__(self) -> None:
        """Let a set without seams be one run."""
        for name, rows in (("train_restart", self.train), ("restart", self.test)):
            if len(getattr(self, name)) != len(rows):
                object.__setattr__(self, name, _restart(np.zeros(0, np.intp), len(rows)))


def data_folder(root: Path | str | None = None) -> Path:
    """Return the folder that holds the sets: `root`, ``GON_EDGE_DATA``, or ``../shared/datasets`` beside the project.

    Raises
    ------
    InputError
        When it does not exist.
    """
    if root is None:
        root = os.environ.get(ENVIRONMENT) or Path(__file__).resolve().parents[3] / "shared" / "datasets"
    folder = Path(root).expanduser()
    if not folder.is_dir():
        raise InputError(f"{folder}: no such folder; set {ENVIRONMENT} or run tools/fetch_datasets.py")
    return folder


def available(root: Path | str | None = None) -> list[str]:
    """Return the names of the sets in a folder, sorted."""
    folder = data_folder(root)
    packed = {path.stem for path in folder.glob("*.npz")}
    plain = {path.name.removesuffix("_test.csv") for path in folder.glob("*_test.csv")}
    return sorted(packed | {name for name in plain if (folder / f"{name}_train.csv").exists()})


def load(name: str, root: Path | str | None = None) -> Dataset:
    """Read one set.

    Two layouts are understood.  ``NAME.npz`` holds ``train``, ``test`` and ``labels`` ((T,), (T, 1) or (T, F)), and may
    hold ``feature_names`` and the rows at which runs begin: ``train_starts`` and ``starts``, or ``train_breaks`` and
    ``test_breaks``.  A pair ``NAME_train.csv``, ``NAME_test.csv`` has a header line; the test file has a column
    ``label`` (0 or 1) or one column ``label:FEATURE`` for each feature.

    Parameters
    ----------
    name : str
        Name of the set, or the path of an ``.npz`` file.
    root : path, optional
        Its folder; see :func:`data_folder`.

    Raises
    ------
    InputError
        When the file is missing, does not have its checksum, or does not hold what it should.

    Examples
    --------
    >>> load("SMD").train.shape                                                          # doctest: +SKIP
    (5696, 38)
    """
    if name.endswith(".npz"):
        path = Path(name)
        folder, name = path.parent, path.stem
    else:
        folder = data_folder(root)
        path = folder / f"{name}.npz"
    entry = _index(folder).get(name, {})
    if path.exists():
        _verify(path, entry)
        arrays = _read_npz(path)
    elif (folder / f"{name}_train.csv").exists():
        arrays = _read_csv_pair(folder, name)
    else:
        raise InputError(f"no data set {name!r} in {folder}; there are: {', '.join(available(folder)) or 'none'}")
    train, test, labels, feature_names, seams = arrays
    if train.ndim != 2 or test.ndim != 2 or train.shape[1] != test.shape[1] or len(labels) != len(test):
        raise InputError(
            f"{name}: train {train.shape}, test {test.shape} and labels {labels.shape} do not fit together"
        )
    per_feature = labels.ndim == 2 and labels.shape == test.shape and test.shape[1] > 1 and name not in _REPEATED_LABELS
    return Dataset(
        name=name,
        train=train,
        test=test,
        labels=np.asarray(labels.reshape(len(labels), -1).any(axis=1)),
        feature_labels=labels if per_feature else None,
        interval_s=_INTERVAL_S.get(name) or _interval(entry.get("interval")),
        feature_names=feature_names or tuple(f"x{column}" for column in range(train.shape[1])),
        train_restart=_restart(seams[0], len(train)),
        restart=_restart(seams[1], len(test)),
    )


def _restart(starts: NDArray[np.intp], rows: int) -> Flags:
    restart = np.zeros(rows, np.bool_)
    restart[starts] = True
    restart[:1] = True
    return restart


def sha256(path: Path) -> str:
    """Return a file's SHA-256 as hexadecimal text."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _index(folder: Path) -> dict[str, dict[str, str]]:
    path = folder / "index.json"
    if not path.exists():
        return {}
    return {entry["name"]: entry for entry in json.loads(path.read_text())["datasets"]}


def _verify(path: Path, entry: dict[str, str]) -> None:
    expected = entry.get("sha256")
    if expected and sha256(path) != expected:
        raise InputError(f"{path}: the file is not the one its index.json describes (SHA-256 differs); fetch it again")


def _interval(text: str | None) -> float | None:
    """Read '5 minutes' as 300.0."""
    if not text:
        return None
    count, _, unit = text.partition(" ")
    return float(count) * _UNITS_S[unit.rstrip("s")]


Arrays = tuple[Rows, Rows, Flags, tuple[str, ...], tuple[NDArray[np.intp], NDArray[np.intp]]]


def _read_npz(path: Path) -> Arrays:
    try:
        with np.load(path, allow_pickle=False) as file:
            names = tuple(str(name) for name in file["feature_names"]) if "feature_names" in file else ()
            return (
                np.asarray(file["train"], dtype=np.float64),
                np.asarray(file["test"], dtype=np.float64),
                np.asarray(file["labels"]) > 0,
                names,
                (_starts(file, "train_starts", "train_breaks"), _starts(file, "starts", "test_breaks")),
            )
    except (KeyError, ValueError, OSError) as error:
        raise InputError(f"{path}: not a data set (needs train, test and labels): {error}") from error


def _starts(file: Mapping[str, NDArray[Any]], *names: str) -> NDArray[np.intp]:
    """The rows at which runs begin, under whichever of the names publishers' files have them."""
    return np.concatenate([np.asarray(file.get(name, []), np.intp) for name in names])


def _read_csv_pair(folder: Path, name: str) -> Arrays:
    names, train = _read_csv(folder / f"{name}_train.csv")
    header, table = _read_csv(folder / f"{name}_test.csv")
    missing = [feature for feature in names if feature not in header]
    if missing:
        raise InputError(f"{name}_test.csv: lacks the train columns {missing}")
    test = table[:, [header.index(feature) for feature in names]]
    columns = ["label"] if "label" in header else [f"label:{feature}" for feature in names]
    if any(column not in header for column in columns):
        raise InputError(f"{name}_test.csv: needs a column 'label', or 'label:FEATURE' for every feature")
    labels = table[:, [header.index(column) for column in columns]] > 0
    return train, test, labels, tuple(names), (np.zeros(0, np.intp), np.zeros(0, np.intp))


def _read_csv(path: Path) -> tuple[Sequence[str], Rows]:
    with path.open(newline="") as file:
        lines = csv.reader(file)
        header = next(lines, [])
        try:
            table = np.array([[float(cell or "nan") for cell in line] for line in lines], dtype=np.float64)
        except ValueError as error:
            raise InputError(f"{path}: a cell is not a number: {error}") from error
    return header, table.reshape(-1, len(header))
