"""The models there are: those shipped with gon-edge, and the versions of the user's streams.

Finds, describes, checks and compares them for ``gon-edge models`` and ``gon-edge score``, and gives the daemon the
models it may score new streams by until they have their own.  Shipped models are ``.npz`` files beside an
``index.json``; ``tools/train_models.py`` writes both.
"""

from __future__ import annotations

import contextlib
import functools
import json
import math
import os
import sys
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gon_edge.config.schema import Config
from gon_edge.errors import ConfigError, GonEdgeError, InputError, ModelFileError, StoreError
from gon_edge.events import Row
from gon_edge.model.detector import Detector
from gon_edge.model.file import Model, dumps, load_model, loads
from gon_edge.process.digest import sha256
from gon_edge.state.folder import ModelFolder, ModelVersion
from gon_edge.state.store import Store

INDEX_FORMAT = 1

_PROBE_FAR = 12.0
"""Deviations: rows this far from everything are anomalous to every model that works."""


@dataclass(frozen=True, slots=True)
class ShippedModel:
    """A model that comes with gon-edge.

    Attributes
    ----------
    name : str
    title : str
        What it watches, in a few words.
    path, card : Path
        The model, and the page that says what it is good for.
    sha256 : str
        Of the model's file.
    size_bytes : int
    starter : bool
        Whether a new stream that has its features is scored by it until it has a model of its own.
    """

    name: str
    title: str
    path: Path
    card: Path
    sha256: str
    size_bytes: int
    starter: bool

    def load(self) -> Model:
        """Read it.

        Raises
        ------
        ModelFileError
            Missing, damaged, or not the file that was shipped.
        """
        try:
            blob = self.path.read_bytes()
        except OSError as error:
            raise ModelFileError(self.path, f"cannot be read ({error.strerror}); install gon-edge again") from error
        if sha256(blob).hexdigest() != self.sha256:
            raise ModelFileError(
                self.path, "is not the file that was shipped (SHA-256 differs); install gon-edge again"
            )
        return loads(blob, self.path)


def shipped_folder() -> Path | None:
    """Where the shipped models are: beside the source, or in ``share/gon-edge/models`` of where it is installed.

    That is the prefix this module lies in (which ``pip install --user`` and ``--prefix`` choose), that of the
    interpreter, ``/usr/local`` or ``/usr``; ``None`` where none of these has them.
    """
    source = Path(__file__).resolve().parents[2]
    prefixes = (*source.parents[2:3], Path(sys.prefix), Path("/usr/local"), Path("/usr"))
    folders = (source / "models", *(prefix / "share" / "gon-edge" / "models" for prefix in prefixes))
    return next((folder for folder in folders if (folder / "index.json").is_file()), None)


def shipped_models(folder: Path | None = None) -> tuple[ShippedModel, ...]:
    """The shipped models by name; none where there is no folder of them.

    Raises
    ------
    ModelFileError
        The index cannot be read.
    """
    folder = folder or shipped_folder()
    if folder is None:
        return ()
    index = folder / "index.json"
    try:
        entries = json.loads(index.read_text(encoding="utf-8"))["models"]
        found = [
            ShippedModel(
                entry["name"],
                entry["title"],
                folder / entry["file"],
                folder / entry["card"],
                entry["sha256"],
                entry["bytes"],
                entry["starter"],
            )
            for entry in entries
        ]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ModelFileError(index, f"is not the list of shipped models ({error}); install gon-edge again") from error
    return tuple(sorted(found, key=lambda model: model.name))


def shipped_model(name: str) -> ShippedModel:
    """The shipped model of that name.

    Raises
    ------
    InputError
        There is none.
    """
    models = shipped_models()
    for model in models:
        if model.name == name:
            return model
    names = ", ".join(model.name for model in models) or "none found: install gon-edge again"
    raise InputError(f"no shipped model {name!r}; there are: {names}")


@functools.cache
def starters(choice: str | None) -> tuple[Model, ...]:
    """The models a stream without one of its own may be scored by, most features first; read once.

    Parameters
    ----------
    choice : str or None
        ``None`` for every shipped model meant as a starter, ``none`` for no model, or a name or a path.

    Raises
    ------
    ModelFileError, InputError
        A model that was named cannot be used.  Shipped ones nobody named are left out when they are damaged.
    """
    if choice == "none":
        return ()
    if choice is not None:
        found = find(choice)
        return (found.model.with_lineage(version=found.label),)
    usable = []
    try:
        for shipped in shipped_models():
            if shipped.starter:
                usable.append(shipped.load().with_lineage(version=f"shipped:{shipped.name}"))
    except ModelFileError:
        pass  # `models verify` says so; a daemon must start
    return tuple(sorted(usable, key=lambda model: -len(model.features)))


