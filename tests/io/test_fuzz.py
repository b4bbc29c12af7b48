"""Damaged files: each is refused by name, or read as nibabel reads it where the standard is followed; none hangs.

None takes more memory than twice its content, whatever its header says.
"""

import gzip
import signal
import tracemalloc
import warnings
import zlib
from collections import Counter
from contextlib import contextmanager
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from nibabel.freesurfer.mghformat import MGHHeader
from nibabel.nifti1 import Nifti1Extension
from scipy.spatial.transform import Rotation

from medjax import io

OBLIQUE = np.array([[-1.2, 0.1, 0.0, 91.5], [0.09, 1.1, -0.3, -120.0], [0.02, 0.3, 2.0, -70.0], [0, 0, 0, 1.0]])
SECONDS = 20
"""After so long a file is said to hang."""
EXTREMES = [0, 1, -1, 2, 7, 127, 128, 255, 256, 32767, -32768, 65535, 2**31 - 1, -(2**31), 2**40, 1e-38, 1e30, 3.4e38]
EXTREMES += [float("nan"), float("inf"), -float("inf"), 0.5, 1.0000005, -1e-7, 351, 352, 353, 544]

# nibabel, here the reference, leaves .mgh files open; medjax must not.
pytestmark = [
    pytest.mark.filterwarnings("ignore::ResourceWarning"),
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
]


# Valid files


def nifti(cls=nib.Nifti1Image, shape=(5, 4, 3), dtype="i2", codes=(1, 1), extension=False, **fields):
    """The bytes of a NIfTI or Analyze file, or of the two of a pair; the header as nibabel's class of it."""
    values = np.random.default_rng(0).integers(0, 100, shape)
    made = (
        values.astype("u1").view([(part, "u1") for part in "RGB"])[..., 0] if dtype == "rgb" else values.astype(dtype)
    )
    if codes is None:
        image = cls(made, np.diag([-2, 1.5, 3, 1]))
    else:
        image = cls(made, OBLIQUE, dtype=made.dtype)
        image.set_sform(OBLIQUE, codes[0])
        image.set_qform(OBLIQUE, codes[1], strip_shears=True)
    if extension:
        image.header.extensions.append(Nifti1Extension("comment", b"a comment"))
    files = image.to_bytes() if cls in (nib.Nifti1Image, nib.Nifti2Image) else None
    if files is None:
        files = {key: holder.fileobj.getvalue() for key, holder in in_memory(image).items() if key != "mat"}
    else:
        files = {"image": files}
    place = "image" if len(files) == 1 else "header"
    for name, value in fields.items():
        files[place] = with_field(files[place], type(image.header), name, value)
    return files, type(image.header)


def in_memory(image):
    """The files of a pair, written into memory."""
    from io import BytesIO

    image.file_map = {key: nib.FileHolder(fileobj=BytesIO()) for key in image.file_map}
    image.to_file_map()
    return image.file_map


def mgh(shape=(5, 4, 3), dtype="f4"):
    image = nib.MGHImage(np.random.default_rng(0).integers(0, 100, shape).astype(dtype), OBLIQUE)
    return {"image": image.to_bytes()}, MGHHeader


def with_field(raw: bytes, cls, name: str, value, index=None) -> bytes:
    """The bytes with one field of the header set, whatever it becomes in that field's type."""
    size = cls.template_dtype.itemsize
    header = np.frombuffer(raw[:size].ljust(size, b"\0"), cls.template_dtype).copy()
    swapped = cls is not MGHHeader and header["sizeof_hdr"][0] not in (348, 540)
    if swapped:
        header = header.byteswap().view(header.dtype.newbyteorder())
    field = header[name]
    with np.errstate(all="ignore"), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        if field.dtype.kind == "S":
            converted = np.frombuffer(
                np.int64(0 if value != value else max(min(value, 2**62), -(2**62))).tobytes(), "S8"
            )
        else:
            converted = np.asarray(value).astype(np.float64).astype(field.dtype)
    if index is None or field.ndim == 1:
        field[...] = converted
    else:
        field[(..., index % field.shape[-1])] = converted.reshape(-1)[0]
    if swapped:
        header = header.byteswap().view(header.dtype.newbyteorder())
    return header.tobytes()[: len(raw)] + raw[size:]


