"""Where RescaleIntensity does better than TorchIO 1.2.1."""

import jax
import numpy as np
import pytest
from conftest import OBLIQUE, blobs, oriented, small_subject

import medjax as mj


def rescaled(data, percentiles=(0, 100), out=(0.0, 1.0), mask=None):
    """Clip to numpy's percentiles of the masked voxels, then map to `out`, in float64."""
    data = data.astype(float)
    values = data[np.broadcast_to(mask, data.shape)] if mask is not None else data
    data = np.clip(data, *np.percentile(values, percentiles))
    return out[0] + (data - data.min()) / np.ptp(data) * (out[1] - out[0])


@pytest.mark.parametrize("dtype", [np.uint8, np.int16, np.float32])
@pytest.mark.parametrize("percentiles", [(0, 100), (1, 99), (37.3, 42.8), (50, 100)])
def test_percentiles_are_numpys_with_ties_as_without(dtype, percentiles):
    data = (blobs() * 200).astype(dtype)[None]
    got = mj.RescaleIntensity((-1, 1), percentiles)(data)
    assert got.dtype == np.float32
    np.testing.assert_allclose(got, rescaled(data, percentiles, (-1, 1)), atol=2e-4)


@pytest.mark.parametrize("codes", ["LPS", "PIR"])
def test_w41_a_half_is_that_of_the_world(codes):
    image = mj.ScalarImage(blobs((9, 9, 9))[None], oriented(codes))
    got = mj.ToCanonical()(mj.RescaleIntensity(percentiles=(5, 80), masking_method="Anterior")(image))
    data = mj.ToCanonical()(image).numpy()
    want = rescaled(data, (5, 80), mask=(np.arange(9) >= 4)[None, None, :, None])
    np.testing.assert_allclose(got.numpy(), want, atol=1e-5)


def test_w40_a_mask_of_one_channel_serves_all():
    data, mask = np.stack([blobs(), 3 * blobs(seed=1)]), (blobs() > 0.5)[None]
    subject = mj.Subject(t1=mj.ScalarImage(data, OBLIQUE), mask=mj.LabelMap(mask.astype(np.uint8), OBLIQUE))
    got = mj.RescaleIntensity(percentiles=(5, 80), masking_method="mask")(subject).t1.numpy()
    np.testing.assert_allclose(got, rescaled(data, (5, 80), mask=mask), atol=1e-5)


def test_w40_what_lies_beyond_the_input_range_is_clipped_on_request():
    data = blobs()[None]
    plain = np.asarray(mj.RescaleIntensity((0, 10), in_min_max=(0.3, 0.6))(data))
    np.testing.assert_allclose(plain, (data.astype(float) - 0.3) / 0.3 * 10, atol=1e-4)
    assert plain.min() < 0 and plain.max() > 10
    clipped = np.asarray(mj.RescaleIntensity((0, 10), in_min_max=(0.3, 0.6), clip=True)(data))
    np.testing.assert_allclose(clipped, np.clip(plain, 0, 10), atol=1e-5)


def test_w40_an_empty_mask_is_an_error():
    subject = small_subject()
    subject = subject.replace(label=subject.label.replace(data=np.zeros_like(subject.label.data)))
    with pytest.raises(ValueError, match="mask 'label' has no voxels in t1"):
        mj.RescaleIntensity(masking_method="label")(subject)


def test_a_constant_image_stays_as_it_is():
    flat = np.full((1, 23, 31, 18), 7, np.float32)
    np.testing.assert_array_equal(mj.RescaleIntensity((2, 5))(flat), flat)


@pytest.mark.parametrize("arguments, message", [
    ({"percentiles": (-1, 50)}, "percentiles"), ({"percentiles": (0, 101)}, "percentiles"),
    ({"percentiles": (60, 40)}, "percentiles has low > high"), ({"out_min_max": (1, 0)}, "out_min_max has low > high"),
    ({"in_min_max": (1, 2, 3)}, "in_min_max"), ({"in_min_max": (3, 1)}, "in_min_max"),
    ({"masking_method": -2}, "masking_method"),
])  # fmt: skip
def test_arguments_that_make_no_sense_are_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        mj.RescaleIntensity(**arguments)


def test_labels_of_the_mask():
    s = small_subject()
    got = mj.RescaleIntensity(percentiles=(5, 80), masking_method="label", labels=[3])(s).t1.numpy()
    np.testing.assert_allclose(got, rescaled(s.t1.numpy(), (5, 80), mask=s.label.numpy() == 3), atol=1e-5)


def two_channels():
    return np.stack([blobs(), 5 * blobs(seed=1) - 2])


@pytest.mark.parametrize("percentiles", [(0, 100), (2, 90)])
def test_w40_each_channel_may_have_its_own_percentiles(percentiles):
    data = two_channels()
    got = mj.RescaleIntensity((-1, 1), percentiles, per_channel=True)(data)
    np.testing.assert_allclose(got, np.stack([rescaled(c, percentiles, (-1, 1)) for c in data]), atol=1e-5)
    s = mj.Subject(t1=mj.ScalarImage(data), mask=mj.LabelMap((data > 0.5).astype(np.uint8)))
    got = mj.RescaleIntensity((-1, 1), percentiles, "mask", per_channel=True)(s).t1.numpy()
    want = np.stack([rescaled(c, percentiles, (-1, 1), c > 0.5) for c in data])
    np.testing.assert_allclose(got, want, atol=1e-5)


@pytest.mark.parametrize(
    "arguments", [{}, {"in_min_max": (-1, 2)}, {"per_channel": True}, {"percentiles": (5, 95)}], ids=str
)
def test_the_inverse_recovers_what_was_not_clipped(arguments):
    data = two_channels()
    s = mj.Subject(t1=mj.ScalarImage(data))
    t = mj.RescaleIntensity((-3, 1), **arguments)
    back = t.invert(t(s), t.sample(jax.random.key(0), s), like=s).t1.numpy()
    want = np.clip(data, *np.percentile(data, (5, 95))) if "percentiles" in arguments else data
    np.testing.assert_allclose(back, want, atol=1e-5)


@pytest.mark.parametrize("percentiles", [(0, 100), (2, 90)])
@pytest.mark.parametrize("per_channel", [False, True])
def test_w42_nan_stays_infinite_voxels_are_clipped_and_neither_changes_others(percentiles, per_channel):
    data = blobs()[None].copy()
    data[0, 0, 0, :3] = np.nan, np.inf, -np.inf
    known = np.isfinite(data)
    got = np.asarray(mj.RescaleIntensity(percentiles=percentiles, per_channel=per_channel)(data))
    np.testing.assert_allclose(got[0, 0, 0, :3], [np.nan, 1, 0], atol=1e-6)
    np.testing.assert_allclose(got[known], rescaled(data[known], percentiles), atol=1e-5)


def test_the_inverse_of_a_constant_image_is_it():
    s = mj.Subject(t1=mj.ScalarImage(np.full((1, 5, 6, 7), 7, np.float32)))
    for t in (mj.RescaleIntensity((2, 5)), mj.RescaleIntensity((2, 5), in_min_max=(3, 3))):
        back = t.invert(t(s), t.sample(jax.random.key(0), s), like=s)
        np.testing.assert_array_equal(back.t1.numpy(), s.t1.numpy())
