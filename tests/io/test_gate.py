"""One gate for whatever comes in: every dtype through every door, with NumPy as the reference."""

import copy
import struct
from pathlib import Path

import jax
import jax.numpy as jnp
import ml_dtypes
import nibabel as nib
import numpy as np
import pytest
import SimpleITK
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

import medjax as mj
from medjax.io import gate

# nibabel, here the reference, leaves .mgh files open; medjax must not.
pytestmark = [
    pytest.mark.filterwarnings("ignore::ResourceWarning"),
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
]

SHAPE = (2, 3, 4, 5)
TAKEN = ["?", "i1", "u1", "i2", "u2", "i4", "u4", "i8", "u8", "f2", "f4", "f8", "g", "bfloat16"]
TAKEN += [">i2", ">u2", ">i4", ">u4", ">i8", ">f2", ">f4", ">f8"]
REFUSED = [
    "c8",
    "c16",
    ">c8",
    "O",
    "U3",
    "S3",
    "M8[s]",
    "m8[s]",
    [("R", "u1"), ("G", "u1")],
    [("a", "i4"), ("b", "f4")],
]
NARROW = {"i8": "i4", ">i8": "i4", "u8": "u4", "g": "f8"}
CUBE = np.arange(120).reshape(SHAPE) % 11


def dtype_of(name) -> np.dtype:
    return np.dtype(ml_dtypes.bfloat16) if name == "bfloat16" else np.dtype(name)


def by_nibabel(array, kind):
    data = np.moveaxis(array, 0, -1)
    header = nib.Nifti1Header()
    header.set_data_shape(data.shape)
    image = nib.Nifti1Image(np.zeros(data.shape, "u1"), np.eye(4), header)
    image._dataobj = data  # what a proxy of an exotic file gives, whatever nibabel writes
    return kind(image)


class Held:
    """An array of another library."""

    def __init__(self, array):
        self.array = array

    def __array__(self, dtype=None, copy=None):
        return self.array


DOORS = {
    "constructor": lambda array, kind: kind(array),
    "nibabel": by_nibabel,
    "reader": lambda array, kind: kind("a", reader=lambda path: array).load(),
    "reader with affine": lambda array, kind: kind("a", reader=lambda path: [array, None]).load(),
    "replace": lambda array, kind: kind(np.zeros(SHAPE, "f4")).replace(data=array),
    "something with __array__": lambda array, kind: kind(Held(array)),
    "the same in replace": lambda array, kind: kind(np.zeros(SHAPE, "f4")).replace(data=Held(array)),
}


# -- every dtype through every door


@pytest.mark.parametrize("door", DOORS)
@pytest.mark.parametrize("name", TAKEN)
def test_every_dtype_is_native_behind_every_door(door, name):
    array = CUBE.astype(dtype_of(name))
    image = DOORS[door](array, mj.LabelMap)
    expected = dtype_of(NARROW.get(name, name)).newbyteorder("=")
    assert image.dtype == image.data.dtype == expected and image.data.dtype.isnative
    np.testing.assert_array_equal(np.asarray(image.data, np.float64), np.asarray(array, np.float64))
    if name not in NARROW and not name.startswith(">") and door != "nibabel":
        assert np.shares_memory(image.data, array)


@pytest.mark.parametrize("door", DOORS)
@pytest.mark.parametrize("name", REFUSED, ids=str)
def test_what_is_no_voxel_is_refused_behind_every_door(door, name):
    array = np.zeros(SHAPE, name)
    if door == "nibabel" and isinstance(name, list) and name[0][1] == name[1][1]:
        return  # colours
    with pytest.raises(ValueError, match=r"(source|data|nibabel image).* dtype|the nibabel image.*shape"):
        DOORS[door](array, mj.ScalarImage)


@pytest.mark.parametrize("door", [door for door in DOORS if door != "nibabel"])
@pytest.mark.parametrize("shape", [(0, 3, 4, 5), (1, 3, 0, 5), (1, 0, 0, 0)])
def test_an_array_without_voxels_is_refused(door, shape):
    with pytest.raises(ValueError, match="no voxels"):
        DOORS[door](np.zeros(shape, "f4"), mj.ScalarImage)