def bases():
    """Valid files of every kind, by the names that they are given."""
    nifti_2, pair, pair_2, spm = nib.Nifti2Image, nib.Nifti1Pair, nib.Nifti2Pair, nib.Spm2AnalyzeImage
    return {
        "a.nii": nifti(),
        "scaled.nii": nifti(dtype="u2", scl_slope=0.013, scl_inter=-7),
        "scaled_float.nii.gz": nifti(dtype="f4", scl_slope=1.5, scl_inter=2),
        "series.nii.gz": nifti(shape=(4, 3, 2, 5), dtype="f4"),
        "qform.nii": nifti(codes=(0, 1), dtype="f8"),
        "vectors.nii": nifti(shape=(4, 3, 2, 1, 3), dtype="u1"),
        "colours.nii": nifti(shape=(4, 3, 2, 3), dtype="rgb"),
        "extended.nii": nifti(extension=True, dtype="i4"),
        "wide.nii": nifti(dtype="u8"),
        "two.nii.gz": nifti(nifti_2),
        "two.nii": nifti(nifti_2, codes=(0, 1), dtype="f4", extension=True),
        "a.mgh": mgh(),
        "a.mgz": mgh((4, 3, 2, 3), "i2"),
        "pair.hdr": nifti(pair),
        "pair.img.gz": nifti(pair_2, dtype="f4"),
        "spm.img": nifti(spm, codes=None),
    }


BASES = bases()


def name_of(name: str, place: str) -> str:
    """The name of one file of a pair."""
    if not name.endswith((".hdr", ".img", ".img.gz")):
        return name
    return name.replace(".hdr", ".img") if place == "image" else name.replace(".img", ".hdr")


# Damage


def damaged(rng: np.random.Generator, raw: bytes, cls) -> bytes:
    """The bytes with one or two faults, more often in the header than behind it."""
    for _ in range(rng.integers(1, 3)):
        size = len(raw)
        at = int(rng.integers(0, max(1, min(size, 560) if rng.random() < 0.7 else size)))
        kind = rng.choice(["bit", "byte", "field", "field", "field", "cut", "insert", "remove", "zeros"])
        if kind == "bit" and size:
            raw = raw[:at] + bytes([raw[at] ^ (1 << int(rng.integers(8)))]) + raw[at + 1 :]
        elif kind == "byte":
            raw = raw[:at] + rng.bytes(int(rng.integers(1, 5))) + raw[at + 4 :]
        elif kind == "field" and cls is not None:
            name = rng.choice([name for name in cls.template_dtype.names if name not in ("magic", "sizeof_hdr")])
            value = EXTREMES[rng.integers(len(EXTREMES))] if rng.random() < 0.7 else float(rng.normal() * 10)
            raw = with_field(raw, cls, name, value, int(rng.integers(8)))
        elif kind == "cut":
            raw = raw[:at]
        elif kind == "insert":
            raw = raw[:at] + rng.bytes(int(rng.integers(1, 20))) + raw[at:]
        elif kind == "remove":
            raw = raw[:at] + raw[at + int(rng.integers(1, 20)) :]
        elif kind == "zeros":
            raw = raw[:at] + bytes(int(rng.integers(1, 40))) + raw[at + 40 :]
    return raw


def written(folder: Path, name: str, rng: np.random.Generator) -> Path:
    """A damaged file, or pair, of one kind: damaged before it was compressed, or after; compressed or not, at times
    against its name."""
    files, cls = BASES[name]
    hurt = rng.choice(list(files))
    for place, raw in files.items():
        zipped = name.endswith((".gz", ".mgz")) != (rng.random() < 0.1 and place != "image")
        inside = rng.random() < 0.7
        if place == hurt and (inside or not zipped):
            raw = damaged(rng, raw, cls if place == "header" or len(files) == 1 else None)
        if zipped:
            raw = gzip.compress(raw, 1, mtime=0)
        if place == hurt and zipped and not inside:
            raw = damaged(rng, raw, None)
        (folder / name_of(name, place)).write_bytes(raw)
    return folder / name


# What it should be read as


