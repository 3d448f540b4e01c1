"""Fetch the public benchmark sets from their own homes, or check a local folder of them.

    python tools/fetch_datasets.py                      # download what has a public home, build the .npz files
    python tools/fetch_datasets.py --list
    python tools/fetch_datasets.py --from /media/usb    # take .npz files from a folder, checked against its index.json

Sets land in ~/.cache/gon-edge/datasets, or --out; point GON_EDGE_DATA there.  Every download is pinned to a commit;
its SHA-256 is written to OUT/checksums.json at the first fetch and compared at every later one.  A fetch that was cut
off goes on with the file it had begun.

Tests run it against an HTTP server of their own, which serves small files in the layouts of the homes, breaks off, or
serves something else.  The homes themselves were never asked.  One that has moved its files is named in the error.
"""

from __future__ import annotations

import argparse
import csv
import io
import json
import shutil
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

import numpy as np  # noqa: E402

from gon_edge.errors import GonEdgeError, InputError, StoreError, UnreachableError  # noqa: E402
from gon_edge.model.file import write_atomically  # noqa: E402
from gon_edge.research import datasets  # noqa: E402

GON = "https://raw.githubusercontent.com/imperial-qore/GON/08743504f3a0d86b7bbef77e363eb9a04ffe9242/processed"
SKAB = "https://raw.githubusercontent.com/waico/SKAB/b2c0d46c2971dcbfe71e26087b6d231998bb91c2/data"
NAB = "https://raw.githubusercontent.com/numenta/NAB/ea702d75cc2258d9d7dd35ca8e5e2539d71f3140"
WSN = (
    "https://raw.githubusercontent.com/stdlib-js/datasets-suthaharan-multi-hop-sensor-network/"
    "acf8a27f6ba0b9b47a462794e5ca00640aaa2859/data/data.csv"
)
OMNI = (
    "https://raw.githubusercontent.com/NetManAIOps/OmniAnomaly/7fb0e0acf89ea49908896bcc9f9e80fcfff6baf4/"
    "ServerMachineDataset"
)


@dataclass(frozen=True, slots=True)
class Home:
    """Where a set lives, and how its files become arrays.

    Attributes
    ----------
    urls : tuple of str
    build : callable
        From the downloaded files, in order, to the arrays of the .npz.
    licence : str
    """

    urls: tuple[str, ...]
    build: Callable[[list[Path]], dict[str, np.ndarray]]
    licence: str


def from_numpy(files: list[Path]) -> dict[str, np.ndarray]:
    """Train, test and labels as three .npy files: the layout of the reference implementation."""
    train, test, labels = (np.load(path, allow_pickle=False) for path in files)
    return packed(train, test, labels)


def from_smd(files: list[Path]) -> dict[str, np.ndarray]:
    """Server Machine Dataset: train and test as text, and lines like ``100-200:1,5`` (rows : features from 1)."""
    train, test = (np.loadtxt(path, delimiter=",", dtype=np.float32) for path in files[:2])
    labels = np.zeros(test.shape, dtype=np.uint8)
    for line in files[2].read_text().split():
        rows, features = line.split(":")
        first, last = map(int, rows.split("-"))
        labels[first : last + 1, [int(feature) - 1 for feature in features.split(",")]] = 1
    # The development set is the first 20,000 rows and 23,692 train rows of the machine, as it was first published.
    return packed(train[:23_692], test[:20_000], labels[:20_000])


def from_skab(files: list[Path]) -> dict[str, np.ndarray]:
    """SKAB valve: train is the normal rows of the first six files, test all rows of the rest; train's range scales."""
    tables = [read_skab(path) for path in files]
    train = np.concatenate([values[~labels] for _, values, labels in tables[:6]])
    test = np.concatenate([values for _, values, _ in tables[6:]])
    labels = np.concatenate([labels for _, _, labels in tables[6:]])
    breaks = {
        "train_breaks": seams(np.concatenate([times[~labels] for times, _, labels in tables[:6]])),
        "test_breaks": seams(np.concatenate([times for times, _, _ in tables[6:]])),
    }
    return scaled(train, test, labels[:, None]) | breaks


def seams(times: np.ndarray) -> np.ndarray:
    """Return the rows before which more than a minute is missing."""
    return np.flatnonzero(np.diff(times) > np.timedelta64(60, "s")) + 1


