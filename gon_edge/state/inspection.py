"""What is in a model: described, checked, compared with another, and put in use once it passes.

For ``gon-edge models``; answers are JSON values, which commands turn into text.  Which model is meant is ``catalog``'s.
"""

from __future__ import annotations

import contextlib
import math
import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gon_edge.errors import InputError, ModelFileError, StoreError
from gon_edge.events import Row
from gon_edge.model.detector import Detector
from gon_edge.model.file import Model, dumps, load_model, loads
from gon_edge.process.digest import sha256
from gon_edge.state.catalog import Found, ShippedModel, shipped_models
from gon_edge.state.folder import ModelFolder
from gon_edge.state.store import Store

_PROBE_FAR = 12.0
"""Deviations: rows this far from everything are anomalous to every model that works."""

_SMALLEST_RATIO = 1e-12  # a feature that was constant has a deviation next to nothing, and the logarithm of 0 is none


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
    """Memory the arrays of a model take while it scores: the file's, and its int8 layers in float32."""
    arrays: list[NDArray[Any]] = [model.scaler.mean, model.scaler.scale, model.longest_run]
    for scale in model.discriminator.scales:
        arrays.append(scale.prototypes)
    for term in model.discriminator.terms:
        arrays += [term.weight.values, term.weight.step, term.gain]
    layer = sum(term.weight.values.size for term in model.discriminator.terms)
    return sum(array.nbytes for array in arrays) + 4 * layer  # bytes of a float32


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
    detector = Detector(replace(model, rising=()))  # what it is shown are rates already
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
    moves.sort(
        key=lambda move: (
            -max(abs(move["moved_deviations"]), abs(math.log(max(move["deviation_ratio"], _SMALLEST_RATIO))))
        )
    )
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
        known, offered = set(load_model(current.path).readings), set(found.model.readings)
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
