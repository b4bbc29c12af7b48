"""Thick slices against NumPy in float64, what is drawn, and where they do better than TorchIO 1.2.1."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from conftest import blobs, small_subject
from scipy import stats
from scipy.ndimage import gaussian_filter1d, map_coordinates

import medjax as mj

SHAPE = (23, 31, 18)
COUNT = 3000


def thick(x, axis, m, order):
    """Slices of a volume (I, J, K) read at the voxels, in float64."""
    n = x.shape[axis]
    count = max(int(np.floor(n / m * (1 + 1e-9))), 1)
    voxel = np.floor((n - 1) / 2 + (np.arange(count) - (count - 1) / 2) * m + 0.5).astype(int)
    slices = np.take(x, np.clip(voxel, 0, n - 1), axis)
    at = (np.arange(n) - (n - 1) / 2) / m + (count - 1) / 2
    if order == 0:
        return np.take(slices, np.clip(np.floor(at + 0.5), 0, count - 1).astype(int), axis)
    if order == 1:
        at = np.clip(at, 0, count - 1)
    pad = 20
    slices = np.pad(slices, [(pad, pad) if a == axis else (0, 0) for a in range(3)], "edge")
    grid = np.meshgrid(*(np.arange(s) if a != axis else at + pad for a, s in enumerate(x.shape)), indexing="ij")
    return map_coordinates(slices, grid, order=order, mode="nearest")


@pytest.mark.parametrize("axis", [0, 1, 2])
@pytest.mark.parametrize("m", [1.0, 1.7, 2.9, 40.0])
@pytest.mark.parametrize("order, name", [(0, "nearest"), (1, "linear")])
def test_it_is_the_formula(axis, m, order, name):
    x = blobs(SHAPE)
    got = np.asarray(mj.Anisotropy(axis, m, name)(x[None]))[0]
    np.testing.assert_allclose(got, thick(x.astype(float), axis, m, order), atol=2e-6)


@pytest.mark.parametrize("axis, m", [(0, 1.7), (1, 3.3), (2, 2.0)])
def test_cubic_is_scipys_spline_through_the_slices(axis, m):
    x = blobs(SHAPE)
    got = np.asarray(mj.Anisotropy(axis, m, "bspline")(x[None]))[0]
    np.testing.assert_allclose(got, thick(x.astype(float), axis, m, 3), atol=1e-5)


def test_w17_the_ends_are_repeated_and_not_black():
    got = np.asarray(mj.Anisotropy(0, 4.9)(np.ones((1, *SHAPE), np.float32)))
    np.testing.assert_allclose(got, 1, atol=1e-6)


def test_a_slice_profile_smooths_along_the_axis_first():
    x, m = blobs(SHAPE), 3.3
    smooth = gaussian_filter1d(x.astype(float), np.sqrt((m**2 - 1) / (8 * np.log(2))), axis=1)
    got = np.asarray(mj.Anisotropy(1, m, slice_profile="gaussian")(x[None]))[0]
    np.testing.assert_allclose(got, thick(smooth, 1, m, 1), atol=1e-5)


def test_what_is_padded_has_no_influence():
    x = blobs(SHAPE)
    image = mj.ScalarImage(x[None])
    padded = jax.tree.map(lambda leaf: leaf[0], mj.stack([image_subject(image)], shape=(25, 32, 24)))["t1"]
    for t in (mj.Anisotropy(2, 2.6), mj.Anisotropy(0, 3.1, "cubic", slice_profile="gaussian")):
        got = np.asarray(t(padded).data)[:, :23, :31, :18]
        np.testing.assert_allclose(got, t(image).numpy(), atol=1e-6)


def image_subject(image):
    return mj.Subject(t1=image)


def test_labels_are_included_on_request_by_nearest():
    subject = small_subject()
    t = mj.Anisotropy(1, 2.5, scalars_only=False)
    got, before = t(subject).label, subject.label.numpy()
    assert got.dtype == before.dtype
    np.testing.assert_array_equal(got.numpy()[0], thick(before[0], 1, 2.5, 0))
    np.testing.assert_array_equal(mj.Anisotropy(1, 2.5)(subject).label.numpy(), before)


@jax.jit
def drawn(t, keys, subject):
    return jax.vmap(lambda key: t.sample(key, subject))(keys)["draw"]


def subject_of(shape):
    image = mj.ScalarImage(np.zeros((1, *shape), np.float32))
    return mj.Subject(t1=image, t2=image)


def test_what_is_drawn():
    keys = jax.random.split(jax.random.key(0), COUNT)
    draws = drawn(mj.RandomAnisotropy((0, 2), (1.5, 4)), keys, subject_of((5, 6, 7)))
    axis, m = (np.asarray(draws["t1"][name]) for name in ("axis", "downsampling"))
    assert set(axis) == {0, 2} and stats.binomtest(int((axis == 0).sum()), COUNT).pvalue > 1e-3
    assert stats.kstest(m.astype(float), stats.uniform(1.5, 2.5).cdf).pvalue > 1e-3
    assert abs(np.corrcoef(axis, m)[0, 1]) < 0.1
    np.testing.assert_array_equal(axis, draws["t2"]["axis"])


def test_axes_of_one_voxel_are_not_drawn():
    keys = jax.random.split(jax.random.key(0), 200)
    assert set(np.asarray(drawn(mj.RandomAnisotropy(), keys, subject_of((5, 6, 1)))["t1"]["axis"])) == {0, 1}
    slice_ = jnp.asarray(blobs((9, 8, 1))[None])
    np.testing.assert_array_equal(mj.RandomAnisotropy(2)(slice_, jax.random.key(0)), slice_)


NONSENSE = [
    ({"axes": 3}, "axes"), ({"axes": ()}, "axes"), ({"axes": (0, 0)}, "axes"), ({"downsampling": 0.5}, "downsampling"),
    ({"image_interpolation": "linaer"}, "Did you mean 'linear'"), ({"slice_profile": "box"}, "slice_profile"),
    ({"scalars_only": False, "shared": False}, "shared"),
]  # fmt: skip


@pytest.mark.parametrize("arguments, message", NONSENSE)
def test_arguments_that_make_no_sense_are_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        mj.RandomAnisotropy(**arguments)
