"""The models of all streams on the disk: the one in use, and the versions before it.

Decides which file is read, kept and dropped; what is in one is ``model.file``'s, and whether a new model deserves its
place is ``training``'s.  A change of the names of files is a change of what older versions of gon-edge find.
"""

from __future__ import annotations

import contextlib
import shutil
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any
from urllib.parse import quote, unquote

from gon_edge.errors import ModelFileError
from gon_edge.model.file import Model, load_model, save_model, write_atomically

VERSIONS_KEPT = 5
"""Models kept of each stream, the one in use among them: with a training a day, a working week to find out that one was
bad.  A model has 10 to 30 kB, one of 500 features 1 MB."""


@dataclass(frozen=True, slots=True)
class ModelVersion:
    """One model of a stream on the disk.

    Attributes
    ----------
    version : str
    path : Path
    current : bool
        Whether it is the one in use.
    lineage : mapping
    bytes : int
    """

    version: str
    path: Path
    current: bool
    lineage: Mapping[str, Any]
    bytes: int


class ModelFolder:
    """Where the models of all streams are.

    ``<state_dir>/models/<stream>/model.npz`` is the one in use; ``model-<version>.npz`` are copies of it and of those
    before it; ``current`` names the version in use, for when ``model.npz`` is damaged.  Each file is replaced in one
    step and the copy is written first, so a power cut at any moment leaves the old model in use or the new one.
    """

    def __init__(self, state_dir: Path) -> None:
        self.path = state_dir / "models"

    def file(self, stream: str) -> Path:
        """The file of a stream's model; any stream name is one folder, inside this one."""
        return self.path / _file_name(stream) / "model.npz"

    def copy(self, stream: str, version: str) -> Path:
        """The file of one version of a stream's model."""
        return self.file(stream).with_name(f"model-{_file_name(version)}.npz")

    def load(self, stream: str, version: str | None = None) -> tuple[Model | None, str]:
        """Return the model in use, or else the newest that can be read.

        A damaged file is renamed: it is tried only once, and a person can look at it.

        Parameters
        ----------
        stream : str
        version : str, optional
            Only this one.

        Returns
        -------
        model : Model or None
        wrong : str
            What was wrong with the one in use; empty when nothing was.
        """
        wrong = ""
        for candidate in self._candidates(stream) if version is None else (self.copy(stream, version),):
            if not candidate.exists():
                continue
            try:
                return load_model(candidate), wrong
            except ModelFileError as error:
                wrong = f"{error}; kept as {candidate.name}.damaged"
                with contextlib.suppress(OSError):
                    candidate.replace(candidate.with_name(f"{candidate.name}.damaged"))
        return None, wrong

    def versions(self, stream: str) -> tuple[ModelVersion, ...]:
        """Models of a stream that can be read, the newest first."""
        file = self.file(stream)
        current = _read(file)
        found = [
            replace(copy, current=current is not None and copy.version == current.version)
            for copy in self._copies(stream)
        ]
        if current is not None and not any(copy.current for copy in found):
            size = file.stat().st_size
            found.append(ModelVersion(current.version, file, True, current.lineage, size))
        return tuple(sorted(found, key=_age, reverse=True))

    def rollback(self, stream: str, version: str | None = None) -> Model:
        """Put an earlier model in use.

        Parameters
        ----------
        stream : str
        version : str, optional
            Any version that is kept; without, the one that the model in use replaced.

        Raises
        ------
        ModelFileError
            There is no such model, or it is damaged.
        OSError
            The folder cannot be written.
        """
        versions = self.versions(stream)
        at = next((i for i, found in enumerate(versions) if found.current), -1)
        if version is None and at >= 0:
            parent = str(versions[at].lineage.get("parent", ""))
            before = [found for found in versions if found.version == parent and not found.current]
            before += versions[at + 1 :]
        else:
            before = [found for found in versions if found.version == (version or found.version)]
        if not before:
            there = ", ".join(found.version for found in versions) or "none"
            wanted = f"no version {version}" if version is not None else "no version before the one in use"
            raise ModelFileError(self.file(stream), f"stream {stream!r} has {wanted}; there are: {there}")
        model = load_model(before[0].path)
        self._use(stream, model)
        return model

    def install(self, stream: str, model: Model) -> None:
        """Put a model in use, as the version its lineage names; those before it are kept, up to ``VERSIONS_KEPT``.

        Raises
        ------
        OSError
            The folder cannot be written; the model in use stays.
        """
        save_model(model, self.copy(stream, model.version))
        self._use(stream, model)
        surplus = [found for found in self.versions(stream) if not found.current][VERSIONS_KEPT - 1 :]
        for found in surplus:
            with contextlib.suppress(OSError):
                found.path.unlink()

    def remove(self, stream: str) -> None:
        """Delete every model of a stream, damaged ones too.

        Raises
        ------
        OSError
            The folder cannot be written.
        """
        with contextlib.suppress(FileNotFoundError):
            shutil.rmtree(self.file(stream).parent)

    def rename(self, old: str, new: str) -> None:
        """Give the models of a stream to another one; what that one has there is deleted.

        Raises
        ------
        OSError
            The folder cannot be written.
        """
        before, after = self.file(old).parent, self.file(new).parent
        if before.exists():
            self.remove(new)
            before.rename(after)

    def streams(self) -> list[str]:
        """Streams that have, or had, a model here."""
        return sorted({unquote(file.parent.name) for file in self.path.glob("*/model*.npz*")})

    def _candidates(self, stream: str) -> Iterator[Path]:
        """Files of the model in use: its own, then the copy of it, then those of the versions before it.

        The copies are looked into only once the file before them was of no use: 500 streams have 2500 of them.
        """
        file = self.file(stream)
        yield file
        copies = [found.path for found in self._copies(stream)]
        with contextlib.suppress(OSError, UnicodeDecodeError):
            named = self.copy(stream, file.with_name("current").read_text(encoding="utf-8").strip())
            copies.sort(key=lambda copy: copy != named)
        yield from copies

    def _use(self, stream: str, model: Model) -> None:
        file = self.file(stream)
        save_model(model, file)
        write_atomically(file.with_name("current"), model.version.encode())

    def _copies(self, stream: str) -> list[ModelVersion]:
        """Copies that can be read, the newest first."""
        found = []
        for path in self.file(stream).parent.glob("model-*.npz"):
            model = _read(path)
            if model is not None:
                found.append(ModelVersion(model.version, path, False, model.lineage, path.stat().st_size))
        return sorted(found, key=_age, reverse=True)


def _file_name(name: str) -> str:
    """Any text as the name of a file or folder."""
    quoted = quote(name, safe=" ()+,;=@")
    return quoted.replace(".", "%2E", 1) if quoted.startswith(".") else quoted


def _age(version: ModelVersion) -> tuple[int, float]:
    """Newer is larger.  By number where there is one: the clock of a small device may have been wrong."""
    number = int(version.version) if version.version.isdecimal() else -1
    return number, float(version.lineage.get("trained_at", 0.0))


def _read(path: Path) -> Model | None:
    try:
        return load_model(path)
    except ModelFileError:
        return None