def unzipped(raw: bytes) -> bytes:
    """The content of a file; bytes behind what is compressed are left out."""
    if raw[:3] != b"\x1f\x8b\x08":
        return raw
    content = b""
    while raw[:3] == b"\x1f\x8b\x08":
        inflate = zlib.decompressobj(31)
        content, raw = content + inflate.decompress(raw), inflate.unused_data
    return content


def reference(path: Path, folder: Path):
    """(values (C, I, J, K), affine) by nibabel, from copies in which is written out what the standard says: voxels of a
    single file begin behind its header, axes at its end of length 0 count for nothing. The affine of a NIfTI file by
    nifti1.h, with SciPy's rotations."""
    folder.mkdir(exist_ok=True)
    name = path.name.removesuffix(".gz").replace(".mgz", ".mgh")
    for place in BASES[path.name][0]:
        source = path.with_name(name_of(path.name, place))
        (folder / name_of(name, place)).write_bytes(unzipped(source.read_bytes()))
    copy = folder / name
    if name.endswith(".mgh"):
        image = nib.load(copy)
        return channels(np.asanyarray(image.dataobj)), image.affine
    single = name.endswith(".nii")
    file = copy if single else copy.with_suffix(".hdr")
    raw, cls = file.read_bytes(), BASES[path.name][1]
    if not single and not (issubclass(cls, nib.Nifti1Header) and cls.may_contain_header(raw[: cls.sizeof_hdr])):
        image = nib.load(copy)  # Analyze, or a pair that has become one
        return channels(values(image)), image.affine
    header = cls(raw[: cls.sizeof_hdr], check=False)
    if single and 0 <= header["vox_offset"] < cls.single_vox_offset:
        header["vox_offset"] = cls.single_vox_offset
    sound = header.copy()
    sound.check_fix(error_level=1000)  # what nibabel takes unknown codes and negative spacings for
    affine = nifti_affine(sound)
    header["qform_code"] = header["sform_code"] = 0
    rank = int(header["dim"][0])
    while rank > 2 and header["dim"][rank] in (0, 1):
        header["dim"][rank], rank = 1, rank - 1
    file.write_bytes(header.binaryblock + raw[cls.sizeof_hdr :])
    image = nib.load(copy)
    if affine is None:
        affine = image.affine * [[to_mm(header)], [to_mm(header)], [to_mm(header)], [1]]
    return channels(values(image)), affine


def values(image) -> np.ndarray:
    """What nibabel reads: the stored numbers, or scaled ones in float64; the parts of colours behind the axes.

    nifti1.h: the scale is not applied to colours, to which nibabel applies it and fails.
    """
    if image.dataobj.dtype.names:
        found = image.dataobj.get_unscaled()
        return np.stack([found[part] for part in found.dtype.names], -1)
    scaled = (image.dataobj.slope, image.dataobj.inter) != (1, 0)
    return image.get_fdata() if scaled else np.asanyarray(image.dataobj)


def channels(array: np.ndarray) -> np.ndarray:
    """(C, I, J, K): axes of one voxel at the end left out, the last one behind the third taken to the front."""
    shape = list(array.shape)
    while len(shape) > 3 and shape[-1] == 1:
        shape.pop()
    shape += [1] * (3 - len(shape))
    return np.moveaxis(array.reshape(*shape[:3], -1), -1, 0)


def nifti_affine(header) -> np.ndarray | None:
    """Method 3 or 2 of nifti1.h, in mm, or None: the sform, if it is none of zeros beside a qform, else the qform."""
    rows = np.array([header[row] for row in ("srow_x", "srow_y", "srow_z")], np.float64)
    affine = np.eye(4)
    if header["sform_code"] > 0 and not (header["qform_code"] > 0 and not rows[:, :3].any()):
        affine[:3] = rows
    elif header["qform_code"] > 0:
        b, c, d = (float(header["quatern_" + part]) for part in "bcd")
        a = np.sqrt(max(0.0, 1 - (b * b + c * c + d * d)))
        steps = np.array(header["pixdim"][1:4], np.float64) * (1, 1, -1 if header["pixdim"][0] < 0 else 1)
        affine[:3, :3] = Rotation.from_quat((b, c, d, a)).as_matrix() * steps
        affine[:3, 3] = [header["qoffset_" + axis] for axis in "xyz"]
    else:
        return None
    return affine * [[to_mm(header)], [to_mm(header)], [to_mm(header)], [1]]