def test_masked_arrays_are_refused():
    with pytest.raises(ValueError, match="source is a masked array.*filled"):
        mj.ScalarImage(np.ma.masked_equal(CUBE, 3))


@pytest.mark.parametrize("name", ["?", "u1", ">i2", "i8", ">f4", "f8", "g", "bfloat16"])
def test_bare_arrays_and_dictionaries_are_native(name):
    array = CUBE.astype(dtype_of(name))
    flip = mj.Flip(0)
    expected = np.asarray(array, np.float64)[:, ::-1]
    for result in (
        flip(array),
        flip({"a": array})["a"],
        flip({"a": array}, labels=["a"])["a"],
        flip.batch(array[None])[0],
    ):
        np.testing.assert_array_equal(np.asarray(result, np.float64), expected)


@pytest.mark.parametrize("name", ["c8", "O", "U3"])
def test_bare_arrays_that_are_no_voxels_are_refused(name):
    array = np.zeros(SHAPE, name)
    with pytest.raises(ValueError, match="the array is of dtype"):
        mj.Flip(0)(array)
    with pytest.raises(ValueError, match="t1 is of dtype"):
        mj.Flip(0)({"t1": array})
    with pytest.raises(ValueError, match="t1 holds no voxels"):
        mj.Flip(0)({"t1": np.zeros((1, 0, 3, 3), "f4")})


def test_a_warm_program_gets_no_foreign_bytes():
    """JAX looks at the bytes alone once a program is compiled."""
    flip = mj.Flip(0)
    for order in ("<i2", ">i2"):
        image = mj.ScalarImage(CUBE.astype(order))
        for found in (flip(image).data, flip.batch(mj.stack([mj.Subject(a=image)] * 2)).a.data[0]):
            np.testing.assert_array_equal(found, CUBE[:, ::-1])


@pytest.mark.parametrize("value", [[[[[1.5, 2]]]], ((((1, 2),),),)])
def test_lists_of_numbers(value):
    np.testing.assert_array_equal(mj.ScalarImage(value).data, np.asarray(value))


def test_arrays_of_jax_pass_untouched():
    array = jnp.asarray(CUBE, jnp.float32)
    assert mj.ScalarImage(array).data is array
    assert mj.ScalarImage(array).replace(data=array).data is array
    with pytest.raises(ValueError, match="complex64"):
        mj.ScalarImage(array.astype(jnp.complex64))
    with pytest.raises(ValueError, match="no voxels"):
        mj.ScalarImage(array[:, :0])


def test_traced_arrays_pass_every_door():
    @jax.jit
    def through(x):
        image = mj.ScalarImage(x)
        image = image.replace(data=image.data * 2)
        return mj.Flip(0)(image).data + mj.Flip(0)(x) + mj.Flip(0)({"a": x})["a"]

    found = through(jnp.asarray(CUBE, jnp.float32))
    np.testing.assert_array_equal(found, 4.0 * CUBE[:, ::-1])
    with pytest.raises(ValueError, match="complex64"):
        jax.jit(lambda x: mj.ScalarImage(x).data)(jnp.zeros(SHAPE, jnp.complex64))


# -- other libraries


@pytest.mark.parametrize("parts", ["RGB", "RGBA"])
def test_colours_of_a_nibabel_image_are_channels_as_by_path(tmp_path, parts):
    data = np.random.default_rng(0).integers(0, 255, (4, 5, 6, len(parts))).astype("u1")
    image = nib.Nifti1Image(data.view([(part, "u1") for part in parts])[..., 0], np.eye(4))
    image.to_filename(tmp_path / "a.nii")
    for source in (image, nib.load(tmp_path / "a.nii"), tmp_path / "a.nii"):
        found = mj.ScalarImage(source)
        np.testing.assert_array_equal(found.data, np.moveaxis(data, -1, 0))
        assert found.dtype == np.uint8