def check_starters(config: Config) -> None:
    """Read every model that a configuration names.

    Raises
    ------
    ConfigError
        One cannot be used.
    """
    sections = {"streams.defaults": config.streams.defaults}
    sections |= {f"streams.overrides.{name}": stream for name, stream in config.streams.overrides.items()}
    for section, stream in sections.items():
        try:
            starters(stream.model)
        except GonEdgeError as error:
            raise ConfigError(str(error), path=config.path, key=f"{section}.model") from None


# -- which model is meant ----------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Found:
    """A model somebody asked for.

    Attributes
    ----------
    label : str
        ``shipped:host``, ``stream:pump@3``, or a path.
    path : Path
    model : Model
    shipped : ShippedModel or None
    stream : str
        Whose model it is; empty for others.
    """

    label: str
    path: Path
    model: Model
    shipped: ShippedModel | None = None
    stream: str = ""


def find(reference: str, state_dir: Path | None = None) -> Found:
    """The model that a person means.

    Parameters
    ----------
    reference : str
        A file (something with a slash, or that ends in ``.npz``); ``shipped:NAME``; ``stream:NAME`` or
        ``stream:NAME@VERSION``; or the bare NAME or NAME@VERSION of whichever there is.
    state_dir : Path, optional
        Of the daemon whose streams are meant.

    Raises
    ------
    InputError
        No such model, or both a shipped one and a stream have that name.
    ModelFileError
        The file cannot be read.
    """
    kind, _, name = reference.partition(":")
    if kind == "shipped" and name:
        shipped = shipped_model(name)
        return Found(f"shipped:{name}", shipped.path, shipped.load(), shipped)
    if kind == "stream" and name:
        return _of_stream(name, state_dir)
    if "/" in reference or reference.endswith(".npz"):
        return Found(reference, Path(reference), load_model(reference))
    is_shipped = any(model.name == reference for model in shipped_models())
    is_stream = state_dir is not None and stream_and_version(reference, state_dir) is not None
    if is_shipped and is_stream:
        raise InputError(
            f"{reference!r} is a shipped model and a stream; write shipped:{reference} or stream:{reference}"
        )
    if is_shipped:
        return find(f"shipped:{reference}")
    if is_stream:
        return _of_stream(reference, state_dir)
    shipped_names = ", ".join(model.name for model in shipped_models()) or "none"
    streams = ", ".join(ModelFolder(state_dir).streams()) or "none" if state_dir is not None else ""
    raise InputError(
        f"no model {reference!r}; shipped ones: {shipped_names}"
        + (
            f"; streams in {state_dir}: {streams}"
            if state_dir is not None
            else "; streams need --config or --state-dir"
        )
        + "; a file is written with a slash or .npz"
    )


def places(references: Iterable[str], state_dir: Path | None) -> Iterator[tuple[str, Path, ShippedModel | None]]:
    """Label and file of each model meant, or of every one there is, without reading it: it may be damaged."""
    references = tuple(references)
    for reference in references:
        if "/" in reference or reference.endswith(".npz"):
            yield reference, Path(reference), None
        elif reference.removeprefix("shipped:") in {shipped.name for shipped in shipped_models()}:
            shipped = shipped_model(reference.removeprefix("shipped:"))
            yield f"shipped:{shipped.name}", shipped.path, shipped
        else:
            found = find(reference, state_dir)
            yield found.label, found.path, None
    if not references:
        for shipped in shipped_models():
            yield f"shipped:{shipped.name}", shipped.path, shipped
        folder = ModelFolder(state_dir) if state_dir is not None else None
        for stream in folder.streams() if folder else ():
            labels = {v.path: f"stream:{stream}@{v.version}" for v in (folder.versions(stream) if folder else ())}
            # Not only those that could be read: the others are what is looked for.
            for path in sorted(folder.file(stream).parent.glob("model*.npz") if folder else ()):
                yield labels.get(path, f"stream:{stream} {path}"), path, None


def stream_and_version(reference: str, state_dir: Path) -> tuple[str, str | None] | None:
    """Split ``NAME`` or ``NAME@VERSION``; ``None`` where no such stream has a model.  A name may hold an @ itself."""
    streams = ModelFolder(state_dir).streams()
    if reference in streams:
        return reference, None
    name, at, version = reference.rpartition("@")
    return (name, version) if at and name in streams else None


def _of_stream(reference: str, state_dir: Path | None) -> Found:
    if state_dir is None:
        raise InputError(f"stream:{reference}: say whose streams, by --config FILE or --state-dir DIR")
    split = stream_and_version(reference, state_dir)
    versions: tuple[ModelVersion, ...] = () if split is None else ModelFolder(state_dir).versions(split[0])
    for version in versions:
        if split is not None and (version.version == split[1] or (split[1] is None and version.current)):
            label = f"stream:{split[0]}@{version.version}"
            return Found(label, version.path, load_model(version.path), stream=split[0])
    if split is None:
        streams = ", ".join(ModelFolder(state_dir).streams()) or "none"
        raise InputError(f"no stream {reference!r} has a model in {state_dir}; there are: {streams}")
    has = ", ".join(version.version for version in versions) or "none that can be read"
    raise InputError(f"stream {split[0]!r} has no version {split[1] or 'in use'}; there are: {has}")