def to_mm(header) -> float:
    """Of the unit of space: metres, micrometres, or millimetres, said or not."""
    return {1: 1e3, 3: 1e-3}.get(int(header["xyzt_units"]) & 7, 1.0)


# The law


@contextmanager
def time_limit(what: str):
    """Raise a TimeoutError after a while."""

    def stop(*_):
        raise AssertionError(f"{what} hangs")

    before = signal.signal(signal.SIGALRM, stop)
    signal.alarm(SECONDS)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)


SLACK = 2**22
"""Bytes that reading may take beside the content: for modules that it imports, objects, and the buffers of gzip."""


@contextmanager
def memory_limit(files: list[Path]):
    """Raise an AssertionError if more than twice the content of some files is allocated."""
    tracemalloc.start()
    try:
        yield
    finally:
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
    content = sum(content_size(file.read_bytes()) for file in files)
    assert peak <= 2 * content + SLACK, f"{peak} bytes were allocated for {content}"


def content_size(raw: bytes) -> int:
    """Bytes of a file once it is unzipped, as far as it can be."""
    try:
        return max(len(raw), len(unzipped(raw)))
    except zlib.error:
        return len(raw)


def outcome(path: Path) -> str:
    """'refused' or 'read', or the assertion that fails."""
    files = [path.with_name(name_of(path.name, place)) for place in BASES[path.name][0]]
    names = [str(file) for file in files]
    with warnings.catch_warnings(), time_limit(str(path)):
        warnings.simplefilter("error", RuntimeWarning)  # numbers that overflow are refused, not warned of
        warnings.simplefilter("ignore", UserWarning)  # forms that differ; extensions of odd sizes
        try:
            with memory_limit(files):
                array, header = io.read(path)
        except (ValueError, OSError) as error:
            assert any(name in str(error) for name in names), f"{error!r} names no file"
            return "refused"
        again = io.read_header(path)
        assert (again.shape, again.dtype) == (header.shape, header.dtype) == (array.shape, array.dtype)
        np.testing.assert_array_equal(again.affine, header.affine)
        warnings.simplefilter("ignore")
        expected, affine = reference(path, path.parent / "reference")
        assert array.shape == expected.shape and array.dtype.isnative
        if expected.dtype.newbyteorder("=") == array.dtype:
            np.testing.assert_array_equal(array, expected)
        else:
            np.testing.assert_allclose(array, expected, rtol=1e-6, atol=1e-38)
        np.testing.assert_allclose(header.affine, affine, rtol=1e-5, atol=1e-5 * np.abs(affine[:3, :3]).max())
    return "read"


def sweep(folder: Path, name: str, seeds) -> Counter:
    """How many files of one kind are refused and how many are read."""
    found = Counter()
    for seed in seeds:
        path = written(folder, name, np.random.default_rng([seed, zlib.crc32(name.encode())]))
        try:
            found[outcome(path)] += 1
        except BaseException as error:
            error.add_note(f"{name}, damaged by seed {seed}, bytes in {folder}")
            raise
    return found


@pytest.mark.parametrize("name", BASES)
def test_undamaged_files_are_read(tmp_path, name):
    files, _ = BASES[name]
    for place, raw in files.items():
        raw = gzip.compress(raw) if name.endswith((".gz", ".mgz")) else raw
        (tmp_path / name_of(name, place)).write_bytes(raw)
    assert outcome(tmp_path / name) == "read"


@pytest.mark.parametrize("name", BASES)
def test_damaged_files_are_refused_or_read_as_they_are(tmp_path, name):
    found = sweep(tmp_path, name, range(12))
    assert found.total() == 12 and found["refused"] > 0


@pytest.mark.long
def test_ten_thousand_damaged_files(tmp_path):
    found = Counter()
    for name in BASES:
        found += sweep(tmp_path, name, range(2000, 2625))
    print(dict(found))
    assert found.total() == 10_000 and min(found["refused"], found["read"]) > 1000
