"""Pad against numpy.pad, mode by mode, alone and fused with what comes before and after."""

import numpy as np
import pytest
from conftest import OBLIQUE, blobs

import medjax as mj

SHAPE = (6, 7, 4)
PADDING = (2, 3, 0, 1, 9, 2)  # beyond the size of the last axis, so that a mirror has to mirror itself
WIDTHS = [(0, 0), (2, 3), (0, 1), (9, 2)]
CONTINUED = ("edge", "reflect", "symmetric", "wrap")
STATISTICS = {"minimum": np.min, "maximum": np.max, "mean": np.mean, "median": np.median}
NUMPY = {**{mode: {"mode": mode} for mode in (*CONTINUED, "linear_ramp")}, "constant": {}, "empty": {},
         -2.5: {"constant_values": -2.5}}  # fmt: skip


def padded(data, widths, mode):
    """numpy.pad, by the words of `Pad`; statistics are those of all channels."""
    if mode in STATISTICS:
        return np.pad(data, widths, constant_values=STATISTICS[mode](data))
    return np.pad(data, widths, **NUMPY[mode])


def volume(shape=SHAPE, channels=2):
    return np.concatenate([(c + 1) * blobs(shape, c)[None] - 0.3 for c in range(channels)]).astype(np.float32)


@pytest.mark.parametrize("mode", [*NUMPY, *STATISTICS])
def test_every_mode_is_numpys(mode):
    image = mj.ScalarImage(volume(), OBLIQUE)
    got = mj.Pad(PADDING, mode)(image)
    want = padded(volume(), WIDTHS, mode)
    assert got.dtype == np.float32
    np.testing.assert_allclose(got.numpy(), want, atol=1e-6 if mode in ("mean", "median", "linear_ramp") else 0)
    np.testing.assert_array_equal(got.affine[:3, :3], OBLIQUE[:3, :3])
    np.testing.assert_allclose(got.affine[:3, 3], (OBLIQUE @ [-2, 0, -9, 1])[:3], atol=1e-12)


@pytest.mark.parametrize("mode", [*NUMPY, *STATISTICS])
def test_after_a_crop_what_was_cut_off_plays_no_part(mode):
    """The border that is continued, and the values that are counted, are those of the crop."""
    t = mj.Compose([mj.Crop((1, 0, 2, 1, 0, 1)), mj.Pad(PADDING, mode)])
    got = t(mj.ScalarImage(volume(), OBLIQUE))
    want = padded(volume()[:, 1:, 2:-1, :-1], WIDTHS, mode)
    np.testing.assert_allclose(got.numpy(), want, atol=1e-6 if mode in ("mean", "median", "linear_ramp") else 0)


@pytest.mark.parametrize("mode", [*CONTINUED, 3])
def test_between_flips_and_transpositions(mode):
    t = mj.Compose([mj.Flip(0), mj.Transpose(), mj.Pad((1, 2, 3, 0, 2, 4), mode), mj.Flip((0, 1)), mj.Crop((1, 0, 0))])
    assert repr(t).count("one gather") == 1
    got = t(mj.ScalarImage((volume() * 1000).astype(np.int16), OBLIQUE))
    data = np.transpose((volume() * 1000).astype(np.int16)[:, ::-1], (0, 3, 2, 1))
    options = NUMPY.get(mode, {"constant_values": 3})
    want = np.pad(data, [(0, 0), (1, 2), (3, 0), (2, 4)], **options)[:, ::-1, ::-1][:, 1:-1]
    assert got.dtype == np.int16
    np.testing.assert_array_equal(got.numpy(), want)


@pytest.mark.parametrize("mode", CONTINUED)
def test_padding_twice_is_numpys_twice(mode):
    got = mj.Compose([mj.Pad(1, mode), mj.Pad((2, 1, 3), mode)])(mj.ScalarImage(volume()))
    want = np.pad(np.pad(volume(), [(0, 0)] + [(1, 1)] * 3, mode=mode), [(0, 0), (2, 2), (1, 1), (3, 3)], mode=mode)
    np.testing.assert_array_equal(got.numpy(), want)


@pytest.mark.parametrize("mode", [*CONTINUED, "linear_ramp"])
@pytest.mark.parametrize("after", [mj.Resize((9, 13, 12)), mj.Resample((0.9, 0.8, 1.1))], ids=["Resize", "Resample"])
def test_what_was_added_is_there_when_the_image_is_resampled_after(mode, after):
    image = mj.ScalarImage(volume(), np.eye(4))
    got = mj.Compose([mj.Pad(2, mode), after])(image)
    want = after(mj.ScalarImage(padded(volume(), [(0, 0)] + [(2, 2)] * 3, mode), mj.Pad(2)(image).affine))
    np.testing.assert_array_equal(got.affine, want.affine)
    np.testing.assert_allclose(got.numpy(), want.numpy(), atol=1e-5)


@pytest.mark.parametrize("mode", [*CONTINUED, "linear_ramp", "constant"])
def test_what_was_resampled_before_is_what_is_continued(mode):
    t = mj.Compose([mj.Resize((9, 10, 5)), mj.Pad(PADDING, mode)])
    assert repr(t).count("one gather") == 1
    image = mj.ScalarImage(volume())
    want = padded(mj.Resize((9, 10, 5))(image).numpy(), WIDTHS, mode)
    np.testing.assert_allclose(t(image).numpy(), want, atol=1e-5)


@pytest.mark.parametrize("mode", CONTINUED)
def test_one_slice_and_one_voxel_of_an_axis_can_be_continued(mode):
    data = volume((5, 1, 4))
    np.testing.assert_array_equal(mj.Pad((0, 2, 1), mode)(data), np.pad(data, [(0, 0), (0, 0), (2, 2), (1, 1)], mode))


@pytest.mark.parametrize("dtype", [np.uint8, np.int16, np.bool_, np.float32])
@pytest.mark.parametrize("mode", [*CONTINUED, *STATISTICS, "linear_ramp", "constant", 1])
def test_w24_labels_are_continued_or_get_0_and_keep_their_dtype(mode, dtype):
    data = (blobs(SHAPE)[None] > 0.5).astype(dtype)
    got = mj.Pad((1, 2, 3, 1, 0, 2), mode)(mj.Subject(label=mj.LabelMap(data))).label
    widths = [(0, 0), (1, 2), (3, 1), (0, 2)]
    want = np.pad(data, widths, mode) if mode in CONTINUED else np.pad(data, widths, constant_values=dtype(mode == 1))
    assert got.dtype == dtype
    np.testing.assert_array_equal(got.numpy(), want)


def test_the_way_back_is_a_crop():
    image = mj.ScalarImage((volume() * 100).astype(np.int16), OBLIQUE)
    t = mj.Pad(PADDING, "reflect")
    back = t.invert(t(image), t.sample(None, image), like=image)
    assert back.dtype == np.int16
    np.testing.assert_array_equal(back.numpy(), image.numpy())
    np.testing.assert_array_equal(back.affine, OBLIQUE)