# -- what there is to say ----------------------------------------------------------------------------------------------


def describe(found: Found, state_dir: Path | None = None) -> dict[str, Any]:
    """Everything to know about a model, JSON values only; of a stream's also how long its training took."""
    model = found.model
    training = _training(found, state_dir) if found.stream and state_dir is not None else None
    return {
        "model": found.label,
        "path": str(found.path),
        "bytes": found.path.stat().st_size,
        "version": model.version,
        "features": list(model.features),
        "relative_features": list(model.relative),
        "window": model.discriminator.window,
        "scales": [scale.rows for scale in model.discriminator.scales],
        "parameters": model.parameters,
        "memory_bytes": memory_bytes(model),
        "threshold": model.threshold,
        "smoothing": model.smoothing,
        "interval_s": model.interval_s,
        "lineage": dict(model.lineage),
        **({"training": training} if training else {}),
        **({"card": str(found.shipped.card), "sha256": found.shipped.sha256} if found.shipped else {}),
    }


def _training(found: Found, state_dir: Path) -> dict[str, Any] | None:
    """What the store knows of the round that made a model: its file is the same however long that took."""
    with contextlib.suppress(StoreError), Store.open(state_dir, read_only=True) as store:
        for record in store.retrains(stream=found.stream):
            if record.version == found.model.version and record.started == found.model.lineage.get("trained_at"):
                return {"duration_s": record.duration_s, "peak_bytes": record.peak_bytes, "outcome": record.outcome}
    return None


def memory_bytes(model: Model) -> int:
    """Memory the arrays of a model take while it scores: the file's, and the first layer in float32."""
    arrays: list[NDArray[Any]] = [model.scaler.mean, model.scaler.scale, model.longest_run]
    for scale in model.discriminator.scales:
        arrays += [scale.weight.values, scale.weight.step, scale.gain, scale.prototypes]
    layer = sum(scale.weight.values.size for scale in model.discriminator.scales)
    return sum(array.nbytes for array in arrays) + 4 * layer


def listing(state_dir: Path | None) -> dict[str, Any]:
    """The shipped models, and every version of every stream; JSON values only."""
    folder = ModelFolder(state_dir) if state_dir is not None else None
    streams: dict[str, list[dict[str, Any]]] = {}
    for stream in folder.streams() if folder else ():
        streams[stream] = [
            {
                "version": version.version,
                "current": version.current,
                "path": str(version.path),
                "bytes": version.bytes,
                "lineage": dict(version.lineage),
            }
            for version in (folder.versions(stream) if folder else ())
        ]
    shipped = [
        {
            "name": model.name,
            "title": model.title,
            "starter": model.starter,
            "path": str(model.path),
            "card": str(model.card),
            "bytes": model.size_bytes,
            "sha256": model.sha256,
        }
        for model in shipped_models()
    ]
    return {"shipped": shipped, "state_dir": str(state_dir) if state_dir else None, "streams": streams}


# -- whether it works --------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Check:
    """One thing that was looked at; ``detail`` is for a person."""

    name: str
    passed: bool
    detail: str


def verify(path: Path, shipped: ShippedModel | None = None) -> tuple[Check, ...]:
    """Look at a model's file from all sides; stops where going on would say nothing.

    Checked are the SHA-256 of a shipped one, the file's own format, checksum and numbers, that the first layer is int8
    and uses its range, that writing it again gives the same model, and that it scores: rows of mean values are
    normal, rows far outside are anomalous.
    """
    checks = []
    if shipped is not None:
        same = path.is_file() and sha256(path.read_bytes()).hexdigest() == shipped.sha256
        checks.append(Check("sha256", same, "as shipped" if same else "is not the file that was shipped"))
    try:
        model = load_model(path)
    except ModelFileError as error:
        return (*checks, Check("format", False, str(error).removeprefix(f"{path}: ")))
    checks.append(Check("format", True, "readable, its checksum matches, every number is finite"))
    checks.append(_quantization(model))
    again = dumps(loads(dumps(model), path)) == dumps(model)
    checks.append(Check("rewrite", again, "the same when written again" if again else "changes when written again"))
    return (*checks, _probe(model))


