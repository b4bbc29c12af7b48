"""Where ZNormalization does better than TorchIO 1.2.1."""

import jax
import numpy as np
import pytest
from conftest import OBLIQUE, blobs, oriented, small_subject

import medjax as mj

SHAPE = (23, 31, 18)
NAMES = ["Left", "Right", "Posterior", "Anterior", "Inferior", "Superior"]
HALVES = {name: divmod(i, 2) for i, name in enumerate(NAMES)}


def normal(data, mask=None):
    """(x - mean) / unbiased deviation of the masked voxels, in float64."""
    values = data[np.broadcast_to(mask, data.shape)] if mask is not None else data
    return (data - values.mean(dtype=float)) / values.std(dtype=float, ddof=1)


def two_channels():
    return np.stack([blobs(), 5 * blobs(seed=1) - 2])


@pytest.mark.parametrize("codes", ["RAS", "LPS", "PIR", "SLA"])
@pytest.mark.parametrize("name", HALVES)
def test_w41_a_half_is_that_of_the_world_whatever_the_orientation(codes, name):
    """The same content, stored along other axes, is normalised alike: by the half of the canonical image."""
    world, upper = HALVES[name]
    image = mj.ScalarImage(blobs((9, 9, 9))[None], oriented(codes))
    canonical = mj.ToCanonical()(image)
    along = np.arange(9).reshape(np.where(np.arange(3) == world, 9, 1)) >= 4
    want = normal(canonical.numpy(), along if upper else ~along)
    got = mj.ToCanonical()(mj.ZNormalization(name)(image))
    np.testing.assert_allclose(got.numpy(), want, atol=1e-5)


@pytest.mark.parametrize("name", ["U", "upper", "t1", "lable"])
def test_w41_a_name_that_is_neither_a_label_map_nor_a_half_is_an_error(name):
    with pytest.raises(ValueError, match=f"masking_method='{name}' is no label map.*it has 'label'"):
        mj.ZNormalization(name)(small_subject())


def test_a_label_map_called_like_a_half_comes_first():
    subject = small_subject()
    subject = mj.Subject(t1=subject.t1, left=subject.label)
    np.testing.assert_allclose(
        mj.ZNormalization("left")(subject).t1.numpy(), normal(subject.t1.data, subject.left.data > 0), atol=1e-5
    )


def test_w40_a_mask_of_one_channel_serves_all():
    data, mask = two_channels(), (blobs() > 0.5)[None]
    subject = mj.Subject(t1=mj.ScalarImage(data, OBLIQUE), mask=mj.LabelMap(mask.astype(np.uint8), OBLIQUE))
    np.testing.assert_allclose(mj.ZNormalization("mask")(subject).t1.numpy(), normal(data, mask), atol=1e-5)


def test_w40_each_channel_may_have_its_own_numbers():
    data = two_channels()
    got = mj.ZNormalization(per_channel=True)(data)
    np.testing.assert_allclose(got, np.stack([normal(channel) for channel in data]), atol=1e-5)
    mask = data > 0.5
    subject = mj.Subject(t1=mj.ScalarImage(data), mask=mj.LabelMap(mask.astype(np.uint8)))
    got = mj.ZNormalization("mask", per_channel=True)(subject).t1.numpy()
    np.testing.assert_allclose(got, np.stack([normal(c, m) for c, m in zip(data, mask)]), atol=1e-5)


def nothing(x):
    return x > 9


def bright(x):
    return x > 0.4


@pytest.mark.parametrize("method", ["label", nothing, (12, 11, 0, 0, 0, 0)], ids=["label map", "function", "border"])
def test_w40_an_empty_mask_is_an_error(method):
    subject = small_subject()
    subject = subject.replace(label=subject.label.replace(data=np.zeros_like(subject.label.data)))
    with pytest.raises(ValueError, match=r"mask .*no two voxels in t1"):
        mj.ZNormalization(method)(subject)


def test_equal_voxels_are_an_error_and_under_jit_become_zero():
    flat = np.full((1, *SHAPE), 3, np.float32)
    with pytest.raises(ValueError, match="image are all equal"):
        mj.ZNormalization()(flat)
    np.testing.assert_array_equal(jax.jit(mj.ZNormalization())(flat), np.zeros_like(flat))


def test_nothing_is_raised_where_the_coin_says_no():
    flat = np.full((1, *SHAPE), 3, np.float32)
    np.testing.assert_array_equal(mj.ZNormalization(p=0)(flat, jax.random.key(0)), flat)


def test_a_mask_on_another_grid_is_an_error():
    subject = small_subject()
    subject = subject.replace(label=mj.LabelMap(np.ones((1, 9, 9, 9), np.uint8), OBLIQUE))
    with pytest.raises(ValueError, match=r"ZNormalization\('label'\) needs images on one grid"):
        mj.ZNormalization("label")(subject)
    with pytest.raises(ValueError, match="mask 'label' has shape"):
        jax.jit(mj.ZNormalization("label"))(subject)


@pytest.mark.parametrize("method", [-1, (1, 2), 1.5, (1, 2, 3, 4, 5, 6, 7)])
def test_borders_that_make_no_sense_are_refused(method):
    with pytest.raises(ValueError, match="masking_method"):
        mj.ZNormalization(method)


