"""Where RescaleIntensity does better than TorchIO 1.2.1."""

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