def test_an_image_of_big_endian_voxels_is_what_its_file_is(tmp_path):
    nib.MGHImage(CUBE[0].astype("f4"), np.eye(4)).to_filename(tmp_path / "a.mgh")
    by_object, by_path = mj.ScalarImage(nib.load(tmp_path / "a.mgh")), mj.ScalarImage(tmp_path / "a.mgh")
    assert by_object.data.dtype.isnative
    np.testing.assert_array_equal(by_object.data, by_path.data)


@pytest.mark.parametrize("name", ["u1", "i2", "i8", "u8", "f8"])
def test_images_of_simpleitk(name):
    array = CUBE[0].astype(name)
    image = SimpleITK.GetImageFromArray(array.T)
    found = mj.LabelMap(image)
    assert found.dtype == NARROW.get(name, name)
    np.testing.assert_array_equal(found.data[0], array)


def test_a_series_of_simpleitk_has_time_on_its_channels():
    volumes = [mj.ScalarImage(CUBE[:1] + t, np.diag([2, 3, 4, 1.0])).to_sitk() for t in range(3)]
    series = SimpleITK.JoinSeries(volumes, 10.0, 2.5)
    assert series.GetDimension() == 4
    found = mj.ScalarImage(series)
    np.testing.assert_array_equal(found.data, np.concatenate([CUBE[:1] + t for t in range(3)]))
    np.testing.assert_allclose(found.affine, np.diag([2, 3, 4, 1]), atol=1e-12)
    with pytest.raises(ValueError, match="components"):
        mj.ScalarImage(SimpleITK.Image([3, 3, 3, 2], SimpleITK.sitkVectorFloat32, 2))
    with pytest.raises(ValueError, match="SimpleITK image is of dtype complex64"):
        mj.ScalarImage(SimpleITK.Image([3, 3, 3], SimpleITK.sitkComplexFloat32))


# -- 64 bits

WIDE = {
    "i8": [0, 1, 2**31 - 1, 2**31, 2**32 + 1, -(2**31), -(2**31) - 1, 2**63 - 1, 16777217],
    "u8": [0, 1, 2**31, 2**32 - 1, 2**32, 2**64 - 1],
    "f8": [0, 1, 0.1, 2.0**24, 2.0**24 + 1, 2.0**24 + 2, -(2.0**24) - 1, 3.4e38, 3.5e38, np.inf, np.nan, -1e300],
}


def survives(value, name: str, labels: bool) -> bool:
    """Whether a number is itself, or near itself if it is no label, in 32 bits."""
    if name == "f8":
        with np.errstate(over="ignore"):
            found = np.float32(value)
        return not (np.isinf(found) and np.isfinite(value)) and (not labels or value % 1 != 0 or float(found) == value)
    limits = np.iinfo(NARROW[name])
    return not labels or limits.min <= value <= limits.max


@pytest.mark.parametrize("kind", [mj.ScalarImage, mj.LabelMap])
@pytest.mark.parametrize("name, value", [(name, value) for name, values in WIDE.items() for value in values])
def test_what_32_bits_do_not_hold(tmp_path, name, value, kind):
    array = np.zeros((1, 2, 3, 4), name)
    array[0, 1, 2, 3] = value
    path = tmp_path / "a.nii"
    nib.Nifti1Image(array[0], np.eye(4), dtype=array.dtype).to_filename(path)
    sources = {
        "source": lambda: kind(array),
        "a.nii": lambda: kind(path).load(),
        "data": lambda: kind(np.zeros(array.shape, "f4")).replace(data=array),
    }
    for door, make in sources.items():
        if not survives(value, name, kind is mj.LabelMap):
            with pytest.raises(ValueError, match=f"{door} holds .*renumber.*jax_enable_x64") as error:
                make()
            assert repr(array.dtype.type(value)).split("(")[1].rstrip(")") in str(error.value)
            continue
        image = make()
        moved = np.asarray(mj.Flip(0)(image).data)[:, ::-1].astype(np.float64)
        np.testing.assert_allclose(moved, array.astype(np.float64), rtol=1e-7)
        if kind is mj.LabelMap and value % 1 == 0:
            np.testing.assert_array_equal(moved, array.astype(np.float64))


