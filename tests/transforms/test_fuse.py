"""Runs: what fuses, what does not, and that a fused run is the composed map."""

import jax
import numpy as np
import pytest
from conftest import OBLIQUE, small_subject
from scipy.ndimage import map_coordinates

import medjax as mj
from medjax.transforms.program import flatten, runs_of


def groups(*transforms):
    """The sizes of the groups that a pipeline is read in."""
    return [len(group) for group in runs_of(flatten(mj.Compose(transforms)))]


def test_neighbours_fuse_across_nests_and_statistics_end_a_run():
    assert groups(mj.Resample(1.0), mj.CropOrPad(8)) == [2]
    assert groups(mj.RandomAffine(), mj.Compose([mj.RandomElasticDeformation(), mj.RandomFlip()]), mj.CropOrPad(8)) == [
        4
    ]
    assert groups(mj.RandomAffine(), mj.ZNormalization(), mj.RandomFlip()) == [1, 1, 1]


def test_a_second_change_of_spacing_begins_a_run():
    assert groups(mj.Resample(4.0), mj.Resample(1.0)) == [1, 1]
    assert groups(mj.Resample(4.0), mj.RandomFlip(), mj.Resample(1.0)) == [2, 1]


def test_settings_that_clash_begin_a_run():
    assert groups(mj.Affine(), mj.Affine(image_interpolation="nearest")) == [1, 1]
    assert groups(mj.Affine(default_pad_value=0), mj.Affine(default_pad_value=1)) == [1, 1]
    assert groups(mj.CropOrPad(8), mj.Affine()) == [1, 1]  # padded with 0, then read with 'minimum'
    assert groups(mj.CropOrPad(8), mj.Affine(default_pad_value=0)) == [2]
    assert groups(mj.Affine(), mj.CropOrPad(8)) == [2]
    assert groups(mj.RandomFlip(), mj.CropOrPad(8, mask_name="label")) == [1, 1]


def test_low_resolution_does_not_vanish():
    subject = small_subject()
    spacing = subject.t1.spacing
    there = mj.Compose([mj.Resample(6.0), mj.Resample(spacing)])(subject)
    assert np.asarray(there.t1.data).std() < 0.8 * subject.t1.data.std()


def linear(data, index):
    """SciPy's linear interpolation of (I, J, K) at (3, ...) indices."""
    return map_coordinates(data.astype(np.float64), index, order=1, mode="nearest")


def test_a_fused_run_is_the_float64_composition():
    subject = small_subject()
    first = dict(scales=(1.05, 0.95, 1.1), degrees=(5, -8, 12), translation=(1, 2, -1))
    t = mj.Compose(
        [mj.Affine(**first), mj.Resample((1.2, 1.7, 1.4)), mj.Affine(degrees=(0, 0, 7)), mj.CropOrPad((12, 14, 10))]
    )
    assert groups(*t.members) == [4]
    out = t(subject)
    affine = subject.t1.affine
    shape = np.array(subject.t1.spatial_shape)
    resampled = mj.Resample((1.2, 1.7, 1.4))(subject).t1

    def about(image, scales=(1, 1, 1), degrees=(0, 0, 0), translation=(0, 0, 0)):
        x, y, z = np.deg2rad(degrees)
        rx = np.array([[1, 0, 0], [0, np.cos(x), -np.sin(x)], [0, np.sin(x), np.cos(x)]])
        ry = np.array([[np.cos(y), 0, np.sin(y)], [0, 1, 0], [-np.sin(y), 0, np.cos(y)]])
        rz = np.array([[np.cos(z), -np.sin(z), 0], [np.sin(z), np.cos(z), 0], [0, 0, 1]])
        r, s = rz @ rx @ ry, np.diag(scales)
        c = (image.affine @ [*(np.array(image.spatial_shape) - 1) / 2, 1])[:3]
        matrix = np.eye(4)
        matrix[:3, :3] = s @ r
        matrix[:3, 3] = c - s @ r @ c + s @ np.array(translation)
        return np.linalg.inv(matrix)

    chain = np.linalg.inv(affine) @ about(subject.t1, **first) @ about(resampled, degrees=(0, 0, 7)) @ out.t1.affine
    grid = np.indices(out.t1.spatial_shape).reshape(3, -1)
    index = chain[:3, :3] @ grid + chain[:3, 3:]
    expected = linear(subject.t1.data[0], index).reshape(out.t1.spatial_shape)
    inside = ((index > 0.01) & (index < shape[:, None] - 1.01)).all(0).reshape(expected.shape)
    assert inside.mean() > 0.3
    np.testing.assert_allclose(np.asarray(out.t1.data)[0][inside], expected[inside], atol=1e-4)