def read_skab(path: Path) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return times (T,), sensors (T, 8) and labels (T,) of one experiment."""
    with path.open(newline="") as file:
        rows = list(csv.DictReader(file, delimiter=";"))
    sensors = [name for name in rows[0] if name not in {"datetime", "anomaly", "changepoint"}]
    values = np.array([[float(row[name]) for name in sensors] for row in rows])
    times = np.array([row["datetime"] for row in rows], dtype="datetime64[s]")
    return times, values, np.array([float(row["anomaly"]) > 0 for row in rows])


def from_nab(files: list[Path]) -> dict[str, np.ndarray]:
    """NAB: a series of (timestamp, value), and the labelled windows of all series in one JSON; 15 % of it is train."""
    with files[0].open(newline="") as file:
        rows = list(csv.DictReader(file))
    values = np.array([[float(row["value"])] for row in rows])
    times = [row["timestamp"] for row in rows]
    windows = json.loads(files[1].read_text())["realKnownCause/cpu_utilization_asg_misconfiguration.csv"]
    labels = np.zeros((len(rows), 1), dtype=np.uint8)
    for start, stop in windows:
        labels[[start[:19] <= time <= stop[:19] for time in times]] = 1
    split = 2707
    return scaled(values[:split], values[split:], labels[split:])


def from_wsn(files: list[Path]) -> dict[str, np.ndarray]:
    """Four motes side by side by reading number; both features of a mote share its label; 2,000 readings are train."""
    with files[0].open(newline="") as file:
        rows = list(csv.DictReader(file))
    tables = []
    for mote in sorted({row["mote_id"] for row in rows}):
        own = sorted((row for row in rows if row["mote_id"] == mote), key=lambda row: int(row["reading"]))
        tables.append(
            np.array([[float(row["humidity"]), float(row["temperature"]), float(row["label"])] for row in own])
        )
    count = min(len(table) for table in tables)
    values = np.concatenate([table[:count, :2] for table in tables], axis=1)
    labels = np.repeat(np.stack([table[:count, 2] > 0 for table in tables], axis=1), 2, axis=1)
    return scaled(values[:2000], values[2000:], labels[2000:])


def scaled(train: np.ndarray, test: np.ndarray, labels: np.ndarray) -> dict[str, np.ndarray]:
    """Scale by the minimum and the range of train; a column that never moves is only shifted."""
    low = train.min(axis=0)
    spread = np.where(train.max(axis=0) > low, train.max(axis=0) - low, 1.0)
    return packed((train - low) / spread, (test - low) / spread, labels)


def packed(train: np.ndarray, test: np.ndarray, labels: np.ndarray) -> dict[str, np.ndarray]:
    """Return the arrays of an .npz in their types."""
    return {
        "train": train.astype(np.float32),
        "test": test.astype(np.float32),
        "labels": (labels > 0).astype(np.uint8),
    }


HOMES: dict[str, Home] = {
    **{
        name: Home(
            tuple(f"{GON}/{name}/{part}.npy" for part in ("train", "test", "labels")), from_numpy, "BSD-3-Clause"
        )
        for name in datasets.PAPER
    },
    "smd_machine-3-10": Home(
        tuple(f"{OMNI}/{part}/machine-3-10.txt" for part in ("train", "test", "interpretation_label")), from_smd, "MIT"
    ),
    "skab_valve": Home(
        tuple(
            f"{SKAB}/{part}.csv" for part in [*(f"valve1/{n}" for n in range(16)), *(f"valve2/{n}" for n in range(4))]
        ),
        from_skab,
        "GPL-3.0",
    ),
    "wsn_multihop": Home((WSN,), from_wsn, "CC-BY-4.0 and ODC-By-1.0"),
    "nab_cpu_asg_misconfiguration": Home(
        (
            f"{NAB}/data/realKnownCause/cpu_utilization_asg_misconfiguration.csv",
            f"{NAB}/labels/combined_windows.json",
        ),
        from_nab,
        "MIT",
    ),
}


def fetch(name: str, out: Path) -> Path:
    """Download one set's files, build its .npz, and return the path.

    Files that are there are not asked for again, so a fetch that was cut off goes on with the file it had begun.
    A checksum is believed only after the set could be built of the file.

    Raises
    ------
    UnreachableError
        When a home does not answer, breaks off, or answers with another file than the first time.
    InputError
        When what came is not such a set.
    StoreError
        When it cannot be written.
    """
    home = HOMES[name]
    if (out / "index.json").exists():
        raise InputError(f"{out} holds checked copies; fetch into another folder with --out")
    known_path = out / "checksums.json"
    known: dict[str, str] = json.loads(known_path.read_text()) if known_path.exists() else {}
    files = [download(url, known.get(url), out / "downloads") for url in home.urls]
    try:
        arrays = home.build(files)
    except (ValueError, LookupError, TypeError, OSError) as error:
        new = [(url, path) for url, path in zip(home.urls, files, strict=True) if url not in known]
        for _, path in new:
            path.unlink(missing_ok=True)
        raise InputError(
            f"{name}: {', '.join(url for url, _ in new) or home.urls[0]}: what came is not this set ({error}); "
            "open the address in a browser, a login page of the network may have answered instead"
        ) from error
    known |= {url: datasets.sha256(path) for url, path in zip(home.urls, files, strict=True)}
    path = out / f"{name}.npz"
    content = io.BytesIO()
    np.savez_compressed(content, **arrays)
    try:
        write_atomically(path, content.getvalue())
        write_atomically(known_path, json.dumps(known, indent=1, sort_keys=True).encode())
    except OSError as error:
        raise StoreError(f"{out}: cannot write: {error.strerror}; choose another folder with --out") from error
    return path


def make(folder: Path) -> None:
    """Make the folder and those above it; raises `StoreError`."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise StoreError(f"{folder}: cannot be made: {error.strerror}; choose another folder with --out") from error