@pytest.mark.parametrize("kind", [mj.ScalarImage, mj.LabelMap])
@pytest.mark.parametrize("name", ["i8", "u8", "f8", "i2"])
def test_the_dtype_before_reading_is_the_dtype_after(tmp_path, name, kind):
    nib.Nifti1Image(CUBE[0].astype(name), np.eye(4), dtype=np.dtype(name)).to_filename(tmp_path / "a.nii")
    image = kind(tmp_path / "a.nii")
    before = image.dtype
    assert before == image.data.dtype == image.dtype == dtype_of(NARROW.get(name, name))


def test_nothing_is_narrowed_where_jax_has_64_bits(tmp_path):
    array = np.full((1, 2, 2, 2), 2**40 + 1)
    nib.Nifti1Image(array[0], np.eye(4), dtype="int64").to_filename(tmp_path / "a.nii")
    with jax.enable_x64(True):
        for image in (
            mj.LabelMap(array),
            mj.LabelMap(tmp_path / "a.nii"),
            mj.LabelMap(array[:, ::-1]).replace(data=array),
        ):
            assert image.dtype == np.int64
            np.testing.assert_array_equal(mj.Flip(0)(image).data, array)


def test_what_came_past_the_doors_is_stopped_by_a_transform():
    """Maps over a tree make images of any array, and so does a time when JAX had 64 bits."""
    good = mj.Subject(seg=mj.LabelMap(CUBE.astype("i4")))
    flip, key = mj.Flip(0), jax.random.key(0)
    for name in (">i2", "i8", ">f8"):
        subject = jax.tree.map(lambda leaf, name=name: leaf.astype(name) if leaf.ndim == 4 else leaf, good)
        assert subject.seg.data.dtype == name
        results = [flip(subject), mj.unstack(flip.batch(mj.stack([subject, subject])))[1]]
        for result in (*results, flip.apply(subject, flip.sample(key, subject))):
            np.testing.assert_array_equal(result.seg.data, CUBE[:, ::-1])
    with jax.enable_x64(True):
        wide = mj.Subject(seg=mj.LabelMap(CUBE + 2**40))
    for call in (lambda: flip(wide), lambda: flip.batch(mj.stack([wide, wide]))):
        with pytest.raises(ValueError, match=r"seg holds 1099511627786, of dtype int64"):
            call()


@settings(max_examples=60, deadline=None, derandomize=True)
@given(hnp.arrays(st.sampled_from(["i8", "u8", "f8", ">i8", ">f8"]), (1, 2, 1, 3)), st.booleans())
def test_narrowed_numbers_are_what_they_were_or_refused(array, labels):
    before, found = copy.copy(array), None
    try:
        found = gate.narrowed(gate.native(array, "it"), "it", labels)
    except ValueError:
        name = array.dtype.str.strip("<>=")
        assert not all(survives(value, name, labels) for value in array.ravel().tolist())
    np.testing.assert_array_equal(array, before)
    if found is not None:
        with np.errstate(over="ignore"):
            in_jax = np.asarray(jnp.asarray(found))
        assert in_jax.dtype.itemsize <= 4
        whole = np.isfinite(array) & (np.trunc(array) == array) & labels
        np.testing.assert_array_equal(in_jax[whole].astype(array.dtype), array[whole])
        np.testing.assert_allclose(in_jax.astype("f8"), array.astype("f8"), rtol=1e-6, atol=1e-37)


# -- a reader of one's own


@pytest.mark.parametrize("affine", [None, np.diag([2, 2, 2, 1.0]), np.diag([2, 2, 2, 1]).tolist()])
@pytest.mark.parametrize("pair", [tuple, list])
def test_what_a_reader_may_give(affine, pair):
    image = mj.ScalarImage("a", reader=lambda path: pair([CUBE.astype(">f4"), affine]))
    np.testing.assert_array_equal(image.affine, np.eye(4) if affine is None else affine)
    np.testing.assert_array_equal(image.data, CUBE)
    assert image.load().assumed == (affine is None)