@pytest.mark.parametrize("offset", [0.0, 1000.0, -1e4])
def test_float32_is_enough_far_from_zero(offset):
    data = (blobs() + offset).astype(np.float32)[None]
    got = np.asarray(mj.ZNormalization()(data), float)
    step = np.spacing(np.float32(abs(offset))) / data.std(dtype=float)  # what the mean is rounded to
    np.testing.assert_allclose(got, normal(data.astype(float)), atol=step + 1e-5)
    np.testing.assert_allclose(got.std(ddof=1), 1, atol=1e-5)


def test_padding_is_in_no_mask():
    subjects = [mj.Subject(t1=mj.ScalarImage(blobs(shape)[None])) for shape in ((9, 12, 10), (12, 9, 8))]
    batch = mj.ZNormalization().batch(mj.stack(subjects, shape=(12, 12, 12)))
    for got, subject in zip(mj.unstack(batch), subjects):
        np.testing.assert_allclose(got.t1.numpy(), normal(subject.t1.data), atol=1e-5)


@pytest.mark.parametrize("labels", [[1], [1, 3], (3,)], ids=str)
def test_labels_of_the_mask(labels):
    subject = small_subject()
    got = mj.ZNormalization("label", labels=labels)(subject).t1.numpy()
    np.testing.assert_allclose(got, normal(subject.t1.data, np.isin(subject.label.data, labels)), atol=1e-5)
    with pytest.raises(ValueError, match=r"labels=\[1\] are those of a label map"):
        mj.ZNormalization("Left", labels=[1])(subject)


def series():
    """Ten time points, one voxel of which never changes."""
    data = np.stack([(i % 3 + 1) * blobs(seed=i) + 40 for i in range(10)]).astype(np.float32)
    data[:, 2, 3, 4] = 7
    return data


def test_each_voxel_over_time():
    data = series()
    got = np.asarray(mj.ZNormalization(per_voxel=True)(data))
    std = data.std(0, dtype=float, ddof=1)
    want = (data - data.mean(0, dtype=float)) / np.where(std > 0, std, 1)
    np.testing.assert_allclose(got, want, atol=2e-4)
    assert (got[:, 2, 3, 4] == 0).all()
    with pytest.raises(ValueError, match="at least two channels"):
        mj.ZNormalization(per_voxel=True)(data[:1])
    for other in ({"per_channel": True}, {"masking_method": "label"}):
        with pytest.raises(ValueError, match="per_voxel takes its numbers over the channels"):
            mj.ZNormalization(per_voxel=True, **other)


def test_a_box_of_a_series_is_normalised_by_its_own_voxels():
    t, data = mj.ZNormalization(per_voxel=True), series()
    whole = mj.ScalarImage(data, OBLIQUE)
    place = dict(offset=np.array([4, 9, 3]), full=np.array([23, 31, 18]))
    box = mj.ScalarImage.of(data[:, 4:12, 9:14, 3:18], OBLIQUE, **place)
    measured = t.measure(whole.replace(data=np.asarray(data)), mj.Subject(t1=whole))
    got = t.apply_to(box, {}, measured).data
    np.testing.assert_allclose(got, np.asarray(t(data))[:, 4:12, 9:14, 3:18], atol=1e-5)


@pytest.mark.parametrize("arguments", [{}, {"per_channel": True}, {"per_voxel": True}], ids=str)
def test_the_inverse_takes_it_back(arguments):
    subject = mj.Subject(t1=mj.ScalarImage(series(), OBLIQUE))
    t = mj.ZNormalization(**arguments)
    back = t.invert(t(subject), t.sample(jax.random.key(0), subject), like=subject)
    np.testing.assert_allclose(back.t1.numpy(), series(), atol=1e-4)


@pytest.mark.parametrize(
    "arguments", [{}, {"per_channel": True}, {"per_voxel": True}, {"masking_method": bright}], ids=lambda a: "-".join(a)
)
def test_w42_voxels_that_are_not_finite_stay_and_change_no_other(arguments):
    data = two_channels()
    data[1, 0, 0, :3] = np.nan, np.inf, -np.inf
    got = np.asarray(mj.ZNormalization(**arguments)(data))
    np.testing.assert_array_equal(got[1, 0, 0, :3], data[1, 0, 0, :3])
    assert np.isfinite(got).sum() == data.size - 3
    known = np.isfinite(data)
    if not arguments:
        np.testing.assert_allclose(got[known], normal(data, known)[known], atol=1e-5)
    if "per_channel" in arguments:
        np.testing.assert_allclose(got[1][known[1]], normal(data[1], known[1])[known[1]], atol=1e-5)


def test_the_mean_threshold_is_that_of_the_finite_voxels():
    data = blobs()[None].copy()
    data[0, 0, 0, 0] = np.nan
    known = np.isfinite(data)
    got = np.asarray(mj.ZNormalization(mj.ZNormalization.mean)(data))
    np.testing.assert_allclose(got[known], normal(data, data > np.nanmean(data))[known], atol=1e-5)