@pytest.mark.parametrize("flips", [(0,), (1, 2), (0, 1, 2)])
def test_runs_of_indexing_are_bit_exact_and_keep_dtype(flips):
    data = np.random.default_rng(0).integers(-500, 500, (2, 7, 9, 8)).astype(np.int16)
    image = mj.ScalarImage(data, OBLIQUE)
    out = mj.Compose([mj.Flip(flips), mj.CropOrPad((5, 12, 8)), mj.Flip(1)])(image)
    expected = np.flip(data, [f + 1 for f in flips])[:, 1:6]
    expected = np.flip(np.pad(expected, [(0, 0), (0, 0), (2, 1), (0, 0)]), 2)
    assert out.dtype == np.int16
    np.testing.assert_array_equal(np.asarray(out.data), expected)


def test_what_was_cut_does_not_come_back_with_padding():
    image = mj.ScalarImage(np.arange(1, 11, dtype=np.float32).reshape(1, 10, 1, 1))
    out = mj.Compose([mj.CropOrPad((4, 1, 1)), mj.CropOrPad((8, 1, 1))])(image)
    np.testing.assert_array_equal(np.asarray(out.data).ravel(), [0, 0, 4, 5, 6, 7, 0, 0])


def test_a_trailing_crop_computes_only_the_crop():
    subject = small_subject(shape=(40, 40, 40))
    t = mj.Compose([mj.RandomAffine(), mj.RandomElasticDeformation(), mj.CropOrPad((6, 6, 6))])
    params = t.sample(jax.random.key(0), subject)
    lowered = jax.jit(lambda x, p: t.apply(subject.t1.replace(data=x), p).data).lower(subject.t1.data, params)
    text = lowered.as_text()
    assert "tensor<1x6x6x6xf32>" in text and "tensor<3x40x40x40xf32>" not in text


def test_images_on_different_grids_move_together():
    """A T1 and a coarser, rotated FLAIR of one smooth function still show one function after a random chain."""
    centre = np.array([205.0, -140.0, 330.0])

    def render(affine, shape):
        grid = np.indices(shape).reshape(3, -1)
        world = affine[:3, :3] @ grid + affine[:3, 3:]
        return np.exp(-((world - centre[:, None]) ** 2).sum(0) / 200).reshape(1, *shape).astype(np.float32)

    fine, turned = np.eye(4), np.eye(4)
    fine[:3, 3] = centre - 20
    turned[:3, :3] = OBLIQUE[:3, :3] @ np.diag([1.5, 0.8, 1.1])
    turned[:3, 3] = centre - turned[:3, :3] @ np.array([12.0, 12.0, 12.0])
    subject = mj.Subject(
        t1=mj.ScalarImage(render(fine, (41, 41, 41)), fine), flair=mj.ScalarImage(render(turned, (25, 25, 25)), turned)
    )
    t = mj.Compose(
        [mj.RandomAffine(translation=3), mj.RandomElasticDeformation(max_displacement=2.0), mj.RandomFlip((0, 1, 2))]
    )
    out = t(subject, jax.random.key(2))
    peaks = []
    for image in out.images.values():
        data = np.asarray(image.data)[0].astype(np.float64)
        weight = np.clip(data - 0.5 * data.max(), 0, None)
        mean = (np.indices(data.shape).reshape(3, -1) * weight.ravel()).sum(1) / weight.sum()
        peaks.append((image.affine @ [*mean, 1])[:3])
    assert np.abs(peaks[0] - peaks[1]).max() < 0.3


SHIFTS = ((-2, -2, -2), (-2.25, -1.5, -2))
"""Of a grid whose voxels meet those of the image, and of one whose do not."""