def _quantization(model: Model) -> Check:
    used = [
        np.abs(scale.weight.values.astype(np.int16)).max(axis=1)[scale.weight.step > 0.0]
        for scale in model.discriminator.scales
    ]
    least = min((int(peak.min()) for peak in used if len(peak)), default=0)
    passed = least == np.iinfo(np.int8).max
    return Check("int8", passed, "each unit of the first layer uses all of it" if passed else f"one uses only {least}")


def _probe(model: Model) -> Check:
    """Whether mean rows are normal and far ones are not."""
    width = len(model.features)
    calm: list[float] = []
    wild: list[float] = []
    detector = Detector(model)
    for t in range(2 * model.discriminator.window):
        far = t >= model.discriminator.window
        z = np.full(width, _PROBE_FAR * (-1.0) ** t if far else 0.0)
        row = Row(
            "probe", float(t), model.features, model.scaler.inverse(z).astype(np.float32), np.zeros(width, np.bool_)
        )
        (wild if far else calm).append(detector.score(row).score)
    detail = f"mean rows score {max(calm):.3g}, far ones {max(wild):.3g}, the threshold is {model.threshold:.3g}"
    return Check("scores", max(calm) < model.threshold < max(wild), detail)


# -- two models --------------------------------------------------------------------------------------------------------


def differences(a: Model, b: Model) -> dict[str, Any]:
    """What sets model ``b`` apart from ``a``; JSON values only.

    Features added and removed; for those in both how far their mean moved, in deviations of ``a``, and the ratio of
    their deviations, largest move first; threshold, window and parameters; what of the lineage differs.
    """
    shared = [name for name in a.features if name in b.features]
    moves: list[dict[str, Any]] = []
    for name in shared:
        i, j = a.features.index(name), b.features.index(name)
        moves.append(
            {
                "feature": name,
                "mean": [float(a.scaler.mean[i]), float(b.scaler.mean[j])],
                "moved_deviations": float((b.scaler.mean[j] - a.scaler.mean[i]) / a.scaler.scale[i]),
                "deviation_ratio": float(b.scaler.scale[j] / a.scaler.scale[i]),
            }
        )
    moves.sort(key=lambda move: -max(abs(move["moved_deviations"]), abs(math.log(max(move["deviation_ratio"], 1e-12)))))
    return {
        "equal": dumps(a) == dumps(b),
        "features_added": [name for name in b.features if name not in a.features],
        "features_removed": [name for name in a.features if name not in b.features],
        "threshold": [a.threshold, b.threshold],
        "window": [a.discriminator.window, b.discriminator.window],
        "parameters": [a.parameters, b.parameters],
        "features": moves,
        "lineage": _changed(a.lineage, b.lineage),
    }


def _changed(a: Mapping[str, Any], b: Mapping[str, Any]) -> dict[str, list[Any]]:
    names: Iterable[str] = sorted({*a, *b})
    return {name: [a.get(name), b.get(name)] for name in names if a.get(name) != b.get(name)}


# -- putting one in place ----------------------------------------------------------------------------------------------


def import_model(found: Found, stream: str, state_dir: Path, *, force: bool = False) -> Model:
    """Put a model in use for a stream, as its newest version; the one before it is kept.

    Parameters
    ----------
    found : Found
    stream : str
    state_dir : Path
    force : bool
        Also when its features are not those of the stream's model.

    Returns
    -------
    Model
        With its new version.

    Raises
    ------
    ModelFileError
        It does not pass `verify`.
    InputError
        Its features are others than the stream's, or it knows some only as changes since a first row.
    """
    failed = [check for check in verify(found.path, found.shipped) if not check.passed]
    if failed:
        raise ModelFileError(found.path, "; ".join(f"{check.name}: {check.detail}" for check in failed))
    if found.model.relative:
        raise InputError(
            f"{found.label} knows {', '.join(found.model.relative)} only as changes since a first row: it can score a "
            f"stream until that has its own model; write it as streams.overrides.{stream}.model"
        )
    folder = ModelFolder(state_dir)
    versions = folder.versions(stream)
    current = next((version for version in versions if version.current), None)
    if current is not None and not force:
        known, offered = set(load_model(current.path).features), set(found.model.features)
        if known != offered:
            other = ", ".join(sorted(known ^ offered)[:5])
            raise InputError(
                f"{found.label} has other features than version {current.version} of stream {stream!r}: {other}; "
                "--force puts it in place all the same"
            )
    numbers = [int(version.version) for version in versions if version.version.isdecimal()]
    model = found.model.with_lineage(
        version=str(max(numbers, default=0) + 1),
        parent=current.version if current else "",
        imported_from=found.label,
        imported_version=found.model.version,
    )
    folder.install(stream, model)
    return model


def write_copy(found: Found, path: Path) -> None:
    """Copy a model's file; whole or not at all.  Raises OSError."""
    fresh = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        fresh.write_bytes(found.path.read_bytes())
        fresh.replace(path)
    finally:
        fresh.unlink(missing_ok=True)
