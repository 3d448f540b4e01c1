"""The models there are: those shipped with gon-edge, and the versions of the user's streams.

Finds the one a command means by a name, and gives the daemon those it may score new streams by until they have their
own.  Shipped models are ``.npz`` files beside an ``index.json``; ``tools/train_models.py`` writes both.  What is in a
model, and whether it works, is told by ``inspection``.
"""

from __future__ import annotations

import functools
import json
import sys
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from gon_edge.config.schema import Config
from gon_edge.errors import ConfigError, GonEdgeError, InputError, ModelFileError
from gon_edge.model.file import Model, load_model, loads
from gon_edge.process.digest import sha256
from gon_edge.state.folder import ModelFolder, ModelVersion

INDEX_FORMAT = 1  # of index.json; tools/train_models.py writes it


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