@pytest.mark.parametrize("shift", SHIFTS)
@pytest.mark.parametrize("fill", [-1, 0.5, 300.0, "mean", "minimum", "otsu"])
def test_a_fill_is_a_number_whatever_the_voxels_are(fill, shift):
    """Also where they are only indexed: it never goes through their integer dtype."""
    data = np.random.default_rng(0).integers(3, 250, (1, 6, 7, 5)).astype(np.uint8)
    faces = np.ones(data.shape[1:], bool)
    faces[1:-1, 1:-1, 1:-1] = False
    rim = data[0][faces].astype(np.float64)
    affine = np.eye(4)
    affine[:3, 3] = shift
    got = mj.Resample(((10, 11, 9), affine), default_pad_value=fill)(mj.ScalarImage(data))
    assert got.dtype == np.float32
    value = np.asarray(got.data)[0, 0, 0, 0]
    if fill == "mean":
        each_face = [np.take(data[0], end, axis) for axis in range(3) for end in (0, -1)]
        want = np.concatenate([f.ravel().astype(float) for f in each_face]).mean()
        assert abs(value - want) < 1e-3 and abs(want - round(want)) > 0.05
    elif fill == "otsu":
        assert rim.min() < value < rim.mean()
    else:
        assert value == (data.min() if fill == "minimum" else fill)


@pytest.mark.parametrize("t", [mj.Pad(2, "mean"), mj.CropOrPad(12, "median"), mj.Pad(1, "mean")])
def test_a_statistic_is_rounded_where_the_dtype_is_kept(t):
    data = np.random.default_rng(1).integers(0, 99, (1, 6, 7, 6)).astype(np.int16)
    got = np.asarray(t(data))
    assert got.dtype == np.int16
    exact = np.median(data) if t.padding_mode == "median" else data.mean()
    assert got[0, 0, 0, 0] == np.round(exact)
    real = np.asarray(mj.Compose([t, mj.Affine(degrees=1e-3)])(data))
    assert real.dtype == np.float32


@pytest.mark.parametrize("t, fill, dtype", [
    (mj.Pad(2, -1), -1, np.uint8), (mj.CropOrPad(10, -1024), -1024, np.uint16), (mj.Pad(1, 0.5), 0.5, np.int16),
    (mj.Pad(1, 2), 2, bool), (mj.Compose([mj.Flip(0), mj.EnsureShapeMultiple(4, padding_mode=300)]), 300, np.uint8),
])  # fmt: skip
def test_a_number_that_a_kept_dtype_cannot_hold_is_refused(t, fill, dtype):
    data = np.ones((1, 6, 6, 6), dtype)
    with pytest.raises(ValueError, match="a fill of .* does not fit image 'image' of .*, which it keeps"):
        t(data)
    done = np.asarray(
        mj.Compose([t, mj.Affine(degrees=1, default_pad_value=fill, default_pad_label=fill)])(data)
    )  # which interpolates
    assert done.dtype == np.float32 and done[0, 0, 0, 0] == fill


@pytest.mark.parametrize("t", [
    mj.RandomAffine(p=0.5), mj.RandomElasticDeformation(max_displacement=1.0, p=0.5), mj.RandomFlip(p=0.5),
    mj.Resample(1.0), mj.Resample((1, 2, 1.5)), mj.Resize(-1), mj.OneOf([mj.RandomAffine(), mj.RandomFlip()]),
    mj.Compose([mj.Pad(1), mj.RandomAffine()], p=0.5), mj.SomeOf([mj.RandomAffine(), mj.RandomNoise()], num=(0, 1)),
    mj.Compose([mj.RandomFlip(p=0.5), mj.RandomNoise(p=0.5), mj.RandomAffine(p=0.5), mj.Flip(0)]),
])  # fmt: skip
def test_the_dtype_of_a_result_is_known_from_the_types(t):
    """It does not hang on what was drawn, nor on a spacing that is there already."""
    subject = small_subject(OBLIQUE, (8, 9, 7))
    subject = subject.replace(t1=subject.t1.replace(data=(100 * subject.t1.numpy()).astype(np.int16)))
    results = [t(subject, key) for key in jax.random.split(jax.random.key(0), 5)]
    want = {"t1": np.dtype(np.int16 if isinstance(t, mj.RandomFlip) else np.float32), "label": np.dtype(np.uint8)}
    for result in results:
        assert {name: image.dtype for name, image in result.images.items()} == want