def test_a_reader_may_give_objects_of_other_libraries():
    torch = pytest.importorskip("torch")
    peer = nib.Nifti1Image(CUBE[0].astype("i2"), np.diag([3, 2, 1, 1.0]))
    for found in (peer, (peer, None), mj.ScalarImage(peer).to_sitk()):
        image = mj.ScalarImage("a", reader=lambda path, found=found: found)
        np.testing.assert_array_equal(image.data, CUBE[:1])
        np.testing.assert_allclose(image.affine, np.diag([3, 2, 1, 1]), atol=1e-12)
    image = mj.ScalarImage("a", reader=lambda path: (torch.tensor(CUBE), torch.eye(4)))
    np.testing.assert_array_equal(image.data, CUBE)
    np.testing.assert_array_equal(mj.ScalarImage("a", reader=lambda path: jnp.asarray(CUBE)).data, CUBE)


@pytest.mark.parametrize(
    "affine", [np.zeros((4, 4)), np.eye(3), np.full((4, 4), np.nan), "affine", np.ones((4, 4)), [[1, 2], [3]]]
)
def test_an_unsound_affine_of_a_reader_is_refused(affine):
    with pytest.raises(ValueError, match=r"scan\.raw: reader: the affine"):
        mj.ScalarImage("scan.raw", reader=lambda path: (CUBE, affine)).load()


@pytest.mark.parametrize("found", [None, "text", {"a": 1}, (CUBE, np.eye(4), 1), (None, np.eye(4))])
def test_what_a_reader_may_not_give(found):
    with pytest.raises((ValueError, TypeError), match=r"scan\.raw: "):
        mj.ScalarImage("scan.raw", reader=lambda path: found).load()


def test_a_reader_whose_volumes_do_not_lie_on_one_grid():
    affines = {"a": np.eye(4), "b": np.diag([2, 1, 1, 1.0])}
    with pytest.raises(ValueError, match="a and b are not on one grid"):
        mj.ScalarImage(["a", "b"], reader=lambda path: (CUBE, affines[path.name])).load()
    with pytest.raises(ValueError, match="a and b are not on one grid"):
        mj.ScalarImage(["a", "b"], reader=lambda path: CUBE[:, path.name == "a" :]).load()


ERRORS = [IndexError("i"), KeyError("k"), struct.error("s"), ValueError("v"), TypeError("t"), RuntimeError("r")]
ERRORS += [MemoryError("m"), ImportError("x"), OSError("o"), FileNotFoundError(2, "gone", "else"), ZeroDivisionError()]


@pytest.mark.parametrize("error", ERRORS, ids=repr)
def test_whatever_a_reader_raises_names_the_file(error):
    def reader(path):
        raise error

    with pytest.raises(Exception, match=r"scan\.raw") as caught:
        mj.ScalarImage("scan.raw", reader=reader).load()
    kept = (ImportError, OSError, MemoryError, ValueError, TypeError)
    assert type(caught.value) is (type(error) if isinstance(error, kept) else RuntimeError)


@pytest.mark.parametrize("error", ERRORS, ids=repr)
def test_whatever_a_format_raises_names_the_file(tmp_path, monkeypatch, error):
    def read(path):
        raise error

    monkeypatch.setattr(mj.io.registry, "_BY_SUFFIX", {".one": mj.io.Format("One", (".one",), read, read)})
    path = Path(tmp_path / "scan.one")
    path.touch()
    kept = next((kind for kind in (FileNotFoundError, ImportError, MemoryError) if isinstance(error, kind)), ValueError)
    for look in (lambda image: image.load(), lambda image: image.shape):
        with pytest.raises(kept) as caught:
            look(mj.ScalarImage(path))
        assert str(path) in str(caught.value) or caught.value.filename == "else"