def download(url: str, checksum: str | None, folder: Path) -> Path:
    """Return the file of a URL, from the folder where it is there already; else download it whole or not at all.

    Raises
    ------
    UnreachableError
        When the home does not answer, breaks off, or answers with another file than ``checksum`` says.
    StoreError
        When it cannot be written.
    """
    import pooch
    from requests import RequestException

    pooch.get_logger().setLevel("WARNING")
    known = f"sha256:{checksum}" if checksum else None
    try:
        return Path(pooch.retrieve(url, known_hash=known, path=folder, progressbar=False))
    except (RequestException, ValueError) as error:
        raise UnreachableError(
            f"{url}: {error}; the same command goes on with this file, or use --from with a folder of .npz files"
        ) from error
    except OSError as error:
        raise StoreError(f"{folder}: cannot write: {error.strerror}; choose another folder with --out") from error


def take(name: str, source: Path, out: Path) -> Path:
    """Copy one set from a local folder, once it reads and has its checksum."""
    datasets.load(name, source)
    for path in [*source.glob(f"{name}.npz"), *source.glob(f"{name}_*.csv")]:
        shutil.copy2(path, out / path.name)
    index = source / "index.json"
    if index.exists():
        shutil.copy2(index, out / "index.json")
    return out / f"{name}.npz"


def main(arguments: list[str] | None = None) -> int:
    """Fetch or copy the named sets, and return the exit status."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", help="sets; default: all")
    parser.add_argument("--from", dest="source", type=Path, help="a local folder instead of the network")
    parser.add_argument("--out", type=Path, default=Path.home() / ".cache" / "gon-edge" / "datasets")
    parser.add_argument("--list", action="store_true", help="name the sets with licence and home, fetch nothing")
    options = parser.parse_args(arguments)
    if options.list:
        for name, home in HOMES.items():
            print(f"{name:30} {home.licence:26} {home.urls[0]}")
        return 0
    try:
        names = options.names or (datasets.available(options.source) if options.source else list(HOMES))
        unknown = [name for name in names if not options.source and name not in HOMES]
        if unknown:
            raise InputError(f"no home known for {unknown}; there are: {', '.join(HOMES)}")
        make(options.out)
        for count, name in enumerate(names, start=1):
            path = take(name, options.source, options.out) if options.source else fetch(name, options.out)
            print(f"[{count}/{len(names)}] {path}", file=sys.stderr)
    except KeyboardInterrupt:
        print("fetch_datasets: interrupted; the same command goes on with the file it had begun", file=sys.stderr)
        return 130
    except GonEdgeError as error:
        print(f"fetch_datasets: {error}", file=sys.stderr)
        return error.exit_code
    print(f"export {datasets.ENVIRONMENT}={options.out}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
